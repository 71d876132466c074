"""Blobs in the memory of this process: for tests, trials and documentation.

Guarantees:
- two drivers of one name share their blobs; they live until the process ends;
- keeps the whole contract of `vds.blobs.driver` but for durability, since memory has none.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn

from vds.blobs.driver import Blob, Block, Buffer, check_key, check_metadata, no_signing_error
from vds.errors import BlobExistsError, ConflictError, CorruptionError, InvalidInputError, NotFoundError
from vds.pace import Pace

LIST_PAGE_BLOBS = 1000
REQUESTS_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class _Stored:
    body: bytes
    etag: str
    metadata: Mapping[str, str]
    modified_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def describe(self, key: str) -> Blob:
        return Blob(key, len(self.body), self.etag, dict(self.metadata))


@dataclass(slots=True)
class _Container:
    exists: bool = False
    blobs: dict[str, _Stored] = field(default_factory=dict)
    blocks: dict[str, dict[str, bytes]] = field(default_factory=dict)
    etags: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    lock: threading.Lock = field(default_factory=threading.Lock)


_containers: dict[str, _Container] = {}


def _renew_locks() -> None:
    # A lock that another thread held at the fork would stay locked in the child for ever.
    for container in _containers.values():
        container.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class MemoryDriver:
    """The container `name` of this process; see the contract in `vds.blobs.driver`. A forked child has its own copy."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._container = _containers.setdefault(name, _Container())
        self._pace = Pace(REQUESTS_AT_ONCE, REQUESTS_AT_ONCE)

    @property
    def url(self) -> str:
        """The address: `memory://NAME`."""
        return f"memory://{self._name}"

    @property
    def pace(self) -> Pace:
        """A few at once: memory takes as many as the processors bring, and never asks for less."""
        return self._pace

    def __repr__(self) -> str:
        return f"MemoryDriver({self._name!r})"

    def __reduce__(self) -> NoReturn:
        raise InvalidInputError(
            f"store {self.url!r} lives in the memory of one process and cannot be sent to another",
            hint="use a directory (file:///…) or an Azure container for work in several processes",
        )

    def create_container(self) -> None:
        """Make the container if it is not there; idempotent."""
        self._container.exists = True

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        """Store a copy of `body` under `key` and return its etag; `BlobExistsError` if the key is taken."""
        return self._put(check_key(key), bytes(body), check_metadata(metadata))

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        """Stage one block; the same id again replaces it."""
        container = self._opened()
        with container.lock:
            container.blocks.setdefault(check_key(key), {})[block_id] = bytes(body)

    def list_blocks(self, key: str) -> list[Block]:
        """Return the staged blocks of `key`; empty when there are none."""
        container = self._opened()
        with container.lock:
            return [Block(block_id, len(body)) for block_id, body in container.blocks.get(check_key(key), {}).items()]

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        """Make the blob out of these staged blocks, in this order, and return its etag; `BlobExistsError` if taken."""
        checked = check_metadata(metadata)
        container = self._opened()
        with container.lock:
            staged = container.blocks.get(check_key(key), {})
            missing = [block_id for block_id in block_ids if block_id not in staged]
            body = b"" if missing else b"".join(staged[block_id] for block_id in block_ids)
            return self._put_locked(key, body, checked, missing)

    def find_blob(self, key: str) -> Blob | None:
        """Return size, etag and metadata, or None when it is not there."""
        stored = self._opened().blobs.get(check_key(key))
        return stored.describe(key) if stored else None

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        """Return exactly `length_bytes` from `offset_bytes` (None: up to the end); raises as the contract says."""
        body = self._stored(key).body
        end_bytes = max(len(body), offset_bytes) if length_bytes is None else offset_bytes + length_bytes
        assert 0 <= offset_bytes <= end_bytes, (offset_bytes, length_bytes)
        if end_bytes > len(body):
            raise CorruptionError(
                f"blob {key!r} has {len(body)} bytes: cannot read {offset_bytes} to {end_bytes}", hint="run: vds fsck"
            )
        return body[offset_bytes:end_bytes]

    def read_range_into(self, key: str, offset_bytes: int, target: memoryview) -> None:
        """Fill `target` with the bytes from `offset_bytes` on; raises as the contract says."""
        target[:] = self.read_range(key, offset_bytes, len(target))

    def list_blobs(self, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        """Yield blobs by key; each page is a consistent view."""
        while page := self._list_page(prefix, start_after):
            yield from page
            if len(page) < LIST_PAGE_BLOBS:
                return
            start_after = page[-1].key

    def copy_blob(self, source_key: str, target_key: str) -> str:
        """Copy, metadata included, and return the new etag; `BlobExistsError` if the target is taken."""
        source = self._stored(source_key)
        return self._put(check_key(target_key), source.body, dict(source.metadata))

    def delete_blob(self, key: str, etag: str | None = None) -> bool:
        """Delete the blob; False when it was not there. `ConflictError` when `etag` is given and differs."""
        container = self._opened()
        with container.lock:
            stored = container.blobs.get(check_key(key))
            if stored is None:
                return False
            if etag is not None and etag != stored.etag:
                raise ConflictError(f"blob {key!r} has the etag {stored.etag!r}, expected {etag!r}", hint="look at it again")
            del container.blobs[key]
            return True

    def sign_reads(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        """Raise `InvalidInputError`: there is nobody to ask for a blob."""
        raise no_signing_error(self.url)

    def find_principal(self) -> None:
        """Return None: nobody is asked who they are here."""

    def close(self) -> None:
        """Do nothing: the blobs stay for the next driver of this name."""

    def _opened(self) -> _Container:
        if not self._container.exists:
            raise NotFoundError(f"there is no container {self.url!r} in this process", hint="make it with create=True")
        return self._container

    def _stored(self, key: str) -> _Stored:
        stored = self._opened().blobs.get(check_key(key))
        if stored is None:
            raise NotFoundError(f"there is no blob {key!r} in {self.url!r}", hint="run: vds fsck")
        return stored

    def _put(self, key: str, body: bytes, metadata: dict[str, str]) -> str:
        container = self._opened()
        with container.lock:
            return self._put_locked(key, body, metadata)

    def _put_locked(self, key: str, body: bytes, metadata: dict[str, str], missing_ids: Sequence[str] = ()) -> str:
        container = self._container
        if key in container.blobs:
            raise BlobExistsError(f"there is a blob {key!r} already in {self.url!r}")
        if missing_ids:
            raise NotFoundError(f"block {missing_ids[0]!r} of {key!r} is not staged", hint="upload the file again")
        etag = f"{next(container.etags):x}"
        container.blobs[key] = _Stored(body, etag, metadata)
        container.blocks.pop(key, None)  # as Azure does: a blob that became visible drops what was staged for it
        return etag

    def _list_page(self, prefix: str, start_after: str) -> list[Blob]:
        container = self._opened()
        with container.lock:
            keys = sorted(key for key in container.blobs if key.startswith(prefix) and key > start_after)
            return [container.blobs[key].describe(key) for key in keys[:LIST_PAGE_BLOBS]]
