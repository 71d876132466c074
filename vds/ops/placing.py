"""Bring objects from blobs into a directory: what download and checkout share.

Small objects are read many to a request and placed by threads, or by processes beside them (`vds.ops.ranges`); large ones come in
ranges side by side (`vds.ops.pieces`); what the cache of this machine has as a file is placed from there. In memory are at most a
buffer of 8 MiB for each worker, and as many again that wait for their turn to be hashed: 128 MiB. What goes wrong with one file
(something stands in its way, its object is damaged) is collected; what goes wrong with everything (the service is away, the disk
is full) stops at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import EMPTY_PLACEMENT, Placement
from vds.blobs.packs import MEMBER_BYTES_END
from vds.blobs.reads import READ_BYTES_MAX, RangeRead, Wanted, plan_reads, read_chunks
from vds.buffers import BufferPool
from vds.errors import CorruptionError, DownloadError, VdsError, failures_message
from vds.files.cache import Cache
from vds.files.outcome import Outcome, PlacedFile
from vds.files.place import Target
from vds.files.placers import HELPER_FILES, Placers
from vds.model.batch import batched
from vds.model.digest import EMPTY_RAW
from vds.model.entry import Entry
from vds.ops.pieces import Piece, PiecePlacer, cut
from vds.ops.ranges import ByDigest, CachedRanges, RangePlacer
from vds.pipeline import TRANSFER_LIMITS, Limits, parallel_map
from vds.progress import Progress

LOOKUP_MAX = 1000
_PLANNED_AT_ONCE = 8192
"""As many files as a pack can hold, so that one request can serve them; fewer at first, so that requests leave after a lookup."""

FindPlacements = Callable[[Sequence[Entry]], Mapping[bytes, Placement]]


def no_place(entry: Entry) -> VdsError:
    """Return the error for an entry whose object stands nowhere, when no more is known."""
    return CorruptionError(f"{entry.path!r}: there is no place of object {entry.digest}", hint="run: vds fsck")


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """Where objects come from.

    Attributes:
        driver: reads blobs.
        find_placements: tells where the objects of some entries stand, at most 1 000 of them, by raw digest; unknown ones are
            left out. Asked in the order of the paths.
        cache: of this machine: what it has is placed from it. None where there is none.
        store_uid: whose keys these are, for the cache.
        keeps: whether what is read is kept in the cache; it is not when it would fill more than half of it, since a download of
            terabytes must not push everything else out.
        is_linked: whether files may be second, read-only names of those in the cache where the disk cannot share bytes.
        missing: the error for an entry whose object stands nowhere.
    """

    driver: BlobDriver
    find_placements: FindPlacements
    cache: Cache | None = None
    store_uid: str = ""
    keeps: bool = False
    is_linked: bool = False
    missing: Callable[[Entry], VdsError] = no_place

    def reason(self, entry: Entry) -> str:
        """Return why an entry's object stands nowhere, for a list that names its path already."""
        return str(self.missing(entry)).removeprefix(f"{entry.path!r}: ")


@dataclass(frozen=True, slots=True)
class _Small:
    """One request, and the entries that its objects become."""

    read: RangeRead
    entries: ByDigest


@dataclass(frozen=True, slots=True)
class _Cached:
    """An object that the cache has as a file at `path`, or is to have one of (None), and the entries that it becomes."""

    item: Wanted
    entries: Sequence[Entry]
    path: Path | None


_Task = _Small | _Cached | Piece


