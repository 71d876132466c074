"""Streams: objects whose size and digest are known only at their end, sent in a single pass."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import NamedTuple

from blake3 import blake3

from vds.blobs.driver import BlobDriver, Buffer
from vds.blobs.objects import BLOCK_BYTES_MIN, BLOCKS_MAX, DIGEST_METADATA, SENDING_BYTES_MAX, block_id, commit_blob, put_blob
from vds.buffers import BufferPool, Loan
from vds.errors import InvalidInputError
from vds.model.checks import Checks, checks_of, fingerprint_of, fold, has_checks, leaf_checks, piece_bytes
from vds.model.digest import Digest
from vds.pipeline import Lane

_BLOCKS_A_STEP = 10_000


class Stream(NamedTuple):
    """What a stream turned out to hold; the etag is empty when no blob was needed."""

    digest_raw: bytes
    size_bytes: int
    etag: str


def put_stream(driver: BlobDriver, key: str, chunks: Iterable[Buffer]) -> Stream:
    """Store the bytes of `chunks`, of whatever sizes, under a fresh key; its digest goes into the metadata `vds_digest`.

    A stream of no bytes makes no blob.

    Raises:
        OutcomeUnknownError: the key holds something else.
    """
    with StreamWriter(driver, key) as writer:
        for chunk in chunks:
            writer.write(chunk)
        digest_raw, size_bytes = writer.seal()
        return Stream(digest_raw, size_bytes, writer.commit() if size_bytes else "")


class StreamWriter:
    """Sends what is written to it in blocks, while it is hashed; used by one thread.

    `seal` ends the writing and tells what the content is; then `commit` makes the blob. When the content turns out to be known
    already, `commit` is simply not called: staged blocks are invisible, and the service drops them.
    """

    def __init__(self, driver: BlobDriver, key: str) -> None:
        self._driver = driver
        self._key = key
        self._lane: Lane[None] = Lane(driver.pace, in_flight_bytes_max=SENDING_BYTES_MAX)
        self._hasher = blake3()
        self._pool = BufferPool(stream_block_bytes(0))
        self._block: Loan | None = None
        self._filled_bytes = 0
        self._size_bytes = 0
        self._block_ids: list[str] = []
        self._leaves: list[bytes] = []
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
            if self._block is None:
                self._block = self._next_block()
            room = self._block.view[self._filled_bytes :]
            piece = view[position : position + len(room)]
            room[: len(piece)] = piece
            position += len(piece)
            self._filled_bytes += len(piece)
            if self._filled_bytes == len(self._block.view):
                self._send(self._block)
        return len(view)

    def seal(self) -> tuple[bytes, int]:
        """Wait until everything is staged and return the raw digest and the size; again is harmless."""
        if not self._is_sealed:
            if self._block_ids and self._block is not None:
                self._send(self._block)
            self._lane.finish()
            self._is_sealed = True
        return self._hasher.digest(), self._size_bytes

    def checks(self) -> Checks | None:
        """Return the checks of the pieces, or None when none are kept of such a size; only after `seal`."""
        assert self._is_sealed, "checks before seal"
        if self._block is not None:
            return checks_of(self._block.view[: self._filled_bytes])
        if not has_checks(self._size_bytes):
            return None
        piece = piece_bytes(self._size_bytes)
        return Checks(piece, fold(b"".join(self._leaves), piece))

    def commit(self) -> str:
        """Make the blob and return its etag; only after `seal`, and only when there are bytes.

        Raises:
            OutcomeUnknownError: the key holds something else.
        """
        assert self._is_sealed, "commit before seal"
        assert self._size_bytes, "an object of no bytes has no blob"
        digest_raw = self._hasher.digest()
        if self._block is not None:  # all of it fitted one block
            body = self._block.view[: self._filled_bytes]
            return put_blob(self._driver, self._key, body, {DIGEST_METADATA: Digest.from_raw(digest_raw)})
        return commit_blob(self._driver, self._key, self._block_ids, size_bytes=self._size_bytes, digest_raw=digest_raw)

    def close(self) -> None:
        """Drop what is not committed and join the workers; idempotent."""
        self._lane.close()

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _next_block(self) -> Loan:
        index = len(self._block_ids)
        if index == BLOCKS_MAX:
            raise InvalidInputError(f"the stream is longer than {BLOCKS_MAX} blocks", hint="write it to a file and upload that")
        if self._pool.size_bytes != stream_block_bytes(index):
            self._pool = BufferPool(stream_block_bytes(index))
        return self._pool.lend()

    def _send(self, block: Loan) -> None:
        index = len(self._block_ids)
        self._block_ids.append("")  # its worker fills it in, and may do so before `submit` returns
        self._leaves.append(b"")
        self._lane.submit(partial(self._stage, index, block, self._filled_bytes), self._filled_bytes)
        self._block, self._filled_bytes = None, 0

    def _stage(self, index: int, block: Loan, filled_bytes: int) -> None:
        body = block.view[:filled_bytes]
        leaves = self._leaves[index] = leaf_checks(body)
        name = block_id(index, fingerprint_of(leaves))
        self._driver.stage_block(self._key, name, body)
        self._block_ids[index] = name
        block.release()


def stream_block_bytes(index: int) -> int:
    """Return the size of a stream's block: 8 MiB, doubled every 10 000 blocks, so that 50 000 blocks hold 2.4 TiB."""
    return BLOCK_BYTES_MIN << (index // _BLOCKS_A_STEP)
