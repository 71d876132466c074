"""Checks of the pieces of an object, so that a range of it can be believed without reading all of it.

    leaf check  = XXH3-64 of 256 KiB of the object, the last leaf of what is left; 8 bytes, big-endian
    piece check = the leaf check where a piece is one leaf, else XXH3-64 over the leaf checks of the piece

The digest (BLAKE3) names the whole; these find damage, they are no defence against who forges it. A piece is as small as a table
of at most 16 384 checks allows: 256 KiB up to 4 GiB, 8 MiB from 64 GiB on.
"""

from __future__ import annotations

from typing import NamedTuple

import xxhash

LEAF_BYTES = 256 * 1024
"""At 100 MB/s a request takes about as long as reading this; random reads of 64 KB mostly need one."""
PIECE_BYTES_MAX = 8 * 1024 * 1024
CHECKS_AIMED_AT = 16_384
CHECK_BYTES = 8
ODD_BLOCK_PIECE_BYTES = 1024 * 1024
ALIGNED_BYTES_MAX = 50_000 * PIECE_BYTES_MAX
"""Up to here an object is sent in blocks of 8 MiB; beyond, in blocks of whole MiB."""
CHECKED_BYTES_MAX = 2 * 1024**4
"""Larger objects have no checks: their table would be no row for a database."""


class Checks(NamedTuple):
    """The piece checks of one object."""

    piece_bytes: int
    raw: bytes


def has_checks(size_bytes: int) -> bool:
    """Return whether checks are kept of an object of this size; one of a single leaf is read whole."""
    return LEAF_BYTES < size_bytes <= CHECKED_BYTES_MAX


def piece_bytes(size_bytes: int) -> int:
    """Return into what pieces an object of this size is cut; blocks of its upload are whole pieces, but for the last."""
    if size_bytes > ALIGNED_BYTES_MAX:
        return ODD_BLOCK_PIECE_BYTES
    piece = LEAF_BYTES
    while piece < PIECE_BYTES_MAX and piece * CHECKS_AIMED_AT < size_bytes:
        piece *= 2
    return piece


def leaf_checks(data: bytes | bytearray | memoryview) -> bytes:
    """Return the leaf checks of bytes that begin at a leaf's start."""
    view = memoryview(data)
    return b"".join([xxhash.xxh3_64_digest(view[start : start + LEAF_BYTES]) for start in range(0, len(view), LEAF_BYTES)])


def fingerprint_of(leaves: bytes) -> str:
    """Return what a block is known by again, from its leaf checks: 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(leaves)


def fold(leaves: bytes, piece: int) -> bytes:
    """Return the piece checks that these leaf checks, from a piece's start on, come to."""
    if piece == LEAF_BYTES:
        return leaves
    step = piece // LEAF_BYTES * CHECK_BYTES
    return b"".join([xxhash.xxh3_64_digest(leaves[start : start + step]) for start in range(0, len(leaves), step)])


def checks_of(data: bytes | bytearray | memoryview) -> Checks | None:
    """Return the checks of a whole object; None when none are kept of its size."""
    if not has_checks(len(data)):
        return None
    piece = piece_bytes(len(data))
    return Checks(piece, fold(leaf_checks(data), piece))


def is_whole(checks: Checks, size_bytes: int) -> bool:
    """Return whether a table can be that of an object of this size: it comes out of a database."""
    return checks.piece_bytes >= LEAF_BYTES and len(checks.raw) == CHECK_BYTES * -(-size_bytes // checks.piece_bytes)


def find_damage(checks: Checks, offset_bytes: int, data: bytes | memoryview) -> int | None:
    """Return where in `data`, which begins at `offset_bytes`, the first damaged piece begins; None when all is well.

    `data` begins at a piece's start and ends at a piece's end or at the object's.
    """
    assert offset_bytes % checks.piece_bytes == 0, (offset_bytes, checks.piece_bytes)
    begin = offset_bytes // checks.piece_bytes * CHECK_BYTES
    found = fold(leaf_checks(data), checks.piece_bytes)
    expected = checks.raw[begin : begin + len(found)]
    if found == expected:
        return None
    for number in range(0, len(found), CHECK_BYTES):
        if found[number : number + CHECK_BYTES] != expected[number : number + CHECK_BYTES]:
            return number // CHECK_BYTES * checks.piece_bytes
    return None
