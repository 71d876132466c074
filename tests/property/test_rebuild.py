"""What a rebuild works out, against plain models: which versions have expired, and which interval holds what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vds.index.replay import Change, Space, State, plan_intervals
from vds.index.schema import OPEN
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.manifest import ChangeRow
from vds.ops.rebuildlog import Expired

NUMBERS = 24

ranges = st.lists(st.integers(1, NUMBERS), unique=True, max_size=8).map(sorted)
steps = st.lists(st.tuples(st.booleans(), ranges), max_size=8)


def packed(numbers: list[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


@given(steps)
def test_expiry_and_its_undoing(steps: list[tuple[bool, list[int]]]) -> None:
    expired, model = Expired(), dict[int, int]()
    for time_us, (is_expiry, numbers) in enumerate(steps, start=1):
        if is_expiry:
            expired.add(packed(numbers), time_us)
            model = {**dict.fromkeys(numbers, time_us), **model}
        else:
            expired.remove(packed(numbers))
            model = {number: since for number, since in model.items() if number not in numbers}
    every = range(1, NUMBERS + 2)
    assert {number: expired.find(number) for number in every} == {number: model.get(number) for number in every}
    assert expired.lowest_left() == next(number for number in every if number not in model)
    assert expired.highest() == max(model, default=0)
    for first in every:
        for end in range(first, NUMBERS + 2):
            assert expired.is_any_left(first, end) == any(number not in model for number in range(first, end))
    lowest = expired.lowest_left()
    dead = {(a, b) for low, high in expired.gaps(lowest, NUMBERS) for a in every for b in every if low < a < b <= high}
    expected = {(a, b) for a in every for b in every if lowest < a < b and all(number in model for number in range(a, b))}
    assert dead == expected


paths = st.sampled_from(["a", "b/1", "b/2", "ü"])
contents = st.none() | st.tuples(st.sampled_from([b"x" * 32, b"y" * 32]), st.sampled_from([MODE_FILE, MODE_EXECUTABLE]))
lists = st.lists(st.dictionaries(paths, contents), min_size=1, max_size=10)


@given(lists, st.lists(st.integers(1, 9), unique=True), st.integers(0, 9))
def test_intervals_hold_what_the_lists_add_up_to(
    lists: list[dict[str, tuple[bytes, int] | None]], gone: list[int], cut: int
) -> None:
    """Applied in two batches, cut anywhere, with versions that have expired."""
    expired = Expired()
    expired.add(packed(sorted(number for number in gone if number < len(lists))), 1)
    views: list[dict[str, tuple[bytes, int]]] = [{}]
    for changes in lists:
        after = {**views[-1], **{path: content for path, content in changes.items() if content is not None}}
        views.append({path: content for path, content in after.items() if changes.get(path, content) is not None})
    entries: dict[tuple[str, int], tuple[int, tuple[bytes, int]]] = {}
    counts = dict.fromkeys(range(1, len(lists) + 1), (0, 0, 0))
    for numbers in (range(1, cut + 1), range(cut + 1, len(lists) + 1)):
        rows = [
            Change(path, number, ChangeRow(path, content[0] if content else None, 5, content[1] if content else 0, number))
            for number in numbers
            if number <= len(lists)
            for path, content in lists[number - 1].items()
        ]
        states = {
            path: State(first, content[0], 5, content[1], first)
            for (path, first), (end, content) in entries.items()
            if end == OPEN
        }
        plan = plan_intervals(Space(1, 2), sorted(rows, key=lambda row: row[:2]), states, expired.is_any_left)
        for end, path in plan.ended:
            [first] = [first for (own, first), (last, _) in entries.items() if own == path and last == OPEN]
            entries[path, first] = (end, entries[path, first][1])
        for store_id, namespace_id, path, first, end, digest, size_bytes, mode, modified_ns in plan.begun:
            assert (store_id, namespace_id, size_bytes, modified_ns) == (1, 2, 5, first)
            assert (path, first) not in entries
            entries[path, first] = (end, (digest, mode))
        counts.update({number: (d.added, d.modified, d.removed) for number, d in plan.deltas.items()})
    for number, view in enumerate(views):
        if expired.find(number) is None:
            assert {path: c for (path, first), (end, c) in entries.items() if first <= number < end} == view, number
        if number:
            before = views[number - 1]
            modified = sum(view[path] != before[path] for path in before.keys() & view.keys())
            assert counts[number] == (len(view.keys() - before.keys()), modified, len(before.keys() - view.keys()))
