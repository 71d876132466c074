"""A file of a version as a Python file: the bytes of any other file, and the requests that were promised."""

from __future__ import annotations

import io
import os
import random
import tempfile
from typing import IO, Any

import pytest
from blake3 import blake3

from vds.engine.objectfile import AHEAD_BYTES_FIRST, AHEAD_BYTES_MAX, BUFFER_BYTES, REQUEST_BYTES_MAX, ObjectFile, VersionFile
from vds.errors import CorruptionError

KIB = 1024
MIB = 1024 * 1024


class FakeSource:
    """Counts what it is asked for.

    Args:
        has_slices: whether ranges can be checked.
        spools: whether the whole goes to a file.
    """

    def __init__(self, body: bytes, *, has_slices: bool = True, spools: bool = False, digest: bytes | None = None) -> None:
        self.body = body
        self.size_bytes = len(body)
        self.digest_raw = blake3(body).digest() if digest is None else digest
        self.has_slices = has_slices
        self.spools = spools
        self.requests: list[tuple[int, int]] = []
        self.wholes = 0
        self.spooled = 0

    def find_slice(self, offset_bytes: int, size_bytes: int) -> bytes | None:
        assert 0 < size_bytes <= self.size_bytes - offset_bytes
        if not self.has_slices:
            return None
        self.requests.append((offset_bytes, size_bytes))
        return self.body[offset_bytes : offset_bytes + size_bytes]

    def read_whole(self) -> bytes:
        self.wholes += 1
        return self.body

    def spool(self) -> IO[bytes] | None:
        if not self.spools:
            return None
        self.spooled += 1
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the file object closes it
        file.write(self.body)
        return file


def opened(source: FakeSource) -> VersionFile:
    return VersionFile(ObjectFile(source, "dir/name.bin"))


KINDS: list[dict[str, Any]] = [{}, {"has_slices": False}, {"has_slices": False, "spools": True}]


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_like_any_file(kind: dict[str, Any]) -> None:
    body = os.urandom(3 * MIB + 17)
    chance = random.Random(1)
    plain = io.BytesIO(body)
    with opened(FakeSource(body, **kind)) as file:
        for _ in range(400):
            if chance.random() < 0.5:
                place = chance.randrange(-len(body), len(body) + 100)
                whence = io.SEEK_END if place < 0 else io.SEEK_SET
                assert file.seek(place, whence) == plain.seek(place, whence)
            size = chance.choice([0, 1, 7, 100, BUFFER_BYTES, 100_000, 700_000])
            assert file.read(size) == plain.read(size)
            assert file.tell() == plain.tell()
        assert file.seek(0) == 0
        assert file.read() == body
        assert file.read() == b""


@pytest.mark.parametrize("kind", KINDS)
def test_lines_and_text(kind: dict[str, Any]) -> None:
    lines = [f"line {number} é\n" for number in range(50_000)]
    body = "".join(lines).encode()
    with opened(FakeSource(body, **kind)) as file:
        assert file.readline() == lines[0].encode()
        assert file.peek(3)[:3] == lines[1].encode()[:3]
        file.seek(0)
        assert list(io.TextIOWrapper(file, encoding="utf-8")) == lines


def test_nothing_is_asked_for_before_something_is_read() -> None:
    source = FakeSource(bytes(9 * MIB))
    with opened(source) as file:
        assert file.size == 9 * MIB
        file.seek(5)
        assert file.name == "dir/name.bin"
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
    assert source.requests == []
    assert file.closed


@pytest.mark.parametrize("size", [10, 64 * KIB, 100_000, 3 * MIB])
def test_a_random_read_is_one_request(size: int) -> None:
    source = FakeSource(os.urandom(64 * MIB))
    with opened(source) as file:
        for number, place in enumerate((40 * MIB, 3, 50 * MIB + 1, 20 * MIB), start=1):
            file.seek(place)
            assert file.read(size) == source.body[place : place + size]
            assert len(source.requests) == number
            assert source.requests[-1] == (place, max(size, BUFFER_BYTES))


def test_a_long_read_makes_no_later_one_longer() -> None:
    source = FakeSource(os.urandom(64 * MIB))
    with opened(source) as file:
        file.seek(MIB)
        assert len(file.read(40 * MIB)) == 40 * MIB
        source.requests.clear()
        file.seek(100)
        assert file.read(10) == source.body[100:110]
    assert source.requests == [(100, BUFFER_BYTES)]


def test_who_reads_on_gets_ever_longer_requests() -> None:
    source = FakeSource(os.urandom(20 * MIB))
    with opened(source) as file:
        while file.read(100_000):
            pass
    lengths = [length for _, length in source.requests]
    assert lengths[0] == AHEAD_BYTES_FIRST
    assert max(lengths) == REQUEST_BYTES_MAX
    assert len(lengths) <= 9
    assert sum(lengths) == 20 * MIB


def test_the_whole_is_one_call() -> None:
    source = FakeSource(os.urandom(9 * MIB))
    with opened(source) as file:
        assert file.read() == source.body
    assert (source.wholes, source.requests) == (1, [])


def test_a_long_read_goes_out_in_parts_and_is_bounded() -> None:
    source = FakeSource(bytes(AHEAD_BYTES_MAX + 3 * MIB))
    with opened(source) as file:
        file.seek(MIB)
        assert len(file.read(AHEAD_BYTES_MAX)) == AHEAD_BYTES_MAX
    assert max(length for _, length in source.requests) == REQUEST_BYTES_MAX
    assert len(source.requests) == AHEAD_BYTES_MAX // REQUEST_BYTES_MAX


def test_a_file_read_in_order_is_held_against_its_digest() -> None:
    body = os.urandom(2 * MIB)
    with opened(FakeSource(body, digest=bytes(32))) as file, pytest.raises(CorruptionError, match=r"dir/name\.bin"):
        list(iter(lambda: file.read(100_000), b""))
    with opened(FakeSource(body, digest=bytes(32))) as file:
        file.seek(MIB)
        assert file.read(10) == body[MIB : MIB + 10]  # a range: held against its checks, by the source


def test_what_cannot_be_checked_in_ranges_is_read_once() -> None:
    source = FakeSource(os.urandom(2 * MIB), has_slices=False)
    spooled = FakeSource(os.urandom(2 * MIB), has_slices=False, spools=True)
    for one in (source, spooled):
        with opened(one) as file:
            for place in (MIB, 0, 2 * MIB - 5):
                file.seek(place)
                assert file.read(100) == one.body[place : place + 100]
    assert (source.wholes, source.spooled) == (1, 0)
    assert (spooled.wholes, spooled.spooled) == (0, 1)


def test_an_empty_file() -> None:
    source = FakeSource(b"")
    with opened(source) as file:
        assert file.read(10) == b""
        assert file.readinto(bytearray(5)) == 0
        assert file.seek(10) == 10
        assert file.read(1) == b""
    assert source.requests == []


def test_wrong_positions_and_a_closed_file() -> None:
    file = opened(FakeSource(b"abc"))
    with pytest.raises(ValueError, match="before"):
        file.raw.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        file.raw.seek(0, 7)
    with pytest.raises(io.UnsupportedOperation):
        file.write(b"x")
    raw = file.raw
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    with pytest.raises(ValueError, match="closed"):
        raw.readinto(bytearray(1))
