"""Packs: one blob that holds many small objects, so that 10 000 files of 10 KB are a handful of requests.

    pack    = body*, row*, trailer
    row     = "<32sQQQ": digest, offset, length, XXH3-64 of the body
    trailer = "<8sIIQ32s": magic "VDSPACK1", member count, format version, offset of the first row, BLAKE3 of the rows

Bodies stand back to back from offset 0 and the rows follow them, so each field has exactly one legal value range: a parser checks
every one against the blob's size before using it. The rows make a pack readable without an index.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import xxhash
from blake3 import blake3

from vds.blobs.driver import BlobDriver, Buffer
from vds.errors import CorruptionError, FormatError
from vds.model.digest import DIGEST_SIZE_BYTES, Digest

PACK_BYTES_MAX = 64 * 1024 * 1024
PACK_MEMBERS_MAX = 8192
MEMBER_BYTES_END = 1024 * 1024
"""Objects of this size and above are blobs of their own."""
PACK_TARGET_BYTES = 8 * 1024 * 1024
"""Measured best on two cores: 67 000 files/s, against 58 000 with 64 MiB, at a third of the memory."""

_MAGIC = b"VDSPACK1"
_FORMAT = 1
_ROW = struct.Struct("<32sQQQ")
_TRAILER = struct.Struct(f"<8sIIQ{DIGEST_SIZE_BYTES}s")
ROW_BYTES = _ROW.size
"""What a member costs besides its bytes; the trailer is as long."""
_TAIL_BYTES_MAX = PACK_MEMBERS_MAX * _ROW.size + _TRAILER.size


PACK_BUFFER_BYTES = PACK_TARGET_BYTES + _TAIL_BYTES_MAX
"""What a builder of the usual target needs; an object sent whole fits it too."""


class PackRow(NamedTuple):
    """One member of a pack: the object's raw digest, where it stands, and the XXH3-64 of its bytes."""

    digest_raw: bytes
    offset_bytes: int
    length_bytes: int
    check: int


class PackBuilder:
    """Fills one pack in memory; used by one thread, for one pack.

    A file can be read straight into the pack: `room` lends the free space, `claim` keeps what was read there.

    Args:
        target_bytes: what it should weigh when it is full.
        buffer: memory to fill instead of its own, of `PACK_BUFFER_BYTES` for the usual target.
    """

    def __init__(self, target_bytes: int = PACK_TARGET_BYTES, buffer: memoryview | None = None) -> None:
        assert 0 < target_bytes <= PACK_BYTES_MAX, target_bytes
        self._target_bytes = target_bytes
        # One member always fits, and the rows of as many members as there can be; pages never touched cost no memory.
        room_bytes = min(max(target_bytes, MEMBER_BYTES_END) + _TAIL_BYTES_MAX, PACK_BYTES_MAX)
        self._buffer = memoryview(bytearray(room_bytes)) if buffer is None else buffer
        assert len(self._buffer) >= room_bytes, (len(self._buffer), room_bytes)
        self._used_bytes = 0
        self._rows = bytearray()

    @classmethod
    def adopt(cls, buffer: memoryview, rows: bytes, used_bytes: int) -> PackBuilder:
        """Return a pack whose bodies stand in `buffer` already, `used_bytes` from its start, as `rows` of `pack_rows` say."""
        builder = cls(buffer=buffer)
        builder._rows += rows
        builder._used_bytes = used_bytes
        assert builder.member_count <= PACK_MEMBERS_MAX, "adopted too many"
        assert builder.size_bytes <= len(buffer), "adopted more than fits"
        return builder

    @property
    def member_count(self) -> int:
        """How many objects are in it."""
        return len(self._rows) // _ROW.size

    @property
    def size_bytes(self) -> int:
        """What the pack will weigh, rows and trailer included."""
        return self._used_bytes + len(self._rows) + _TRAILER.size

    def fits(self, length_bytes: int) -> bool:
        """Return whether an object of this size may still be added; anything small enough fits an empty pack."""
        if not self._rows:
            return length_bytes < MEMBER_BYTES_END
        return self.member_count < PACK_MEMBERS_MAX and self.size_bytes + _ROW.size + length_bytes <= self._target_bytes

    def room(self, length_bytes: int) -> memoryview:
        """Lend the place of the next member, to be filled and then kept with `claim`; it must fit."""
        assert 0 < length_bytes < MEMBER_BYTES_END, length_bytes
        assert self.fits(length_bytes), (length_bytes, self.size_bytes, self._target_bytes)
        return self._buffer[self._used_bytes : self._used_bytes + length_bytes]

    def claim(self, digest_raw: bytes, length_bytes: int) -> int:
        """Keep the bytes that were put into `room(length_bytes)` as a member and return its offset."""
        offset = self._used_bytes
        body = self._buffer[offset : offset + length_bytes]
        assert len(body) == length_bytes, "claimed more than was lent"
        self._rows += _ROW.pack(digest_raw, offset, length_bytes, xxhash.xxh3_64_intdigest(body))
        self._used_bytes += length_bytes
        return offset

    def append(self, digest_raw: bytes, body: Buffer) -> int:
        """Copy `body` in as a member and return its offset."""
        self.room(len(body))[:] = body
        return self.claim(digest_raw, len(body))

    def finish(self) -> memoryview:
        """Write rows and trailer and return the whole pack, not copied; the builder must not be used after it."""
        assert self._rows, "a pack has at least one member"
        rows = bytes(self._rows)
        tail = rows + _TRAILER.pack(_MAGIC, self.member_count, _FORMAT, self._used_bytes, blake3(rows).digest())
        end = self._used_bytes + len(tail)
        self._buffer[self._used_bytes : end] = tail
        return self._buffer[:end]


