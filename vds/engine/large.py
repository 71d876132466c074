"""Send one large file in blocks, in one pass: read in order, hashed, and staged side by side.

A file of which nothing is known is hashed while it is sent, and the digest is looked up before the blob is made: blocks that are
never committed are no blob. A file that was hashed before is held against the fingerprints of its blocks as it leaves.
Block ids carry the fingerprint of their block, so whoever continues an interrupted upload sends only what the service
does not hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event

from blake3 import blake3

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import block_id, block_size_bytes, commit_blob
from vds.buffers import BufferPool, Loan
from vds.engine.gather import reason_of
from vds.errors import VdsError
from vds.files.read import BlockHashes, SourceReader
from vds.files.scan import SourceFile
from vds.model.checks import Checks, fingerprint_of, fold, has_checks, leaf_checks, piece_bytes
from vds.model.content import SourceChangedError
from vds.progress import Progress


@dataclass(frozen=True, slots=True)
class Intent:
    """The pending blob a file goes into.

    Attributes:
        is_resumed: whether blocks of it may be at the service already.
    """

    blob_id: int
    key: str
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class LargeSent:
    """What became of a large file; without an etag there is no blob: it failed, was given up, or the store had the content.

    Attributes:
        sent_bytes: without the blocks that were at the service already.
        read_at_ns: when reading began.
        checks: of the pieces of its content.
    """

    file: SourceFile
    blob_id: int
    digest: bytes = b""
    etag: str | None = None
    sent_bytes: int = 0
    failure: str | None = None
    was_given_up: bool = False
    was_hashed_before: bool = False
    read_at_ns: int = 0
    checks: Checks | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What sending needs, the same for all files of an upload.

    Attributes:
        is_live: asks the index whether the store has a content.
        given_up: set once the upload has failed: no further block is read then.
    """

    driver: BlobDriver
    pool: BufferPool
    progress: Progress
    is_live: Callable[[bytes], bool]
    given_up: Event


class LargeFile:
    """One file on its way: a `Work` of a lane."""

    def __init__(self, means: Means, file: SourceFile, intent: Intent, hashes: BlockHashes | None = None) -> None:
        self._means = means
        self._file = file
        self._intent = intent
        self._hashes = hashes
        self._hasher = blake3()
        self._reader: SourceReader | None = None
        self._staged: Mapping[str, int] = {}
        self._names: list[str] = []
        self._checks: list[bytes] = []
        self._piece_bytes = piece_bytes(file.size_bytes)
        self._sent: list[int] = []  # appended to by several threads
        self._left_bytes = file.size_bytes
        self._failure: str | None = None
        self._is_given_up = False
        self._read_at_ns = 0
        self._block_bytes = block_size_bytes(file.size_bytes)
        fits = self._block_bytes <= means.pool.size_bytes
        self._pool = means.pool if fits else BufferPool(self._block_bytes)

    @property
    def weight_bytes(self) -> int:
        """What a block holds."""
        return self._block_bytes

    @property
    def is_drawn(self) -> bool:
        """Whether every block was read, or one could not be."""
        return not self._left_bytes or self._failure is not None or self._is_given_up

    def draw(self) -> Callable[[], None]:
        """Read and hash the next block, and return the call that stages it."""
        loan = self._pool.lend()
        if self._means.given_up.is_set():
            self._is_given_up = True
            return loan.release
        block = loan.view[: min(self._block_bytes, self._left_bytes)]
        try:
            self._read(block)
        except (OSError, SourceChangedError) as err:
            if isinstance(err, VdsError) and not isinstance(err, SourceChangedError):
                raise  # the service's trouble, not this file's
            self._failure = reason_of(err)
            return loan.release
        self._left_bytes -= len(block)
        self._names.append("")
        self._checks.append(b"")
        return partial(self._stage, len(self._names) - 1, block, loan)

    def finish(self) -> LargeSent:
        """Make the blob, unless the file failed or the store has its content by now."""
        if self._failure is None and not self._is_given_up and self._reader is not None:
            try:
                self._reader.check()
            except SourceChangedError as err:
                self._failure = str(err)
        self.drop()
        digest = self._hashes.digest if self._hashes else self._hasher.digest()
        etag = None
        if self._failure is None and not self._is_given_up and not self._means.is_live(digest):
            size_bytes = self._file.size_bytes
            with self._named():
                etag = commit_blob(self._means.driver, self._intent.key, self._names, size_bytes=size_bytes, digest_raw=digest)
        return LargeSent(
            self._file,
            self._intent.blob_id,
            digest,
            etag,
            sum(self._sent),
            self._failure,
            was_given_up=self._is_given_up,
            was_hashed_before=self._hashes is not None,
            read_at_ns=self._read_at_ns,
            checks=Checks(self._piece_bytes, b"".join(self._checks)) if has_checks(self._file.size_bytes) else None,
        )

    def drop(self) -> None:
        """Close the file; idempotent."""
        if self._reader is not None:
            self._reader.close()

    def _read(self, block: memoryview) -> None:
        if self._reader is None:
            self._read_at_ns = time.time_ns()
            self._reader = SourceReader(self._file)
            if self._intent.is_resumed:
                with self._named():
                    blocks = self._means.driver.list_blocks(self._intent.key)
                self._staged = {staged.block_id: staged.size_bytes for staged in blocks}
        self._reader.read(block)
        if self._hashes is None:
            self._hasher.update(block)
            self._means.progress.hashed(0, len(block))

    def _stage(self, index: int, block: memoryview, loan: Loan) -> None:
        leaves = leaf_checks(block)
        self._checks[index] = fold(leaves, self._piece_bytes)
        fingerprint = fingerprint_of(leaves)
        if self._hashes is not None and self._hashes.fingerprints[index] != fingerprint:
            self._failure = f"{self._file.path!r} changed while it was being read: hashed and sent bytes differ"
        elif self._staged.get(name := block_id(index, fingerprint)) == len(block):
            self._names[index] = name
            self._means.progress.sent(0, saved_bytes=len(block))
        else:
            with self._named():
                self._means.driver.stage_block(self._intent.key, name, block)
            self._names[index] = name
            self._sent.append(len(block))
            self._means.progress.sent(len(block))
        loan.release()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say in the service's errors which file it was."""
        try:
            yield
        except VdsError as err:
            err.add_note(f"while sending {self._file.path!r}")
            raise
