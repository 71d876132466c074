"""Replacing a small file of the user's: all of it or nothing, and never over a change that was not seen."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vds.errors import AccessDeniedError, ConflictError, InvalidInputError, NoSpaceError
from vds.files.rewrite import read_text, rewrite


def test_a_new_file_and_a_changed_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert read_text(path) is None
    assert rewrite(path, None, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert rewrite(path, read_text(path), "2\n")
    assert path.read_bytes() == b"2\n"
    assert os.listdir(tmp_path) == ["lock"]


def test_what_is_equal_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1\n")
    before = path.stat()
    assert not rewrite(path, "1\n", "1\n")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("before", [None, "1\n"])
def test_a_change_of_someone_else_stays(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "lock"
    path.write_text("theirs\n")
    with pytest.raises(ConflictError, match="changed by someone else"):
        rewrite(path, before, "ours\n")
    assert path.read_text() == "theirs\n"
    assert os.listdir(tmp_path) == ["lock"]


def test_a_file_that_went_away_is_a_change(tmp_path: Path) -> None:
    with pytest.raises(ConflictError):
        rewrite(tmp_path / "lock", "1\n", "2\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes and links")
def test_mode_and_symlink_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "lock", tmp_path / "lock"
    target.write_text("1\n")
    target.chmod(0o640)
    link.symlink_to(target)
    rewrite(link, "1\n", "2\n")
    assert link.is_symlink()
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("2\n", 0o640)
    assert os.listdir(tmp_path / "real") == ["lock"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EROFS, AccessDeniedError),
        (errno.EACCES, AccessDeniedError),
        (errno.EIO, InvalidInputError),
    ],
)
def test_an_error_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]) -> None:
    path = tmp_path / "lock"
    path.write_text("1\n")

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("vds.files.rewrite.os.fsync", fail)
    with pytest.raises(error, match="cannot be written"):
        rewrite(path, "1\n", "2\n")
    assert path.read_text() == "1\n"
    assert os.listdir(tmp_path) == ["lock"]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be written") as caught:
        rewrite(tmp_path / "none" / "lock", None, "1\n")
    assert "directory" in caught.value.hint


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(InvalidInputError, match=r"not UTF-8.* at byte 3"):
        read_text(tmp_path / "latin")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_text(tmp_path)
