"""Reused, page-aligned memory for bytes on their way.

Reading into and sending from fresh memory costs a page fault every 4 KiB, and memory that does not begin on a page is a fifth
slower to send from; buffers are therefore mapped once and handed on.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque
from threading import Lock


class BufferPool:
    """Lends buffers of one size; thread-safe. It holds as many as were ever lent at once: who borrows keeps the bound.

    Args:
        size_bytes: of each buffer.
        is_shared: keep them in a file without a name, so that a process of ours can be given them. Linux only: elsewhere, or
            where the system refuses, they are private all the same.
    """

    def __init__(self, size_bytes: int, *, is_shared: bool = False) -> None:
        self.size_bytes = size_bytes
        self._stride_bytes = -(-size_bytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._lock = Lock()
        self._free: deque[tuple[memoryview, int]] = deque()
        self._end_bytes = 0
        self._is_closed = False
        self._descriptor = _open_memory() if is_shared else None
        if self._descriptor is not None:
            self._close_file = weakref.finalize(self, os.close, self._descriptor)

    @property
    def descriptor(self) -> int | None:
        """The file that the buffers are in, each at its loan's `offset_bytes`; None when they are private."""
        return self._descriptor

    def lend(self, shares: int = 1) -> Loan:
        """Return a buffer of `size_bytes`, holding anything, which comes back once `shares` calls of `release` were made."""
        assert not self._is_closed, "lend after close"
        try:
            view, offset_bytes = self._free.pop()
        except IndexError:
            view, offset_bytes = self._map()
        return Loan(self, view, offset_bytes, shares)

    def take_back(self, view: memoryview, offset_bytes: int) -> None:
        """Keep a buffer for the next who asks."""
        if not self._is_closed:
            self._free.append((view, offset_bytes))

    def close(self) -> None:
        """Give the memory back at once; what is lent still goes with its last loan. Idempotent."""
        self._is_closed = True
        self._free.clear()
        if self._descriptor is not None:
            self._close_file()

    def _map(self) -> tuple[memoryview, int]:
        if self._descriptor is None:
            return _map_private(self.size_bytes), 0
        with self._lock:
            offset_bytes = self._end_bytes
            self._end_bytes += self._stride_bytes
            os.ftruncate(self._descriptor, self._end_bytes)
        return map_buffer(self._descriptor, offset_bytes, self.size_bytes), offset_bytes


class Loan:
    """A lent buffer; `view` must not be touched after the last `release`."""

    __slots__ = ("_lock", "_pool", "offset_bytes", "shares", "view")

    def __init__(self, pool: BufferPool, view: memoryview, offset_bytes: int, shares: int) -> None:
        self._pool = pool
        self._lock = Lock()
        self.view = view
        self.offset_bytes = offset_bytes
        self.shares = shares

    def release(self) -> None:
        """Give one share back; the last one returns the buffer to its pool."""
        with self._lock:
            self.shares -= 1
            is_last = self.shares == 0
        if is_last:
            self._pool.take_back(self.view, self.offset_bytes)


def map_buffer(descriptor: int, offset_bytes: int, size_bytes: int) -> memoryview:
    """Return the buffer at an offset of a pool's file; also in another process."""
    return memoryview(mmap.mmap(descriptor, size_bytes, offset=offset_bytes))


def _map_private(size_bytes: int) -> memoryview:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return memoryview(mmap.mmap(-1, size_bytes))
    # To touch a gigabyte for the first time costs 0.7 s in pages that could be shared, as is the default, and 0.45 s in private
    # ones. Huge pages cost 0.1 s where a process before had used that memory, and 2 s where none had.
    return memoryview(mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def _open_memory() -> int | None:
    try:
        return os.memfd_create("vds-buffers")
    except (AttributeError, OSError):  # not Linux; or forbidden, as in some sandboxes
        return None
