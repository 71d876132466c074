"""Hold a directory against a version and against the record of what vds placed there, and decide what a checkout does."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from vds.errors import InvalidInputError
from vds.files.place import Target
from vds.files.placer import Stamp
from vds.files.record import PlacedRow, read_row
from vds.files.scan import OWN_DIRECTORY, ScanReport, SourceFile, scan_directory
from vds.model.batch import grouped
from vds.model.entry import Entry
from vds.model.path import EntryPath, ancestors, entry_path
from vds.pipeline import HASH_WORKERS, parallel_map
from vds.progress import Progress

_HASHED_AT_ONCE = 64
_HASHED_BYTES = 8 * 1024 * 1024


class Found(NamedTuple):
    """A regular file in the directory.

    Attributes:
        size_bytes: when it was looked at.
        stamp: likewise.
        mode: None where the system keeps none.
        digest_raw: of its bytes; None when its size alone says that it differs from everything it could equal.
        read_at_ns: when it began to be read; 0 when the record said what it is.
    """

    size_bytes: int
    stamp: Stamp
    mode: int | None
    digest_raw: bytes | None = None
    read_at_ns: int = 0


class Spot(NamedTuple):
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
        removed_bytes: of the files to remove, which are gone before the first one is placed.
        replaced_bytes: of the files that others take the place of, each gone only then.
    """

    to_place: tuple[Entry, ...]
    to_remove: tuple[EntryPath, ...]
    kept: tuple[PlacedRow, ...]
    foreign: tuple[str, ...]
    changed: tuple[EntryPath, ...]
    blocked: tuple[EntryPath, ...]
    removed_bytes: int = 0
    replaced_bytes: int = 0


def plan_checkout(spots: Iterable[Spot], *, force: bool) -> CheckoutPlan:
    """Decide for each path."""
    to_place: list[Entry] = []
    to_remove: list[EntryPath] = []
    kept: list[PlacedRow] = []
    foreign: list[str] = []
    changed: list[EntryPath] = []
    removed_bytes = replaced_bytes = 0
    for spot in spots:
        if spot.entry is None and not spot.rows:
            foreign.append(spot.path)
        elif not (spot.is_ours or (force and not spot.is_odd)):
            changed.append(spot.path)
        elif spot.entry is None:
            if spot.found is not None:
                to_remove.append(spot.path)
                removed_bytes += spot.found.size_bytes
        elif spot.is_equal:
            kept.append(_kept_row(spot))
        else:
            to_place.append(spot.entry)
            replaced_bytes += spot.found.size_bytes if spot.found is not None else 0
    return CheckoutPlan(
        tuple(to_place),
        tuple(to_remove),
        tuple(kept),
        tuple(foreign),
        tuple(changed),
        tuple(_find_blocked(to_place, foreign)),
        removed_bytes,
        replaced_bytes,
    )


def _kept_row(spot: Spot) -> PlacedRow:
    entry, found = spot.entry, spot.found
    assert entry is not None
    assert found is not None
    if found.read_at_ns:
        return read_row(entry, found.stamp, found.read_at_ns)
    return PlacedRow(entry.path, entry.digest, entry.size_bytes, entry.mode, *found.stamp)


def _find_blocked(to_place: list[Entry], foreign: list[str]) -> Iterator[EntryPath]:
    files = set(foreign)
    directories = {directory for path in foreign for directory in ancestors(path)}
    for entry in to_place:
        if entry.path in directories or not files.isdisjoint(ancestors(entry.path)):
            yield entry.path


def compare(target: Target, entries: Iterable[Entry], rows: Iterable[PlacedRow], progress: Progress) -> list[Spot]:
    """Return every path that is wanted, recorded or there, sorted.

    A file that the record knows (see `PlacedRow.fits`) is taken for unchanged; others are read, in parallel, when their size
    allows them to be equal to anything.
    """
    report = ScanReport()
    present = scan_directory(target.root, report, follow_symlinks=False) if os.path.isdir(target.root) else iter(())
    spots = list(_merge(entries, rows, present))
    odd = {*report.failures, *report.symlinked_directories}
    unread = [index for index, spot in enumerate(spots) if spot.found and spot.found.digest_raw is None and _may_equal(spot)]

    def read(indices: list[int]) -> list[tuple[int, bytes | None, int]]:
        read_at_ns = time.time_ns()
        found = [(index, target.find_digest(spots[index].path), read_at_ns) for index in indices]
        progress.add(files=len(indices))
        return found

    groups = grouped(unread, lambda index: _size(spots[index]), count_max=_HASHED_AT_ONCE, bytes_max=_HASHED_BYTES)
    for group in parallel_map(read, groups, workers=HASH_WORKERS):
        for index, digest_raw, read_at_ns in group:
            found = spots[index].found
            assert found is not None
            spots[index] = spots[index]._replace(found=found._replace(digest_raw=digest_raw, read_at_ns=read_at_ns))
    return _with_odd(spots, odd) if odd else spots


def find_foreign(root: str, rows: Sequence[PlacedRow]) -> tuple[str, ...] | None:
    """Return the paths that are there and not in `rows`, if all that are in them are as they were; else None.

    It looks at each file once and reads none. Whatever is not plain (a symlink, a name that cannot be an entry) is None too.
    """
    known: dict[str, tuple[int, ...]] = {row.path: row[2:] for row in rows}
    if len(known) != len(rows):
        return None
    foreign: list[str] = []
    left = len(rows)
    directories = [("", root)]
    try:
        while directories:
            prefix, directory = directories.pop()
            with os.scandir(directory) as items:
                for item in items:
                    path = prefix + item.name
                    row = known.get(path)
                    if row is not None:
                        found = item.stat(follow_symlinks=False)
                        size_bytes, _, modified_ns, changed_ns, inode = row
                        # A file of the same ctime has the type and the mode that it had.
                        if (
                            found.st_mtime_ns != modified_ns
                            or found.st_ctime_ns != changed_ns
                            or found.st_size != size_bytes
                            or found.st_ino != inode
                            or not changed_ns
                        ):
                            return None
                        left -= 1
                    elif item.is_dir(follow_symlinks=False):
                        if path != OWN_DIRECTORY:
                            directories.append((f"{path}/", item.path))
                    elif item.is_file(follow_symlinks=False) and entry_path(path) == path:
                        foreign.append(path)
                    else:
                        return None
    except (OSError, InvalidInputError):
        return None
    return None if left else tuple(sorted(foreign))


def _with_odd(spots: list[Spot], odd: set[str]) -> list[Spot]:
    marked = [spot._replace(is_odd=True) if spot.path in odd else spot for spot in spots]
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
    stamp = Stamp(file.modified_ns, file.changed_ns, file.inode)
    digest_raw = next((row.digest.raw for row in rows if row.fits(file)), None)
    return Found(file.size_bytes, stamp, mode, digest_raw)


def _size(spot: Spot) -> int:
    return spot.found.size_bytes if spot.found else 0


def _may_equal(spot: Spot) -> bool:
    assert spot.found is not None
    sizes = {row.size_bytes for row in spot.rows} | ({spot.entry.size_bytes} if spot.entry else set())
    return spot.found.size_bytes in sizes
