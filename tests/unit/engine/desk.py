"""An open store whose sending is watched: what happened in the index and at the service, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.blobs.spy import SpyDriver
from vds.blobs.driver import Buffer
from vds.engine import gather, large, outbox, send
from vds.engine.doors import Doors
from vds.engine.gather import Found
from vds.engine.outbox import Outbox
from vds.engine.send import Sender
from vds.engine.session import Intent, Session, open_session
from vds.errors import UnavailableError
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.index import placements
from vds.model.batch import batched
from vds.progress import SilentProgress
from vds.store import Store

BLOCK_BYTES = 1024
LARGE_BYTES = 4 * BLOCK_BYTES
WHOLE_BYTES = BLOCK_BYTES


class OrderedDriver(SpyDriver):
    """Notes the puts in a list it shares with the index's watcher."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.refuses = ""
        """Requests that begin so, such as `put packs/`, get no answer and have no effect."""

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        self._note("put", key)
        return super().put_if_absent(key, body, metadata)

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        self._note("stage", key)
        super().stage_block(key, block_id, body)

    def commit_blocks(self, key: str, block_ids: Any, metadata: Mapping[str, str] | None = None) -> str:
        self._note("commit", key)
        return super().commit_blocks(key, block_ids, metadata)

    def _note(self, request: str, key: str) -> None:
        event = f"{request} {key}"
        if self.refuses and event.startswith(self.refuses):
            raise UnavailableError(f"{event} refused by the test")
        self.events.append(event)


class Desk:
    """A store without objects, small limits, and the means to send trees to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, driver: OrderedDriver, store: Store) -> None:
        self.driver = driver
        self.driver.refuses = ""
        self.doors: Doors = store._handle.doors
        for table in ("object", "blob"):
            self.doors.index.run(lambda c, table=table: c.exec_driver_sql(f"DELETE FROM {table}"))  # type: ignore[misc]
        self.session = self.open_session()
        self.session.freshness.publish()  # the namespace's record
        self.lookups: list[int] = []
        self.remembered: dict[str, bytes] = {}
        self._watch(monkeypatch)
        self._shrink(monkeypatch)
        self.clear()

    def open_session(self, process: str = "") -> Session:
        return open_session(self.doors, "team/raw", Intent(), process=process)

    def sender(self, session: Session | None = None, *, is_dry: bool = False) -> Sender:
        return Sender(self.doors, session or self.session, SilentProgress(), is_dry=is_dry)

    def outbox(self, session: Session | None = None) -> Outbox:
        opened = session or self.session
        return Outbox(self.doors, opened.upload.id, SilentProgress(), opened.freshness.check)

    def send(
        self, sender: Sender, files: Iterable[SourceFile] | Path, failures: dict[str, str] | None = None, *, batch: int = 512
    ) -> dict[str, bytes]:
        """Send files of which nothing is known, and return path → digest."""
        scanned = scan(files) if isinstance(files, Path) else list(files)
        found = [Found(part, [None] * len(part)) for part in batched(scanned, batch)]
        return self.send_found(sender, found, failures)

    def send_found(self, sender: Sender, found: Iterable[Found], failures: dict[str, str] | None = None) -> dict[str, bytes]:
        wrong: dict[str, str] = {} if failures is None else failures
        hashed: dict[str, bytes] = {}

        def remember(files: Any, digests: Any, read_at_ns: int) -> None:
            assert read_at_ns
            self.remembered.update(zip([file.path for file in files], digests, strict=True))

        with closing(sender.send_files(found, wrong, remember)) as ready:
            for files, digests in ready:
                hashed.update(zip([file.path for file in files], digests, strict=True))
        assert wrong == {} or failures is not None
        return hashed

    def blobs(self) -> dict[str, str]:
        """Return key → state of all blobs the index knows."""
        with self.doors.index.read() as connection:
            return {row.key: row.state for row in connection.exec_driver_sql("SELECT key, state FROM blob")}

    def states(self) -> list[str]:
        return sorted(self.blobs().values())

    def clear(self) -> None:
        """Forget what was counted so far."""
        self.driver.requests.clear()
        self.driver.events.clear()
        self.lookups.clear()
        self.driver.sent_bytes = 0

    def sends(self) -> list[str]:
        """Return the requests that sent something, by kind and first segment of the key."""
        made = [event.split("/")[0] for event in self.driver.events]
        return sorted(event for event in made if event.split()[0] in ("put", "stage", "commit"))

    def _watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real_find, real_add = placements.find_live, placements.add_pending_blobs

        def find_live(connection: Any, store_id: int, digests: Any) -> set[bytes]:
            asked = list(digests)
            self.lookups.append(len(asked))
            return real_find(connection, store_id, asked)

        def add_pending_blobs(connection: Any, store_id: int, keys: Any, upload_id: int, **more: Any) -> list[int]:
            self.driver.events.extend(f"intent {key}" for key in keys)
            return real_add(connection, store_id, keys, upload_id, **more)

        monkeypatch.setattr(outbox, "find_live", find_live)
        monkeypatch.setattr(outbox, "add_pending_blobs", add_pending_blobs)
        monkeypatch.setattr("vds.engine.resume.add_pending_blobs", add_pending_blobs)

    def _shrink(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make a file of 1 KiB one that has a blob of its own, and one above 4 KiB one that is cut into blocks."""
        monkeypatch.setattr(gather, "SINGLE_PUT_BYTES_MAX", LARGE_BYTES)
        monkeypatch.setattr(gather, "block_size_bytes", lambda size_bytes: BLOCK_BYTES)
        monkeypatch.setattr(large, "block_size_bytes", lambda size_bytes: BLOCK_BYTES)
        monkeypatch.setattr(send, "MEMBER_BYTES_END", WHOLE_BYTES)


def scan(root: Path) -> list[SourceFile]:
    return list(scan_directory(root, ScanReport()))
