from __future__ import annotations

import os

import pytest
from blake3 import blake3

from tests.unit.blobs.spy import SpyDriver
from vds.blobs import reads
from vds.blobs.objects import EMPTY_PLACEMENT, Placement
from vds.blobs.reads import RangeRead, Wanted, plan_reads, read_chunks, read_object, read_ranges
from vds.errors import CorruptionError
from vds.model.digest import EMPTY_RAW, Digest

KIB = 1024


def want(name: str, key: str, offset: int, length: int) -> Wanted:
    return Wanted(blake3(name.encode()).digest(), Placement(key, offset, length))


def test_adjacent_and_near_ranges_are_one_request() -> None:
    a, b, c = want("a", "p", 0, 10), want("b", "p", 10, 10), want("c", "p", 20 + 64 * KIB, 5)
    assert plan_reads([c, a, b]) == [RangeRead("p", 0, 25 + 64 * KIB, (a, b, c))]


def test_far_ranges_and_other_blobs_are_requests_of_their_own() -> None:
    a, far, other = want("a", "p", 0, 10), want("b", "p", 11 + 64 * KIB, 10), want("c", "q", 10, 10)
    assert plan_reads([a, other, far]) == [
        RangeRead("p", 0, 10, (a,)),
        RangeRead("p", 11 + 64 * KIB, 10, (far,)),
        RangeRead("q", 10, 10, (other,)),
    ]


def test_requests_have_a_longest_length_but_for_one_object() -> None:
    a, b, c = want("a", "p", 0, 60), want("b", "p", 60, 40), want("c", "p", 100, 1)
    assert plan_reads([a, b, c], read_bytes_max=100) == [RangeRead("p", 0, 100, (a, b)), RangeRead("p", 100, 1, (c,))]
    large = want("l", "p", 0, 1000)
    assert plan_reads([large, a], read_bytes_max=100)[0].length_bytes == 1000


def test_the_same_range_twice_is_read_once() -> None:
    a, again = want("a", "p", 5, 10), want("a", "p", 5, 10)
    assert plan_reads([a, again]) == [RangeRead("p", 5, 10, (a, again))]


def test_empty_objects_make_no_request() -> None:
    driver = SpyDriver()
    assert plan_reads([Wanted(EMPTY_RAW, EMPTY_PLACEMENT)]) == []
    assert read_object(driver, EMPTY_PLACEMENT, EMPTY_RAW) == b""
    assert driver.requests == {}


def stored(driver: SpyDriver, key: str, *bodies: bytes) -> list[Wanted]:
    driver.put_if_absent(key, b"".join(bodies))
    found, offset = [], 0
    for body in bodies:
        found.append(Wanted(blake3(body).digest(), Placement(key, offset, len(body))))
        offset += len(body)
    return found


def test_ranges_are_read_and_checked() -> None:
    driver = SpyDriver()
    bodies = [os.urandom(100) for _ in range(50)]
    wanted = stored(driver, "p", *bodies[:30]) + stored(driver, "q", *bodies[30:])
    found = {digest: bytes(body) for digest, body in read_ranges(driver, plan_reads(wanted))}
    assert found == {item.digest_raw: body for item, body in zip(wanted, bodies, strict=True)}
    assert driver.requests == {"put": 2, "read": 2}


def test_damage_is_named_and_never_returned() -> None:
    driver = SpyDriver()
    wanted = stored(driver, "packs/p", b"good", b"bad")
    driver.damaged["packs/p"] = 5
    name = Digest.of(b"bad")
    message = f"object {name} in blob 'packs/p' is corrupt: expected {name}, read {Digest.of(b'b`d')}"
    with pytest.raises(CorruptionError) as caught:
        list(read_ranges(driver, plan_reads(wanted)))
    assert str(caught.value) == message
    assert caught.value.hint
    with pytest.raises(CorruptionError, match="is corrupt"):
        read_object(driver, wanted[1].placement, wanted[1].digest_raw)
    assert read_object(driver, wanted[0].placement, wanted[0].digest_raw) == b"good"


def test_missing_blob_is_corruption() -> None:
    with pytest.raises(CorruptionError, match=r"object b3:[0-9a-f]{64} is missing: no blob 'p'"):
        list(read_ranges(SpyDriver(), plan_reads([want("a", "p", 0, 10)])))


def test_large_objects_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "READ_BYTES_MAX", 8)
    driver = SpyDriver()
    body = os.urandom(100)
    (item,) = stored(driver, "objects/x", body)
    assert b"".join(read_chunks(driver, item.placement, item.digest_raw)) == body
    assert driver.requests["read"] == 13
    assert [bytes(data) for _, data in read_ranges(driver, plan_reads([item]))] == [body]
    driver.damaged["objects/x"] = 50
    with pytest.raises(CorruptionError, match="is corrupt"):
        list(read_chunks(driver, item.placement, item.digest_raw))
