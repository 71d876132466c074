"""Read files of a version: one, many at once, or as a local file; every byte is checked before it is handed out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TypeVar

from vds.blobs.objects import EMPTY_PLACEMENT, Placement
from vds.blobs.reads import READ_BYTES_MAX, Wanted, plan_reads
from vds.engine.contents import Contents
from vds.engine.objectfile import ObjectFile, VersionFile
from vds.engine.view import View
from vds.errors import CorruptionError, InvalidInputError
from vds.model.batch import batched
from vds.model.checks import Checks
from vds.model.digest import EMPTY_RAW
from vds.model.entry import EntryRow
from vds.pipeline import parallel_map

T = TypeVar("T")
MANY_ROWS = 8192
MANY_BYTES = 256 * 1024 * 1024
"""What `read_many` plans at once, and so what it may hold: several threads fetch it while the caller works on it."""
WHOLE_BYTES_MAX = READ_BYTES_MAX
"""An object of which no pieces can be checked is kept in memory up to here by the file that reads it; a larger one on disk."""


@dataclass(frozen=True, slots=True)
class VersionReader:
    """Reads the files of one version.

    Attributes:
        view: which files, and where their bytes are.
        contents: of the store.
        view_anew: asks the index; for an object that is not where a local manifest has it.
    """

    view: View
    contents: Contents
    view_anew: View

    def read_bytes(self, row: EntryRow, offset_bytes: int = 0, size_bytes: int | None = None) -> bytes:
        """Return `size_bytes` of a file from `offset_bytes` (None: to the end); fewer where it ends, as a file object does.

        Raises:
            CorruptionError: the stored bytes are not what they must be.
        """
        end = row.size_bytes if size_bytes is None else min(row.size_bytes, offset_bytes + size_bytes)
        if offset_bytes >= end:
            return b""
        if end - offset_bytes < row.size_bytes:
            found = _Source(self, row).find_slice(offset_bytes, end - offset_bytes)
            if found is not None:
                return found
        if end - offset_bytes == row.size_bytes or row.size_bytes <= WHOLE_BYTES_MAX:
            return self.placed(row, self.contents.read_whole)[offset_bytes:end]
        with self.spool(row) as file:
            file.seek(offset_bytes)
            return file.read(end - offset_bytes)

    def spool(self, row: EntryRow) -> IO[bytes]:
        """Return a temporary file with the content of an entry, checked; the caller closes it.

        Raises:
            CorruptionError: the stored bytes are not what they must be.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller, who closes it

        def work(item: Wanted) -> None:
            file.seek(0)
            for chunk in self.contents.chunks(item):
                file.write(chunk)

        try:
            self.placed(row, work)
        except BaseException:
            file.close()
            raise
        return file

    def open(self, row: EntryRow, name: str) -> VersionFile:
        """Return a file object; nothing is read before it is asked for something."""
        return VersionFile(ObjectFile(_Source(self, row), name))

    def fetch(self, row: EntryRow) -> Path:
        """Return a read-only local file with the content of an entry; it stays while this process lives.

        Raises:
            CorruptionError: the stored bytes are not what they must be.
            InvalidInputError: there is no cache to keep it in.
        """
        path = self.placed(row, self.contents.hold)
        if path is None:
            raise InvalidInputError(
                f"{row.path!r} cannot be kept in a local cache: it is turned off, full, or cannot be written",
                hint="vds cache list; or set VDS_CACHE to a directory with room; or use version.download",
            )
        return path

    def read_many(self, rows: Iterable[EntryRow]) -> Iterator[tuple[EntryRow, bytes]]:
        """Yield each of these files with its bytes, in their order; those near each other in a pack come with one request.

        Raises:
            CorruptionError: stored bytes are not what they must be; what was yielded before is good.
        """
        group: list[EntryRow] = []
        held_bytes = 0
        for row in rows:
            group.append(row)
            held_bytes += row.size_bytes
            if len(group) == MANY_ROWS or held_bytes >= MANY_BYTES:
                yield from self._read_group(group)
                group, held_bytes = [], 0
        yield from self._read_group(group)

    def missing(self, rows: Iterable[EntryRow]) -> list[str]:
        """Return the paths of those files that this machine's cache does not have."""
        paths = []
        for group in batched(rows, MANY_ROWS):
            places = self.view.places(group)
            for row in group:
                place = places.get(row.digest, EMPTY_PLACEMENT)
                if not self.contents.has(Wanted(row.digest, place)):
                    paths.append(row.path)
        return paths

    def _read_group(self, rows: Sequence[EntryRow]) -> Iterator[tuple[EntryRow, bytes]]:
        places = self.view.places(rows)
        wanted = {}
        for one in rows:
            if one.digest != EMPTY_RAW and one.digest not in wanted:
                wanted[one.digest] = Wanted(one.digest, self._check_place(one, places.get(one.digest)))
        bodies: dict[bytes, bytes | memoryview] = {EMPTY_RAW: b""}
        left = iter(rows)
        row: EntryRow | None = next(left, None)
        reads = parallel_map(
            self.contents.read_members,
            plan_reads(wanted.values()),
            weigh=lambda read: read.length_bytes,
            in_flight_bytes_max=MANY_BYTES,
            ordered=False,
        )
        with closing(reads):
            try:
                for found in reads:
                    bodies.update(found)
                    while row is not None and row.digest in bodies:
                        yield row, bytes(bodies[row.digest])
                        row = next(left, None)
            except CorruptionError:
                if self.view is self.view_anew:
                    raise
        while row is not None:  # nothing of it was asked for, or some of it is no longer where the local manifest says
            yield row, bytes(bodies[row.digest]) if row.digest in bodies else self.read_bytes(row)
            row = next(left, None)

    def place(self, row: EntryRow) -> Placement:
        """Return where a file's object lies, by what the view says."""
        return self._place(self.view, row)

    def placed(self, row: EntryRow, work: Callable[[Wanted], T], place: Placement | None = None) -> T:
        """Do something with a file's object where it lies; where a local manifest is out of date, where it lies now.

        Args:
            row: of the file.
            work: is given the object.
            place: where it lies, when that was looked up before.

        Raises:
            CorruptionError: the stored bytes are not what they must be.
        """
        place = place or self.place(row)
        try:
            return work(Wanted(row.digest, place))
        except CorruptionError:
            if self.view is self.view_anew:
                raise
            now = self._place(self.view_anew, row)
            if now == place:
                raise
            return work(Wanted(row.digest, now))

    def _place(self, view: View, row: EntryRow) -> Placement:
        if row.digest == EMPTY_RAW:
            return EMPTY_PLACEMENT
        return self._check_place(row, view.places([row]).get(row.digest))

    def _check_place(self, row: EntryRow, found: Placement | None) -> Placement:
        if found is None or found.length_bytes != row.size_bytes:
            raise self.view_anew.missing(row)
        return found


class _Source:
    """One file; where it lies, and the checks of its pieces, are looked up once."""

    def __init__(self, reader: VersionReader, row: EntryRow) -> None:
        self.reader = reader
        self.row = row

    @cached_property
    def _place(self) -> Placement:
        return self.reader.place(self.row)

    @cached_property
    def _checks(self) -> Checks | None:
        return self.reader.view.checks(self.row)

    @property
    def size_bytes(self) -> int:
        return self.row.size_bytes

    @property
    def digest_raw(self) -> bytes:
        return self.row.digest

    def find_slice(self, offset_bytes: int, size_bytes: int) -> bytes | None:
        def work(item: Wanted) -> bytes | None:
            return self.reader.contents.read_slice(item, lambda: self._checks, offset_bytes, size_bytes)

        return self.reader.placed(self.row, work, self._place)

    def read_whole(self) -> bytes:
        return self.reader.read_bytes(self.row)

    def spool(self) -> IO[bytes] | None:
        return None if self.row.size_bytes <= WHOLE_BYTES_MAX else self.reader.spool(self.row)
