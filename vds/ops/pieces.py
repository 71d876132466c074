"""Place large objects: their ranges come side by side, each is written where it belongs by the thread that brings it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock, Semaphore

from blake3 import blake3

from vds.blobs.driver import BlobDriver
from vds.blobs.reads import RangeRead, Wanted, damage_error, read_into
from vds.buffers import BufferPool
from vds.errors import VdsError
from vds.files.assembly import Assembly
from vds.files.cache import Cache
from vds.files.outcome import STOPS, Outcome, PlacedFile
from vds.files.place import Target
from vds.model.entry import Entry

_COPIED_AT_ONCE = 1 << 20


class LargeFile:
    """An object that comes in pieces, and the files that it becomes.

    Attributes:
        users: the threads that are bringing pieces.
        is_given_up: whether the rest need not come any more.
    """

    def __init__(self, item: Wanted, entries: Sequence[Entry]) -> None:
        self.item = item
        self.entries = entries
        self.lock = Lock()
        self.assembly: Assembly | None = None
        self.users = 0
        self.is_given_up = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of a large file; the offset counts from the file's beginning."""

    file: LargeFile
    offset_bytes: int
    length_bytes: int


def cut(item: Wanted, entries: Sequence[Entry], piece_bytes: int) -> Iterator[Piece]:
    """Yield the pieces of an object in order."""
    file = LargeFile(item, entries)
    for offset in range(0, item.placement.length_bytes, piece_bytes):
        yield Piece(file, offset, min(piece_bytes, item.placement.length_bytes - offset))


class PiecePlacer:
    """Brings pieces; whoever brings the one that is hashed last places the file. Thread-safe; close it when done.

    Args:
        driver: reads blobs.
        target: where to.
        pool: of buffers, each as long as a piece may be.
        waiting_max: how many pieces may be kept in memory until it is their turn to be hashed.
        cache: keeps what comes; None for none.
    """

    def __init__(
        self, driver: BlobDriver, target: Target, pool: BufferPool, waiting_max: int, cache: Cache | None = None
    ) -> None:
        self._cache = cache
        self._driver = driver
        self._target = target
        self._pool = pool
        self._waiting = Semaphore(waiting_max)
        self._unfinished: set[LargeFile] = set()

    def place(self, piece: Piece) -> Outcome:
        """Bring a piece; the last one of a file places it, the first one that cannot be brought is its failure.

        Raises:
            UnavailableError, AccessDeniedError, NoSpaceError: files placed so far stay.
        """
        file = piece.file
        outcome = Outcome()
        with file.lock:
            if file.is_given_up:
                return outcome
            file.users += 1
        try:
            if self._bring(piece):
                self._finish(file, outcome)
        except (VdsError, OSError) as err:
            with file.lock:
                is_first, file.is_given_up = not file.is_given_up, True
            if is_first or isinstance(err, STOPS):
                outcome.fail(file.entries, err)
        finally:
            self._leave(file)
        return outcome

    def close(self) -> None:
        """Remove what is not whole; no `place` may be running. Idempotent."""
        while self._unfinished:
            file = self._unfinished.pop()
            assert file.assembly is not None
            file.assembly.close()

    def _bring(self, piece: Piece) -> bool:
        """Read and write a piece; True when it was the last one to be hashed."""
        assembly = self._open(piece.file)
        item = piece.file.item
        read = RangeRead(item.placement.key, item.placement.offset_bytes + piece.offset_bytes, piece.length_bytes, (item,))
        loan = self._pool.lend()
        try:
            read_into(self._driver, read, loan.view[: piece.length_bytes])
        except BaseException:
            loan.release()
            raise
        return assembly.put(piece.offset_bytes, piece.length_bytes, loan)

    def _open(self, file: LargeFile) -> Assembly:
        with file.lock:
            if file.assembly is None:
                entry = file.entries[0]
                draft = self._cache.begin_object(file.item.digest_raw, entry.size_bytes) if self._cache is not None else None
                try:
                    file.assembly = Assembly(self._target, entry.path, entry.size_bytes, entry.mode, self._waiting, draft)
                except BaseException:
                    if draft is not None:
                        draft.drop()
                    raise
                self._unfinished.add(file)
            return file.assembly

    def _finish(self, file: LargeFile, outcome: Outcome) -> None:
        assert file.assembly is not None
        first = file.entries[0]
        found_raw = file.assembly.digest()
        if found_raw != file.item.digest_raw:
            raise damage_error(file.item, found_raw)
        outcome.placed.append(PlacedFile(first, *file.assembly.finish(first.modified_ns)))
        self._unfinished.discard(file)
        for entry in file.entries[1:]:
            try:
                chunks = self._read_again(first, file.item)
                stamp = self._target.place(entry.path, chunks, mode=entry.mode, modified_ns=entry.modified_ns)
            except (VdsError, OSError) as err:
                outcome.fail([entry], err)
            else:
                outcome.placed.append(PlacedFile(entry, *stamp))

    def _read_again(self, entry: Entry, item: Wanted) -> Iterator[bytes]:
        """Yield the content of a file that was placed a moment ago; an error at its end when somebody changed it since."""
        descriptor = self._target.find_file(entry.path)
        hasher = blake3()
        if descriptor is not None:
            with os.fdopen(descriptor, "rb", buffering=0) as source:
                while data := source.read(_COPIED_AT_ONCE):
                    hasher.update(data)
                    yield data
        if hasher.digest() != item.digest_raw:
            raise damage_error(item, hasher.digest())

    def _leave(self, file: LargeFile) -> None:
        with file.lock:
            file.users -= 1
            is_over = file.is_given_up and not file.users and file in self._unfinished
        # Not while others write: its descriptor would soon be that of another file.
        if is_over:
            self._unfinished.discard(file)
            assert file.assembly is not None
            file.assembly.close()