def pack_rows(buffer: memoryview, members: Sequence[tuple[bytes, int, int]]) -> bytes:
    """Return the rows of members, given as (raw digest, offset, length), that stand in `buffer` back to back from its start."""
    return b"".join(
        [
            _ROW.pack(digest_raw, offset, length, xxhash.xxh3_64_intdigest(buffer[offset : offset + length]))
            for digest_raw, offset, length in members
        ]
    )


def read_footer(driver: BlobDriver, key: str, size_bytes: int) -> list[PackRow]:
    """Return the members of a pack, in order of their offsets, with one request.

    Raises:
        CorruptionError: the tail of the blob is not that of a pack of this size; nothing of it was believed.
        FormatError: a newer vds wrote it.
        NotFoundError: there is no such blob.
    """
    if size_bytes > PACK_BYTES_MAX or size_bytes < _TRAILER.size + _ROW.size:
        raise CorruptionError(f"pack {key!r} has {size_bytes} bytes: too many or too few for a pack", hint=_HINT)
    tail_bytes = min(size_bytes, _TAIL_BYTES_MAX)
    return parse_tail(driver.read_range(key, size_bytes - tail_bytes, tail_bytes), size_bytes, key)


def verify_pack(driver: BlobDriver, key: str, size_bytes: int) -> list[PackRow]:
    """Read a whole pack, check every member against its digest, and return the rows.

    Raises:
        CorruptionError: rows or a body are damaged; the message names the first damaged object.
        FormatError: a newer vds wrote it.
        NotFoundError: there is no such blob.
    """
    if size_bytes > PACK_BYTES_MAX:
        raise CorruptionError(f"pack {key!r} has {size_bytes} bytes, the limit is {PACK_BYTES_MAX}", hint=_HINT)
    data = memoryview(driver.read_range(key, 0, size_bytes))
    rows = parse_tail(data, size_bytes, key)
    for row in rows:
        body = data[row.offset_bytes : row.offset_bytes + row.length_bytes]
        found = blake3(body).digest()
        if found != row.digest_raw or xxhash.xxh3_64_intdigest(body) != row.check:
            raise CorruptionError(
                f"object {Digest.from_raw(row.digest_raw)} in blob {key!r} is corrupt: read {Digest.from_raw(found)}", hint=_HINT
            )
    return rows


def parse_tail(tail: Buffer, size_bytes: int, key: str) -> list[PackRow]:
    """Return the rows that the last bytes of a pack of `size_bytes` hold; `tail` must reach back to the first row.

    Raises:
        CorruptionError: they are not the end of a pack of this size.
        FormatError: a newer vds wrote it.
    """
    view = memoryview(tail)
    if len(view) < _TRAILER.size:
        raise CorruptionError(f"pack {key!r} ends inside its trailer", hint=_HINT)
    magic, count, version, rows_offset, rows_digest = _TRAILER.unpack(view[-_TRAILER.size :])
    if magic != _MAGIC:
        raise CorruptionError(f"pack {key!r} does not end in a trailer: found {bytes(magic)!r}", hint=_HINT)
    if version != _FORMAT:
        raise FormatError(f"pack {key!r} has format {version}, this vds reads {_FORMAT}", hint="upgrade vds")
    rows_bytes = count * _ROW.size
    if not 0 < count <= PACK_MEMBERS_MAX or rows_offset + rows_bytes + _TRAILER.size != size_bytes:
        raise CorruptionError(
            f"pack {key!r} of {size_bytes} bytes claims {count} members and a footer at byte {rows_offset}", hint=_HINT
        )
    if rows_bytes + _TRAILER.size > len(view):
        raise CorruptionError(f"pack {key!r} was read from too late a byte", hint=_HINT)
    rows = view[-_TRAILER.size - rows_bytes : -_TRAILER.size]
    if blake3(rows).digest() != rows_digest:
        raise CorruptionError(f"the footer of pack {key!r} is damaged", hint=_HINT)
    return _parse_rows(rows, rows_offset, key)


def _parse_rows(rows: memoryview, bodies_end: int, key: str) -> list[PackRow]:
    found = []
    position = 0
    for row in map(PackRow._make, _ROW.iter_unpack(rows)):
        if row.offset_bytes != position or not 0 < row.length_bytes < MEMBER_BYTES_END:
            raise CorruptionError(
                f"pack {key!r} claims a member of {row.length_bytes} bytes at {row.offset_bytes}, expected at {position}",
                hint=_HINT,
            )
        position += row.length_bytes
        found.append(row)
    if position != bodies_end:
        raise CorruptionError(f"the members of pack {key!r} end at {position}, its footer begins at {bodies_end}", hint=_HINT)
    return found


_HINT = "run: vds fsck"
