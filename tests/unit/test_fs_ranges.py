"""Which reads serve many slices: everything asked for is served, near slices of a file by one read, small files whole."""

from __future__ import annotations

import pytest

pytest.importorskip("fsspec")

from hypothesis import given
from hypothesis import strategies as st

from vds.fs.ranges import SMALL_BYTES, Range, Read, Slice, parse_ranges, plan_slices

LARGE = SMALL_BYTES + 1
ends = st.none() | st.integers(-2 * LARGE, 2 * LARGE)


def reads_of(slices: list[Slice]) -> list[Read]:
    return list(dict.fromkeys(each.source for each in slices if isinstance(each.source, Read)))


@given(st.lists(st.builds(Range, st.sampled_from(["small", "large"]), ends, ends)), st.integers(0, 1000))
def test_every_range_gets_its_bytes(ranges: list[Range], max_gap: int) -> None:
    bodies = {"small": bytes(range(256)), "large": (bytes(range(251)) * (LARGE // 251 + 1))[:LARGE]}
    slices = plan_slices(ranges, {name: len(body) for name, body in bodies.items()}, max_gap)
    assert len(slices) == len(ranges)
    for asked, found in zip(ranges, slices, strict=True):
        source = found.source
        if isinstance(source, Read):
            assert source.name == asked.name
            assert source.offset_bytes + source.length_bytes <= LARGE
            body = bodies[asked.name][source.offset_bytes : source.offset_bytes + source.length_bytes]
        else:
            body = bodies[source]
        assert body[found.start : found.stop] == bodies[asked.name][asked.start : asked.stop]


@pytest.mark.parametrize(("size_bytes", "is_whole"), [(SMALL_BYTES, True), (SMALL_BYTES + 1, False)])
def test_a_small_file_is_read_whole(size_bytes: int, is_whole: bool) -> None:
    (found,) = plan_slices([Range("a", 5, 9)], {"a": size_bytes}, 0)
    assert found == (Slice("a", 5, 9) if is_whole else Slice(Read("a", 5, 4), 0, 4))


@pytest.mark.parametrize(("max_gap", "reads"), [(9, [Read("a", 30, 10), Read("a", 10, 10)]), (10, [Read("a", 10, 30)])])
def test_ranges_that_are_near_share_a_read(max_gap: int, reads: list[Read]) -> None:
    assert reads_of(plan_slices([Range("a", 30, 40), Range("a", 10, 20)], {"a": LARGE}, max_gap)) == reads


def test_a_range_inside_another_does_not_end_it() -> None:
    slices = plan_slices([Range("a", 0, 100), Range("a", 10, 20), Range("a", 90, 110)], {"a": LARGE}, 0)
    assert reads_of(slices) == [Read("a", 0, 110)]


def test_files_do_not_share_a_read() -> None:
    slices = plan_slices([Range("a", 0, 10), Range("b", 0, 10)], {"a": LARGE, "b": LARGE}, LARGE)
    assert reads_of(slices) == [Read("a", 0, 10), Read("b", 0, 10)]


def test_one_end_serves_all_paths() -> None:
    assert parse_ranges(["a", "b"], 1, [2, None]) == [Range("a", 1, 2), Range("b", 1, None)]


def test_what_is_no_list_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a list, not tuple"):
        parse_ranges(("a",), 0, 1)


@pytest.mark.parametrize(("starts", "ends"), [([0], 5), (0, [5, 6, 7])])
def test_lists_that_do_not_fit_are_refused(starts: object, ends: object) -> None:
    with pytest.raises(ValueError, match="do not fit together"):
        parse_ranges(["a", "b"], starts, ends)
