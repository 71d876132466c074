"""Read all files of a version in the order in which their bytes lie: how a training loop reads millions of small files.

Each range of a pack is fetched once, several side by side ahead of the caller; what lies in it is checked and handed out. With a
seed the ranges come in a random order, and files are drawn at random out of a window of several ranges: nearly as well mixed as
a shuffle of all files, without a request for each. The same seed gives the same order, on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from vds.blobs.objects import Placement
from vds.blobs.reads import GAP_BYTES_MAX, READ_BYTES_MAX, RangeRead, Wanted
from vds.engine.versionreader import VersionReader
from vds.errors import CorruptionError, InvalidInputError
from vds.files.localmanifest import LocalManifest
from vds.model.digest import EMPTY_RAW
from vds.model.entry import EntryRow
from vds.pipeline import parallel_map

WINDOW_FILES = 16_384
WINDOW_BYTES = 64 * 1024 * 1024
"""How much is mixed at once when there is a seed."""
AHEAD_BYTES = 128 * 1024 * 1024
UNIT_BYTES_MIN = 256 * 1024
UNITS_A_SHARD = 8
"""Ranges are made small enough that every shard gets at least so many, if there are files for them."""


class Unit(NamedTuple):
    """A range of one blob, and the files in it: `numbers[begin:end]`."""

    begin: int
    end: int
    key: str
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Which share of a version one reader takes: the k-th of n."""

    number: int
    count: int

    @classmethod
    def parse(cls, shard: tuple[int, int]) -> Shard:
        """Return `(k, n)` as a shard.

        Raises:
            InvalidInputError: not 0 <= k < n.
        """
        try:
            number, count = (int(part) for part in shard)
        except (TypeError, ValueError):
            number, count = -1, 0
        if not 0 <= number < count:
            raise InvalidInputError(f"shard {shard!r} is not (k, n) with 0 <= k < n", hint="for example shard=(rank, world_size)")
        return cls(number, count)


def stream(
    reader: VersionReader, manifest: LocalManifest, path: str, *, shard: Shard, shuffle_seed: int | None
) -> Iterator[tuple[EntryRow, bytes]]:
    """Yield the files that are `path` or below it with their bytes; the shards of one count and seed share them without a rest.

    Raises:
        CorruptionError: stored bytes are not what they must be; what was yielded before is good.
    """
    numbers, empty = _select(manifest, path)
    units = plan_units(manifest, numbers, shard.count)
    mixer = None
    if shuffle_seed is not None:
        random.Random(f"vds {shuffle_seed}").shuffle(units)  # noqa: S311 - mixes, and keeps no secret
        mixer = random.Random(f"vds {shuffle_seed} {shard.number}/{shard.count}")  # noqa: S311 - likewise
    own = units[shard.number :: shard.count]
    files = _read(reader, manifest, numbers, own, empty[shard.number :: shard.count])
    return files if mixer is None else _mix(files, mixer)


def plan_units(manifest: LocalManifest, numbers: Sequence[int], shards: int) -> list[Unit]:
    """Return the ranges to read for these rows, which come in the order in which their bytes lie."""
    total_bytes = sum(manifest.place(number)[2] for number in numbers) if shards > 1 else 0
    unit_bytes = READ_BYTES_MAX
    if shards > 1:
        unit_bytes = min(READ_BYTES_MAX, max(UNIT_BYTES_MIN, total_bytes // (shards * UNITS_A_SHARD)))
    units: list[Unit] = []
    begin = start = end = 0
    key: str | None = None
    for index, number in enumerate(numbers):
        own_key, offset, length = manifest.place(number)
        own_end = offset + length
        if own_key != key or offset - end > GAP_BYTES_MAX or max(end, own_end) - start > unit_bytes:
            if key is not None:
                units.append(Unit(begin, index, key, start, end - start))
            begin, key, start, end = index, own_key, offset, own_end
        end = max(end, own_end)
    if key is not None:
        units.append(Unit(begin, len(numbers), key, start, end - start))
    return units


def _select(manifest: LocalManifest, path: str) -> tuple[Sequence[int], list[int]]:
    """Return the rows at or below `path` in the order in which their bytes lie, and those that have none."""
    order, wanted = manifest.order, manifest.numbers(path)
    numbers = order if not path else [number for number in order if number in wanted]
    if len(numbers) == len(wanted):
        return numbers, []
    is_placed = bytearray(manifest.count)
    for number in numbers:
        is_placed[number] = True
    return numbers, [number for number in wanted if not is_placed[number]]


def _read(
    reader: VersionReader, manifest: LocalManifest, numbers: Sequence[int], units: Iterable[Unit], empty: Iterable[int]
) -> Iterator[tuple[EntryRow, bytes]]:
    for number in empty:
        yield from _without_blob(reader, manifest.row(number).entry)
    reads = parallel_map(
        lambda unit: _read_unit(reader, manifest, numbers, unit),
        units,
        weigh=lambda unit: unit.length_bytes,
        in_flight_bytes_max=AHEAD_BYTES,
    )
    with closing(reads):
        for files in reads:
            for row, body in files:
                yield row, bytes(body)


def _read_unit(
    reader: VersionReader, manifest: LocalManifest, numbers: Sequence[int], unit: Unit
) -> list[tuple[EntryRow, bytes | memoryview]]:
    rows = [manifest.row(number) for number in numbers[unit.begin : unit.end]]
    wanted: dict[bytes, Wanted] = {}
    for row in rows:
        entry = row.entry
        wanted.setdefault(entry.digest, Wanted(entry.digest, Placement(unit.key, row.offset_bytes, entry.size_bytes)))
    read = RangeRead(unit.key, unit.offset_bytes, unit.length_bytes, tuple(wanted.values()))
    try:
        bodies = dict(reader.contents.read_members(read, keeps_all=True))
    except CorruptionError:
        # Damaged, or moved since the manifest was made: each by itself, which says where it lies now, or which one it is.
        return [(row.entry, reader.read_bytes(row.entry)) for row in rows]
    return [(row.entry, bodies[row.entry.digest]) for row in rows]


def _without_blob(reader: VersionReader, row: EntryRow) -> Iterator[tuple[EntryRow, bytes]]:
    if row.digest != EMPTY_RAW:
        raise reader.view_anew.missing(row)
    yield row, b""


def _mix(files: Iterator[tuple[EntryRow, bytes]], mixer: random.Random) -> Iterator[tuple[EntryRow, bytes]]:
    """Yield what comes in a random order, holding a window of it."""
    window: list[tuple[EntryRow, bytes]] = []
    held_bytes = 0
    for file in files:
        window.append(file)
        held_bytes += len(file[1])
        while len(window) > WINDOW_FILES or (held_bytes > WINDOW_BYTES and len(window) > 1):
            drawn = _draw(window, mixer)
            held_bytes -= len(drawn[1])
            yield drawn
    while window:
        yield _draw(window, mixer)


def _draw(window: list[tuple[EntryRow, bytes]], mixer: random.Random) -> tuple[EntryRow, bytes]:
    at = mixer.randrange(len(window))
    window[at], window[-1] = window[-1], window[at]
    return window.pop()
