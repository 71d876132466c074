from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from blake3 import blake3

from tests.unit.blobs.spy import SpyDriver
from vds.blobs import objects
from vds.blobs.objects import (
    BLOCK_BYTES_MIN,
    BLOCKS_MAX,
    SINGLE_PUT_BYTES_MAX,
    Placement,
    RecordDivergedError,
    block_size_bytes,
    fresh_ulid,
    object_key,
    pack_key,
    put_blob,
    put_object,
    put_record,
    stream_key,
)
from vds.errors import OutcomeUnknownError
from vds.model.content import SourceChangedError
from vds.model.digest import Digest
from vds.model.ulid import is_ulid
from vds.pipeline import Limits

MIB = 1024 * 1024


def digest(body: bytes) -> bytes:
    return blake3(body).digest()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an object of 16 bytes a large one."""
    monkeypatch.setattr(objects, "SINGLE_PUT_BYTES_MAX", 15)
    monkeypatch.setattr(objects, "BLOCK_BYTES_MIN", 8)


def cut(body: bytes, size: int = 8) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def test_keys() -> None:
    raw = digest(b"x")
    assert object_key(raw, "g1") == f"objects/{raw.hex()[:2]}/{raw.hex()}.g1"
    assert stream_key("u") == "objects/~~/u"
    ulid = fresh_ulid()
    assert is_ulid(ulid)
    assert re.fullmatch(rf"packs/[0-9a-f]{{2}}/{ulid}\.pack", pack_key(ulid))
    assert len({pack_key(fresh_ulid())[:8] for _ in range(300)}) > 100


def test_block_sizes_follow_the_size() -> None:
    assert block_size_bytes(1) == SINGLE_PUT_BYTES_MAX
    assert block_size_bytes(SINGLE_PUT_BYTES_MAX) == SINGLE_PUT_BYTES_MAX
    assert block_size_bytes(SINGLE_PUT_BYTES_MAX + 1) == BLOCK_BYTES_MIN
    assert block_size_bytes(BLOCK_BYTES_MIN * BLOCKS_MAX) == BLOCK_BYTES_MIN
    assert block_size_bytes(BLOCK_BYTES_MIN * BLOCKS_MAX + 1) == BLOCK_BYTES_MIN + MIB
    for size_bytes in (10**12, 10**14, 190 * 2**40):
        assert -(-size_bytes // block_size_bytes(size_bytes)) <= BLOCKS_MAX


def test_whole_object_is_one_request() -> None:
    driver = SpyDriver()
    etag = put_object(driver, "k", [b"body"], size_bytes=4, digest_raw=digest(b"body"))
    assert driver.requests == {"put": 1}
    blob = driver.find_blob("k")
    assert blob is not None
    assert (blob.etag, blob.size_bytes) == (etag, 4)


@pytest.mark.usefixtures("small_blocks")
def test_large_object_is_staged_in_blocks_and_carries_its_digest() -> None:
    driver = SpyDriver()
    body = os.urandom(100)
    etag = put_object(
        driver, "k", cut(body), size_bytes=100, digest_raw=digest(body), limits=Limits(workers=3, in_flight_bytes_max=20)
    )
    assert driver.requests == {"list_blocks": 1, "stage": 13, "commit": 1}
    blob = driver.find_blob("k")
    assert blob is not None
    assert (blob.etag, blob.metadata) == (etag, {"vds_digest": Digest.of(body)})
    assert driver.read_range("k") == body


@pytest.mark.usefixtures("small_blocks")
def test_blocks_already_staged_are_not_sent_again() -> None:
    driver = SpyDriver()
    body = os.urandom(40)

    def broken() -> Iterator[bytes]:
        yield from list(cut(body))[:3]
        raise OSError("the machine goes down")

    with pytest.raises(OSError, match="goes down"):
        put_object(driver, "k", broken(), size_bytes=40, digest_raw=digest(body))
    assert driver.find_blob("k") is None
    sent = driver.requests["stage"]
    put_object(driver, "k", cut(body), size_bytes=40, digest_raw=digest(body))
    assert driver.requests["stage"] == 5
    assert 0 <= sent <= 3
    assert driver.read_range("k") == body


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size_bytes", [4, 100])
def test_other_bytes_than_named_never_become_a_blob(size_bytes: int) -> None:
    driver = SpyDriver()
    body, meant = os.urandom(size_bytes), os.urandom(size_bytes)
    with pytest.raises(SourceChangedError, match="expected b3:"):
        put_object(driver, "k", cut(body), size_bytes=size_bytes, digest_raw=digest(meant))
    with pytest.raises(SourceChangedError, match=f"expected {size_bytes} bytes, read {size_bytes - 1}"):
        put_object(driver, "k", cut(body[:-1]), size_bytes=size_bytes, digest_raw=digest(body))
    assert driver.find_blob("k") is None


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size_bytes", [4, 100])
def test_a_lost_response_is_success(size_bytes: int) -> None:
    driver = SpyDriver()
    driver.lost_responses = 1
    body = os.urandom(size_bytes)
    assert put_object(driver, "k", cut(body), size_bytes=size_bytes, digest_raw=digest(body))
    assert driver.read_range("k") == body


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size_bytes", [4, 100])
@pytest.mark.parametrize("other_bytes", [-1, 0])
def test_a_key_that_holds_something_else_is_an_unknown_outcome(size_bytes: int, other_bytes: int) -> None:
    driver = SpyDriver()
    driver.put_if_absent("k", os.urandom(size_bytes + other_bytes))
    body = os.urandom(size_bytes)
    with pytest.raises(OutcomeUnknownError, match="'k' exists"):
        put_object(driver, "k", cut(body), size_bytes=size_bytes, digest_raw=digest(body))


def test_put_blob_again_is_harmless() -> None:
    driver = SpyDriver()
    assert put_blob(driver, "k", memoryview(b"pack")) == put_blob(driver, "k", bytearray(b"pack"))


def test_records_are_immutable() -> None:
    driver = SpyDriver()
    put_record(driver, "journal/1", b"a")
    put_record(driver, "journal/1", b"a")
    for other in (b"b", b"aa", b""):
        with pytest.raises(RecordDivergedError, match="journal/1"):
            put_record(driver, "journal/1", other)
    assert driver.read_range("journal/1") == b"a"


def test_placement_is_a_value() -> None:
    assert Placement("k", 0, 1) == Placement("k", 0, 1)
