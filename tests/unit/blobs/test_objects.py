from __future__ import annotations

import os
import re

import pytest
from blake3 import blake3

from tests.unit.blobs.spy import SpyDriver
from vds.blobs.driver import Buffer
from vds.blobs.objects import (
    BLOCK_BYTES_MAX,
    BLOCK_BYTES_MIN,
    BLOCKS_MAX,
    DIGEST_METADATA,
    SINGLE_PUT_BYTES_MAX,
    Placement,
    RecordDivergedError,
    block_id,
    block_size_bytes,
    commit_blob,
    fresh_ulid,
    object_key,
    pack_key,
    put_blob,
    put_record,
    stream_key,
)
from vds.errors import InvalidInputError, NotFoundError, OutcomeUnknownError
from vds.model.digest import Digest
from vds.model.ulid import is_ulid

MIB = 1024 * 1024


def digest(body: bytes) -> bytes:
    return blake3(body).digest()


def test_keys() -> None:
    raw = digest(b"x")
    assert object_key(raw, "g1") == f"objects/{raw.hex()[:2]}/{raw.hex()}.g1"
    assert stream_key("u") == "objects/~~/u"
    ulid = fresh_ulid()
    assert is_ulid(ulid)
    assert re.fullmatch(rf"packs/[0-9a-f]{{2}}/{ulid}\.pack", pack_key(ulid))
    assert len({pack_key(fresh_ulid())[:8] for _ in range(300)}) > 100


def test_block_sizes_follow_the_size() -> None:
    assert block_size_bytes(1) == SINGLE_PUT_BYTES_MAX == BLOCK_BYTES_MIN
    assert block_size_bytes(SINGLE_PUT_BYTES_MAX + 1) == BLOCK_BYTES_MIN
    assert block_size_bytes(BLOCK_BYTES_MIN * BLOCKS_MAX) == BLOCK_BYTES_MIN
    assert block_size_bytes(BLOCK_BYTES_MIN * BLOCKS_MAX + 1) == BLOCK_BYTES_MIN + MIB
    for size_bytes in (10**12, 10**14, 190 * 2**40):
        block_bytes = block_size_bytes(size_bytes)
        assert -(-size_bytes // block_bytes) <= BLOCKS_MAX
        assert block_bytes % MIB == 0


def test_the_largest_blob_is_the_services() -> None:
    largest = 50_000 * 4000 * MIB
    assert block_size_bytes(largest) == BLOCK_BYTES_MAX
    with pytest.raises(InvalidInputError, match=f"{largest + 1} bytes are more than a blob can have") as caught:
        block_size_bytes(largest + 1)
    assert caught.value.hint


def test_block_ids_tell_place_and_content_and_are_of_one_length() -> None:
    ids = [block_id(index, "f" * 32) for index in (0, 1, BLOCKS_MAX - 1)]
    assert ids[1] == "000001-" + "f" * 32
    assert len({len(name) for name in ids}) == 1
    assert len(set(ids)) == 3
    assert len(ids[0]) <= 48


def staged(driver: SpyDriver, key: str, body: bytes, size: int = 8) -> list[str]:
    """Stage a body in blocks and return their ids."""
    names = []
    for start in range(0, len(body), size):
        names.append(block_id(start // size, f"{start:032x}"))
        driver.stage_block(key, names[-1], body[start : start + size])
    return names


def commit(driver: SpyDriver, key: str, names: list[str], body: bytes) -> str:
    return commit_blob(driver, key, names, size_bytes=len(body), digest_raw=digest(body))


def test_a_blob_of_blocks_carries_its_digest() -> None:
    driver, body = SpyDriver(), os.urandom(100)
    etag = commit(driver, "k", staged(driver, "k", body), body)
    blob = driver.find_blob("k")
    assert blob is not None
    assert (blob.etag, blob.metadata) == (etag, {DIGEST_METADATA: Digest.of(body)})
    assert driver.read_range("k") == body


def test_a_lost_response_to_a_commit_is_success() -> None:
    driver, body = SpyDriver(), os.urandom(100)
    names = staged(driver, "k", body)
    driver.lost_responses = 1
    etag = commit(driver, "k", names, body)
    assert etag == commit(driver, "k", names, body)
    assert driver.read_bytes == 0  # the digest in the metadata is proof enough
    assert driver.read_range("k") == body


def test_a_lost_response_to_a_put_is_success() -> None:
    driver, body = SpyDriver(), os.urandom(100)
    driver.lost_responses = 1
    etag = put_blob(driver, "k", body, {DIGEST_METADATA: Digest.of(body)})
    blob = driver.find_blob("k")
    assert blob is not None
    assert (blob.etag, blob.metadata) == (etag, {DIGEST_METADATA: Digest.of(body)})


@pytest.mark.parametrize("other", [b"o" * 100, b"o" * 99, b""])
def test_a_key_that_holds_something_else_is_an_unknown_outcome(other: bytes) -> None:
    driver, body = SpyDriver(), os.urandom(100)
    driver.put_if_absent("k", other, {DIGEST_METADATA: Digest.of(other)})
    with pytest.raises(OutcomeUnknownError, match="'k' exists with other bytes"):
        put_blob(driver, "k", body)
    with pytest.raises(OutcomeUnknownError, match="'k' exists and is not proven"):
        commit(driver, "k", staged(driver, "k", body), body)
    assert driver.read_range("k") == other


def test_the_same_bytes_without_a_digest_prove_a_put_and_no_commit() -> None:
    driver, body = SpyDriver(), os.urandom(100)
    etag = driver.put_if_absent("k", body)
    assert put_blob(driver, "k", body) == etag
    with pytest.raises(OutcomeUnknownError, match="not proven"):
        commit(driver, "k", staged(driver, "k", body), body)


def test_a_block_that_is_gone_is_not_found() -> None:
    driver = SpyDriver()
    with pytest.raises(NotFoundError):
        commit(driver, "k", [block_id(0, "0" * 32)], b"x")
    assert driver.find_blob("k") is None


@pytest.mark.parametrize("body", [b"body", bytearray(b"body"), memoryview(b"body"), b""])
def test_a_whole_blob_is_one_request(body: Buffer) -> None:
    driver = SpyDriver()
    put_blob(driver, "k", body)
    assert driver.requests == {"put": 1}
    assert driver.read_range("k") == bytes(body)


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
