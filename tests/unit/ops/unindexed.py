"""A store whose index is made, and then out of reach: what is read of it comes from its container alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

import vds
from vds.blobs.driver import Blob, Buffer
from vds.blobs.memory import MemoryDriver
from vds.engine import checkpoint as checkpoint_module
from vds.engine import commit as commit_module
from vds.engine.journal import add_store_record, publish_store_record
from vds.errors import AccessDeniedError
from vds.index.database import Database
from vds.index.stores import find_namespace
from vds.store import Version
from vds.store.noindex import open_version

NAME = "team/raw"
_numbers = itertools.count(1)


class ReadersDriver(MemoryDriver):
    """Blobs in memory; what is read is noted, and while `is_locked` nothing can be written.

    Attributes:
        reads: key → how often it was read.
        listings: prefix → how often it was listed.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.is_locked = False
        self.reads: Counter[str] = Counter()
        self.listings: Counter[str] = Counter()

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        self.reads[key] += 1
        return super().read_range(key, offset_bytes, length_bytes)

    def read_range_into(self, key: str, offset_bytes: int, target: memoryview) -> None:
        target[:] = self.read_range(key, offset_bytes, len(target))

    def list_blobs(self, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        self.listings[prefix] += 1
        return super().list_blobs(prefix, start_after)

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        self._check()
        return super().put_if_absent(key, body, metadata)

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        self._check()
        super().stage_block(key, block_id, body)

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        self._check()
        return super().commit_blocks(key, block_ids, metadata)

    def copy_blob(self, source_key: str, target_key: str) -> str:
        self._check()
        return super().copy_blob(source_key, target_key)

    def delete_blob(self, key: str, etag: str | None = None) -> bool:
        self._check()
        return super().delete_blob(key, etag)

    def create_container(self) -> None:
        self._check()
        super().create_container()

    def _check(self) -> None:
        if self.is_locked:
            raise AccessDeniedError("the test gives a reader's rights")


_drivers: dict[str, ReadersDriver] = {}


@contextmanager
def unindexed() -> Iterator[Unindexed]:
    """Give a new store."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vds.blobs.open.MemoryDriver", lambda name: _drivers.get(name) or MemoryDriver(name))
        made = Unindexed(patched)
        yield made
        made.store.close()


class Unindexed:
    """A store in memory; `reading` is without its index."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = f"unindexed-{next(_numbers)}"
        self.driver = _drivers[name] = ReadersDriver(name)
        self._monkeypatch = monkeypatch
        self.store = vds.connect(self.driver.url, create=True)
        self.doors = self.store._handle.doors

    def put(self, files: Mapping[str, bytes | None], name: str = NAME) -> Version:
        """Commit a version in which these files are laid over the last one, or taken away."""
        with self.store.namespace(name).transaction() as tx:
            for path, body in files.items():
                if body is None:
                    tx.delete(path)
                else:
                    tx.write_bytes(path, body)
        assert tx.version is not None
        return tx.version

    def put_large(self, path: str, body: bytes) -> Version:
        """Commit a version with one more file, written as a stream."""
        with self.store.namespace(NAME).transaction() as tx, tx.open(path, "wb") as file:
            file.write(body)
        assert tx.version is not None
        return tx.version

    def checkpoint(self, number: int, name: str = NAME) -> str:
        """Write a checkpoint and return its key."""
        with self.doors.index.read() as connection:
            namespace = find_namespace(connection, self.doors.store.id, name)
        assert namespace is not None
        before = set(self.keys("checkpoints/"))
        assert checkpoint_module.write_checkpoint(self.doors, namespace, number)
        (key,) = set(self.keys("checkpoints/")) - before
        return key

    def log(self, kind: str, **fields: Any) -> None:
        """Append to the store's log, whatever the index says."""
        added = self.doors.index.run(lambda c: add_store_record(c, self.doors.store, kind, fields))
        publish_store_record(self.doors, added)

    def uid(self, name: str = NAME) -> str:
        """Return the id of a namespace."""
        with self.doors.index.read() as connection:
            namespace = find_namespace(connection, self.doors.store.id, name)
        assert namespace is not None
        return namespace.uid

    def journal(self, number: int, name: str = NAME) -> str:
        """Return the key of a version's record."""
        return f"journal/{self.uid(name)}/{number:016d}"

    def keys(self, prefix: str) -> list[str]:
        return [blob.key for blob in self.driver.list_blobs(prefix)]

    def damage(self, key: str, body: bytes | None = None) -> None:
        """Put other bytes under a key: the given ones, or its own with one bit flipped in the middle."""
        old = self.driver.read_range(key)
        blob = self.driver.find_blob(key)
        assert blob is not None
        middle = len(old) // 2
        self.driver.delete_blob(key)
        own = old[:middle] + bytes([old[middle] ^ 1]) + old[middle + 1 :] if body is None else body
        self.driver.put_if_absent(key, own, blob.metadata)

    def lists_in_blobs(self) -> None:
        """From here on every change list goes into a blob of its own."""
        self._monkeypatch.setattr(commit_module, "INLINE_CHANGES_BYTES_MAX", 0)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Put every blob back at the end; the index must not be written meanwhile."""
        blobs = dict(self.driver._container.blobs)
        yield
        self.driver._container.blobs.clear()
        self.driver._container.blobs.update(blobs)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """With a reader's rights, and no database; what is read is counted from here on."""
        self.driver.reads.clear()
        self.driver.listings.clear()
        self.driver.is_locked = True
        try:
            with self._monkeypatch.context() as patched:
                patched.setattr(Database, "_connection", no_database)
                yield
        finally:
            self.driver.is_locked = False

    def open(self, ref: str) -> Version:
        """Return a version without the index."""
        with self.reading():
            return open_version(self.driver.url, ref)

    def files(self, ref: str) -> dict[str, bytes]:
        """Return what a version holds, every byte of it read, without the index."""
        with self.reading():
            return {entry.path: body for entry, body in open_version(self.driver.url, ref).stream()}

    def reads_of(self, prefix: str) -> int:
        """Return how many reads the last `reading` made of keys that begin so."""
        return sum(count for key, count in self.driver.reads.items() if key.startswith(prefix))


def no_database(*arguments: Any) -> None:
    raise AssertionError("the index was asked")
