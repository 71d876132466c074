"""The files of versions: change lists applied one after the other, from a list that names them all.

Whatever a list is held against must fit: its own digest, and what the version's record says of its files and changes. A list that
does not fit is a gap. What follows it is not known, up to the next version whose files are all named in one list.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from vds.blobs.driver import BlobDriver
from vds.blobs.records import Gap, open_changes
from vds.errors import CorruptionError
from vds.index.rebuildrows import ListRow
from vds.index.replay import (
    Change,
    Delta,
    Intervals,
    Space,
    begin_later,
    drop_begun,
    drop_dead,
    end_all,
    end_intervals,
    find_states,
    first_entries,
    mark_lost,
    plan_intervals,
    undo_version,
)
from vds.index.schema import OPEN
from vds.model.batch import batched, grouped
from vds.model.checkpoint import CheckpointKey
from vds.model.manifest import ChangeRow
from vds.model.version import ChangeListRef, journal_key
from vds.ops.rebuilding import Making
from vds.ops.rebuildlines import Line, Step
from vds.pipeline import parallel_map

BATCH_ROWS = 20_000
"""How many rows are worked on at once; a list of more is never held whole."""
FETCH_COUNT, FETCH_ROWS = 64, 20_000
"""How many versions one worker fetches the lists of, and until they have how many rows."""
FETCH_WORKERS = 4
FETCHED_ROWS_MAX = 80_000

Rows = list[ChangeRow]


@dataclass(frozen=True, slots=True)
class _Base:
    """A version whose files are all named in one list.

    Attributes:
        key: of its checkpoint; None for a change list that names them all.
    """

    step: Step
    changes: ChangeListRef
    key: str | None


@dataclass(frozen=True, slots=True)
class _Fetched:
    """The change list of a version.

    Attributes:
        rows: None when they are too many to be held, or when something is wrong with the list.
        fault: what is wrong.
        is_base: whether it names every file of its version, and nothing before it counts.
    """

    step: Step
    rows: Rows | None
    fault: str = ""
    is_base: bool = False


class Replay:
    """Makes the entries of one namespace; used once."""

    def __init__(self, making: Making, line: Line, checkpoints: Sequence[CheckpointKey]) -> None:
        self._making = making
        self._line = line
        self._space = Space(making.store_id, line.id)
        self._checkpoints = [key for key in checkpoints if key.number <= line.head]
        self._bad: set[str] = set()
        self._number = 0
        self._files = self._bytes = 0
        self._lowest = line.expired.lowest_left()

    def run(self) -> None:
        """Make them. What cannot be made is reported, and remembered in the index."""
        line = self._line
        if self._lowest <= line.head:
            self._go_on(self._begin())
            gaps = [(0, self._lowest), *line.expired.gaps(self._lowest, line.head)]
            if len(gaps) > 1 or self._lowest > 1:
                self._making.sink.flush()
                dropped = self._making.sink.run(lambda connection: drop_dead(connection, self._space, gaps))
                self._making.count("entries", -dropped)
        for key in self._checkpoints:
            if str(key) not in self._bad and key.number in line.totals:
                files, _ = line.totals[key.number]
                self._making.note_list(ListRow(line.id, key.number, "checkpoint", str(key), key.digest, files))

    def _begin(self) -> list[_Fetched]:
        """Begin with the newest whole list of a version that is not after the oldest one left; without one, with nothing.

        One that is short is returned, to be applied together with what follows: most namespaces are worked out in memory alone.
        """
        numbers = {number for number in self._line.whole if number <= self._lowest}
        numbers.update(key.number for key in self._checkpoints if key.number <= self._lowest)
        for number in sorted(numbers, reverse=True):
            for base in self._bases(number):
                if base.key is None and base.changes.count <= BATCH_ROWS:
                    one = self._fetch_base(base.step)
                    if one is not None:
                        self._number = number - 1
                        return [one]
                elif self._load(base, is_start=True):
                    return []
        return []

    def _fetch_base(self, step: Step) -> _Fetched | None:
        """Return a whole change list that can be held; None when it does not fit."""
        fetched = _fetch_one(self._making.blobs, step)
        written = [row for row in fetched.rows or () if row.digest is not None]
        fits = (len(written), sum(row.size_bytes for row in written)) == (step.file_count, step.size_bytes)
        return _Fetched(step, written, is_base=True) if fits and not fetched.fault else None

    def _bases(self, number: int) -> Iterator[_Base]:
        """Yield the lists that name all files of a version, its change list first: that one says what the version changed."""
        step = next(self._line.steps(self._making.blobs, self._making.uid, number), None)
        if step is None or step.number != number:
            return
        if step.is_whole:
            yield _Base(step, step.changes, None)
        for key in self._checkpoints:
            if key.number == number and str(key) not in self._bad:
                yield _Base(step, ChangeListRef(key.digest, step.file_count, key=str(key)), str(key))

    def _load(self, base: _Base, *, is_start: bool = False) -> bool:
        """Add all files of a version while no entry is open; False, and none of them is there, when its list does not fit."""
        number = base.step.number
        # Of the oldest version that is left, what others before it had begun is told from what it began itself.
        is_inner = is_start and base.key is not None and number == self._lowest and number > 1
        first = number - 1 if is_inner else number
        sink = self._making.sink
        files = size_bytes = 0
        try:
            for rows in batched(open_changes(self._making.blobs, base.changes), BATCH_ROWS):
                entries = first_entries(self._space, first, rows)
                files += len(entries)
                size_bytes += sum(entry[6] for entry in entries)
                sink.add("entry", entries)
                self._making.progress.add(files=len(entries))
            if (files, size_bytes) != (base.step.file_count, base.step.size_bytes):
                raise CorruptionError(_misfit(files, size_bytes, base.step))
        except CorruptionError as err:
            sink.flush()
            sink.run(lambda connection: drop_begun(connection, self._space, first))
            if base.key is not None:
                self._bad.add(base.key)
                self._making.report("checkpoint", Gap(base.key, "damaged", str(err)), name=self._line.name)
            return False
        self._number, self._files, self._bytes = number, files, size_bytes
        self._making.count("entries", files)
        if is_inner:
            self._tell_apart(base.step)
        return True

    def _tell_apart(self, step: Step) -> None:
        """Let what a version changed itself begin with it; where its list is gone, all of it seems older."""
        self._making.sink.flush()
        try:
            for rows in batched(open_changes(self._making.blobs, step.changes), BATCH_ROWS):
                paths = [row.path for row in rows if row.digest is not None]
                self._making.sink.run(lambda connection, paths=paths: begin_later(connection, self._space, step.number, paths))  # type: ignore[misc]
        except CorruptionError as err:
            key = step.changes.key or journal_key(self._line.uid, step.number)
            detail = f"which files version {step.number} itself changed is not known: {err}"
            self._making.report("changes", Gap(key, "damaged", detail), name=self._line.name)

    def _go_on(self, waiting: list[_Fetched]) -> None:
        """Apply the lists after the one it began with, which is the first of those waiting or was applied already."""
        steps = self._line.steps(self._making.blobs, self._making.uid, self._number + len(waiting) + 1)
        rows = sum(len(one.rows or ()) for one in waiting)
        fetch = _unpack if self._line.is_at_hand else _fetch
        with closing(fetch(self._making.blobs, steps)) as fetched:
            for one in chain.from_iterable(fetched):
                waiting.append(one)
                rows += 0 if one.rows is None else len(one.rows)
                if rows >= BATCH_ROWS or one.rows is None:
                    self._apply(waiting)
                    waiting, rows = [], 0
                if self._number == OPEN:
                    return
            self._apply(waiting)
        if self._number < self._line.head:  # it was there a moment ago
            number = self._number + 1
            self._lose(number, journal_key(self._line.uid, number), "its record is gone")

    def _apply(self, fetched: Sequence[_Fetched]) -> None:
        """Apply some lists, as many at once as there are before one that is large or does not fit."""
        left = [one for one in fetched if one.step.number > self._number]
        while left:
            count = next((place for place, one in enumerate(left) if one.rows is None), len(left))
            fault = self._apply_small(left[:count]) if count else self._apply_large(left[0])
            if fault is not None:
                step, detail = fault
                key = step.changes.key or journal_key(self._line.uid, step.number)
                self._lose(step.number, key, f"its change list cannot be used: {detail}")
            left = [one for one in left if one.step.number > self._number]

    def _apply_small(self, fetched: Sequence[_Fetched]) -> tuple[Step, str] | None:
        """Apply lists whose rows are at hand, up to the first that does not fit; return that one."""
        intervals = self._plan([(one.step.number, one.rows or []) for one in fetched])
        files, size_bytes = self._files, self._bytes
        for place, one in enumerate(fetched):
            delta = intervals.deltas.get(one.step.number, Delta())
            files += delta.added - delta.removed
            size_bytes += delta.size_bytes
            if not one.is_base and (misfit := _find_misfit(delta, files, size_bytes, one.step)):
                if place:
                    self._apply_small(fetched[:place])
                return one.step, misfit
        self._write(intervals)
        self._number, self._files, self._bytes = fetched[-1].step.number, files, size_bytes
        return None

    def _apply_large(self, one: _Fetched) -> tuple[Step, str] | None:
        """Apply a list piece by piece; return it, and leave everything as it was, when it does not fit."""
        step, total = one.step, Delta()
        if one.fault:
            return step, one.fault
        try:
            for rows in batched(open_changes(self._making.blobs, step.changes), BATCH_ROWS):
                intervals = self._plan([(step.number, rows)])
                _sum_up(total, intervals.deltas.get(step.number, Delta()))
                self._write(intervals)
            files, size_bytes = self._files + total.added - total.removed, self._bytes + total.size_bytes
            fault = _find_misfit(total, files, size_bytes, step)
        except CorruptionError as err:
            fault = str(err)
        if fault:
            self._making.sink.flush()
            dropped = self._making.sink.run(lambda connection: undo_version(connection, self._space, step.number))
            self._making.count("entries", -dropped)
            return step, fault
        self._number, self._files, self._bytes = step.number, files, size_bytes
        return None

    def _plan(self, lists: Iterable[tuple[int, Sequence[ChangeRow]]]) -> Intervals:
        changes = [Change(row.path, number, row) for number, rows in lists for row in rows]
        changes.sort(key=lambda change: change[:2])
        states = {}
        if self._files:
            self._making.sink.settle()  # what was gathered is to be found
            paths = dict.fromkeys(change.path for change in changes)
            with self._making.sink.database.read() as connection:
                states = find_states(connection, self._space, paths)
        return plan_intervals(self._space, changes, states, self._line.expired.is_any_left)

    def _write(self, intervals: Intervals) -> None:
        if intervals.ended:
            self._making.sink.run(lambda connection: end_intervals(connection, self._space, intervals.ended))
        self._making.sink.add("entry", intervals.begun)
        self._making.count("entries", len(intervals.begun))
        self._making.progress.add(files=len(intervals.begun))

    def _lose(self, first: int, key: str, detail: str) -> None:
        """Give up what follows, from a version on, up to one with a list of all its files."""
        making, line = self._making, self._line
        making.sink.flush()
        making.sink.run(lambda connection: end_all(connection, self._space, first))
        self._files = self._bytes = 0
        self._number = OPEN
        numbers = {number for number in line.whole if number > first}
        numbers.update(checkpoint.number for checkpoint in self._checkpoints if checkpoint.number >= first)
        for number in sorted(numbers):
            if any(self._load(base) for base in self._bases(number)):
                break
        last = OPEN if self._number == OPEN else self._number - 1
        gap = Gap(key, "damaged", f"version {first}: {detail}")
        if not line.expired.is_any_left(first, min(last, line.head) + 1):
            making.report("changes", gap, name=line.name)
            return
        making.lose("changes", gap, owner_id=line.id, name=line.name, first=first, last=last)
        making.sink.run(lambda connection: mark_lost(connection, self._space, first, last))


def _fetch(blobs: BlobDriver, steps: Iterable[Step]) -> Generator[list[_Fetched], None, None]:
    def fetch(group: Sequence[Step]) -> list[_Fetched]:
        return [_fetch_one(blobs, step) for step in group]

    groups = grouped(steps, lambda step: step.changes.count, count_max=FETCH_COUNT, bytes_max=FETCH_ROWS)
    return parallel_map(fetch, groups, workers=FETCH_WORKERS, weigh=_weigh, in_flight_bytes_max=FETCHED_ROWS_MAX)


def _unpack(blobs: BlobDriver, steps: Iterable[Step]) -> Generator[list[_Fetched], None, None]:
    """Yield lists that stand in their records, which are at hand: threads for them would cost more than they are."""
    for step in steps:
        yield [_fetch_one(blobs, step)]


def _weigh(group: Sequence[Step]) -> int:
    return sum(min(step.changes.count, BATCH_ROWS) for step in group)


def _fetch_one(blobs: BlobDriver, step: Step) -> _Fetched:
    if step.changes.count > BATCH_ROWS:
        return _Fetched(step, None)
    try:
        return _Fetched(step, list(open_changes(blobs, step.changes)))
    except CorruptionError as err:
        return _Fetched(step, None, str(err))


def _sum_up(total: Delta, delta: Delta) -> None:
    total.added += delta.added
    total.modified += delta.modified
    total.removed += delta.removed
    total.size_bytes += delta.size_bytes


def _find_misfit(delta: Delta, files: int, size_bytes: int, step: Step) -> str:
    """Return what is wrong when a version does not come to what its record says; empty when it does."""
    if (delta.added, delta.modified, delta.removed) != (step.added, step.modified, step.removed):
        found = f"{delta.added} added, {delta.modified} modified and {delta.removed} removed files"
        return f"it makes {found}, the record says {step.added}, {step.modified} and {step.removed}"
    return "" if (files, size_bytes) == (step.file_count, step.size_bytes) else _misfit(files, size_bytes, step)


def _misfit(files: int, size_bytes: int, step: Step) -> str:
    return f"it comes to {files} files of {size_bytes} bytes, the record says {step.file_count} of {step.size_bytes}"
