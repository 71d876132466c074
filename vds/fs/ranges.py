"""Which reads serve many slices of many files; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SMALL_BYTES = 64 * 1024
"""Files up to this size are read whole: many of them come in one request, since they lie side by side in a pack."""


@dataclass(frozen=True, slots=True)
class Range:
    """A slice of a file, as Python writes slices: `None` is an end of the file, negative numbers count from its end."""

    name: str
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """Bytes of one file that are fetched together."""

    name: str
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Where the bytes of a range are found: in a whole file, given by its name, or in a read."""

    source: str | Read
    start: int
    stop: int


def parse_ranges(paths: object, starts: object, ends: object) -> list[Range]:
    """Return the ranges that fsspec's `cat_ranges` was asked for; one start or end serves all paths.

    Raises:
        TypeError: the paths are no list.
        ValueError: the lists differ in length.
    """
    if not isinstance(paths, list):
        raise TypeError(f"paths must be a list, not {type(paths).__name__}")
    first = starts if isinstance(starts, list) else [starts] * len(paths)
    last = ends if isinstance(ends, list) else [ends] * len(paths)
    if not len(paths) == len(first) == len(last):
        raise ValueError(f"{len(paths)} paths, {len(first)} starts and {len(last)} ends do not fit together")
    return [Range(*each) for each in zip(paths, first, last, strict=True)]


def plan_slices(ranges: Sequence[Range], sizes: Mapping[str, int], max_gap_bytes: int) -> list[Slice]:
    """Return where each range is to be cut from; ranges of one file that lie at most so far apart share a read."""
    slices: list[Slice | None] = [None] * len(ranges)
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for number, asked in enumerate(ranges):
        size_bytes = sizes[asked.name]
        start, stop, _ = slice(asked.start, asked.stop).indices(size_bytes)
        if size_bytes <= SMALL_BYTES:
            slices[number] = Slice(asked.name, start, max(start, stop))
        else:
            spans.setdefault(asked.name, []).append((start, max(start, stop), number))
    for name, wanted in spans.items():
        for group in _near(sorted(wanted), max_gap_bytes):
            offset = group[0][0]
            read = Read(name, offset, max(stop for _, stop, _ in group) - offset)
            for start, stop, number in group:
                slices[number] = Slice(read, start - offset, stop - offset)
    return [each for each in slices if each is not None]


def _near(spans: Sequence[tuple[int, int, int]], max_gap_bytes: int) -> list[list[tuple[int, int, int]]]:
    groups: list[list[tuple[int, int, int]]] = []
    end = 0
    for span in spans:
        if groups and span[0] - end <= max_gap_bytes:
            groups[-1].append(span)
            end = max(end, span[1])
        else:
            groups.append([span])
            end = span[1]
    return groups
