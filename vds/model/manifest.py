"""The change list of a version: what each changed path is after it, sorted, framed, compressed.

A row holds the state after, never before, so applying a list twice is harmless and the list can be made before the commit.

    file   = magic "VDSCHG1\\n", frame*
    frame  = header "<IIIIQ": row count, row bytes, compressed row bytes, compressed mtime bytes, XXH3-64 of what follows;
             then zlib(rows), zlib(mtimes)
    row    = "<HB": path length, kind (0 removed, 1 file, 2 executable file); path; and unless removed: "<32sQ": digest, size
    mtimes = one signed 64-bit nanosecond count a row, 0 for a removed one

The list's digest is BLAKE3 over the rows as they stand uncompressed: mtimes and the compressor are not in it.

A reader takes nothing on trust: each size is held against its limit before it is used, so a list of any length, whoever wrote it,
is read in a few MiB; rows come in order, and only paths that a version may hold.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import xxhash
from blake3 import blake3

from vds.errors import CorruptionError, InvalidInputError
from vds.model.digest import DIGEST_SIZE_BYTES
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.fields import HINT, INT64_MAX
from vds.model.path import PATH_BYTES_MAX, entry_path

MAGIC = b"VDSCHG1\n"
CHANGES_PREFIX = "changes/"
FRAME_ROWS_MAX = 4096
_HEADER = struct.Struct("<IIIIQ")
_ROW = struct.Struct("<HB")
_CONTENT = struct.Struct(f"<{DIGEST_SIZE_BYTES}sQ")
_ROW_BYTES_MIN = _ROW.size + 1
_ROW_BYTES_MAX = _ROW.size + PATH_BYTES_MAX + _CONTENT.size
_TIME_BYTES = 8
_IS_BIG_ENDIAN = sys.byteorder == "big"  # the format is little-endian whatever the machine is
_REMOVED, _FILE, _EXECUTABLE = 0, 1, 2


@cache
def _file_row(path_bytes: int) -> struct.Struct:
    """Return the layout of a row that is not removed, whole: packed in three pieces it takes twice the time."""
    return struct.Struct(f"<HB{path_bytes}s{DIGEST_SIZE_BYTES}sQ")


_CONTENT_CONTEXT = "vds content 1"


class ChangeRow(NamedTuple):
    """One changed path: its state after the version, or digest None when it was removed."""

    path: str
    digest: bytes | None
    size_bytes: int
    mode: int
    modified_ns: int


@dataclass
class ChangeListEncoder:
    """Encodes rows frame by frame; `digest` and `count` are final once `frames` is exhausted."""

    count: int = 0

    def __post_init__(self) -> None:
        self._hasher = blake3()

    @property
    def digest(self) -> bytes:
        """The digest of the rows encoded so far."""
        return self._hasher.digest()

    def frames(self, rows: Iterable[ChangeRow]) -> Iterator[bytes]:
        """Yield the file piece by piece; `rows` must come sorted by the UTF-8 bytes of their paths."""
        yield MAGIC
        encoded: list[bytes] = []
        times = array("q")
        for text, digest, size_bytes, mode, modified_ns in rows:
            path = text.encode()
            if digest is None:
                encoded.append(_ROW.pack(len(path), _REMOVED) + path)
            else:
                kind = _EXECUTABLE if mode == MODE_EXECUTABLE else _FILE
                encoded.append(_file_row(len(path)).pack(len(path), kind, path, digest, size_bytes))
            times.append(modified_ns)
            if len(encoded) == FRAME_ROWS_MAX:
                yield self._frame(encoded, times)
                encoded, times = [], array("q")
        if encoded:
            yield self._frame(encoded, times)

    def _frame(self, encoded: list[bytes], times: array[int]) -> bytes:
        rows = b"".join(encoded)
        self._hasher.update(rows)
        self.count += len(encoded)
        if _IS_BIG_ENDIAN:
            times.byteswap()
        rows_z, times_z = zlib.compress(rows, 1), zlib.compress(times.tobytes(), 1)
        check = xxhash.xxh3_64_intdigest(rows_z + times_z)
        return _HEADER.pack(len(encoded), len(rows), len(rows_z), len(times_z), check) + rows_z + times_z


def decode_change_list(data: bytes, digest: bytes) -> list[ChangeRow]:
    """Return the rows of an encoded list that is in memory.

    Raises:
        CorruptionError: the bytes are not such a list, or its rows do not have `digest`.
    """
    return list(iter_changes([data], digest))


def iter_changes(pieces: Iterable[bytes], digest: bytes, *, count: int | None = None) -> Iterator[ChangeRow]:
    """Yield the rows of an encoded list, frame by frame, in at most some 20 MiB of memory.

    Rows are yielded before the digest of all of them is known: what is done with them must be undone if this raises.

    Args:
        pieces: the list, cut anywhere.
        digest: of its rows.
        count: how many rows there must be; None when that is not known.

    Raises:
        CorruptionError: the bytes are not such a list, or its rows do not have `digest`.
    """
    source = _Source(pieces)
    if source.take(len(MAGIC)) != MAGIC:
        raise _damaged("has no VDSCHG1 header")
    hasher, found, previous = blake3(), 0, b""
    while header := source.take(_HEADER.size):
        rows, times = _read_frame(source, header)
        hasher.update(rows)
        found += len(times)
        if count is not None and found > count:
            raise _damaged(f"has more rows than the {count} announced")
        decoded, previous = _decode_rows(rows, times, previous)
        yield from decoded
    if count is not None and found != count:
        raise _damaged(f"has {found} rows, expected {count}")
    if hasher.digest() != digest:
        raise _damaged(f"has digest {hasher.digest().hex()}, expected {digest.hex()}")


class _Source:
    """Bytes out of pieces of any size."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")
        self.position = 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer where the list ends."""
        parts = []
        while count:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._rest = memoryview(piece)
                continue
            part, self._rest = self._rest[:count], self._rest[count:]
            parts.append(part)
            count -= len(part)
            self.position += len(part)
        return b"".join(parts)


def _read_frame(source: _Source, header: bytes) -> tuple[bytes, array[int]]:
    at = source.position - len(header)
    if len(header) < _HEADER.size:
        raise _damaged(f"ends inside the header of the frame at byte {at}")
    count, rows_bytes, rows_z_bytes, times_z_bytes, check = _HEADER.unpack(header)
    times_bytes = count * _TIME_BYTES
    if (
        not 0 < count <= FRAME_ROWS_MAX
        or not count * _ROW_BYTES_MIN <= rows_bytes <= count * _ROW_BYTES_MAX
        or rows_z_bytes > _compressed_bytes_max(rows_bytes)
        or times_z_bytes > _compressed_bytes_max(times_bytes)
    ):
        raise _damaged(f"has a frame at byte {at} that claims {count} rows of {rows_bytes} bytes, {rows_z_bytes} compressed")
    body = source.take(rows_z_bytes + times_z_bytes)
    if len(body) != rows_z_bytes + times_z_bytes or xxhash.xxh3_64_intdigest(body) != check:
        raise _damaged(f"has a frame at byte {at} that is damaged or cut")
    times = array("q")
    times.frombytes(_inflate(body[rows_z_bytes:], times_bytes))
    if _IS_BIG_ENDIAN:
        times.byteswap()
    return _inflate(body[:rows_z_bytes], rows_bytes), times


def _compressed_bytes_max(size_bytes: int) -> int:
    """Return more than any compressor makes of so many bytes: zlib adds a thousandth at most, other makes of it an eighth."""
    return size_bytes + size_bytes // 4 + 64


def _inflate(compressed: bytes, size_bytes: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(compressed, size_bytes + 1)  # never more than was announced: no decompression bomb
    except zlib.error as err:
        raise _damaged(f"has a frame that does not inflate: {err}") from err
    if len(data) != size_bytes or not inflater.eof or inflater.unused_data:
        raise _damaged(f"has a frame that inflates to another size than the {size_bytes} bytes it announces")
    return data


def _decode_rows(rows: bytes, times: array[int], previous: bytes) -> tuple[list[ChangeRow], bytes]:
    """Return the rows of a frame and the path of the last one; `previous` is that of the frame before."""
    found: list[ChangeRow] = []
    position, end = 0, len(rows)
    for modified_ns in times:
        if end - position < _ROW.size:
            raise _damaged("has a frame that ends inside a row")
        length, kind = _ROW.unpack_from(rows, position)
        position += _ROW.size + length
        encoded = rows[position - length : position]
        if encoded <= previous:
            raise _damaged(f"is not sorted: {encoded!r} comes after {previous!r}")
        previous, path = encoded, _parse_path(encoded)
        if kind == _REMOVED:
            found.append(ChangeRow(path, None, 0, 0, 0))
            continue
        if kind > _EXECUTABLE or end - position < _CONTENT.size:
            raise _damaged(f"has no content of {path!r}, or the unknown kind {kind}")
        digest, size_bytes = _CONTENT.unpack_from(rows, position)
        position += _CONTENT.size
        if size_bytes > INT64_MAX:
            raise _damaged(f"gives {path!r} {size_bytes} bytes")
        found.append(ChangeRow(path, digest, size_bytes, MODE_EXECUTABLE if kind == _EXECUTABLE else MODE_FILE, modified_ns))
    if position != end:
        raise _damaged(f"has a frame of {end} bytes whose rows end at byte {position}")
    return found, previous


def _parse_path(encoded: bytes) -> str:
    try:
        text = encoded.decode()
        path = entry_path(text)
    except (UnicodeDecodeError, InvalidInputError) as err:
        raise _damaged(f"holds what is no path of a version: {err}") from err
    if path != text:
        raise _damaged(f"holds the path {text!r}, which is not in Unicode NFC")
    return path


def _damaged(what: str) -> CorruptionError:
    return CorruptionError(f"change list {what}", hint=HINT)


class ContentHasher:
    """Computes a content digest: equal exactly when the sorted (path, digest, mode) are, whatever the history."""

    def __init__(self) -> None:
        self._hasher = blake3(derive_key_context=_CONTENT_CONTEXT)

    def add(self, path: str, digest: bytes, mode: int) -> None:
        """Take in one entry; entries must come sorted by path."""
        encoded = path.encode()
        kind = _EXECUTABLE if mode == MODE_EXECUTABLE else _FILE
        self._hasher.update(_ROW.pack(len(encoded), kind) + encoded + digest)

    def digest(self) -> bytes:
        """Return the 32 bytes of the digest."""
        return self._hasher.digest()


def changes_key(digest: bytes, generation: str) -> str:
    """Return the key of a change list's blob."""
    text = digest.hex()
    return f"{CHANGES_PREFIX}{text[:2]}/{text}.{generation}"
