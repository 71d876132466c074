"""A store in memory whose container is damaged and whose index is then made anew."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import vds
from vds.blobs.driver import Blob, BlobDriver
from vds.blobs.open import open_driver
from vds.index.entries import At
from vds.index.gaps import LostRow, list_gaps
from vds.index.stores import NamespaceRow, find_namespace
from vds.ops.rebuilding import RebuildGap, RebuildReport


class Remade:
    """One store of this test alone."""

    def __init__(self, index: str | None = None) -> None:
        self.url = f"memory://remade-{uuid.uuid4().hex}"
        self._address = index
        self.store = vds.connect(self.url, index=index, create=True)
        self.blobs: BlobDriver = open_driver(self.url)

    @property
    def index(self) -> Path:
        """The file of its embedded index."""
        return self.store._handle.doors.index.path

    def commit(self, name: str, files: dict[str, bytes], *, removed: tuple[str, ...] = ()) -> None:
        """Make one version."""
        with self.store.namespace(name).transaction() as tx:
            for path, body in files.items():
                tx.write_bytes(path, body)
            for path in removed:
                tx.delete(path)

    def rebuild(self) -> RebuildReport:
        """Make the index anew and open it."""
        self.store.close()
        report = vds.rebuild_index(self.url, index=self._address, show_progress=False)
        self.store = vds.connect(self.url, index=self._address)
        return report

    def forget_index(self) -> None:
        """Lose the index: only the container is left."""
        index = self.index
        self.store.close()
        for end in ("", "-wal", "-shm"):
            index.with_name(index.name + end).unlink(missing_ok=True)

    def gaps(self, report: RebuildReport) -> list[tuple[str, str, tuple[tuple[int, int | None], ...]]]:
        """Return kind, name and versions of what was missing."""
        return [(gap.kind, gap.name, gap.versions) for gap in report.gaps]

    def only(self, report: RebuildReport) -> RebuildGap:
        """Return the one gap there is."""
        [gap] = report.gaps
        assert report.gap_count == 1
        assert not report.ok
        return gap

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix."""
        return [blob.key for blob in self.blobs.list_blobs(prefix)]

    def remove(self, key: str) -> None:
        """Take a blob away."""
        assert self.blobs.delete_blob(key)

    def replace(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Put other bytes in the place of a blob's."""
        blob = self.blob(key)
        body = self.blobs.read_range(key)
        self.remove(key)
        self.blobs.put_if_absent(key, change(body), blob.metadata)

    def blob(self, key: str) -> Blob:
        """Return what is known of a blob that is there."""
        blob = self.blobs.find_blob(key)
        assert blob is not None
        return blob

    def journal(self, name: str, number: int) -> str:
        """Return the key of a version's record."""
        return f"journal/{self.namespace(name).uid}/{number:016d}"

    def namespace(self, name: str) -> NamespaceRow:
        """Return a namespace as the index has it."""
        doors = self.store._handle.doors
        with doors.index.read() as connection:
            row = find_namespace(connection, doors.store.id, name)
        assert row is not None
        return row

    def at(self, name: str, number: int) -> At:
        """Return a version as the index names it."""
        row = self.namespace(name)
        return At(row.store_id, row.id, number)

    def remembered(self) -> list[LostRow]:
        """Return the gaps that the index remembers."""
        doors = self.store._handle.doors
        with doors.index.read() as connection:
            return list_gaps(connection, doors.store.id)

    def texts(self, name: str, number: int) -> dict[str, bytes]:
        """Return the files of a version."""
        version = self.store.namespace(name).get(number)
        return {str(entry.path): version.read_bytes(entry.path) for entry in version.entries()}

    def paths(self, name: str, number: int) -> list[str]:
        """Return the paths of a version."""
        return [str(entry.path) for entry in self.store.namespace(name).get(number).entries()]
