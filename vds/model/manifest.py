"""The change list of a version: what each changed path is after it, sorted, framed, compressed.

A row holds the state after, never before, so applying a list twice is harmless and the list can be made before the commit.

    file   = magic "VDSCHG1\\n", frame*
    frame  = header "<IIIIQ": row count, row bytes, compressed row bytes, compressed mtime bytes, XXH3-64 of what follows;
             then zlib(rows), zlib(mtimes)
    row    = "<HB": path length, kind (0 removed, 1 file, 2 executable file); path; and unless removed: "<32sQ": digest, size
    mtimes = one signed 64-bit nanosecond count a row, 0 for a removed one

The list's digest is BLAKE3 over the rows as they stand uncompressed: mtimes and the compressor are not in it.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import xxhash
from blake3 import blake3

from vds.errors import CorruptionError
from vds.model.digest import DIGEST_SIZE_BYTES
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.path import PATH_BYTES_MAX

MAGIC = b"VDSCHG1\n"
FRAME_ROWS_MAX = 4096
_HEADER = struct.Struct("<IIIIQ")
_ROW = struct.Struct("<HB")
_CONTENT = struct.Struct(f"<{DIGEST_SIZE_BYTES}sQ")
_ROW_BYTES_MAX = _ROW.size + PATH_BYTES_MAX + _CONTENT.size
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
        if struct.pack("=H", 1) != struct.pack("<H", 1):
            times.byteswap()  # the format is little-endian whatever the machine is
        rows_z, times_z = zlib.compress(rows, 1), zlib.compress(times.tobytes(), 1)
        check = xxhash.xxh3_64_intdigest(rows_z + times_z)
        return _HEADER.pack(len(encoded), len(rows), len(rows_z), len(times_z), check) + rows_z + times_z


def decode_change_list(data: bytes, digest: bytes) -> list[ChangeRow]:
    """Return the rows of an encoded list.

    Raises:
        CorruptionError: the bytes are not such a list, or its rows do not have `digest`.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise CorruptionError("change list has no VDSCHG1 header")
    view, position = memoryview(data), len(MAGIC)
    hasher, found = blake3(), list[ChangeRow]()
    while position < len(view):
        if len(view) - position < _HEADER.size:
            raise CorruptionError(f"change list ends inside a frame header at byte {position}")
        count, rows_bytes, rows_z_bytes, times_z_bytes, check = _HEADER.unpack_from(view, position)
        position += _HEADER.size
        body = bytes(view[position : position + rows_z_bytes + times_z_bytes])
        if count > FRAME_ROWS_MAX or rows_bytes > FRAME_ROWS_MAX * _ROW_BYTES_MAX:
            raise CorruptionError(f"change list frame at byte {position} claims {count} rows of {rows_bytes} bytes")
        if len(body) != rows_z_bytes + times_z_bytes or xxhash.xxh3_64_intdigest(body) != check:
            raise CorruptionError(f"change list frame at byte {position} is damaged or cut")
        rows = _inflate(body[:rows_z_bytes], rows_bytes)
        times = array("q")
        times.frombytes(_inflate(body[rows_z_bytes:], count * 8))
        if struct.pack("=H", 1) != struct.pack("<H", 1):
            times.byteswap()
        hasher.update(rows)
        found.extend(_decode_rows(rows, times, count))
        position += len(body)
    if hasher.digest() != digest:
        raise CorruptionError(f"change list has digest {hasher.digest().hex()}, expected {digest.hex()}")
    return found


def _inflate(compressed: bytes, size_bytes: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(compressed, size_bytes + 1)  # never more than was announced: no decompression bomb
    except zlib.error as err:
        raise CorruptionError(f"change list frame does not inflate: {err}") from err
    if len(data) != size_bytes:
        raise CorruptionError(f"change list frame inflates to another size than the {size_bytes} bytes it announces")
    return data


def _decode_rows(rows: bytes, times: array[int], count: int) -> Iterator[ChangeRow]:
    position = 0
    try:
        for index in range(count):
            length, kind = _ROW.unpack_from(rows, position)
            position += _ROW.size
            path = rows[position : position + length].decode()
            position += length
            if kind == _REMOVED:
                yield ChangeRow(path, None, 0, 0, 0)
                continue
            digest, size_bytes = _CONTENT.unpack_from(rows, position)
            position += _CONTENT.size
            yield ChangeRow(path, digest, size_bytes, MODE_EXECUTABLE if kind == _EXECUTABLE else MODE_FILE, times[index])
    except (struct.error, UnicodeDecodeError) as err:
        raise CorruptionError(f"change list rows do not parse: {err}") from err
    if position != len(rows):
        raise CorruptionError(f"change list frame has {len(rows) - position} bytes after its last row")


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
    return f"changes/{text[:2]}/{text}.{generation}"
