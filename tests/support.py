"""Shared by the tests that use whole stores: places to put one, processes beside ours, and what must hold of any store.

Processes beside ours are modules of these folders, run as `python -m MODULE`. Each reads its task as one line of JSON, says
`ready`, waits for a line that says `go`, and then prints one line of JSON for each thing it has done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import vds
from vds.blobs.driver import BlobDriver
from vds.blobs.open import open_driver
from vds.index.database import Database
from vds.model.manifest import decode_change_list
from vds.model.version import NO_PARENT, VERSION_CONTEXT, VersionRecord, journal_key, name_digest, record_digest

ROOT = Path(__file__).resolve().parents[1]
PROCESS_TIMEOUT_S = 120.0

SERVICES = pytest.mark.services
SHARED_PLACES = [
    "directory+sqlite",
    pytest.param("directory+postgresql", marks=SERVICES),
    pytest.param("azurite+postgresql", marks=SERVICES),
]
"""Where several processes can meet."""

Entries = dict[str, str]
"""Path → digest: what a version holds."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is or will be: its container and its index.

    Attributes:
        index: None for the embedded one.
    """

    url: str
    index: str | None = None

    def connect(self, *, create: bool = False) -> vds.Store:
        """Open the store."""
        return vds.connect(self.url, index=self.index, create=create)

    def blobs(self) -> BlobDriver:
        """Return a driver of its container."""
        return open_driver(self.url)

    def database(self) -> Database:
        """Return a database of its own on the index."""
        if self.index is not None:
            return Database(self.index)
        return Database(Path(self.url) / ".vds-index" / "index.sqlite")


def make_place(kind: str, request: pytest.FixtureRequest) -> Place:
    """Return a place for a store that no other test uses: `memory`, `directory` or `azurite`, `+sqlite` or `+postgresql`."""
    blobs, _, index = kind.partition("+")
    if blobs == "memory":
        url = f"memory://test-{uuid.uuid4().hex}"
    elif blobs == "directory":
        url = str(request.getfixturevalue("tmp_path") / f"store-{uuid.uuid4().hex[:8]}")
    else:
        url = request.getfixturevalue("container_url")
    return Place(url, request.getfixturevalue("database_url") if index == "postgresql" else None)


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below `root` and return it."""
    for path, body in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    """Return every file below `root`."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read_version(version: vds.Version) -> dict[str, bytes]:
    """Return every file of a version, read one by one."""
    return {str(entry.path): version.read_bytes(entry.path) for entry in version.entries()}


@dataclass
class Helper:
    """A process beside ours."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, module: str, task: Mapping[str, Any]) -> Helper:
        """Start `python -m MODULE` and hand it its task; it waits for `run`."""
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        return cls(process)

    def wait_ready(self) -> None:
        """Wait until it has started up."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != "ready\n":
            self.finish()
        assert line == "ready\n"

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def finish(self) -> list[dict[str, Any]]:
        """Wait for its end, which must be a good one, and return what it has printed."""
        output, errors = self.process.communicate(timeout=PROCESS_TIMEOUT_S)
        assert self.process.returncode == 0, f"{self.process.args!r} ended with {self.process.returncode}:\n{errors}"
        return [json.loads(line) for line in output.splitlines()]

    def stop(self) -> None:
        """End it if it still runs."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()


