"""Hold a directory against a version and against the record of what vds placed there, and decide what a checkout does."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from vds.files.place import Target
from vds.files.record import PlacedRow
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.model.batch import grouped
from vds.model.entry import Entry
from vds.model.path import EntryPath, ancestors
from vds.pipeline import HASH_WORKERS, parallel_map
from vds.progress import Progress

_HASHED_AT_ONCE = 64
_HASHED_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file in the directory.

    Attributes:
        size_bytes: when it was looked at.
        modified_ns: likewise.
        mode: None where the system keeps none.
        digest_raw: of its bytes; None when its size alone says that it differs from everything it could equal.
    """

    size_bytes: int
    modified_ns: int
    mode: int | None
    digest_raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Spot:
    """One path: what the version wants there, what vds placed there (two rows after a crash), and what is there.

    Attributes:
        is_odd: something is there that is not a regular file, such as a symlink.
    """

    path: EntryPath
    entry: Entry | None
    rows: tuple[PlacedRow, ...]
    found: Found | None
    is_odd: bool = False

    @property
    def is_equal(self) -> bool:
        """Whether the file is what the version wants."""
        if self.entry is None or self.found is None:
            return False
        return self.found.digest_raw == self.entry.digest.raw and self.found.mode in (None, self.entry.mode)

    @property
    def is_ours(self) -> bool:
        """Whether the file's bytes are some that vds placed here, or is about to: nothing is lost with it."""
        if self.found is None:
            return not self.is_odd
        known = [row.digest.raw for row in self.rows] + ([self.entry.digest.raw] if self.entry else [])
        return self.found.digest_raw in known


@dataclass(frozen=True, slots=True)
class CheckoutPlan:
    """What a checkout does; all in the order of the paths.

    Attributes:
        to_place: entries to write.
        to_remove: files to remove.
        kept: files that are right already, as they will be recorded.
        foreign: what vds never placed and the version has not.
        changed: what would be lost, and therefore forbids the checkout.
        blocked: entries for which a foreign file stands in the way; they forbid it as well.
    """

    to_place: tuple[Entry, ...]
    to_remove: tuple[EntryPath, ...]
    kept: tuple[PlacedRow, ...]
    foreign: tuple[str, ...]
    changed: tuple[EntryPath, ...]
    blocked: tuple[EntryPath, ...]


def plan_checkout(spots: Iterable[Spot], *, force: bool) -> CheckoutPlan:
    """Decide for each path."""
    to_place: list[Entry] = []
    to_remove: list[EntryPath] = []
    kept: list[PlacedRow] = []
    foreign: list[str] = []
    changed: list[EntryPath] = []
    for spot in spots:
        if spot.entry is None and not spot.rows:
            foreign.append(spot.path)
        elif not (spot.is_ours or (force and not spot.is_odd)):
            changed.append(spot.path)
        elif spot.entry is None:
            if spot.found is not None:
                to_remove.append(spot.path)
        elif spot.is_equal:
            assert spot.found is not None
            entry = spot.entry
            kept.append(PlacedRow(entry.path, entry.digest, entry.size_bytes, entry.mode, spot.found.modified_ns))
        else:
            to_place.append(spot.entry)
    return CheckoutPlan(
        tuple(to_place), tuple(to_remove), tuple(kept), tuple(foreign), tuple(changed), tuple(_find_blocked(to_place, foreign))
    )


def _find_blocked(to_place: list[Entry], foreign: list[str]) -> Iterator[EntryPath]:
    files = set(foreign)
    directories = {directory for path in foreign for directory in ancestors(path)}
    for entry in to_place:
        if entry.path in directories or not files.isdisjoint(ancestors(entry.path)):
            yield entry.path


def compare(target: Target, entries: Iterable[Entry], rows: Iterable[PlacedRow], progress: Progress) -> list[Spot]:
    """Return every path that is wanted, recorded or there, sorted.

    A file whose size and mtime are those that vds left it with is taken for unchanged; others are read, in parallel, when their
    size allows them to be equal to anything.
    """
    report = ScanReport()
    present = scan_directory(target.root, report, follow_symlinks=False) if os.path.isdir(target.root) else iter(())
    spots = list(_merge(entries, rows, present))
    odd = {*report.failures, *report.symlinked_directories}
    unread = [index for index, spot in enumerate(spots) if spot.found and spot.found.digest_raw is None and _may_equal(spot)]

    def read(indices: list[int]) -> list[tuple[int, bytes | None]]:
        found = [(index, target.find_digest(spots[index].path)) for index in indices]
        progress.add(files=len(indices))
        return found

    groups = grouped(unread, lambda index: _size(spots[index]), count_max=_HASHED_AT_ONCE, bytes_max=_HASHED_BYTES)
    for group in parallel_map(read, groups, workers=HASH_WORKERS):
        for index, digest_raw in group:
            found = spots[index].found
            assert found is not None
            spots[index] = replace(spots[index], found=replace(found, digest_raw=digest_raw))
    return _with_odd(spots, odd) if odd else spots


def _with_odd(spots: list[Spot], odd: set[str]) -> list[Spot]:
    marked = [replace(spot, is_odd=True) if spot.path in odd else spot for spot in spots]
    known = {spot.path for spot in spots}
    marked += [Spot(EntryPath(path), None, (), None, is_odd=True) for path in odd - known]
    return sorted(marked, key=lambda spot: spot.path)


def _merge(entries: Iterable[Entry], rows: Iterable[PlacedRow], files: Iterable[SourceFile]) -> Iterator[Spot]:
    streams: list[Iterator[tuple[str, Any]]] = [
        ((item.path, item) for item in entries),
        ((item.path, item) for item in rows),
        ((item.path, item) for item in files),
    ]
    for path, group in groupby(heapq.merge(*streams, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
        entry: Entry | None = None
        placed: list[PlacedRow] = []
        file: SourceFile | None = None
        for _, item in group:
            if isinstance(item, Entry):
                entry = item
            elif isinstance(item, PlacedRow):
                placed.append(item)
            else:
                file = item
        yield Spot(EntryPath(path), entry, tuple(placed), _found(file, placed) if file else None)


def _found(file: SourceFile, rows: list[PlacedRow]) -> Found:
    mode = None if os.name == "nt" else file.mode
    for row in rows:
        if (file.size_bytes, file.modified_ns) == (row.size_bytes, row.modified_ns):
            return Found(file.size_bytes, file.modified_ns, mode, row.digest.raw)
    return Found(file.size_bytes, file.modified_ns, mode)


def _size(spot: Spot) -> int:
    return spot.found.size_bytes if spot.found else 0


def _may_equal(spot: Spot) -> bool:
    assert spot.found is not None
    sizes = {row.size_bytes for row in spot.rows} | ({spot.entry.size_bytes} if spot.entry else set())
    return spot.found.size_bytes in sizes
