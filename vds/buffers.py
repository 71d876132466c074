"""Reused, page-aligned memory for bytes on their way.

Reading into and sending from fresh memory costs a page fault every 4 KiB, and memory that does not begin on a page is a fifth
slower to send from; buffers are therefore mapped once and handed on.
"""

from __future__ import annotations

import mmap
from collections import deque
from threading import Lock


class BufferPool:
    """Lends buffers of one size; thread-safe. It holds as many as were ever lent at once: who borrows keeps the bound."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._free: deque[memoryview] = deque()

    def lend(self, shares: int = 1) -> Loan:
        """Return a buffer of `size_bytes`, holding anything, which comes back once `shares` calls of `release` were made."""
        try:
            view = self._free.pop()
        except IndexError:
            view = memoryview(mmap.mmap(-1, self.size_bytes))
        return Loan(self, view, shares)

    def take_back(self, view: memoryview) -> None:
        """Keep a buffer for the next who asks."""
        self._free.append(view)


class Loan:
    """A lent buffer; `view` must not be touched after the last `release`."""

    __slots__ = ("_lock", "_pool", "shares", "view")

    def __init__(self, pool: BufferPool, view: memoryview, shares: int) -> None:
        self._pool = pool
        self._lock = Lock()
        self.view = view
        self.shares = shares

    def release(self) -> None:
        """Give one share back; the last one returns the buffer to its pool."""
        with self._lock:
            self.shares -= 1
            is_last = self.shares == 0
        if is_last:
            self._pool.take_back(self.view)
