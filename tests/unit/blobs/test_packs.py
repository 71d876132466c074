from __future__ import annotations

import os

import pytest
from blake3 import blake3

from tests.unit.blobs.spy import SpyDriver
from vds.blobs.packs import (
    MEMBER_BYTES_END,
    PACK_BUFFER_BYTES,
    PACK_BYTES_MAX,
    PACK_MEMBERS_MAX,
    PACK_TARGET_BYTES,
    ROW_BYTES,
    PackBuilder,
    parse_tail,
    read_footer,
    verify_pack,
)
from vds.buffers import BufferPool
from vds.errors import CorruptionError, FormatError, NotFoundError


def digest(body: bytes) -> bytes:
    return blake3(body).digest()


def packed(*bodies: bytes) -> bytes:
    builder = PackBuilder()
    for body in bodies:
        builder.append(digest(body), body)
    return bytes(builder.finish())


def test_layout_is_the_written_format() -> None:
    pack = packed(b"one", b"three")
    assert pack[:8] == b"onethree"
    assert pack[-56:-48] == b"VDSPACK1"
    assert pack[8:40] == digest(b"one")
    assert len(pack) == 8 + 2 * 56 + 56


def test_footer_is_read_with_one_request() -> None:
    driver = SpyDriver()
    pack = packed(b"one", b"three")
    driver.put_if_absent("packs/x", pack)
    rows = read_footer(driver, "packs/x", len(pack))
    assert [(row.digest_raw, row.offset_bytes, row.length_bytes) for row in rows] == [
        (digest(b"one"), 0, 3),
        (digest(b"three"), 3, 5),
    ]
    assert driver.requests["read"] == 1
    assert verify_pack(driver, "packs/x", len(pack)) == rows


def test_a_file_can_be_read_straight_into_the_pack() -> None:
    builder = PackBuilder()
    builder.append(digest(b"a"), b"a")
    builder.room(100)  # lent, but not kept: the file turned out to be unreadable
    room = builder.room(4)
    room[:] = b"body"
    assert builder.claim(digest(b"body"), 4) == 1
    assert bytes(builder.finish())[:5] == b"abody"


def test_a_pack_can_be_filled_in_memory_that_is_given() -> None:
    pool = BufferPool(PACK_BUFFER_BYTES)
    first = pool.lend()
    first.view[:] = b"\xff" * PACK_BUFFER_BYTES  # left by who had it before
    builder = PackBuilder(buffer=first.view)
    builder.append(digest(b"one"), b"one")
    builder.append(digest(b"three"), b"three")
    pack = builder.finish()
    assert pack == packed(b"one", b"three")
    pack[0] = ord("O")
    assert first.view[0] == ord("O")  # not copied
    with pytest.raises(AssertionError):
        PackBuilder(buffer=first.view[:-1])


def test_a_given_buffer_holds_a_pack_of_every_shape() -> None:
    pool = BufferPool(PACK_BUFFER_BYTES)
    for length_bytes in (1, 1024, MEMBER_BYTES_END - 1):
        loan = pool.lend()
        builder = PackBuilder(buffer=loan.view)
        while builder.fits(length_bytes):
            builder.room(length_bytes)
            builder.claim(bytes(32), length_bytes)
        pack = builder.finish()
        assert builder.member_count == min(PACK_MEMBERS_MAX, (PACK_TARGET_BYTES - ROW_BYTES) // (length_bytes + ROW_BYTES))
        assert len(parse_tail(pack, len(pack), "k")) == builder.member_count
        loan.release()


def test_member_count_has_its_limit() -> None:
    builder = PackBuilder()
    for number in range(PACK_MEMBERS_MAX):
        assert builder.fits(1)
        builder.append(digest(b"%d" % number), b"x")
    assert not builder.fits(1)
    pack = builder.finish()
    assert len(parse_tail(pack, len(pack), "k")) == PACK_MEMBERS_MAX


def test_member_size_has_its_limit() -> None:
    builder = PackBuilder(target_bytes=1000)
    assert builder.fits(MEMBER_BYTES_END - 1)
    assert not builder.fits(MEMBER_BYTES_END)
    body = os.urandom(MEMBER_BYTES_END - 1)
    builder.append(digest(body), body)
    assert not builder.fits(1)
    pack = builder.finish()
    assert parse_tail(pack, len(pack), "k")[0].length_bytes == MEMBER_BYTES_END - 1


def test_pack_stays_within_its_target_and_the_largest_is_legal() -> None:
    body = bytes(MEMBER_BYTES_END - 1)
    builder = PackBuilder(PACK_BYTES_MAX)
    while builder.fits(len(body)):
        builder.append(digest(body), body)
    pack = builder.finish()
    assert PACK_BYTES_MAX - MEMBER_BYTES_END < len(pack) == builder.size_bytes <= PACK_BYTES_MAX


def test_missing_blob_and_short_blob() -> None:
    driver = SpyDriver()
    with pytest.raises(NotFoundError):
        read_footer(driver, "packs/none", 1000)
    pack = packed(b"one")
    driver.put_if_absent("packs/x", pack)
    for size_bytes in (0, 55, 111, PACK_BYTES_MAX + 1, len(pack) - 1, len(pack) + 1):
        with pytest.raises(CorruptionError, match="packs/x"):
            read_footer(driver, "packs/x", size_bytes)
    with pytest.raises(CorruptionError, match="limit"):
        verify_pack(driver, "packs/x", PACK_BYTES_MAX + 1)


def test_newer_format_says_upgrade() -> None:
    pack = bytearray(packed(b"one"))
    pack[-56 + 12] = 2
    with pytest.raises(FormatError, match="format 2"):
        parse_tail(pack, len(pack), "packs/x")


def test_damaged_body_is_named() -> None:
    driver = SpyDriver()
    pack = packed(b"one", b"three")
    driver.put_if_absent("packs/x", pack)
    driver.damaged["packs/x"] = 4
    with pytest.raises(CorruptionError, match=f"b3:{digest(b'three').hex()} in blob 'packs/x'"):
        verify_pack(driver, "packs/x", len(pack))
