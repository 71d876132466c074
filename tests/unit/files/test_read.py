from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from vds.files.read import hash_file, read_blocks, read_file, read_into
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.model.content import SourceChangedError


def scanned(path: Path, body: bytes) -> SourceFile:
    path.write_bytes(body)
    return next(file for file in scan_directory(path.parent, ScanReport()) if file.path == path.name)


def into(file: SourceFile) -> bytes:
    target = bytearray(file.size_bytes)
    read_into(file, memoryview(target))
    return bytes(target)


READERS: list[Callable[[SourceFile], object]] = [read_file, into, hash_file, lambda file: list(read_blocks(file, 7))]


@pytest.mark.parametrize("size_bytes", [0, 1, 7, 8, 20, 1024 * 1024 + 1])
def test_all_readers_give_the_content(tmp_path: Path, size_bytes: int) -> None:
    body = os.urandom(size_bytes)
    file = scanned(tmp_path / "f", body)
    told: list[int] = []
    assert read_file(file) == into(file) == body
    assert b"".join(read_blocks(file, 1 + size_bytes // 3)) == body
    assert hash_file(file, told.append) == blake3(body).digest()
    assert sum(told) == size_bytes


def test_blocks_have_the_size_asked_for(tmp_path: Path) -> None:
    file = scanned(tmp_path / "f", b"x" * 20)
    assert [len(block) for block in read_blocks(file, 8)] == [8, 8, 4]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("change", ["longer", "shorter", "same size", "replaced", "directory"])
def test_a_file_changed_since_the_scan(tmp_path: Path, reader: Callable[[SourceFile], object], change: str) -> None:
    path = tmp_path / "f"
    file = scanned(path, b"x" * 20)
    if change == "longer":
        path.write_bytes(b"x" * 21)
    elif change == "shorter":
        path.write_bytes(b"x" * 19)
    elif change == "same size":
        path.write_bytes(b"y" * 20)
        os.utime(path, ns=(0, file.modified_ns + 1))
    elif change == "replaced":  # by a file of the same size and mtime
        other = tmp_path / "other"
        other.write_bytes(b"y" * 20)
        os.utime(other, ns=(0, file.modified_ns))
        os.replace(other, path)
    else:
        path.unlink()
        path.mkdir()
    if os.name == "nt" and change == "directory":
        pytest.skip("Windows opens no directory")
    with pytest.raises(SourceChangedError, match="'f' changed while it was being read"):
        reader(file)


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in directories")
@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_in_place_of_the_file_does_not_block(tmp_path: Path, reader: Callable[[SourceFile], object]) -> None:
    file = scanned(tmp_path / "f", b"x")
    (tmp_path / "f").unlink()
    os.mkfifo(tmp_path / "f")
    with pytest.raises(SourceChangedError, match="no longer a regular file"):
        reader(file)


def test_a_file_that_grows_while_it_is_hashed(tmp_path: Path) -> None:
    file = scanned(tmp_path / "f", b"x" * 20)

    def grow(_: int) -> None:
        if (tmp_path / "f").stat().st_size == 20:
            with open(tmp_path / "f", "ab") as handle:
                handle.write(b"more")

    with pytest.raises(SourceChangedError):
        hash_file(file, grow)


def test_a_file_that_changes_between_two_blocks(tmp_path: Path) -> None:
    file = scanned(tmp_path / "f", b"x" * 20)
    blocks = read_blocks(file, 8)
    assert next(blocks) == b"x" * 8
    os.truncate(tmp_path / "f", 10)
    with pytest.raises(SourceChangedError, match="ends 6 bytes early"):
        list(blocks)
    file = scanned(tmp_path / "f", b"x" * 20)
    blocks = read_blocks(file, 20)
    assert next(blocks) == b"x" * 20
    os.utime(tmp_path / "f", ns=(0, file.modified_ns + 1))
    with pytest.raises(SourceChangedError, match="written to or replaced"):
        list(blocks)


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = scanned(tmp_path / "f", b"0123456789")
    whole_read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, count: whole_read(descriptor, min(count, 3)))
    assert read_file(file) == b"0123456789"
    assert list(read_blocks(file, 4)) == [b"0123", b"4567", b"89"]


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    file = scanned(tmp_path / "f", b"x")
    (tmp_path / "f").unlink()
    with pytest.raises(FileNotFoundError):
        read_file(file)
