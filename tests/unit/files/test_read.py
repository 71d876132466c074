from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from blake3 import blake3

from vds.files import read as read_module
from vds.files.read import (
    SAMPLE_BYTES,
    BlockHashes,
    SourceReader,
    check_file,
    hash_blocks,
    hash_descriptor,
    read_into,
    sample_file,
)
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.model.checks import fingerprint_of, leaf_checks
from vds.model.content import SourceChangedError

MIB = 1024 * 1024


def scanned(path: Path, body: bytes | bytearray) -> SourceFile:
    path.write_bytes(body)
    return next(file for file in scan_directory(path.parent, ScanReport()) if file.path == path.name)


def into(file: SourceFile) -> bytes:
    target = bytearray(file.size_bytes)
    read_into(file, memoryview(target))
    return bytes(target)


def blocks(file: SourceFile, block_bytes: int) -> Iterator[bytes]:
    with closing(SourceReader(file)) as reader:
        left = file.size_bytes
        while left:
            block = bytearray(min(left, block_bytes))
            reader.read(memoryview(block))
            left -= len(block)
            yield bytes(block)
        reader.check()


READERS: dict[str, Callable[[SourceFile], object]] = {
    "into": into,
    "blocks": lambda file: list(blocks(file, 7)),
    "hash blocks": lambda file: hash_blocks(file, 7),
}


@pytest.fixture(params=list(READERS))
def reader(request: pytest.FixtureRequest) -> Callable[[SourceFile], object]:
    return READERS[request.param]


