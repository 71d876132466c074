"""The files of the stat cache: rows of a path, its stat and its digest, in frames that prove themselves.

    file   = header, frames; header = magic, format, seed, length of the root, the root, XXH3-64 of all that
    frame  = number, rows, length of the paths, XXH3-64 of those and of what follows; the paths, the records
    record = size, mtime_ns, ctime_ns, inode, digest: 64 bytes, in the order of the paths

Guarantees:
- a frame counts only where this file's writer put it: its checksum covers its number and is seeded by the random seed of the
  file, so that bytes of another file, of an older one or of another place in this one never pass;
- whatever is not a whole, sound frame ends the file: it is no error, and nothing after it is believed.
"""

from __future__ import annotations

import os
import secrets
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import xxhash

from vds.files.scan import SourceFile
from vds.model.digest import DIGEST_SIZE_BYTES
from vds.model.path import PATH_BYTES_MAX

FRAME_ROWS = 1024  # 64 KiB of records; each source of a merge holds one frame
FRAME_ROWS_MAX = 2 * FRAME_ROWS
STAT_BYTES = 32
RECORD_BYTES = STAT_BYTES + DIGEST_SIZE_BYTES

_MAGIC = b"vds-stat"
_FORMAT = 1
_HEADER = struct.Struct("<8sIQI")
_FRAME = struct.Struct("<III")
_CHECKSUM = struct.Struct("<Q")
_STAT = struct.Struct("<QqqQ")
_ROOT_BYTES_MAX = 65536
# O_NONBLOCK: a named pipe in the file's place must not be waited for.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

Row = tuple[str, bytes]
"""A path, and its record."""


def stat_record(file: SourceFile) -> bytes:
    """Return the first half of a file's record; b"" for a stat that has no place in one (its file is always unknown)."""
    try:
        return _STAT.pack(file.size_bytes, file.modified_ns, file.changed_ns, file.inode)
    except struct.error:  # years beyond 2262; inodes of 128 bits on ReFS
        return b""


class Frame(NamedTuple):
    """Some rows, sorted by path; decoded only as far as it is asked for."""

    row_count: int
    paths_raw: bytes
    records: bytes

    @property
    def first(self) -> str:
        """The lowest path."""
        return self.paths_raw.partition(b"\0")[0].decode()

    @property
    def last(self) -> str:
        """The highest path."""
        return self.paths_raw.rpartition(b"\0")[2].decode()

    def paths(self) -> list[str]:
        """Return all paths."""
        return self.paths_raw.decode().split("\0")

    def rows(self) -> list[Row]:
        """Return all rows."""
        records = self.records
        return list(
            zip(self.paths(), [records[at : at + RECORD_BYTES] for at in range(0, len(records), RECORD_BYTES)], strict=True)
        )


def frame_of(rows: Sequence[Row]) -> Frame:
    """Return sorted rows, at least one, as a frame."""
    assert 0 < len(rows) <= FRAME_ROWS_MAX, len(rows)
    return Frame(len(rows), "\0".join([path for path, _ in rows]).encode(), b"".join([record for _, record in rows]))


class Place(NamedTuple):
    """Where a frame stands in its file."""

    offset: int
    number: int