def place_entries(
    source: ObjectSource,
    target: Target,
    entries: Iterable[Entry],
    progress: Progress,
    *,
    limits: Limits = TRANSFER_LIMITS,
    prepare: Callable[[], None] | None = None,
) -> Outcome:
    """Place every entry; an object that several entries name is read once, as far as they are near each other.

    Args:
        source: of the objects.
        target: where to.
        entries: sorted by path, best: then what lies side by side in a blob is read together.
        progress: is told of files and bytes.
        limits: on workers and bytes in flight.
        prepare: called before the first file is placed, while processes that help are starting.

    Raises:
        UnavailableError, AccessDeniedError: the service failed; files placed so far stay.
        NoSpaceError: the disk is full; files placed so far stay.
    """
    outcome = Outcome()
    with closing(_Work(source, target, list(entries), limits)) as work:
        if prepare is not None:
            prepare()
        results = parallel_map(
            work.carry_out,
            work.tasks(outcome),
            workers=limits.workers,
            weigh=_weigh,
            in_flight_bytes_max=limits.in_flight_bytes_max,
            ordered=False,
        )
        with closing(results):
            for part, size_bytes in chain(results, map(work.carry_out, work.kept_alone)):
                outcome.add(part)
                progress.add(files=len(part.placed), bytes=size_bytes)
    if work.missed:
        outcome.add(place_entries(replace(source, cache=None), target, work.missed, progress, limits=limits))
    return outcome


def _weigh(task: _Task) -> int:
    if isinstance(task, _Small):
        return task.read.length_bytes
    return task.length_bytes if isinstance(task, Piece) else 0


