from __future__ import annotations

import os
import socket
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vds.errors import InvalidInputError
from vds.files.scan import ScanReport, scan_directory, scan_files
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.patterns import Patterns

posix = pytest.mark.skipif(sys.platform == "win32", reason="the file system of Windows cannot hold it")


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def paths(root: Path, report: ScanReport | None = None, allow: Patterns = None, ignore: Patterns = None) -> list[str]:
    files = scan_directory(root, report or ScanReport(), allow_patterns=allow, ignore_patterns=ignore)
    return [file.path for file in files]


def test_order_is_that_of_whole_paths_in_utf8(tmp_path: Path) -> None:
    names = ["a/b", "a-b", "a.b", "a0", "a/b-/c", "a/b0", "é", "z", "Z", "ﬀ", "😀", "a/é/1"]
    make(tmp_path, *names)
    report = ScanReport()
    expected = sorted(unicodedata.normalize("NFC", name) for name in names)
    assert paths(tmp_path, report) == expected == sorted(expected, key=str.encode)
    assert report == ScanReport(files=len(names))


def test_what_is_known_of_a_file(tmp_path: Path) -> None:
    make(tmp_path, "d/tool")
    path = tmp_path / "d" / "tool"
    path.chmod(0o711)
    os.utime(path, ns=(1, 1_234_567_890_123_456_700))
    (file,) = scan_directory(tmp_path, ScanReport())
    assert (file.path, file.os_path, file.size_bytes) == ("d/tool", str(path), 6)
    assert file.modified_ns == path.stat().st_mtime_ns
    assert file.changed_ns == path.stat().st_ctime_ns
    assert file.inode == path.stat().st_ino
    assert file.mode == (MODE_EXECUTABLE if os.name != "nt" else MODE_FILE)
    path.chmod(0o600)
    assert next(scan_directory(str(tmp_path), ScanReport())).mode == MODE_FILE


def test_empty_directories_and_the_own_one_are_no_files(tmp_path: Path) -> None:
    make(tmp_path, ".vds/checkout.jsonl", "sub/.vds/x", ".vdsx/y")
    (tmp_path / "empty").mkdir()
    assert paths(tmp_path) == [".vdsx/y", "sub/.vds/x"]


def test_very_deep_trees(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 400)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"")
    assert paths(tmp_path) == ["d/" * 400 + "f"]


@posix
def test_symlinks(tmp_path: Path) -> None:
    make(tmp_path, "real/file")
    root = tmp_path / "root"
    root.mkdir()
    (root / "to_file").symlink_to(tmp_path / "real" / "file")
    (root / "to_directory").symlink_to(tmp_path / "real")
    (root / "broken").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    report = ScanReport()
    (file,) = scan_directory(root, report)
    assert (file.path, file.size_bytes) == ("to_file", 9)
    assert report.symlinked_directories == ["to_directory"]
    assert report.failures == {
        "broken": "is a broken symlink to 'nowhere'",
        "loop": "is a broken symlink to 'loop'",
    }
    report = ScanReport()
    assert list(scan_directory(root, report, follow_symlinks=False)) == []
    assert set(report.failures.values()) == {"is a symlink, not a regular file"}
    assert sorted(report.failures) == ["broken", "loop", "to_directory", "to_file"]
    link = tmp_path / "link"
    link.symlink_to(root)
    assert paths(link) == ["to_file"]  # the root itself may be a link


@posix
def test_what_is_not_a_file_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # a socket's path has a limit of 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        report = ScanReport()
        assert paths(tmp_path, report) == []
    assert report.failures == {"pipe": "is a named pipe, not a regular file", "socket": "is a socket, not a regular file"}


