from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator

import pytest
from blake3 import blake3

from tests.unit.blobs.spy import SpyDriver
from vds.blobs import streams
from vds.blobs.driver import Buffer
from vds.blobs.objects import BLOCK_BYTES_MIN, block_id
from vds.blobs.streams import Stream, StreamWriter, put_stream, stream_block_bytes
from vds.errors import InvalidInputError, UnavailableError
from vds.model.checks import fingerprint_of, leaf_checks
from vds.model.digest import EMPTY_RAW, Digest
from vds.pace import Pace

WAIT_S = 30  # only ever reached by a test that fails


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


class HeldDriver(SpyDriver):
    """Takes `most` blocks at a time, each waiting for the others, and notes their ids."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._pace = Pace(most, most)
        self.at_once = threading.Barrier(most)
        self.names: list[str] = []

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        self.at_once.wait(WAIT_S)
        self.names.append(block_id)
        super().stage_block(key, block_id, body)


@pytest.mark.usefixtures("small_blocks")
def test_as_many_blocks_leave_at_once_as_the_service_takes() -> None:
    driver = HeldDriver(4)  # each block waits for three others
    body = os.urandom(8 * 16)
    assert put_stream(driver, "k", [body]).size_bytes == len(body)
    assert driver.read_range("k") == body


@pytest.mark.usefixtures("small_blocks")
def test_block_ids_tell_the_content() -> None:
    driver = HeldDriver(1)
    put_stream(driver, "k", [b"a" * 8, b"b" * 8, b"c" * 4])
    bodies = [b"a" * 8, b"b" * 8, b"c" * 4]
    assert sorted(driver.names) == [block_id(place, fingerprint_of(leaf_checks(body))) for place, body in enumerate(bodies)]


@pytest.mark.usefixtures("small_blocks")
def test_buffers_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = mmap.mmap

    def make(descriptor: int, size_bytes: int, **more: int) -> mmap.mmap:
        made.append(size_bytes)
        return real(descriptor, size_bytes, **more)

    monkeypatch.setattr(mmap, "mmap", make)
    put_stream(SpyDriver(), "k", [os.urandom(8 * 500)])
    assert 1 <= len(made) <= 2 * SpyDriver().pace.most + 2 + 2  # those in the lane, the one written to, one just sent


@pytest.mark.usefixtures("small_blocks")
def test_bytes_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SENDING_BYTES_MAX", 20)
    driver = HeldDriver(2)
    with StreamWriter(driver, "k") as writer:
        writer.write(b"x" * 8 * 50)
        writer.seal()
        writer.commit()
        assert len(writer._pool._free) <= 3 + 1
    assert driver.read_range("k") == b"x" * 400


@pytest.mark.usefixtures("small_blocks")
def test_blocks_grow_with_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_BLOCKS_A_STEP", 2)
    driver = SpyDriver()
    body = os.urandom(8 + 8 + 16 + 16 + 32 + 5)
    put_stream(driver, "k", [body])
    assert driver.requests == {"stage": 6, "commit": 1}
    assert driver.read_range("k") == body


@pytest.mark.usefixtures("small_blocks")
def test_an_error_of_the_service_is_raised_and_nothing_becomes_visible() -> None:
    driver = SpyDriver()
    with StreamWriter(driver, "k") as writer:
        writer.write(b"x" * 20)
        driver.down = True
        with pytest.raises(UnavailableError):
            write_on(writer)
    driver.down = False
    assert driver.find_blob("k") is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vds")]


def write_on(writer: StreamWriter) -> None:
    for _ in range(100):
        writer.write(b"x" * 20)
    writer.seal()


@pytest.mark.usefixtures("small_blocks")
def test_an_error_of_the_source_makes_no_blob_and_leaves_no_thread() -> None:
    driver = SpyDriver()

    def broken() -> Iterator[bytes]:
        yield b"x" * 30
        raise OSError("the pipe broke")

    with pytest.raises(OSError, match="the pipe broke"):
        put_stream(driver, "k", broken())
    assert driver.find_blob("k") is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vds")]


@pytest.mark.usefixtures("small_blocks")
def test_what_was_written_may_be_reused_at_once() -> None:
    driver, body = SpyDriver(), bytearray(b"a" * 8)
    with StreamWriter(driver, "k") as writer:
        writer.write(body)
        body[:] = b"b" * 8
        writer.write(body)
        body[:] = b"c" * 8
        writer.write(memoryview(body)[:3])
        body[:] = b"d" * 8
        writer.seal()
        writer.commit()
    assert driver.read_range("k") == b"a" * 8 + b"b" * 8 + b"c" * 3
