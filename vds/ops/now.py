"""Name the present moment of a store, so that a whole run can be pinned to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from vds.engine.doors import Doors
from vds.engine.journal import HELP_OTHERS_AFTER_S, flush_line
from vds.errors import UnavailableError
from vds.index.database import Database, now_us
from vds.index.moments import check_primary, list_stamping, newest_us
from vds.index.queue import list_places
from vds.model.moment import moment_of

WAIT_S = 10.0
"""How long each step may take. A commit takes its time and then ends within some milliseconds, and its record is one put."""

_POLL_S_MIN, _POLL_S_MAX = 0.001, 0.05


def now(doors: Doors) -> datetime:
    """Return the last moment of which everything is known: all that was acknowledged before the call, and nothing more to come.

    Whoever asks for `customers:prod` as of this moment gets one answer, today and ever: no version or event of that time or an
    earlier one can become visible after this returns. It holds up no writer.

    The clock is the database's. While it stands behind what was recorded already (it was set back), this waits, and then gives
    up, rather than name a moment that leaves out what was acknowledged. When it is set back after this has returned, what is
    then recorded may get a time before the moment although it happened after; only a clock that runs on keeps the promise.

    Raises:
        UnavailableError: a commit, the record of one, or the clock did not get there in 10 s; the same call may be made again.
        AccessDeniedError: the index is a read-only copy of its database, or (SQLite alone) its file may not be written.
    """
    with doors.index.read() as connection:
        check_primary(connection)
        newest = newest_us(connection, doors.store.id)
    with _clock(doors) as read_us:
        time_us = _wait_for_clock(read_us, newest)
    # Whatever takes its time from here on gets one that is later than the moment below, or the same as `time_us`.
    _wait_for_commits(doors)
    _wait_for_records(doors)
    return moment_of(time_us - 1)


@contextmanager
def _clock(doors: Doors) -> Iterator[Callable[[], int]]:
    """Give a reader of the clock that, on SQLite, reads it in the place of the one writer: nobody else is recording then."""
    index = doors.index
    if not (index.is_sqlite and index.read_only):
        yield lambda: index.run(now_us)
        return
    # Nothing is written; but only who may write can hold the place, and a connection for reading cannot ask for it.
    writer = Database(index.path)
    try:
        yield lambda: writer.run(now_us)
    finally:
        writer.close()


def _wait_for_clock(read_us: Callable[[], int], newest: int) -> int:
    for _ in _ticks():
        if (time_us := read_us()) > newest:
            return time_us
    raise UnavailableError(
        f"the clock of the index is {(newest - time_us) / 1_000_000:.3f} s behind its newest version: it was set back",
        hint="wait until the clock has caught up, or name versions by their numbers",
    )


def _wait_for_commits(doors: Doors) -> None:
    """Return once every commit that has taken its time by now is over."""
    pending: set[str] | None = None
    for _ in _ticks():
        with doors.index.read() as connection:
            stamping = list_stamping(connection, doors.store.id)
        pending = stamping if pending is None else pending & stamping
        if not pending:
            return
    raise UnavailableError(f"a commit has been under way for {WAIT_S:.0f} s", hint="run it again")


def _wait_for_records(doors: Doors) -> None:
    """Return once everything that is committed now is visible.

    Live writers are writing their records, so they get the time that they give each other; what a dead one left is then written.
    """
    pending: set[tuple[str, int, int]] | None = None
    for waited_s in _ticks():
        with doors.index.read() as connection:
            queued = list_places(connection, doors.store.id)
        pending = queued if pending is None else pending & queued
        if not pending:
            return
        if waited_s >= HELP_OTHERS_AFTER_S and not doors.read_only:
            flush_line(doors)
    raise UnavailableError(
        f"{len(pending or ())} committed records are not in the container yet, and this store is open for reading only",
        hint="run `vds now` where the store may be written: it then writes what a crash left",
    )


def _ticks() -> Iterator[float]:
    """Yield how long it has been, at once and then with growing pauses, for `WAIT_S`."""
    started, waited_s, pause_s = time.monotonic(), 0.0, _POLL_S_MIN
    while waited_s <= WAIT_S:
        yield waited_s
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _POLL_S_MAX)
        waited_s = time.monotonic() - started
