"""A large file that is written in pieces, in whatever order they come, and hashed in their order.

Each piece is written where it belongs by the thread that brings it. Whoever brings the next one in order hashes it, and those
behind it that wait. A piece that is far ahead of its turn is not kept in memory but read again from the file.
"""

from __future__ import annotations

import errno
import os
import sys
from threading import Lock, Semaphore

from blake3 import blake3

from vds.buffers import Loan
from vds.files.cachedraft import ObjectDraft
from vds.files.place import Target
from vds.files.placer import Stamp, Temporary, explained, write_all

_PIECE_BYTES = 1 << 20


class Assembly:
    """A file of a target that is not there yet. Thread-safe; `close` it if it does not come to `finish`.

    Args:
        target: where to.
        path: its path.
        size_bytes: of the whole.
        mode: as of entries.
        waiting: counts the pieces that all assemblies together may keep in memory until it is their turn.
        draft: for the cache, is written along, or cloned at the end where the disk can; None for none.

    Raises:
        ConflictError: something that is not a regular file stands there, or on the way.
        NoSpaceError: the disk is full.
        OSError: the system refused.
    """

    def __init__(
        self,
        target: Target,
        path: str,
        size_bytes: int,
        mode: int,
        waiting: Semaphore,
        draft: ObjectDraft | None = None,
    ) -> None:
        self._placer = target.placer
        self._path = path
        self._size_bytes = size_bytes
        self._waiting = waiting
        self._lock = Lock()
        self._writing = Lock()
        self._pieces: dict[int, tuple[Loan | None, int]] = {}
        self._hasher = blake3()
        self._hashed_bytes = 0
        self._is_hashing = False
        self._placer.check_place(path)
        with explained(path):
            self._file: Temporary = self._placer.begin(mode)
        self._draft = draft
        # Both are empty yet: whether they can share bytes is known without any.
        self._is_cloned = draft is not None and draft.clone(self._file.descriptor)

    def put(self, offset_bytes: int, length_bytes: int, loan: Loan) -> bool:
        """Take in the piece that begins at an offset and lies at the start of a buffer, which is given back.

        Returns:
            True for one call: the one after which every piece was written and hashed.
        """
        try:
            # One at a time: the kernel admits no more to one file, and lets those who wait spin.
            with explained(self._path), self._writing:
                _write_at(self._file.descriptor, loan.view[:length_bytes], offset_bytes)
            if self._draft is not None and not self._is_cloned:
                self._draft.write_at(offset_bytes, loan.view[:length_bytes])
        except BaseException:
            loan.release()
            raise
        with self._lock:
            is_next = offset_bytes == self._hashed_bytes and not self._is_hashing
            kept = is_next or self._waiting.acquire(blocking=False)
            self._pieces[offset_bytes] = (loan if kept else None, length_bytes)
            if is_next:
                self._is_hashing = True
        if not kept:
            loan.release()
        return is_next and self._hash(loan)

    def digest(self) -> bytes:
        """Return the digest of all pieces, once the last one is in."""
        assert self._hashed_bytes == self._size_bytes, (self._hashed_bytes, self._size_bytes)
        return self._hasher.digest()

    def finish(self, modified_ns: int) -> Stamp:
        """Put the file in its place. Raises as the constructor does, and then nothing is left of it but what stood there.

        The cache keeps it first, while nobody else can have written to it.
        """
        with self._file:
            if self._draft is not None and (not self._is_cloned or self._draft.clone(self._file.descriptor)):
                self._draft.keep()
            return self._placer.finish(self._file, self._path, modified_ns)

    def close(self) -> None:
        """Remove it, unless it is in its place; no `put` may be running. Idempotent."""
        with self._lock:
            pieces, self._pieces = self._pieces, {}
        for loan, _ in pieces.values():
            if loan is not None:
                self._waiting.release()
                loan.release()
        if self._draft is not None:
            self._draft.drop()
        self._file.__exit__()

    def _hash(self, first: Loan) -> bool:
        """Hash the next piece and all behind it that are there; True when that was the last one."""
        while True:
            with self._lock:
                found = self._pieces.pop(self._hashed_bytes, None)
                if found is None:
                    self._is_hashing = False
                    return self._hashed_bytes == self._size_bytes
            loan, length_bytes = found
            if loan is None:
                self._hash_again(length_bytes)
            else:
                try:
                    self._hasher.update(loan.view[:length_bytes])
                finally:
                    if loan is not first:
                        self._waiting.release()
                    loan.release()
            with self._lock:
                self._hashed_bytes += length_bytes

    def _hash_again(self, length_bytes: int) -> None:
        position, end = self._hashed_bytes, self._hashed_bytes + length_bytes
        while position < end:
            with self._writing:  # which may move where the file stands
                data = _read_at(self._file.descriptor, min(_PIECE_BYTES, end - position), position)
            if not data:
                raise OSError(errno.EIO, "the file became shorter while it was written")
            self._hasher.update(data)
            position += len(data)


if sys.platform == "win32":  # which has no call for a place in a file

    def _write_at(descriptor: int, data: memoryview, offset_bytes: int) -> None:
        os.lseek(descriptor, offset_bytes, os.SEEK_SET)
        write_all(descriptor, data)

    def _read_at(descriptor: int, length_bytes: int, offset_bytes: int) -> bytes:
        os.lseek(descriptor, offset_bytes, os.SEEK_SET)
        return os.read(descriptor, length_bytes)

else:

    def _write_at(descriptor: int, data: memoryview, offset_bytes: int) -> None:
        while data:
            count = os.pwrite(descriptor, data, offset_bytes)
            data, offset_bytes = data[count:], offset_bytes + count

    def _read_at(descriptor: int, length_bytes: int, offset_bytes: int) -> bytes:
        return os.pread(descriptor, length_bytes, offset_bytes)
