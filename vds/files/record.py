"""What vds placed in a directory: `DIR/.vds/checkout.jsonl`, by which a later checkout knows its own files from the user's.

The first line is a header, each further one up to a thousand files, sorted by path, each attribute in a list of its own. While a
checkout runs, the record lists what stood there before and what is about to stand there (so a path may come twice) and its header
says that it is not complete: whatever moment a crash comes at, every file that vds placed is known.

A row is trusted without reading the file when size, mtime, ctime and inode are what they were, and only if every later change
must show in them. File systems stamp with a clock that ticks: within the tick in which a file was placed, a write would leave its
ctime as it is, and must then show in the mtime. It does when that is not of about the same moment, as for almost all files, whose
mtime is that of their source. Other rows hold the ctime 0, which no file has, until a later reading finds the file old enough.
What is not seen is who, within 20 ms after a file was placed, writes as many bytes into it and sets its old mtime to the
nanosecond.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TextIO

from vds.errors import CorruptionError, FormatError
from vds.files.place import Target
from vds.files.placer import Stamp
from vds.files.scan import OWN_DIRECTORY, SourceFile
from vds.files.statcache import COARSE_TICK_NS, TICK_NS
from vds.model.batch import batched
from vds.model.digest import Digest
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE, Entry
from vds.model.fields import INT64_MAX
from vds.model.path import EntryPath, entry_path

RECORD_PATH = EntryPath(f"{OWN_DIRECTORY}/checkout.jsonl")
_FORMAT = 2
_FORMAT_LINES = 1
"""Of the versions of vds that wrote a line for each file, without ctime and inode."""
_ROWS_AT_ONCE = 1000
_SECOND_NS = 1_000_000_000
_COLUMNS = ("path", "digest", "size", "mode", "mtime_ns", "ctime_ns", "inode")
_DIGESTS = re.compile(r"(?:b3:[0-9a-f]{64})*")
_DIGEST_CHARS = 67
_LINE_CHARS_MAX = 4 * 1024 * 1024
"""Twice what a thousand files need whose paths are as long as can be and full of characters that JSON escapes."""


class PlacedRow(NamedTuple):
    """One file as the file system kept it when vds had placed it; its ctime is 0 when it must be read to be known."""

    path: EntryPath
    digest: Digest
    size_bytes: int
    mode: int
    modified_ns: int
    changed_ns: int = 0
    inode: int = 0

    def fits(self, file: SourceFile) -> bool:
        """Return whether a file that was found is certainly the one that was placed, its mode perhaps excepted."""
        return (
            bool(self.changed_ns)
            and self[4:] == (file.modified_ns, file.changed_ns, file.inode)
            and self.size_bytes == file.size_bytes
        )


@dataclass(frozen=True, slots=True)
class PlacedRecord:
    """All files that vds placed.

    Attributes:
        uri: of the version that was checked out.
        complete: False while a checkout runs, and after one that did not end well.
        rows: sorted by path.
        digest: of the history of the version: that of which store it was. Empty when not known.
        allow_patterns: which files were asked for; None for all.
        ignore_patterns: which were not.
    """

    uri: str
    complete: bool
    rows: Sequence[PlacedRow]
    digest: str = ""
    allow_patterns: tuple[str, ...] | None = None
    ignore_patterns: tuple[str, ...] | None = None

    def asks_for(self, other: PlacedRecord) -> bool:
        """Return whether both are of the same files of the same version."""
        return bool(self.digest) and self._question == other._question

    @property
    def _question(self) -> tuple[Any, ...]:
        return self.uri, self.digest, self.allow_patterns, self.ignore_patterns


def expected_row(entry: Entry) -> PlacedRow:
    """Return the row of a file that is about to be placed."""
    return PlacedRow(entry.path, entry.digest, entry.size_bytes, entry.mode, entry.modified_ns)


def placed_row(entry: Entry, stamp: Stamp) -> PlacedRow:
    """Return the row of a file that was placed a moment ago."""
    # A write in the tick of its placing shows in the mtime, unless that is of the same moment itself.
    is_certain = abs(stamp.changed_ns - stamp.modified_ns) > _tick_ns(stamp.modified_ns)
    changed_ns = stamp.changed_ns if is_certain else 0
    return PlacedRow(entry.path, entry.digest, entry.size_bytes, entry.mode, stamp.modified_ns, changed_ns, stamp.inode)


def read_row(entry: Entry, stamp: Stamp, read_at_ns: int) -> PlacedRow:
    """Return the row of a file that was found to have the content of an entry, by a reading that began at `read_at_ns`."""
    is_certain = all(stamp_ns + _tick_ns(stamp_ns) <= read_at_ns for stamp_ns in stamp[:2])
    changed_ns = stamp.changed_ns if is_certain else 0
    return PlacedRow(entry.path, entry.digest, entry.size_bytes, entry.mode, stamp.modified_ns, changed_ns, stamp.inode)


def _tick_ns(stamp_ns: int) -> int:
    return TICK_NS if stamp_ns % _SECOND_NS else COARSE_TICK_NS


def put_record(target: Target, record: PlacedRecord, rows: Iterable[PlacedRow] | None = None) -> None:
    """Replace the record, atomically; with `rows`, as they are made, in place of its own."""
    chunks = _encode(record, record.rows if rows is None else rows)
    target.place(RECORD_PATH, chunks, mode=MODE_FILE, modified_ns=time.time_ns())


def find_record(target: Target) -> PlacedRecord | None:
    """Return the record, or None when vds never checked anything out here.

    Raises:
        CorruptionError: the file is there, but cannot be read.
        FormatError: a newer vds wrote it.
    """
    descriptor = target.find_file(RECORD_PATH)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, encoding="utf-8", newline="\n") as lines:
        try:
            whole = _bounded(lines)
            return _decode(json.loads(next(whole, "")), whole, target.root)
        except (KeyError, TypeError, ValueError, RecursionError) as err:  # InvalidInputError is a ValueError
            raise CorruptionError(
                f"the record {RECORD_PATH!r} in {target.root!r} cannot be read: {err}",
                hint="remove it and check out again: what is there then counts as yours",
            ) from err


def _bounded(file: TextIO) -> Iterator[str]:
    while line := file.readline(_LINE_CHARS_MAX + 1):
        if len(line) > _LINE_CHARS_MAX:
            raise ValueError(f"a line of more than {_LINE_CHARS_MAX} characters")
        yield line


def _encode(record: PlacedRecord, rows: Iterable[PlacedRow]) -> Iterator[bytes]:
    header = {"vds_checkout": _FORMAT, "uri": record.uri, "complete": record.complete, "digest": record.digest}
    header |= {"allow": record.allow_patterns, "ignore": record.ignore_patterns}
    yield _line(header)
    for some in batched(rows, _ROWS_AT_ONCE):
        yield _line(dict(zip(_COLUMNS, zip(*some, strict=True), strict=True)))


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _decode(header: dict[str, Any], lines: Iterable[str], root: str) -> PlacedRecord:
    found = header["vds_checkout"]
    if found == _FORMAT_LINES:
        return PlacedRecord(str(header["uri"]), bool(header["complete"]), [_decode_row(json.loads(line)) for line in lines])
    if found != _FORMAT:
        raise FormatError(f"the record of {root!r} has format {found!r}", hint="upgrade vds")
    rows: list[PlacedRow] = []
    for line in lines:
        columns = json.loads(line)
        rows += _decode_rows(*(columns[name] for name in _COLUMNS))
    allowed, ignored = _decode_patterns(header["allow"]), _decode_patterns(header["ignore"])
    return PlacedRecord(str(header["uri"]), bool(header["complete"]), rows, str(header["digest"]), allowed, ignored)


def _decode_rows(paths: list[str], digests: list[str], *numbers: list[int]) -> Iterator[PlacedRow]:
    # One look at all digests: a record is read at every checkout, and each may hold a million.
    if not _DIGESTS.fullmatch("".join(digests)) or {*map(len, digests)} != {_DIGEST_CHARS}:
        raise ValueError("not a digest")
    if {*map(type, (number for column in numbers for number in column))} != {int}:
        raise ValueError("not a number")
    _check_range(*numbers)
    checked = map(partial(str.__new__, Digest), digests)
    return map(PlacedRow._make, zip(map(entry_path, paths), checked, *numbers, strict=True))


def _check_range(sizes: list[int], modes: list[int], *others: list[int]) -> None:
    if min(sizes) < 0 or max(sizes) > INT64_MAX or not {*modes} <= {MODE_FILE, MODE_EXECUTABLE}:
        raise ValueError("not the size or mode of a file")
    # Times are of 64 bits, the number of an inode of up to 128 (Windows).
    if any(min(column) < -INT64_MAX - 1 or max(column) >= 1 << 128 for column in others):
        raise ValueError("not a number of a file")


def _decode_row(raw: dict[str, Any]) -> PlacedRow:
    [row] = _decode_rows([raw["path"]], [raw["digest"]], [raw["size"]], [raw["mode"]], [raw["mtime_ns"]], [0], [0])
    return row


def _decode_patterns(raw: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if raw is None else tuple(map(str, raw))


_path_of = attrgetter("path")


def merge_rows(*runs: Iterable[PlacedRow]) -> Iterator[PlacedRow]:
    """Yield the rows of several runs, each sorted by path, as one, sorted, each distinct one once."""
    for _, rows in groupby(heapq.merge(*runs, key=_path_of), _path_of):
        yield from dict.fromkeys(rows)
