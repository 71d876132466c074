"""How many requests at once a service takes well, found out while it works.

Guarantees:
- starts modest; doubles while more requests at once bring more throughput; stays where they stop doing so, and looks again later;
- a throttled answer halves the limit, once for each burst of them, and nobody begins a request before the time it asked for;
- the limit never falls below 1 nor rises above `most`;
- thread-safe. Starts no thread and never sleeps: who wants to begin a request asks, and waits on its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Condition
from weakref import WeakSet

GROWTH_MIN = 1.15
"""More requests at once must bring this much more, or they are not worth their memory: below it a quiet machine still wavers."""
REQUEST_BYTES = 64 * 1024
"""What a request counts for besides its body, so that small bodies say something about throughput too."""
WINDOW_S_MIN = 0.02
STEADY_WINDOWS = 32
"""After how many windows a settled limit is tried one step higher."""
BURST_S = 1.0
"""Throttled answers this close together are answers to one burst: each was sent before the first one was heard."""
_PAUSE_S_MAX = 60.0


class Pace:
    """The limit on requests in flight to one service, shared by all who send to it.

    Args:
        start: how many at first.
        most: how many at the most.
        clock: seconds that never go back.
    """

    def __init__(self, start: int, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        assert 1 <= start <= most, (start, most)
        self._most = most
        self._clock = clock
        self._limit = self._limit_before = start
        self._active = 0
        self._is_growing = start < most
        self._is_doubling = True
        self._best_rate = 0.0
        self._quiet_windows = 0
        self._cut_s = self._pause_until_s = float("-inf")
        self._condition = Condition()
        self._begin_window()
        _paces.add(self)

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self._limit

    @property
    def most(self) -> int:
        """How many there may ever be."""
        return self._most

    def enter(self) -> None:
        """Wait until one more request may be in flight, and count it."""
        with self._condition:
            while self._active >= self._limit:
                self._is_full = True
                self._condition.wait()
            if self._active == 0 and self._count == 0:
                self._begin_window()  # the time before this was nobody's
            self._active += 1

    def leave(self) -> None:
        """Count a request as ended, however it ended."""
        with self._condition:
            self._active -= 1
            self._condition.notify()

    def done(self, size_bytes: int) -> None:
        """Take note that a request with a body of `size_bytes` succeeded."""
        with self._condition:
            self._count += 1
            self._bytes += size_bytes + REQUEST_BYTES
            elapsed_s = self._clock() - self._window_s
            if self._count >= 2 * self._limit and elapsed_s >= WINDOW_S_MIN:
                self._judge(self._bytes / elapsed_s)

    def throttled(self, retry_after_s: float = 0.0) -> None:
        """Take note that the service asked for less, and for how long it wants to be left alone."""
        with self._condition:
            now_s = self._clock()
            self._pause_until_s = max(self._pause_until_s, now_s + min(retry_after_s, _PAUSE_S_MAX))
            if now_s - self._cut_s >= BURST_S:
                self._limit = max(1, self._limit // 2)
                self._cut_s = max(now_s, self._pause_until_s)
            self._is_growing = self._is_doubling = False
            self._best_rate = 0.0
            self._begin_window()

    def pause_s(self) -> float:
        """Return for how many seconds nobody should begin a request."""
        return max(0.0, self._pause_until_s - self._clock())

    def _judge(self, rate: float) -> None:
        """Raise, keep or lower the limit after a window that brought `rate`."""
        if not self._is_full:
            self._begin_window()  # nobody waited for a place: the window says nothing about the limit
            return
        if self._is_growing:
            if rate >= self._best_rate * GROWTH_MIN:
                self._best_rate = rate
                self._raise()
            else:
                self._limit = max(1, self._limit_before)  # the last step brought nothing
                self._is_growing = self._is_doubling = False
        else:
            self._quiet_windows += 1
            if self._quiet_windows >= STEADY_WINDOWS and self._limit < self._most:
                self._is_growing = True
                self._best_rate = rate
                self._raise()
        self._begin_window()

    def _raise(self) -> None:
        self._limit_before = self._limit
        step = self._limit if self._is_doubling else -(-self._limit // 4)
        self._limit = min(self._most, self._limit + step)
        self._is_growing = self._limit > self._limit_before
        self._quiet_windows = 0
        self._condition.notify_all()

    def _begin_window(self) -> None:
        self._window_s = self._clock()
        self._count = 0
        self._bytes = 0
        self._is_full = self._active >= self._limit

    def forget_parent(self) -> None:
        """Start with free places in a forked child: the threads that held them, and maybe the lock, are not here."""
        self._condition = Condition()
        self._active = 0
        self._begin_window()


_paces: WeakSet[Pace] = WeakSet()


def _after_fork_in_child() -> None:
    for pace in list(_paces):
        pace.forget_parent()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
