"""What one version holds, in a file of this machine: read by any number of processes, without a database.

    file    = magic, rows, paths, ends, order, blobs, tables, checks, footer, trailer
    rows    = "<32sQqQIHH" each, by path: digest, size, mtime in ns, offset in its blob, its number (2^32-1: none), mode, 0
    paths   = the UTF-8 of all paths, back to back; ends = one u64 a row, where its path ends in them
    order   = the numbers of the rows that have a blob, one u32 each, by blob and offset: the order in which their bytes lie
    blobs   = the keys of the blobs, one a line
    tables  = "<IIQ" for each row that has checks: its number, the size of a piece, where its table begins in checks
    footer  = JSON: where each section begins, and what is known of the version
    trailer = "<QQ": where the footer begins, XXH3-64 of all before that sum

Integers are little-endian. The file never changes; it is mapped, so processes share its memory. A reader checks all of it once,
when it opens it, which takes some milliseconds for a million files. Where an object lies may change (a collector moves it to
another blob; the bytes under a key never change), so what is not found there is to be asked for anew.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import IO, Any, BinaryIO, Literal, NamedTuple

import xxhash

from vds.errors import CorruptionError
from vds.model.batch import batched
from vds.model.checks import CHECK_BYTES, Checks, has_checks
from vds.model.entry import EntryRow, NumberedRow
from vds.model.path import range_below

MAGIC = b"VDSLMAN1"
NO_BLOB = 2**32 - 1
FOOTER_BYTES_MAX = 4 * 1024 * 1024
"""What is known of a version stands in its record too, which has at most 1 MiB."""
_ROW = struct.Struct("<32sQqQIHH")
_TABLE = struct.Struct("<IIQ")
_SUM = struct.Struct("<Q")
_OFFSET_BITS = 27  # packs are of at most 64 MiB; any other blob holds one object, at offset 0
_ROWS_AT_ONCE = 4096
_TABLES_AT_ONCE = 64  # of up to 128 KiB each
_COPY_BYTES = 1 << 20
_PATHS_IN_MEMORY_BYTES = 64 * 1024 * 1024
_MADE_UP = (struct.error, IndexError, ValueError)
"""What comes of a file whose sum is right and whose rows are not: only who wrote it on purpose makes one."""
_SECTIONS = ("rows", "paths", "ends", "order", "blobs", "tables", "checks", "footer")


class PlacedRow(NamedTuple):
    """One file of a version, and where its bytes lie: under this key; None when they lie nowhere, as those of an empty file."""

    entry: EntryRow
    key: str | None
    offset_bytes: int


def write_manifest(
    file: BinaryIO,
    rows: Iterable[NumberedRow],
    find_keys: Callable[[Sequence[int]], Mapping[int, str]],
    find_checks: Callable[[Sequence[bytes]], Mapping[bytes, Checks]],
    facts: Mapping[str, Any],
) -> None:
    """Write the file of a version; about 150 bytes of memory a row are needed for its order.

    Args:
        file: where to.
        rows: sorted by path.
        find_keys: tells the keys of some blobs, by number.
        find_checks: tells the checks of those of some digests that have them.
        facts: what is known of the version; must be JSON.
    """
    _Writer(file).write(rows, find_keys, find_checks, facts)


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hasher = xxhash.xxh3_64()
        self._position = 0
        self._sections: dict[str, int] = {}
        self._ends = array("Q")
        self._places = array("Q")
        self._blobs: dict[int, int] = {}  # the index's number → ours, in the order of our numbers
        self._large: list[tuple[int, bytes]] = []

    def write(self, rows: Iterable[NumberedRow], find_keys: Any, find_checks: Any, facts: Mapping[str, Any]) -> None:
        self._put(MAGIC)
        with tempfile.SpooledTemporaryFile(_PATHS_IN_MEMORY_BYTES) as paths:
            self._begin("rows")
            for batch in batched(rows, _ROWS_AT_ONCE):
                self._put_rows(batch, paths)
            self._begin("paths")
            self._copy(paths)
        self._begin("ends")
        self._put(_little(self._ends).tobytes())
        self._begin("order")
        placed = [number for number, place in enumerate(self._places) if place >> _OFFSET_BITS != NO_BLOB]
        placed.sort(key=self._places.__getitem__)
        self._put(_little(array("I", placed)).tobytes())
        self._begin("blobs")
        for some in batched(self._blobs, _ROWS_AT_ONCE):
            keys = find_keys(some)
            self._put("".join(f"{keys[blob]}\n" for blob in some).encode())
        self._put_checks(find_checks)
        self._begin("footer")
        footer = {"byteorder": "little", "count": len(self._ends), "sections": self._sections, "facts": dict(facts)}
        self._put(json.dumps(footer, separators=(",", ":"), sort_keys=True).encode())
        self._put(_SUM.pack(self._sections["footer"]))
        self._file.write(_SUM.pack(self._hasher.intdigest()))

    def _put_rows(self, batch: Sequence[NumberedRow], paths: IO[bytes]) -> None:
        packed, texts = [], []
        end = self._ends[-1] if self._ends else 0
        for (path, digest, size_bytes, mode, modified_ns), blob, offset_bytes in batch:
            own = NO_BLOB if blob is None else self._blobs.setdefault(blob, len(self._blobs))
            packed.append(_ROW.pack(digest, size_bytes, modified_ns, offset_bytes, own, mode, 0))
            text = path.encode()
            texts.append(text)
            end += len(text)
            if blob is not None and has_checks(size_bytes):
                self._large.append((len(self._ends), digest))
            self._ends.append(end)
            self._places.append(own << _OFFSET_BITS | offset_bytes)
        paths.write(b"".join(texts))
        self._put(b"".join(packed))

    def _put_checks(self, find_checks: Any) -> None:
        tables = []
        begin = 0
        with tempfile.SpooledTemporaryFile(_PATHS_IN_MEMORY_BYTES) as checks:
            for some in batched(self._large, _TABLES_AT_ONCE):
                found: Mapping[bytes, Checks] = find_checks([digest for _, digest in some])
                for number, digest in some:
                    if digest in found:
                        tables.append(_TABLE.pack(number, found[digest].piece_bytes, begin))
                        begin += checks.write(found[digest].raw)
            self._begin("tables")
            self._put(b"".join(tables))
            self._begin("checks")
            self._copy(checks)

    def _copy(self, source: IO[bytes]) -> None:
        source.seek(0)
        while data := source.read(_COPY_BYTES):
            self._put(data)

    def _begin(self, section: str) -> None:
        self._sections[section] = self._position

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hasher.update(data)
        self._position += len(data)


class LocalManifest:
    """The file of a version, open for reading. Thread-safe; a forked child may go on using it.

    Args:
        path: of the file.

    Raises:
        CorruptionError: it is damaged, cut, or of another format.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = path
        with open(path, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes < len(MAGIC) + 2 * _SUM.size:
                raise _damaged(path)
            self._map = memoryview(mmap.mmap(file.fileno(), size_bytes, access=mmap.ACCESS_READ))
        if (
            self._map[: len(MAGIC)] != MAGIC
            or xxhash.xxh3_64_intdigest(self._map[: -_SUM.size]) != _SUM.unpack(self._map[-_SUM.size :])[0]
        ):
            raise _damaged(path)
        [footer_at] = _SUM.unpack(self._map[-2 * _SUM.size : -_SUM.size])
        try:
            if size_bytes - footer_at > FOOTER_BYTES_MAX:
                raise ValueError("the footer is too long")
            footer = json.loads(bytes(self._map[footer_at : -2 * _SUM.size]).decode())
            self.facts: Mapping[str, Any] = footer["facts"]
            self.count: int = footer["count"]
            bounds = [footer["sections"][name] for name in _SECTIONS]
            sections = {name: self._map[begin:end] for name, begin, end in zip(_SECTIONS, bounds, bounds[1:], strict=False)}
            self._rows, self._paths, self._checks = sections["rows"], sections["paths"], sections["checks"]
            self._tables = sections["tables"]
            self._ends = _integers("Q", sections["ends"])
            self._order = _integers("I", sections["order"])
            self._keys = bytes(sections["blobs"]).decode().split("\n")
            self._check_sections(bounds)
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            raise _damaged(path) from err

    def _check_sections(self, bounds: Sequence[int]) -> None:
        """Check what each reading leans on. The sum tells damage; this is for a file that somebody made up.

        Raises:
            ValueError, TypeError: the sections are not those of a list.
        """
        is_number = type(self.count) is int and all(type(bound) is int for bound in bounds)
        if not is_number or not isinstance(self.facts, dict) or list(bounds) != sorted(bounds) or bounds[0] != len(MAGIC):
            raise ValueError("the footer is not one")
        if len(self._rows) != self.count * _ROW.size or len(self._ends) != self.count or len(self._tables) % _TABLE.size:
            raise ValueError("the sections do not fit each other")

    def find(self, path: str) -> PlacedRow | None:
        """Return the file with exactly this path, or None."""
        number = self._first(path)
        if number < self.count and self._path(number) == path.encode():
            return self.row(number)
        return None

    def row(self, number: int) -> PlacedRow:
        """Return the row of a number, from 0, in the order of the paths.

        Raises:
            CorruptionError: the file was made up: its sum is right, and what it holds is not.
        """
        try:
            digest, size_bytes, modified_ns, offset_bytes, blob, mode, _ = _ROW.unpack_from(self._rows, number * _ROW.size)
            entry = EntryRow(self._path(number).decode(), digest, size_bytes, mode, modified_ns)
            return PlacedRow(entry, None if blob == NO_BLOB else self._keys[blob], offset_bytes)
        except _MADE_UP as err:
            raise _damaged(self._file) from err

    def rows(self, path: str = "", after: str = "") -> Iterator[PlacedRow]:
        """Yield the files that are `path` or below it and sort after `after`, by path."""
        if path:
            own = self._first(path)
            if own < self.count and path > after and self._path(own) == path.encode():
                yield self.row(own)
        first, end = range_below(path) if path else ("", None)
        begin = self._first(first)
        if after and after >= first:
            begin = bisect_right(range(self.count), after.encode(), key=self._path)
        yield from self._between(begin, self.count if end is None else self._first(end))

    @property
    def order(self) -> memoryview[int] | array[int]:
        """Return the numbers of the rows that have a blob, in the order in which their bytes lie: by blob, then by offset."""
        return self._order

    def place(self, number: int) -> tuple[str, int, int]:
        """Return where the bytes of a row of `order` lie: key, offset, length."""
        try:
            _, size_bytes, _, offset_bytes, blob, _, _ = _ROW.unpack_from(self._rows, number * _ROW.size)
            return self._keys[blob], offset_bytes, size_bytes
        except _MADE_UP as err:
            raise _damaged(self._file) from err

    def numbers(self, path: str) -> range:
        """Return the numbers of the files that are `path` or below it; a version has no file where it has a directory."""
        own = self._first(path)
        if path and own < self.count and self._path(own) == path.encode():
            return range(own, own + 1)
        return range(*self._range(path))

    def find_checks(self, path: str) -> Checks | None:
        """Return the checks of the pieces of a file; None when there are none."""
        number = self._first(path)
        count = len(self._tables) // _TABLE.size
        at = bisect_left(range(count), number, key=lambda i: _TABLE.unpack_from(self._tables, i * _TABLE.size)[0])
        if at == count:
            return None
        found, piece_bytes, begin = _TABLE.unpack_from(self._tables, at * _TABLE.size)
        if found != number or self._path(number) != path.encode() or not piece_bytes:
            return None
        length = CHECK_BYTES * -(-self.row(number).entry.size_bytes // piece_bytes)
        return Checks(piece_bytes, bytes(self._checks[begin : begin + length]))

    def has(self, path: str) -> bool:
        """Return whether `path` is a file or a directory here."""
        begin, end = self._range(path)
        return begin < end or self.find(path) is not None

    def measure(self, path: str) -> tuple[int, int]:
        """Return how many files are at or below `path`, and their bytes."""
        begin, end = self._range(path)
        own = self.find(path) if path else None
        sizes = (row[1] for row in _ROW.iter_unpack(self._rows[begin * _ROW.size : end * _ROW.size]))
        return end - begin + (own is not None), sum(sizes) + (own.entry.size_bytes if own is not None else 0)

    def _range(self, path: str) -> tuple[int, int]:
        if not path:
            return 0, self.count
        first, end = range_below(path)
        return self._first(first), self._first(end)

    def _between(self, begin: int, end: int) -> Iterator[PlacedRow]:
        keys, paths, ends = self._keys, self._paths, self._ends
        rows = _ROW.iter_unpack(self._rows[begin * _ROW.size : end * _ROW.size])
        start = ends[begin - 1] if begin else 0
        for stop, row in zip(islice(ends, begin, end) if begin == 0 else ends[begin:end], rows, strict=True):
            digest, size_bytes, modified_ns, offset_bytes, blob, mode, _ = row
            try:
                entry = EntryRow(str(paths[start:stop], "utf-8"), digest, size_bytes, mode, modified_ns)
                placed = PlacedRow(entry, None if blob == NO_BLOB else keys[blob], offset_bytes)
            except _MADE_UP as err:
                raise _damaged(self._file) from err
            start = stop
            yield placed

    def _first(self, path: str) -> int:
        """Return the number of the first row whose path is not before `path`."""
        return bisect_left(range(self.count), path.encode(), key=self._path)

    def _path(self, number: int) -> bytes:
        return bytes(self._paths[self._ends[number - 1] if number else 0 : self._ends[number]])


def read_facts(path: str | os.PathLike[str]) -> Mapping[str, Any] | None:
    """Return what a file says of its version, from its last bytes alone; None when it cannot be read. Nothing is checked."""
    try:
        with open(path, "rb") as file:
            end = file.seek(-2 * _SUM.size, os.SEEK_END)
            [begin] = _SUM.unpack(file.read(_SUM.size))
            if not 0 < end - begin <= FOOTER_BYTES_MAX:
                return None
            file.seek(begin)
            facts = json.loads(file.read(end - begin).decode())["facts"]
            return facts if isinstance(facts, dict) else None
    except (OSError, ValueError, KeyError, TypeError, struct.error, RecursionError):
        return None


def find_manifest(path: str | os.PathLike[str]) -> LocalManifest | None:
    """Open the file of a version; None when it is not there or damaged, and then it is removed: it is made anew."""
    try:
        return LocalManifest(path)
    except FileNotFoundError:
        return None
    except CorruptionError:
        with suppress(OSError):
            os.unlink(path)
        return None


def _integers(kind: Literal["I", "Q"], section: memoryview) -> memoryview[int] | array[int]:
    if sys.byteorder == "little":
        return section.cast(kind)
    return _little(array(kind, bytes(section)))


def _little(values: array[int]) -> array[int]:
    if sys.byteorder != "little":
        values.byteswap()
    return values


def _damaged(path: str | os.PathLike[str]) -> CorruptionError:
    return CorruptionError(f"the list of a version's files in {os.fspath(path)!r} is damaged", hint="vds cache verify")


assert array("I").itemsize == 4
assert array("Q").itemsize == 8