class FrameFile:
    """One open file of frames.

    Attributes:
        is_damaged: there is something behind the last sound frame; only known when all were read.
    """

    def __init__(self, file: BinaryIO, seed: int, start: int) -> None:
        self._file = file
        self._seed = seed
        self._start = start
        self._end = Place(start, 0)
        self.is_damaged = False

    @property
    def descriptor(self) -> int:
        """Of the open file."""
        return self._file.fileno()

    def append(self, frame: Frame) -> Place:
        """Write a frame after those appended before; another process sees it when this returns.

        Raises:
            OSError: it cannot be written; what was written of it is not believed by anyone.
        """
        place = self._end
        head = _FRAME.pack(place.number, frame.row_count, len(frame.paths_raw))
        self._file.seek(place.offset)
        self._file.write(b"".join([head, self._checksum(head, frame), frame.paths_raw, frame.records]))
        self._file.flush()
        self._end = Place(self._file.tell(), place.number + 1)
        return place

    def read(self, place: Place) -> Frame | None:
        """Return the frame at a place, or None when there is no sound one."""
        try:
            return self._read(place)
        except OSError:  # a bad sector is damage like any other: the next save leaves it behind
            return None

    def _read(self, place: Place) -> Frame | None:
        self._file.seek(place.offset)
        start = self._file.read(_FRAME.size + _CHECKSUM.size)
        if len(start) < _FRAME.size + _CHECKSUM.size:
            return None
        head, checksum = start[: _FRAME.size], start[_FRAME.size :]
        number, count, paths_bytes = _FRAME.unpack(head)
        # The limits come before the checksum: a damaged length must not make anyone read gigabytes.
        if number != place.number or not 0 < count <= FRAME_ROWS_MAX or paths_bytes > count * (PATH_BYTES_MAX + 1):
            return None
        content = self._file.read(paths_bytes + count * RECORD_BYTES)
        frame = Frame(count, content[:paths_bytes], content[paths_bytes:])
        is_sound = len(frame.records) == count * RECORD_BYTES and checksum == self._checksum(head, frame)
        return frame if is_sound and frame.paths_raw.count(b"\0") == count - 1 else None

    def places(self) -> Iterator[tuple[Place, Frame]]:
        """Yield all frames up to the first that is not sound; several such iterators may be in use at a time."""
        place = Place(self._start, 0)
        while (frame := self.read(place)) is not None:
            yield place, frame
            size_bytes = _FRAME.size + _CHECKSUM.size + len(frame.paths_raw) + len(frame.records)
            place = Place(place.offset + size_bytes, place.number + 1)
        self.is_damaged = os.fstat(self.descriptor).st_size > place.offset

    def frames(self) -> Iterator[Frame]:
        """Yield all frames up to the first that is not sound."""
        return (frame for _, frame in self.places())

    def sync(self) -> None:
        """Return when what was appended is on the disk."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file; idempotent."""
        with suppress(OSError):  # what could not be written before cannot be written now
            self._file.close()

    def _checksum(self, head: bytes, frame: Frame) -> bytes:
        state = xxhash.xxh3_64(head, seed=self._seed)
        state.update(frame.paths_raw)
        state.update(frame.records)
        return _CHECKSUM.pack(state.intdigest())


def create_frame_file(path: Path, root: bytes) -> FrameFile:
    """Make a new file, readable by its owner alone, for the rows of `root`.

    Raises:
        OSError: it is there already, or cannot be made.
    """
    file = os.fdopen(os.open(path, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")
    seed = secrets.randbits(64)
    header = _HEADER.pack(_MAGIC, _FORMAT, seed, len(root)) + root
    try:
        file.write(header + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(header)))
        file.flush()
    except OSError:
        FrameFile(file, 0, 0).close()
        with suppress(OSError):
            path.unlink()
        raise
    return FrameFile(file, seed, file.tell())


def find_frame_file(path: Path, root: bytes) -> FrameFile | None:
    """Open a file for reading; None when it is no regular file of this user for the rows of `root` in this format.

    Raises:
        OSError: it is not there, or cannot be opened.
    """
    descriptor = os.open(path, _FLAGS | os.O_RDONLY)
    found = os.fstat(descriptor)
    # Digests that another user wrote down are no proof of anything.
    if not stat.S_ISREG(found.st_mode) or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
        os.close(descriptor)
        return None
    file = os.fdopen(descriptor, "rb")
    try:
        sound = _read_header(file, root)
    except OSError:
        sound = None
    if sound is None:
        file.close()
    return sound


def _read_header(file: BinaryIO, root: bytes) -> FrameFile | None:
    start = file.read(_HEADER.size)
    if len(start) < _HEADER.size:
        return None
    magic, version, seed, root_bytes = _HEADER.unpack(start)
    if magic != _MAGIC or version != _FORMAT or root_bytes > _ROOT_BYTES_MAX:
        return None
    rest = file.read(root_bytes + _CHECKSUM.size)
    header = start + rest[:root_bytes]
    if rest[root_bytes:] != _CHECKSUM.pack(xxhash.xxh3_64_intdigest(header)) or rest[:root_bytes] != root:
        return None
    return FrameFile(file, seed, len(header) + _CHECKSUM.size)
