from __future__ import annotations

import os

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from vds.blobs.memory import MemoryDriver
from vds.blobs.packs import PackBuilder, PackRow, parse_tail, read_footer, verify_pack
from vds.errors import CorruptionError, FormatError
from vds.model.ulid import is_ulid, new_ulid, ulid_ms

bodies = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20)


def packed(members: list[bytes]) -> bytes:
    builder = PackBuilder()
    for body in members:
        builder.append(blake3(body).digest(), body)
    return bytes(builder.finish())


def driver_with(pack: bytes) -> MemoryDriver:
    driver = MemoryDriver("property-packs")
    driver.create_container()
    driver.delete_blob("p")
    driver.put_if_absent("p", pack)
    return driver


def is_refused(pack: bytes, size_bytes: int) -> bool:
    try:
        rows = parse_tail(pack, size_bytes, "p")
    except (CorruptionError, FormatError):
        return True
    assert all(row.offset_bytes >= 0 and row.offset_bytes + row.length_bytes <= size_bytes for row in rows)
    return False


@given(bodies)
def test_packs_round_trip(members: list[bytes]) -> None:
    pack = packed(members)
    driver = driver_with(pack)
    rows = read_footer(driver, "p", len(pack))
    assert verify_pack(driver, "p", len(pack)) == rows
    assert [pack[row.offset_bytes : row.offset_bytes + row.length_bytes] for row in rows] == members
    assert [row.digest_raw for row in rows] == [blake3(body).digest() for body in members]


@given(bodies, st.data())
def test_cut_packs_are_refused(members: list[bytes], data: st.DataObject) -> None:
    pack = packed(members)
    end = data.draw(st.integers(0, len(pack) - 1))
    assert is_refused(pack[:end], end)
    assert is_refused(pack[len(pack) - end :], end)
    assert is_refused(pack, len(pack) + 1 + end)


@given(bodies, st.data())
def test_every_flipped_bit_is_seen(members: list[bytes], data: st.DataObject) -> None:
    pack = bytearray(packed(members))
    bit = data.draw(st.integers(0, len(pack) * 8 - 1))
    pack[bit // 8] ^= 1 << bit % 8
    driver = driver_with(bytes(pack))
    try:
        verify_pack(driver, "p", len(pack))
    except (CorruptionError, FormatError):
        return
    raise AssertionError(f"bit {bit} was not seen")


@given(st.binary(max_size=400), st.integers(0, 2**64))
def test_any_bytes_may_be_parsed(tail: bytes, size_bytes: int) -> None:
    assert is_refused(tail, size_bytes)


u64 = st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(u64, u64, u64), min_size=1, max_size=5), st.integers(0, 2**32 - 1), u64, st.integers(0, 2000))
def test_hostile_sizes_are_bounded(fields: list[tuple[int, int, int]], count: int, rows_offset: int, bodies_bytes: int) -> None:
    """A footer whose own checksum is right may claim anything."""
    from vds.blobs import packs

    rows = b"".join(packs._ROW.pack(*PackRow(bytes(32), *field)) for field in fields)
    for claimed, offset in ((count, rows_offset), (len(fields), bodies_bytes)):
        trailer = packs._TRAILER.pack(b"VDSPACK1", claimed, 1, offset, blake3(rows).digest())
        pack = bytes(bodies_bytes) + rows + trailer
        is_refused(pack, len(pack))


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ulids_round_trip(now_ms: int, randomness: bytes) -> None:
    ulid = new_ulid(now_ms, randomness)
    assert is_ulid(ulid)
    assert ulid_ms(ulid) == now_ms


@given(st.lists(st.tuples(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)), max_size=5))
def test_ulids_sort_as_their_moments(parts: list[tuple[int, bytes]]) -> None:
    assert [new_ulid(*part) for part in sorted(parts)] == sorted(new_ulid(*part) for part in parts)


def test_a_real_ulid_is_one() -> None:
    assert is_ulid(new_ulid(1, os.urandom(10)))
