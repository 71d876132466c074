"""Who places small files: threads, and once there are many, processes beside them.

A small file is seven system calls and a few microseconds of hashing. In threads each call gives the interpreter away and waits to
get it back, so two threads place no more than one; a helper process places whole groups out of a buffer that both share, while
this one looks after the index and the requests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from threading import Condition

from vds.buffers import BufferPool, Loan
from vds.errors import NoSpaceError
from vds.files.place import Target
from vds.files.placer import Result, Row, place_for_parent
from vds.helper import Helper, HelperLostError

HELPER_FILES = (1_000, 8_000, 32_000)
"""For how many small files each helper is started: that costs 60 ms of CPU time, as placing 2 000 does."""
HELPERS_MAX = min(len(HELPER_FILES), (os.cpu_count() or 1) - 1)
_LOOK_S = 0.02
"""How often a thread looks whether the first helper has started, or planning has come to a halt, while it waits for that."""
_PAUSE_S = 0.05
"""Planning that said nothing for so long is waiting for those who place: there is more than enough planned."""


class Placers:
    """Places groups of small files, from any number of threads; close it when done.

    Args:
        target: where to.
        pool: of the buffers that the files' bytes are in; helpers need one that is shared.
        files: how many there will be, at most.
        helpers_max: processes at once.
    """

    def __init__(self, target: Target, pool: BufferPool, files: int, *, helpers_max: int | None = None) -> None:
        self._target = target
        self._pool = pool
        self._changed = Condition()
        self._helpers: list[Helper] = []
        self._starting: list[Helper] = []
        self._idle: list[Helper] = []
        self._alone = 0
        self._is_disk_slow = False
        self._planning_s = float("-inf")
        self._start(sum(files >= least for least in HELPER_FILES[: HELPERS_MAX if helpers_max is None else helpers_max]))

    def note_planning(self) -> None:
        """Say that the caller's own thread, which plans while others place, has something to do."""
        self._planning_s = time.monotonic()

    def end_planning(self) -> None:
        """Say that it has nothing more to do."""
        with self._changed:
            self._planning_s = float("-inf")
            self._changed.notify_all()

    def place(self, rows: Sequence[Row], loan: Loan) -> list[Result]:
        """Place files whose bytes are in a buffer of the pool, each checked first, and return what came of each.

        Raises:
            NoSpaceError: the disk is full; what was placed stays.
        """
        helper = self._take()
        if helper is None:
            return self._place_alone(rows, loan)
        pool = self._pool
        request = (
            *(self._target.root, self._target.work_path, os.getpid()),
            *(pool.descriptor, loan.offset_bytes, pool.size_bytes, list(zip(*rows, strict=True))),
        )
        try:
            results, is_disk_slow, why_full = helper.call(request)
        except HelperLostError:
            self._lose(helper)
            return self._place_alone(rows, loan)  # what it had placed is placed again, with the same bytes
        self._give_back(helper, is_disk_slow)
        if why_full:
            raise NoSpaceError(why_full, hint="free some space, then run it again")
        found: list[Result] = results
        return found

    def close(self) -> None:
        """End the helpers; no `place` may be running. Idempotent."""
        helpers, self._helpers = self._helpers, []
        for helper in helpers:
            helper.close()

    def _start(self, number: int) -> None:
        if self._pool.descriptor is None or not number:
            return
        self._target.open()  # what they write beside must be there
        for _ in range(number):
            try:
                helper = Helper(place_for_parent.__module__, place_for_parent.__name__, self._pool.descriptor)
            except HelperLostError:
                return
            self._helpers.append(helper)
            self._starting.append(helper)

    def _take(self) -> Helper | None:
        """Return a helper that is free, waiting for one if that is the faster way; None when the caller should place itself."""
        with self._changed:
            while True:
                ready = [helper for helper in self._starting if helper.is_ready()]
                self._starting = [helper for helper in self._starting if helper not in ready]
                self._idle += ready
                if self._idle:
                    return self._idle.pop()
                # Two threads that place hold each other up, unless they wait for a disk most of the time; and one that plans
                # without pause keeps one that places waiting at every system call.
                is_planning = bool(self._helpers) and time.monotonic() - self._planning_s < _PAUSE_S
                if self._is_disk_slow or not (self._alone or is_planning):
                    self._alone += 1
                    return None
                self._changed.wait(_LOOK_S if is_planning or self._starting else None)

    def _place_alone(self, rows: Sequence[Row], loan: Loan) -> list[Result]:
        is_disk_slow = self._is_disk_slow
        try:
            results, is_disk_slow = self._target.placer.place_rows(rows, loan.view)
            return results
        finally:
            with self._changed:
                self._alone -= 1
                self._is_disk_slow = is_disk_slow
                self._changed.notify_all()

    def _give_back(self, helper: Helper, is_disk_slow: bool) -> None:
        with self._changed:
            self._is_disk_slow = is_disk_slow
            self._idle.append(helper)
            self._changed.notify_all()

    def _lose(self, helper: Helper) -> None:
        helper.close()  # it may only have lost its pipe: it must not place anything any more
        with self._changed:
            self._helpers.remove(helper)
            self._alone += 1
            self._changed.notify_all()