def run_together(module: str, tasks: Iterable[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Run one process for each task, all at the same time, and return what each printed; any error of one is ours."""
    helpers = [Helper.start(module, task) for task in tasks]
    try:
        for helper in helpers:
            helper.wait_ready()
        for helper in helpers:
            helper.go()
        return [helper.finish() for helper in helpers]
    finally:
        for helper in helpers:
            helper.stop()


def take_task() -> dict[str, Any]:
    """Read our task, say that we are ready, and wait until we may begin: the other side of `Helper`."""
    task: dict[str, Any] = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    assert sys.stdin.readline() == "go\n"
    return task


def say(**facts: Any) -> None:
    """Print one line of JSON for the other side; once this returns, it is no longer ours to lose."""
    print(json.dumps(facts), flush=True)


@dataclass
class Checker:
    """Checks one namespace of a store from outside: its container on its own, then the index against it.

    Made once and asked again and again, it reads each stored object once.

    Attributes:
        name: of the namespace.
        contents: the digests whose bytes were read and found whole.
        state: what the change lists in the container add up to, version by version, and the digest of each.
    """

    place: Place
    name: str
    contents: set[str] = field(default_factory=set)
    state: list[tuple[bytes, Entries]] = field(default_factory=lambda: [(NO_PARENT, {})])

    def check(self, store: vds.Store) -> list[vds.Version]:
        """Check everything and return the visible versions, the oldest first.

        Numbers are dense; each record carries the digest of the one before; the change lists add up to what the index says of
        every version; every byte of every version is there; nothing waits in the queue, nothing lies beyond the head.
        """
        assert self.queued() == []
        self._read_journal()
        versions = store.namespace(self.name).log()[::-1] if len(self.state) > 1 else []
        assert [version.number for version in versions] == list(range(1, len(self.state)))
        for version in versions:
            digest, entries = self.state[version.number]
            assert version.digest.raw == digest, version.uri
            found = {str(entry.path): str(entry.digest) for entry in version.entries()}
            assert found == entries, version.uri
            assert version.file_count == len(found)
            self._check_bytes(version)
        return versions

    def queued(self) -> list[tuple[str, int]]:
        """Return what is committed and not known to be written: line and number of each record."""
        database = self.place.database()
        with database.read() as connection:
            rows = connection.exec_driver_sql("SELECT line, number FROM journal_queue ORDER BY line, number").all()
        database.close()
        return [(row[0], row[1]) for row in rows]

    def _read_journal(self) -> None:
        blobs = self.place.blobs()
        claim = f"namespaces/{name_digest(self.name)}"
        if blobs.find_blob(claim) is not None:
            uid = json.loads(blobs.read_range(claim))["id"]
            keys = [blob.key for blob in blobs.list_blobs(f"journal/{uid}/")]
            assert keys == [journal_key(uid, number) for number in range(1, len(keys) + 1)]
            for key in keys[len(self.state) - 1 :]:
                body = blobs.read_range(key)
                record = VersionRecord.decode(body, key)
                parent, entries = self.state[-1]
                assert record.parent == parent, key
                assert record.number == len(self.state)
                after = apply_changes(entries, record, blobs)
                assert record.file_count == len(after), key
                self.state.append((record_digest(VERSION_CONTEXT, body), after))
        blobs.close()

    def _check_bytes(self, version: vds.Version) -> None:
        for entry in version.entries():
            if entry.digest not in self.contents:
                version.read_bytes(entry.path)  # raises unless the bytes are what the digest names
                self.contents.add(entry.digest)


def apply_changes(entries: Entries, record: VersionRecord, blobs: BlobDriver) -> Entries:
    """Return what a version holds, from what the one before it held and from its record."""
    changes = record.changes
    data = changes.inline if changes.key is None else blobs.read_range(changes.key)
    assert data is not None
    rows = decode_change_list(data, changes.digest)
    assert len(rows) == changes.count
    after = dict(entries)
    for row in rows:
        if row.digest is None:
            del after[row.path]
        else:
            after[row.path] = "b3:" + row.digest.hex()
    return after


def list_keys(blobs: BlobDriver, prefix: str) -> list[str]:
    """Return the keys below `prefix`."""
    return [blob.key for blob in blobs.list_blobs(prefix)]


def overlay(commits: Sequence[tuple[int, Entries]]) -> Iterator[tuple[int, Entries]]:
    """Yield (number, what the version holds) when each commit lays its files over what was there."""
    entries: Entries = {}
    for number, files in sorted(commits, key=lambda commit: commit[0]):
        entries = {**entries, **files}
        yield number, entries


def in_fork(work: Callable[[], None]) -> int:
    """Run `work` in a forked child and return the child's id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(60)  # a child that hangs, hangs here
            work()
            os._exit(0)
        finally:  # only after an error
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
    return pid


def exit_code(pid: int) -> int:
    """Wait for a forked child and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


NEEDS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