@posix
def test_names_that_cannot_be_entries_are_failures(tmp_path: Path) -> None:
    make(tmp_path, "good", "new\nline", "back\\slash", "bad\x7f/inside")
    raw = os.fsencode(tmp_path)
    with open(raw + b"/latin-\xe9", "wb"):
        pass
    os.mkdir(raw + b"/dir-\xff")
    report = ScanReport()
    assert paths(tmp_path, report) == ["good"]
    assert sorted(report.failures) == ["back\\slash", "bad\x7f", "dir-\\xff", "latin-\\xe9", "new\nline"]
    assert "control character" in report.failures["new\nline"]
    assert "not UTF-8" in report.failures["latin-\\xe9"]
    assert "backslash" in report.failures["back\\slash"]


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    make(tmp_path, "/".join(["x" * 200] * 6), "short")
    report = ScanReport()
    assert paths(tmp_path, report) == ["short"]
    (reason,) = report.failures.values()
    assert "the limit is 1024" in reason


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may normalise names themselves")
def test_two_names_of_one_nfc_form_fail_together(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    make(tmp_path, composed, decomposed, f"{composed}s/1", f"{decomposed}s/2", f"{decomposed}-alone", "ok")
    report = ScanReport()
    found = list(scan_directory(tmp_path, report))
    assert [file.path for file in found] == [f"{composed}-alone", "ok"]
    assert found[0].os_path.endswith(f"{decomposed}-alone")
    assert report.failures == {
        composed: "'cafe\\u0301' and 'caf\\xe9' are the same name in Unicode NFC: rename one",
        f"{composed}s": "'cafe\\u0301s' and 'caf\\xe9s' are the same name in Unicode NFC: rename one",
    }


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to list everything, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes on Windows")
def test_an_unreadable_directory_is_a_failure() -> None:
    with tempfile.TemporaryDirectory() as directory:  # not tmp_path: its parents are closed to all but their owner
        root = Path(directory)
        root.chmod(0o755)
        make(root, "closed/file", "open")
        (root / "closed").chmod(0)
        report = ScanReport()
        with as_nobody():
            assert paths(root, report) == ["open"]
        (root / "closed").chmod(0o700)
    assert report.failures == {"closed": "cannot be listed: Permission denied"}


def test_a_directory_that_goes_away_is_a_failure(tmp_path: Path) -> None:
    make(tmp_path, "a", "gone/file")
    report = ScanReport()
    files = scan_directory(tmp_path, report)
    assert next(files).path == "a"
    (tmp_path / "gone" / "file").unlink()
    (tmp_path / "gone").rmdir()
    assert list(files) == []
    assert list(report.failures) == ["gone"]


def test_patterns_choose_and_what_is_ignored_cannot_fail(tmp_path: Path) -> None:
    make(tmp_path, "a.csv", "b.txt", "sub/c.csv", "cache/d.csv")
    if os.name != "nt":
        os.mkfifo(tmp_path / "cache" / "pipe")
    report = ScanReport()
    assert paths(tmp_path, report, allow="*.csv", ignore=["cache/"]) == ["a.csv", "sub/c.csv"]
    assert report == ScanReport(files=2)


def test_a_root_that_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist") as caught:
        scan_directory(tmp_path / "none", ScanReport())
    assert "src_dir" in caught.value.hint
    make(tmp_path, "file")
    with pytest.raises(InvalidInputError, match="is not a directory") as caught:
        scan_directory(tmp_path / "file", ScanReport())
    assert "upload_files" in caught.value.hint


def listed(report: ScanReport, files: list[Path], root: Path | None = None) -> list[str]:
    return [file.path for file in scan_files(files, root, report)]


def test_listed_files_are_relative_to_their_root(tmp_path: Path) -> None:
    make(tmp_path, "data/b/2", "data/a/1", "data/3")
    files = [tmp_path / "data" / name for name in ("b/2", "3", "a/1", "b/2")]
    assert listed(ScanReport(), files, tmp_path) == ["data/3", "data/a/1", "data/b/2"]
    assert listed(ScanReport(), files) == ["3", "a/1", "b/2"]
    assert listed(ScanReport(), files[:1]) == ["2"]
    assert listed(ScanReport(), []) == []


def test_listed_files_that_cannot_be_taken(tmp_path: Path) -> None:
    make(tmp_path, "in/file")
    report = ScanReport()
    assert listed(report, [tmp_path / "in" / "file", tmp_path / "in" / "none"]) == ["file"]
    assert report.failures == {"none": "cannot be read: No such file or directory"}
    with pytest.raises(InvalidInputError, match="outside relative_root"):
        listed(report, [tmp_path / "in" / "file"], tmp_path / "other")
    with pytest.raises(InvalidInputError, match="is a directory") as caught:
        listed(report, [tmp_path / "in"])
    assert "upload(" in caught.value.hint
