"""Read one file of a version: every byte is checked against the file's digest before the first one is handed out."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

from vds.blobs.objects import Placement
from vds.blobs.reads import read_chunks
from vds.engine.doors import Doors
from vds.errors import CorruptionError
from vds.index.entries import EntryRow
from vds.index.placements import find_placements
from vds.model.digest import EMPTY_RAW, Digest

OPEN_IN_MEMORY_BYTES_MAX = 8 * 1024 * 1024
"""Larger files are opened through a temporary file."""


def find_places(doors: Doors, digests: Sequence[bytes]) -> dict[bytes, Placement]:
    """Return where each object stands; those the index does not know are left out."""
    with doors.index.read() as connection:
        found = find_placements(connection, doors.store.id, digests)
    return {digest: Placement(row.key, row.offset_bytes, row.length_bytes) for digest, row in found.items()}


def open_file(doors: Doors, row: EntryRow) -> IO[bytes]:
    """Return a seekable binary file with the content of an entry; the caller closes it.

    Raises:
        CorruptionError: the stored bytes are not what they must be.
    """
    if row.size_bytes <= OPEN_IN_MEMORY_BYTES_MAX:
        return io.BytesIO(b"".join(_chunks(doors, row)))
    file = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller, who closes it
    try:
        for chunk in _chunks(doors, row):
            file.write(chunk)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def read_slice(doors: Doors, row: EntryRow, offset: int, size: int | None) -> bytes:
    """Return `size` bytes of an entry from `offset` (None: to the end); the whole object is read and checked in any case.

    Raises:
        CorruptionError: the stored bytes are not what they must be.
    """
    end = row.size_bytes if size is None else min(row.size_bytes, offset + size)
    kept, position = [], 0
    for chunk in _chunks(doors, row):
        kept.append(chunk[max(0, offset - position) : max(0, end - position)])
        position += len(chunk)
    return b"".join(kept)


def _chunks(doors: Doors, row: EntryRow) -> Iterator[bytes]:
    """Yield the bytes of an entry; they may be believed once the iterator has ended."""
    if row.digest == EMPTY_RAW:
        return
    placement = find_places(doors, [row.digest]).get(row.digest)
    if placement is None:
        raise CorruptionError(f"{row.path!r}: the index has no place of object {Digest.from_raw(row.digest)}", hint="vds fsck")
    yield from read_chunks(doors.blobs, placement, row.digest)
