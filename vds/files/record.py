"""What vds placed in a directory: `DIR/.vds/checkout.jsonl`, by which a later checkout knows its own files from the user's.

The first line is a header, each further one a file, sorted by path. While a checkout runs, the record lists what stood there
before and what is about to stand there (so a path may come twice) and its header says that it is not complete: whatever moment a
crash comes at, every file that vds placed is known.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vds.errors import CorruptionError, FormatError
from vds.files.place import Target
from vds.files.scan import OWN_DIRECTORY
from vds.model.batch import batched
from vds.model.digest import Digest
from vds.model.entry import MODE_FILE
from vds.model.path import EntryPath, entry_path

RECORD_PATH = EntryPath(f"{OWN_DIRECTORY}/checkout.jsonl")
_FORMAT = 1
_LINES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """One file as it stood when vds had placed it; `modified_ns` is what the file system kept."""

    path: EntryPath
    digest: Digest
    size_bytes: int
    mode: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class PlacedRecord:
    """All files that vds placed.

    Attributes:
        uri: of the version that was checked out.
        complete: False while a checkout runs, and after one that did not end well.
        rows: sorted by path.
    """

    uri: str
    complete: bool
    rows: list[PlacedRow]


def put_record(target: Target, record: PlacedRecord) -> None:
    """Replace the record, atomically."""
    target.place(RECORD_PATH, _encode(record), mode=MODE_FILE, modified_ns=time.time_ns())


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
            header = json.loads(next(lines, ""))
            if header["vds_checkout"] != _FORMAT:
                raise FormatError(f"the record of {target.root!r} has format {header['vds_checkout']!r}", hint="upgrade vds")
            return PlacedRecord(str(header["uri"]), bool(header["complete"]), [_decode(line) for line in lines])
        except (KeyError, TypeError, ValueError, RecursionError) as err:  # InvalidInputError is a ValueError
            raise CorruptionError(
                f"the record {RECORD_PATH!r} in {target.root!r} cannot be read: {err}",
                hint="remove it and check out again: what is there then counts as yours",
            ) from err


def _encode(record: PlacedRecord) -> Iterator[bytes]:
    yield _line({"vds_checkout": _FORMAT, "uri": record.uri, "complete": record.complete})
    for rows in batched(record.rows, _LINES_AT_ONCE):
        yield b"".join(
            _line({"path": row.path, "digest": row.digest, "size": row.size_bytes, "mode": row.mode, "mtime_ns": row.modified_ns})
            for row in rows
        )


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _decode(line: str) -> PlacedRow:
    raw = json.loads(line)
    return PlacedRow(entry_path(raw["path"]), Digest(raw["digest"]), int(raw["size"]), int(raw["mode"]), int(raw["mtime_ns"]))


def merge_rows(*lists: Iterable[PlacedRow]) -> list[PlacedRow]:
    """Return the rows of several lists as one, sorted, each distinct one once."""
    distinct = {row: None for rows in lists for row in rows}
    return sorted(distinct, key=lambda row: row.path)