@pytest.mark.parametrize("size_bytes", [0, 1, 7, 8, 20, MIB + 1])
def test_all_readers_give_the_content(tmp_path: Path, size_bytes: int) -> None:
    body = os.urandom(size_bytes)
    file = scanned(tmp_path / "f", body)
    assert into(file) == body
    assert b"".join(blocks(file, 1 + size_bytes // 3)) == body
    assert hash_blocks(file, 7 + size_bytes // 3).digest == blake3(body).digest()
    with open(file.os_path, "rb") as opened:
        assert hash_descriptor(opened.fileno()) == blake3(body).digest()


@pytest.mark.parametrize("block_bytes", [MIB // 2, MIB, MIB + 1, 3 * MIB, 8 * MIB])
def test_each_block_has_its_fingerprint(tmp_path: Path, block_bytes: int) -> None:
    body = os.urandom(3 * MIB + 5)
    file = scanned(tmp_path / "f", body)
    cut = [body[start : start + block_bytes] for start in range(0, len(body), block_bytes)]
    assert list(blocks(file, block_bytes)) == cut
    assert hash_blocks(file, block_bytes) == BlockHashes(blake3(body).digest(), [fingerprint_of(leaf_checks(one)) for one in cut])


@pytest.mark.parametrize("change", ["longer", "shorter", "same size", "replaced", "directory"])
def test_a_file_changed_since_the_scan(tmp_path: Path, reader: Callable[[SourceFile], object], change: str) -> None:
    if os.name == "nt" and change == "directory":
        pytest.skip("Windows opens no directory")
    path = tmp_path / "f"
    file = scanned(path, b"x" * 20)
    alter(path, file, change)
    if change == "directory":
        with pytest.raises(IsADirectoryError):
            reader(file)
        return
    with pytest.raises(SourceChangedError, match="'f' changed while it was being read") as caught:
        reader(file)
    assert caught.value.hint


def alter(path: Path, file: SourceFile, change: str) -> None:
    """Change a file in a way that a stat shows."""
    if change == "longer":
        path.write_bytes(b"x" * 21)
    elif change == "shorter":
        path.write_bytes(b"x" * 19)
    elif change == "same size":
        path.write_bytes(b"y" * 20)
        os.utime(path, ns=(0, file.modified_ns + 1))
    elif change == "replaced":  # by a file of the same size and mtime
        other = path.parent / "other"
        other.write_bytes(b"y" * 20)
        os.utime(other, ns=(0, file.modified_ns))
        os.replace(other, path)
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in directories")
@pytest.mark.parametrize("has_writer", [False, True])
def test_a_pipe_in_place_of_the_file_does_not_block(
    tmp_path: Path, reader: Callable[[SourceFile], object], has_writer: bool
) -> None:
    path = tmp_path / "f"
    file = scanned(path, b"x")
    path.unlink()
    os.mkfifo(path)
    ends = [os.open(path, os.O_RDWR | os.O_NONBLOCK)] if has_writer else []
    try:
        with pytest.raises((SourceChangedError, BlockingIOError)):
            reader(file)
    finally:
        for end in ends:
            os.close(end)


@pytest.mark.parametrize("name", ["into", "blocks", "hash blocks"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "f"
    file = scanned(path, b"x" * 20)
    real = read_module._read_some

    def read(descriptor: int, target: memoryview) -> int:
        count = real(descriptor, target)
        if count:
            os.utime(path, ns=(0, file.modified_ns + 1))
        return count

    monkeypatch.setattr(read_module, "_read_some", read)
    with pytest.raises(SourceChangedError, match="written to or replaced"):
        READERS[name](file)


def test_a_file_that_changes_between_two_blocks(tmp_path: Path) -> None:
    file = scanned(tmp_path / "f", b"x" * 20)
    found = blocks(file, 8)
    assert next(found) == b"x" * 8
    os.truncate(tmp_path / "f", 10)
    with pytest.raises(SourceChangedError, match="ends 6 bytes early"):
        list(found)
    file = scanned(tmp_path / "f", b"x" * 20)
    found = blocks(file, 20)
    assert next(found) == b"x" * 20
    os.utime(tmp_path / "f", ns=(0, file.modified_ns + 1))
    with pytest.raises(SourceChangedError, match="written to or replaced"):
        list(found)


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = scanned(tmp_path / "f", b"0123456789")
    real = read_module._read_some
    monkeypatch.setattr(read_module, "_read_some", lambda descriptor, target: real(descriptor, target[:3]))
    assert into(file) == b"0123456789"
    assert list(blocks(file, 4)) == [b"0123", b"4567", b"89"]
    assert hash_blocks(file, 4).digest == blake3(b"0123456789").digest()


def test_a_missing_file_is_an_os_error(tmp_path: Path, reader: Callable[[SourceFile], object]) -> None:
    file = scanned(tmp_path / "f", b"x")
    (tmp_path / "f").unlink()
    for read in (reader, sample_file, check_file):
        with pytest.raises(FileNotFoundError):
            read(file)


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
@pytest.mark.parametrize("change", ["none", "shorter", "directory"])
def test_every_descriptor_is_closed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "f"
    file = scanned(path, b"x" * 20)
    if change != "none":
        alter(path, file, change)
    open_before = len(os.listdir("/proc/self/fd"))
    for read in (*READERS.values(), sample_file, check_file):
        with suppress(OSError, SourceChangedError):
            read(file)
    assert len(os.listdir("/proc/self/fd")) <= open_before


def test_a_reader_may_be_closed_again(tmp_path: Path) -> None:
    reader = SourceReader(scanned(tmp_path / "f", b"x"))
    reader.close()
    reader.close()


class TestCheckFile:
    def test_an_unchanged_file_passes(self, tmp_path: Path) -> None:
        check_file(scanned(tmp_path / "f", b""))

    @pytest.mark.parametrize("change", ["longer", "same size", "replaced", "directory"])
    def test_any_change_is_noticed(self, tmp_path: Path, change: str) -> None:
        file = scanned(tmp_path / "f", b"x" * 20)
        alter(tmp_path / "f", file, change)
        with pytest.raises(SourceChangedError, match="'f' changed"):
            check_file(file)


class TestSampleFile:
    @pytest.mark.parametrize("size_bytes", [0, 1, SAMPLE_BYTES, 2 * SAMPLE_BYTES + 1, 20 * SAMPLE_BYTES])
    def test_equal_files_have_equal_samples(self, tmp_path: Path, size_bytes: int) -> None:
        body = os.urandom(size_bytes)
        first, second = scanned(tmp_path / "a", body), scanned(tmp_path / "b", body)
        assert sample_file(first) == sample_file(second)
        assert sample_file(first).startswith(f"{size_bytes:x}-")

    @pytest.mark.parametrize("place", [0, SAMPLE_BYTES - 1, 10 * SAMPLE_BYTES, 11 * SAMPLE_BYTES - 1, 19 * SAMPLE_BYTES, -1])
    def test_start_middle_and_end_are_looked_at(self, tmp_path: Path, place: int) -> None:
        body = bytearray(20 * SAMPLE_BYTES)
        before = sample_file(scanned(tmp_path / "f", body))
        body[place] = 1
        assert sample_file(scanned(tmp_path / "f", body)) != before

    def test_the_size_tells_files_apart_whose_samples_are_alike(self, tmp_path: Path) -> None:
        sizes = [20 * SAMPLE_BYTES, 30 * SAMPLE_BYTES]
        assert len({sample_file(scanned(tmp_path / "f", bytes(size_bytes))) for size_bytes in sizes}) == 2

    def test_no_more_than_the_samples_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = scanned(tmp_path / "f", b"")
        with open(file.os_path, "r+b") as handle:
            handle.truncate(1 << 40)  # a sparse file
        counts: list[int] = []
        real = os.read

        def read(descriptor: int, count: int) -> bytes:
            counts.append(count)
            return real(descriptor, count)

        monkeypatch.setattr(os, "read", read)
        sample_file(file._replace(size_bytes=1 << 40))
        assert counts == [SAMPLE_BYTES] * 3

    @pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in directories")
    def test_a_pipe_is_an_os_error(self, tmp_path: Path) -> None:
        file = scanned(tmp_path / "f", b"x")
        (tmp_path / "f").unlink()
        os.mkfifo(tmp_path / "f")
        with pytest.raises(OSError, match="seek"):
            sample_file(file)
