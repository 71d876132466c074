"""Streams: objects whose size and digest are known only at their end, sent in a single pass."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import NamedTuple

import xxhash
from blake3 import blake3

from vds.blobs.driver import BlobDriver, Buffer
from vds.blobs.objects import BLOCK_BYTES_MIN, BLOCKS_MAX, DIGEST_METADATA, block_id, commit_blob, put_blob
from vds.errors import InvalidInputError
from vds.model.digest import Digest
from vds.pipeline import TRANSFER_LIMITS, Lane, Limits

_BLOCKS_A_STEP = 10_000


class Stream(NamedTuple):
    """What a stream turned out to hold; the etag is empty when no blob was needed."""

    digest_raw: bytes
    size_bytes: int
    etag: str


def put_stream(driver: BlobDriver, key: str, chunks: Iterable[Buffer], *, limits: Limits = TRANSFER_LIMITS) -> Stream:
    """Store the bytes of `chunks`, of whatever sizes, under a fresh key; its digest goes into the metadata `vds_digest`.

    A stream of no bytes makes no blob.

    Raises:
        OutcomeUnknownError: the key holds something else.
    """
    with StreamWriter(driver, key, limits=limits) as writer:
        for chunk in chunks:
            writer.write(chunk)
        digest_raw, size_bytes = writer.seal()
        return Stream(digest_raw, size_bytes, writer.commit() if size_bytes else "")


class StreamWriter:
    """Sends what is written to it in blocks, while it is hashed; used by one thread.

    `seal` ends the writing and tells what the content is; then `commit` makes the blob. When the content turns out to be known
    already, `commit` is simply not called: staged blocks are invisible, and the service drops them.
    """

    def __init__(self, driver: BlobDriver, key: str, *, limits: Limits = TRANSFER_LIMITS) -> None:
        self._driver = driver
        self._key = key
        self._lane: Lane[str] = Lane(workers=limits.workers, in_flight_bytes_max=limits.in_flight_bytes_max)
        self._hasher = blake3()
        self._buffer = bytearray()
        self._size_bytes = 0
        self._count = 0
        self._block_ids: list[str] = []
        self._is_sealed = False

    def write(self, data: Buffer) -> int:
        """Take in `data` and return its length; waits while too much is in flight.

        Raises:
            InvalidInputError: the stream is longer than 50 000 blocks of growing size can hold (about 2 TiB).
        """
        assert not self._is_sealed, "write after seal"
        view = memoryview(data).cast("B")
        self._hasher.update(view)
        self._size_bytes += len(view)
        position = 0
        while position < len(view):
            room = stream_block_bytes(self._count) - len(self._buffer)
            self._buffer += view[position : position + room]
            position += room
            if len(self._buffer) == stream_block_bytes(self._count):
                self._send()
        return len(view)

    def seal(self) -> tuple[bytes, int]:
        """Wait until everything is staged and return the raw digest and the size; again is harmless."""
        if not self._is_sealed:
            if self._count and self._buffer:
                self._send()
            self._block_ids = self._lane.finish()
            self._is_sealed = True
        return self._hasher.digest(), self._size_bytes

    def commit(self) -> str:
        """Make the blob and return its etag; only after `seal`, and only when there are bytes.

        Raises:
            OutcomeUnknownError: the key holds something else.
        """
        assert self._is_sealed, "commit before seal"
        assert self._size_bytes, "an object of no bytes has no blob"
        digest_raw = self._hasher.digest()
        if not self._count:
            return put_blob(self._driver, self._key, self._buffer, {DIGEST_METADATA: Digest.from_raw(digest_raw)})
        return commit_blob(self._driver, self._key, self._block_ids, size_bytes=self._size_bytes, digest_raw=digest_raw)

    def close(self) -> None:
        """Drop what is not committed and join the workers; idempotent."""
        self._lane.close()

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _send(self) -> None:
        if self._count == BLOCKS_MAX:
            raise InvalidInputError(f"the stream is longer than {BLOCKS_MAX} blocks", hint="write it to a file and upload that")
        block, self._buffer = self._buffer, bytearray()
        self._lane.submit(partial(self._stage, self._count, block), len(block))
        self._count += 1

    def _stage(self, index: int, block: bytearray) -> str:
        name = block_id(index, xxhash.xxh3_128_hexdigest(block))
        self._driver.stage_block(self._key, name, block)
        return name


def stream_block_bytes(index: int) -> int:
    """Return the size of a stream's block: 8 MiB, doubled every 10 000 blocks, so that 50 000 blocks hold 2.4 TiB."""
    return BLOCK_BYTES_MIN << (index // _BLOCKS_A_STEP)
