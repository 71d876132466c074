"""Bring objects from blobs into a directory: what download and checkout share.

Files are placed by several threads. Small objects are read many to a request; middling ones one to a thread; large ones alone,
their ranges in parallel. What goes wrong with one file (something stands in its way, its object is damaged) is collected; what
goes wrong with everything (the service is away, the disk is full) stops at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import EMPTY_PLACEMENT, Placement
from vds.blobs.reads import READ_BYTES_MAX, RangeRead, Wanted, plan_reads, read_chunks, read_range
from vds.errors import (
    AccessDeniedError,
    CorruptionError,
    DownloadError,
    NoSpaceError,
    UnavailableError,
    VdsError,
    failures_message,
)
from vds.files.place import Buffer, Target
from vds.model.batch import batched
from vds.model.digest import EMPTY_RAW
from vds.model.entry import Entry
from vds.pipeline import TRANSFER_LIMITS, Limits, parallel_map
from vds.progress import Progress

ALONE_BYTES = 64 * 1024 * 1024
"""From this size on one connection is too slow: the object's ranges are read in parallel, one object after the other."""
LOOKUP_MAX = 1000
_PLANNED_AT_ONCE = 8192  # as many files as a pack can hold, so that one request can serve them

FindPlacements = Callable[[Sequence[bytes]], Mapping[bytes, Placement]]

_STOPS = (UnavailableError, AccessDeniedError, NoSpaceError)


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """Where objects come from.

    Attributes:
        driver: reads blobs.
        find_placements: tells where objects stand, given at most 1 000 raw digests; unknown ones are left out.
    """

    driver: BlobDriver
    find_placements: FindPlacements


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file that stands in its place now, with the mtime as the file system keeps it."""

    entry: Entry
    modified_ns: int


@dataclass
class Outcome:
    """What came of some files."""

    placed: list[PlacedFile] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Task:
    """One piece of work for a thread: the read, and the entries that each of its objects becomes."""

    read: RangeRead
    entries: Mapping[bytes, Sequence[Entry]]

    @property
    def held_bytes(self) -> int:
        return min(self.read.length_bytes, READ_BYTES_MAX)


def place_entries(
    source: ObjectSource,
    target: Target,
    entries: Iterable[Entry],
    progress: Progress,
    *,
    limits: Limits = TRANSFER_LIMITS,
) -> Outcome:
    """Place every entry; an object that several entries name is read once, as far as they are near each other.

    Raises:
        UnavailableError, AccessDeniedError: the service failed; files placed so far stay.
        NoSpaceError: the disk is full; files placed so far stay.
    """
    outcome = Outcome()
    alone: list[_Task] = []
    results = parallel_map(
        partial(_carry_out, source.driver, target, Limits(1, limits.in_flight_bytes_max)),
        _tasks(source, entries, alone, outcome),
        workers=limits.workers,
        weigh=lambda task: task.held_bytes,
        in_flight_bytes_max=limits.in_flight_bytes_max,
        ordered=False,
    )
    with closing(results):
        for part in chain(results, (_carry_out(source.driver, target, limits, task) for task in alone)):
            outcome.placed.extend(part.placed)
            outcome.failures.update(part.failures)
            progress.add(files=len(part.placed), bytes=sum(file.entry.size_bytes for file in part.placed))
    return outcome


def _tasks(source: ObjectSource, entries: Iterable[Entry], alone: list[_Task], outcome: Outcome) -> Iterator[_Task]:
    for batch in batched(entries, _PLANNED_AT_ONCE):
        by_digest: dict[bytes, list[Entry]] = {}
        for entry in batch:
            by_digest.setdefault(entry.digest.raw, []).append(entry)
        empty = by_digest.pop(EMPTY_RAW, None)
        if empty:
            yield _Task(RangeRead("", 0, 0, (Wanted(EMPTY_RAW, EMPTY_PLACEMENT),)), {EMPTY_RAW: empty})
        for read in plan_reads(_wanted(source, by_digest, outcome)):
            task = _Task(read, {item.digest_raw: by_digest[item.digest_raw] for item in read.members})
            if read.length_bytes >= ALONE_BYTES:
                alone.append(task)
            else:
                yield task


def _wanted(source: ObjectSource, by_digest: Mapping[bytes, Sequence[Entry]], outcome: Outcome) -> Iterator[Wanted]:
    for digests in batched(by_digest, LOOKUP_MAX):
        found = source.find_placements(digests)
        for digest_raw in digests:
            placement = found.get(digest_raw)
            size_bytes = by_digest[digest_raw][0].size_bytes
            if placement is not None and placement.length_bytes == size_bytes:
                yield Wanted(digest_raw, placement)
                continue
            for entry in by_digest[digest_raw]:
                outcome.failures[entry.path] = f"object {entry.digest} has no placement of {size_bytes} bytes"


def _carry_out(driver: BlobDriver, target: Target, limits: Limits, task: _Task) -> Outcome:
    outcome = Outcome()
    only = task.read.members[0]
    if len(task.read.members) == 1:
        _place_one(driver, target, limits, only, task.entries[only.digest_raw], outcome)
        return outcome
    try:
        found = read_range(driver, task.read)
    except CorruptionError:
        # One damaged member must not take its neighbours along: each is read by itself, so that exactly the bad ones fail.
        for item in task.read.members:
            _place_one(driver, target, limits, item, task.entries[item.digest_raw], outcome)
        return outcome
    for digest_raw, body in found:
        for entry in task.entries[digest_raw]:
            _place(target, entry, (body,), outcome)
    return outcome


def _place_one(
    driver: BlobDriver, target: Target, limits: Limits, item: Wanted, entries: Sequence[Entry], outcome: Outcome
) -> None:
    if item.placement.length_bytes <= READ_BYTES_MAX:
        try:
            pieces = list(read_chunks(driver, item.placement, item.digest_raw, limits=limits))
        except CorruptionError as err:
            outcome.failures.update({entry.path: err.message for entry in entries})
            return
        for entry in entries:
            _place(target, entry, pieces, outcome)
        return
    for entry in entries:  # read again for each: not held in memory, and copies of large files are rare
        with closing(read_chunks(driver, item.placement, item.digest_raw, limits=limits)) as chunks:
            _place(target, entry, chunks, outcome)


def _place(target: Target, entry: Entry, chunks: Iterable[Buffer], outcome: Outcome) -> None:
    try:
        modified_ns = target.place(entry.path, chunks, mode=entry.mode, modified_ns=entry.modified_ns)
    except _STOPS:
        raise
    except VdsError as err:
        outcome.failures[entry.path] = err.message
    except OSError as err:
        outcome.failures[entry.path] = f"cannot be written: {err.strerror or err}"
    else:
        outcome.placed.append(PlacedFile(entry, modified_ns))


def check_target(target: Target, to_place: Iterable[Entry], paths: Iterable[str]) -> None:
    """Make the target, and check before the first byte that it can hold everything.

    Args:
        target: where to.
        to_place: what needs room.
        paths: every path that is to be there, sorted.

    Raises:
        DownloadError: it cannot hold some of the names.
        NoSpaceError: there is not enough room.
        ConflictError, InvalidInputError: the directory cannot be made or written.
    """
    target.open()
    faults = target.find_unholdable(paths)
    if faults:
        raise DownloadError(
            failures_message("placed here", faults),
            failures=faults,
            hint="choose another directory, or leave them out with a pattern",
        )
    target.check_space(sum(entry.size_bytes for entry in to_place))
