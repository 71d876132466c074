from __future__ import annotations

import os

import pytest
from blake3 import blake3

from tests.unit.blobs.spy import SpyDriver
from vds.blobs import streams
from vds.blobs.objects import BLOCK_BYTES_MIN
from vds.blobs.streams import Stream, StreamWriter, put_stream, stream_block_bytes
from vds.errors import InvalidInputError
from vds.model.digest import EMPTY_RAW, Digest


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES_MIN", 8)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size_bytes", [1, 7, 8, 9, 16, 100])
@pytest.mark.parametrize("piece_bytes", [1, 5, 8, 1000])
def test_round_trip(size_bytes: int, piece_bytes: int) -> None:
    driver = SpyDriver()
    body = os.urandom(size_bytes)
    chunks = [body[start : start + piece_bytes] for start in range(0, size_bytes, piece_bytes)]
    stream = put_stream(driver, "objects/~~/u", chunks)
    blob = driver.find_blob("objects/~~/u")
    assert blob is not None
    assert stream == Stream(blake3(body).digest(), size_bytes, blob.etag)
    assert blob.metadata == {"vds_digest": Digest.of(body)}
    assert driver.read_range("objects/~~/u") == body
    assert driver.sent_bytes == size_bytes


def test_a_short_stream_is_one_request_and_an_empty_one_none() -> None:
    driver = SpyDriver()
    put_stream(driver, "k", [b"ab", b"", b"c"])
    assert driver.requests == {"put": 1}
    assert put_stream(driver, "empty", [b""]) == Stream(EMPTY_RAW, 0, "")
    assert driver.requests == {"put": 1}


@pytest.mark.usefixtures("small_blocks")
def test_content_that_is_known_already_need_not_be_committed() -> None:
    driver = SpyDriver()
    with StreamWriter(driver, "k") as writer:
        writer.write(b"x" * 20)
        assert writer.seal() == writer.seal() == (blake3(b"x" * 20).digest(), 20)
    assert driver.find_blob("k") is None


@pytest.mark.usefixtures("small_blocks")
def test_a_lost_response_is_success() -> None:
    driver = SpyDriver()
    driver.lost_responses = 1
    assert put_stream(driver, "k", [b"x" * 20]).etag


@pytest.mark.usefixtures("small_blocks")
def test_length_has_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCKS_MAX", 3)
    put_stream(SpyDriver(), "k", [b"x" * 24])
    with pytest.raises(InvalidInputError, match="longer than 3 blocks"):
        put_stream(SpyDriver(), "k", [b"x" * 25])


def test_blocks_grow_so_that_terabytes_fit() -> None:
    assert stream_block_bytes(0) == stream_block_bytes(9_999) == BLOCK_BYTES_MIN
    assert stream_block_bytes(10_000) == 2 * BLOCK_BYTES_MIN
    assert sum(stream_block_bytes(step * 10_000) * 10_000 for step in range(5)) > 2 * 2**40