class _Work:
    """One call of `place_entries`.

    Attributes:
        kept_alone: large objects that go by way of the cache: after all others, one after the other, with all requests.
        missed: entries whose objects the cache could not give or take after all: evicted meanwhile, or damaged.
    """

    def __init__(self, source: ObjectSource, target: Target, entries: Sequence[Entry], limits: Limits) -> None:
        self.kept_alone: list[_Cached] = []
        self.missed: list[Entry] = []
        self._entries = entries
        self._source = source
        self._target = target
        self._limits = limits
        self._cache = cache = source.cache
        self._keeps = cache is not None and source.keeps and 2 * sum(entry.size_bytes for entry in entries) <= cache.bytes_max
        small = sum(entry.size_bytes < MEMBER_BYTES_END for entry in entries)
        self._pool = BufferPool(READ_BYTES_MAX, is_shared=small >= HELPER_FILES[0])
        self._placers = Placers(target, self._pool, small)
        cached = CachedRanges(cache, source.store_uid, self._keeps)
        self._ranges = RangePlacer(source.driver, cached, self._placers, self._pool)
        self._pieces = PiecePlacer(source.driver, target, self._pool, limits.workers, cache if self._keeps else None)

    def close(self) -> None:
        """End the helpers and remove what is not whole; nothing may be running."""
        self._placers.close()
        self._pieces.close()
        self._pool.close()

    def tasks(self, outcome: Outcome) -> Iterator[_Task]:
        """Yield what is to be done, in the order of the entries; those that cannot be read from anywhere go to `outcome`."""
        remaining = iter(self._entries)
        for count in chain((LOOKUP_MAX, 2 * LOOKUP_MAX, 4 * LOOKUP_MAX), repeat(_PLANNED_AT_ONCE)):
            found = ByDigest(islice(remaining, count))
            if not found.first:
                self._placers.end_planning()
                return
            if EMPTY_RAW in found.first:
                yield _Small(RangeRead("", 0, 0, (Wanted(EMPTY_RAW, EMPTY_PLACEMENT),)), found)
            cached = dict(self._find_cached(found))
            for digest_raw, path in cached.items():
                entries = found.of(digest_raw)
                yield _Cached(Wanted(digest_raw, Placement("", 0, entries[0].size_bytes)), entries, path)
            unknown = (raw for raw in found.first if raw != EMPTY_RAW and raw not in cached)
            for read in plan_reads(self._wanted(unknown, found, outcome), read_bytes_max=READ_BYTES_MAX):
                yield from self._tasks_of(read, found)

    def carry_out(self, task: _Task) -> tuple[Outcome, int]:
        """Do one task, and return what came of it and how many bytes were brought."""
        if isinstance(task, Piece):
            return self._pieces.place(task), task.length_bytes
        outcome = self._ranges.place(task.read, task.entries) if isinstance(task, _Small) else self._place_cached(task)
        return outcome, outcome.placed_bytes

    def _find_cached(self, entries: ByDigest) -> Iterator[tuple[bytes, Path]]:
        """Yield the objects that the cache has as files."""
        if self._cache is not None:
            for digest_raw, entry in entries.first.items():
                if entry.size_bytes >= MEMBER_BYTES_END and (path := self._cache.find_object(digest_raw)) is not None:
                    yield digest_raw, path

    def _wanted(self, unknown: Iterable[bytes], entries: ByDigest, outcome: Outcome) -> Iterator[Wanted]:
        for digests in batched(unknown, LOOKUP_MAX):
            self._placers.note_planning()
            found = self._source.find_placements([entries.first[digest_raw] for digest_raw in digests])
            for digest_raw in digests:
                placement = found.get(digest_raw)
                size_bytes = entries.first[digest_raw].size_bytes
                if placement is not None and placement.length_bytes == size_bytes:
                    yield Wanted(digest_raw, placement)
                    continue
                for entry in entries.of(digest_raw):
                    outcome.failures[entry.path] = self._source.reason(entry)

    def _tasks_of(self, read: RangeRead, entries: ByDigest) -> Iterator[_Task]:
        first = read.members[0]
        if self._keeps and self._source.is_linked and first.placement.length_bytes >= MEMBER_BYTES_END:
            task = _Cached(first, entries.of(first.digest_raw), None)
            if read.length_bytes <= READ_BYTES_MAX:
                yield task
            else:
                self.kept_alone.append(task)
        elif read.length_bytes <= READ_BYTES_MAX:
            yield _Small(read, entries)
        else:
            yield from cut(first, entries.of(first.digest_raw), READ_BYTES_MAX)

    def _place_cached(self, task: _Cached) -> Outcome:
        outcome = Outcome()
        path = task.path
        if path is None:
            try:
                path = self._bring_to_cache(task.item)
            except CorruptionError as err:
                outcome.fail(task.entries, err)
                return outcome
        for entry in task.entries:
            if path is None:
                self.missed.append(entry)
            else:
                self._place_from(path, entry, outcome)
        return outcome

    def _bring_to_cache(self, item: Wanted) -> Path | None:
        assert self._cache is not None
        size_bytes = item.placement.length_bytes
        limits = self._limits if size_bytes > READ_BYTES_MAX else Limits(1, self._limits.in_flight_bytes_max)
        with closing(read_chunks(self._source.driver, item.placement, item.digest_raw, limits=limits)) as chunks:
            return self._cache.put_object(item.digest_raw, chunks, size_bytes=size_bytes)

    def _place_from(self, path: Path, entry: Entry, outcome: Outcome) -> None:
        assert self._cache is not None
        try:
            stamp = self._target.place_file(
                entry.path,
                path,
                size_bytes=entry.size_bytes,
                digest_raw=entry.digest.raw,
                mode=entry.mode,
                modified_ns=entry.modified_ns,
                is_linked=self._source.is_linked,
            )
        except FileNotFoundError:  # evicted a moment ago
            self.missed.append(entry)
        except CorruptionError:
            self._cache.drop_object(entry.digest.raw)
            self.missed.append(entry)
        except (VdsError, OSError) as err:
            outcome.fail([entry], err)
        else:
            outcome.placed.append(PlacedFile(entry, *stamp))


def check_target(
    target: Target, to_place: Sequence[Entry], paths: Iterable[str], *, removed_bytes: int = 0, replaced_bytes: int = 0
) -> None:
    """Make the target, and check before the first byte that it can hold everything.

    Args:
        target: where to.
        to_place: what needs room.
        paths: every path that is to be there, sorted.
        removed_bytes: of files that are removed before anything is placed.
        replaced_bytes: of files in whose place others are put, and which take up room until then.

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
    needed_bytes = target.round_up(entry.size_bytes for entry in to_place) - removed_bytes
    target.check_space(needed_bytes, files=len(to_place), replaced_bytes=replaced_bytes)
