from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ops.stored import Stored
from vds.errors import (
    ConflictError,
    CorruptionError,
    DownloadError,
    FormatError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from vds.files.place import Target
from vds.files.record import find_record
from vds.model.entry import Entry
from vds.ops.checkout import CheckoutResult, Status, checkout, status
from vds.progress import SilentProgress

ONE = {"a/1": b"one", "a/2": b"two", "b": b"bb", "same": b"same"}
TWO = {"a/1": b"ONE!", "c": b"cc", "same": b"same"}
URI = "vds://team/raw@{}/"


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".vds" not in path.parts
    }


def get(stored: Stored, entries: Iterable[Entry], dst: Path, number: int = 1, **options: Any) -> CheckoutResult:
    return checkout(stored.source, entries, dst, SilentProgress(), uri=URI.format(number), **options)


@pytest.fixture
def stored() -> Stored:
    return Stored()


def test_a_directory_becomes_equal_to_one_version_and_then_another(tmp_path: Path, stored: Stored) -> None:
    dst = tmp_path / "dst"
    result = get(stored, stored.version(ONE), dst)
    assert tree(dst) == ONE
    assert (result.files, result.placed, result.bytes, result.kept, result.removed) == (4, 4, 12, 0, ())
    result = get(stored, stored.version(TWO), dst, 2)
    assert tree(dst) == TWO
    assert (result.files, result.placed, result.kept, result.skipped) == (3, 2, 1, 1)
    assert result.removed == ("a/2", "b")
    assert os.listdir(dst / ".vds") == ["checkout.jsonl"]
    assert status(dst) == Status(URI.format(2), (), (), ())


def test_again_reads_nothing_and_writes_nothing(tmp_path: Path, stored: Stored) -> None:
    entries = stored.version(ONE)
    get(stored, entries, tmp_path)
    stored.driver.requests.clear()
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}
    result = get(stored, entries, tmp_path)
    assert (result.placed, result.kept) == (0, 4)
    assert stored.driver.requests == {}
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()} == before


def test_foreign_files_stay_and_are_listed(tmp_path: Path, stored: Stored) -> None:
    get(stored, stored.version(ONE), tmp_path)
    (tmp_path / "a" / "mine").write_bytes(b"mine")
    (tmp_path / "notes").write_bytes(b"notes")
    for force in (False, True):
        result = get(stored, stored.version(TWO), tmp_path, 2, force=force)
        assert result.foreign == ("a/mine", "notes")
    assert tree(tmp_path) == {**TWO, "a/mine": b"mine", "notes": b"notes"}
    assert status(tmp_path).added == ("a/mine", "notes")


@pytest.mark.parametrize(
    ("path", "what"), [("a/1", "modified in the new version"), ("b", "removed in it"), ("c", "new in it, and not ours")]
)
def test_local_changes_are_not_lost_unless_forced(tmp_path: Path, stored: Stored, path: str, what: str) -> None:
    get(stored, stored.version(ONE), tmp_path)
    (tmp_path / path).write_bytes(b"edited")
    before = tree(tmp_path)
    for dry_run in (False, True):
        with pytest.raises(ConflictError, match=f"'{path}'") as caught:
            get(stored, stored.version(TWO), tmp_path, 2, dry_run=dry_run)
        assert caught.value.paths == (path,)
        assert "force" in caught.value.hint
        assert tree(tmp_path) == before
    get(stored, stored.version(TWO), tmp_path, 2, force=True)
    assert tree(tmp_path) == TWO
    assert status(tmp_path).is_clean


def test_an_edit_of_the_same_size_is_seen_and_a_touch_is_none(tmp_path: Path, stored: Stored) -> None:
    get(stored, stored.version(ONE), tmp_path)
    (tmp_path / "b").write_bytes(b"BB")
    os.utime(tmp_path / "a" / "2", ns=(0, 5))
    with pytest.raises(ConflictError) as caught:
        get(stored, stored.version(TWO), tmp_path, 2)
    assert caught.value.paths == ("b",)
    (tmp_path / "b").write_bytes(b"bb")
    get(stored, stored.version(TWO), tmp_path, 2)
    assert tree(tmp_path) == TWO


def test_files_that_are_right_already_are_adopted(tmp_path: Path, stored: Stored) -> None:
    (tmp_path / "b").write_bytes(b"bb")
    result = get(stored, stored.version(ONE), tmp_path)
    assert result.kept == 1
    assert get(stored, stored.version(TWO), tmp_path, 2).removed == ("a/2", "b")


def test_what_was_removed_here_comes_back(tmp_path: Path, stored: Stored) -> None:
    entries = stored.version(ONE)
    get(stored, entries, tmp_path)
    (tmp_path / "b").unlink()
    (tmp_path / "a" / "2").unlink()
    assert status(tmp_path).removed == ("a/2", "b")
    get(stored, entries, tmp_path)
    assert tree(tmp_path) == ONE
    (tmp_path / "b").unlink()
    get(stored, stored.version(TWO), tmp_path, 2)  # what is gone and not wanted is no conflict
    assert tree(tmp_path) == TWO


def test_files_become_directories_and_back(tmp_path: Path, stored: Stored) -> None:
    file, directory = {"x": b"file"}, {"x/y/z": b"below"}
    get(stored, stored.version(file), tmp_path)
    get(stored, stored.version(directory), tmp_path, 2)
    assert tree(tmp_path) == directory
    get(stored, stored.version(file), tmp_path, 3)
    assert tree(tmp_path) == file


def test_a_foreign_file_below_a_directory_that_is_to_be_a_file_blocks(tmp_path: Path, stored: Stored) -> None:
    get(stored, stored.version({"x/y": b"below"}), tmp_path)
    (tmp_path / "x" / "mine").write_bytes(b"mine")
    for force in (False, True):
        with pytest.raises(ConflictError, match=r"'x'.* cannot be placed"):
            get(stored, stored.version({"x": b"file"}), tmp_path, 2, force=force)
    assert tree(tmp_path) == {"x/y": b"below", "x/mine": b"mine"}
    with pytest.raises(ConflictError, match=r"'x/mine/z'.* cannot be placed"):
        get(stored, stored.version({"x/mine/z": b"z", "x/y": b"below"}), tmp_path, 2, force=True)


def test_a_dry_run_touches_nothing(tmp_path: Path, stored: Stored) -> None:
    result = get(stored, stored.version(ONE), tmp_path / "new", dry_run=True)
    assert result.dry_run
    assert result.placed == 4
    assert not (tmp_path / "new").exists()
    get(stored, stored.version(ONE), tmp_path)
    assert get(stored, stored.version(TWO), tmp_path, 2, dry_run=True).removed == ("a/2", "b")
    assert tree(tmp_path) == ONE
    assert status(tmp_path).uri == URI.format(1)


def test_after_an_interruption_nothing_of_vds_counts_as_an_edit(tmp_path: Path, stored: Stored) -> None:
    get(stored, stored.version(ONE), tmp_path)
    two = stored.version({**TWO, "lost": b"lost"})
    placement = stored.placements.pop(two[2].digest.raw)
    with pytest.raises(DownloadError):
        get(stored, two, tmp_path, 2)
    assert (tmp_path / "a" / "1").read_bytes() == b"ONE!"
    with pytest.raises(ConflictError, match="did not end") as caught:
        status(tmp_path)
    assert caught.value.hint == f"vds checkout {URI.format(2)} {tmp_path}"
    three = stored.version({"a/1": b"third"})
    get(stored, three, tmp_path, 3)  # what the interrupted checkout had placed is ours to replace and remove
    assert tree(tmp_path) == {"a/1": b"third"}
    stored.placements[two[2].digest.raw] = placement
    get(stored, two, tmp_path, 2)
    assert tree(tmp_path) == {**TWO, "lost": b"lost"}
    assert status(tmp_path).is_clean


def test_a_service_that_is_away_leaves_a_directory_that_can_go_on(tmp_path: Path, stored: Stored) -> None:
    get(stored, stored.version(ONE), tmp_path)
    two = stored.version(TWO)
    stored.driver.down = True
    with pytest.raises(UnavailableError):
        get(stored, two, tmp_path, 2)
    stored.driver.down = False
    get(stored, two, tmp_path, 2)
    assert tree(tmp_path) == TWO


@pytest.mark.skipif(sys.platform == "win32", reason="making symlinks needs a privilege")
def test_symlinks_are_never_followed_nor_replaced(tmp_path: Path, stored: Stored) -> None:
    dst, outside = tmp_path / "dst", tmp_path / "outside"
    outside.mkdir()
    (outside / "1").write_bytes(b"precious")
    get(stored, stored.version(ONE), dst)
    (dst / "b").unlink()
    (dst / "b").symlink_to(outside / "1")
    (dst / "link").symlink_to(outside)
    assert status(dst) == Status(URI.format(1), ("link",), ("b",), ())
    for entries in (stored.version(ONE), stored.version(TWO)):
        for force in (False, True):
            with pytest.raises(ConflictError, match="'b'"):
                get(stored, entries, dst, 2, force=force)
    (dst / "b").unlink()
    (dst / "a" / "1").unlink()
    (dst / "a" / "2").unlink()
    (dst / "a").rmdir()
    (dst / "a").symlink_to(outside)
    with pytest.raises(ConflictError, match="'a/1'"):
        get(stored, stored.version(TWO), dst, 2)
    assert tree(outside) == {"1": b"precious"}


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
def test_executable_bits(tmp_path: Path, stored: Stored) -> None:
    get(stored, stored.version({"tool": b"x"}, executable=["tool"]), tmp_path)
    (tmp_path / "tool").chmod(0o644)
    assert status(tmp_path).modified == ("tool",)
    get(stored, stored.version({"tool": b"x"}, executable=["tool"]), tmp_path)
    assert (tmp_path / "tool").stat().st_mode & 0o100
    get(stored, stored.version({"tool": b"x"}), tmp_path, 2)
    assert not (tmp_path / "tool").stat().st_mode & 0o100
    assert status(tmp_path).is_clean


def test_own_paths_cannot_be_checked_out(tmp_path: Path, stored: Stored) -> None:
    with pytest.raises(DownloadError) as caught:
        get(stored, stored.version({".vds/checkout.jsonl": b"{}", "a": b"a"}), tmp_path)
    assert list(caught.value.failures) == [".vds/checkout.jsonl"]
    assert tree(tmp_path) == {}


def test_status_names_every_kind_of_change(tmp_path: Path, stored: Stored) -> None:
    get(stored, stored.version(ONE), tmp_path)
    (tmp_path / "a" / "1").write_bytes(b"ONE")
    (tmp_path / "b").unlink()
    (tmp_path / "new").write_bytes(b"")
    os.utime(tmp_path / "same", ns=(0, 5))
    found = status(str(tmp_path))
    assert found == Status(URI.format(1), ("new",), ("a/1",), ("b",))
    assert not found.is_clean


def test_status_without_a_checkout(tmp_path: Path) -> None:
    for dst in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotFoundError, match="nothing was checked out"):
            status(dst)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "damage", ["", "{}", "[]", "null", "nonsense", '{"vds_checkout":1,"uri":"u","complete":true}\n{"path":"../x"}']
)
def test_a_damaged_record_is_said_so(tmp_path: Path, stored: Stored, damage: str) -> None:
    get(stored, stored.version(ONE), tmp_path)
    (tmp_path / ".vds" / "checkout.jsonl").write_text(damage)
    with pytest.raises(CorruptionError, match=r"checkout\.jsonl"):
        status(tmp_path)


def test_a_newer_record_says_upgrade(tmp_path: Path) -> None:
    (tmp_path / ".vds").mkdir()
    (tmp_path / ".vds" / "checkout.jsonl").write_text('{"vds_checkout":3}\n')
    with pytest.raises(FormatError, match="format 3"):
        status(tmp_path)


def let_a_tick_pass(file: Path) -> None:
    """Wait until the file system's clock, which ticks every few milliseconds, shows a later time than a file has."""
    probe = file.parent.parent / "probe"
    while not probe.exists() or probe.stat().st_ctime_ns <= file.stat().st_ctime_ns:
        probe.write_bytes(b"")


def refuse_to_read() -> Iterator[Entry]:
    raise AssertionError("the entries are not needed")
    yield


class TestUnchanged:
    """The same again, when nothing was touched."""

    @pytest.fixture(autouse=True)
    def _checked_out(self, tmp_path: Path, stored: Stored) -> None:
        get(stored, stored.version(ONE), tmp_path, digest="d1")

    @pytest.fixture
    def unread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("no file is read")

        monkeypatch.setattr(Target, "find_digest", refuse)

    @pytest.mark.usefixtures("unread")
    def test_neither_entries_nor_files_are_read(self, tmp_path: Path, stored: Stored) -> None:
        for options in ({}, {"force": True}, {"dry_run": True}):
            result = get(stored, refuse_to_read(), tmp_path, digest="d1", **options)
            assert (result.files, result.placed, result.kept, result.foreign) == (4, 0, 4, ())
        assert status(tmp_path).is_clean

    @pytest.mark.usefixtures("unread")
    def test_foreign_files_are_listed_still(self, tmp_path: Path, stored: Stored) -> None:
        (tmp_path / "mine" / "deep").mkdir(parents=True)
        for path in ("mine/deep/f", "a/mine", "é"):
            (tmp_path / path).write_bytes(b"mine")
        assert get(stored, refuse_to_read(), tmp_path, digest="d1").foreign == ("a/mine", "mine/deep/f", "é")
        assert status(tmp_path).added == ("a/mine", "mine/deep/f", "é")

    @pytest.mark.parametrize(
        "options",
        [{"digest": "d2"}, {"digest": ""}, {"digest": "d1", "number": 2}, {"digest": "d1", "allow_patterns": "*"}],
    )
    def test_what_is_not_the_same_is_compared(self, tmp_path: Path, stored: Stored, options: dict[str, Any]) -> None:
        with pytest.raises(AssertionError, match="the entries"):
            get(stored, refuse_to_read(), tmp_path, **options)
        assert get(stored, stored.version(ONE), tmp_path, **options).kept == 4

    @pytest.mark.parametrize("change", ["edited", "removed", "replaced", "mode", "link", "directory", "odd", "unread"])
    def test_any_touch_is_seen(self, tmp_path: Path, stored: Stored, change: str) -> None:
        file = tmp_path / "b"
        found = file.stat()
        let_a_tick_pass(file)
        if change == "edited":  # with the size and the mtime that it had
            file.write_bytes(b"BB")
            os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
        elif change == "mode":
            file.chmod(0o600)
        elif change == "odd":
            (tmp_path / "odd").symlink_to("b")
        elif change == "unread":
            (tmp_path / "a" / "wrong\\name").write_bytes(b"")
        else:
            file.unlink()
            if change == "replaced":
                file.write_bytes(b"bb")
            elif change == "link":
                file.symlink_to("same")
            elif change == "directory":
                file.mkdir()
        with pytest.raises(AssertionError, match="the entries"):
            get(stored, refuse_to_read(), tmp_path, digest="d1")

    def test_an_edit_behind_the_old_size_and_mtime_is_not_lost(self, tmp_path: Path, stored: Stored) -> None:
        found = (tmp_path / "b").stat()
        let_a_tick_pass(tmp_path / "b")
        (tmp_path / "b").write_bytes(b"BB")
        os.utime(tmp_path / "b", ns=(found.st_atime_ns, found.st_mtime_ns))
        assert status(tmp_path).modified == ("b",)
        for entries in (stored.version(ONE), stored.version(TWO)):
            with pytest.raises(ConflictError) as caught:
                get(stored, entries, tmp_path, digest="d1")
            assert caught.value.paths == ("b",)

    def test_files_that_were_copied_elsewhere_are_read_once(
        self, tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for path in ("a/1", "b"):  # other inodes, as after cp -a
            body, found = (tmp_path / path).read_bytes(), (tmp_path / path).stat()
            (tmp_path / path).unlink()
            (tmp_path / path).write_bytes(body)
            os.utime(tmp_path / path, ns=(found.st_mtime_ns, found.st_mtime_ns))
        read: list[str] = []
        find_digest = Target.find_digest

        def find_and_note(target: Target, path: str) -> bytes | None:
            read.append(path)
            return find_digest(target, path)

        monkeypatch.setattr(Target, "find_digest", find_and_note)
        monkeypatch.setattr(time, "time_ns", lambda: 1 << 62)  # long after
        for _ in range(2):
            assert get(stored, stored.version(ONE), tmp_path, digest="d1").kept == 4
        assert sorted(read) == ["a/1", "b"]


def test_a_file_dated_at_its_placing_is_not_believed_unread(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [replace(entry, modified_ns=time.time_ns()) for entry in stored.version({"f": b"old"})]
    monkeypatch.setattr("vds.files.record.TICK_NS", 10**12)  # so that the test may take its time
    get(stored, entries, tmp_path, digest="d1")
    with Target(tmp_path) as target:
        record = find_record(target)
    assert record is not None
    assert [row.changed_ns for row in record.rows] == [0]
    # Even were its stat the same after an edit, the edit is seen.
    (tmp_path / "f").write_bytes(b"new")
    os.utime(tmp_path / "f", ns=(entries[0].modified_ns, entries[0].modified_ns))
    assert status(tmp_path).modified == ("f",)


class TestPatterns:
    """The part of a version that patterns select."""

    def test_the_directory_becomes_equal_to_the_part(self, tmp_path: Path, stored: Stored) -> None:
        get(stored, stored.version(ONE), tmp_path)
        (tmp_path / "mine").write_bytes(b"mine")
        result = get(stored, stored.version(ONE), tmp_path, allow_patterns=["a/", "b"], ignore_patterns="*2")
        assert tree(tmp_path) == {"a/1": b"one", "b": b"bb", "mine": b"mine"}
        assert (result.files, result.placed, result.kept) == (2, 0, 2)
        assert result.removed == ("a/2", "same")
        assert result.foreign == ("mine",)
        assert status(tmp_path) == Status(URI.format(1), ("mine",), (), (), ("a/", "b"), ("*2",))
        result = get(stored, stored.version(ONE), tmp_path)
        assert tree(tmp_path) == {**ONE, "mine": b"mine"}
        assert result.placed == 2
        assert status(tmp_path).allow_patterns is None

    def test_what_is_left_out_and_was_changed_here_is_not_lost(self, tmp_path: Path, stored: Stored) -> None:
        get(stored, stored.version(ONE), tmp_path)
        (tmp_path / "b").write_bytes(b"edited")
        with pytest.raises(ConflictError) as caught:
            get(stored, stored.version(ONE), tmp_path, allow_patterns="a/")
        assert caught.value.paths == ("b",)
        assert tree(tmp_path) == {**ONE, "b": b"edited"}

    def test_a_file_of_the_rest_that_is_there_is_the_users(self, tmp_path: Path, stored: Stored) -> None:
        (tmp_path / "b").write_bytes(b"bb")
        assert get(stored, stored.version(ONE), tmp_path, allow_patterns="a/").foreign == ("b",)

    def test_the_same_part_again_reads_nothing(self, tmp_path: Path, stored: Stored) -> None:
        options: dict[str, Any] = {"digest": "d", "allow_patterns": ["a/"]}
        get(stored, stored.version(ONE), tmp_path, **options)
        assert get(stored, refuse_to_read(), tmp_path, **options).kept == 2
        assert get(stored, refuse_to_read(), tmp_path, digest="d", allow_patterns="a/").kept == 2

    def test_how_to_go_on_with_a_part_is_told(self, tmp_path: Path, stored: Stored) -> None:
        entries = stored.version(ONE)
        stored.driver.down = True
        with pytest.raises(UnavailableError):
            get(stored, entries, tmp_path, allow_patterns=["a/*", "b"], ignore_patterns="*2")
        with pytest.raises(ConflictError, match="did not end") as caught:
            status(tmp_path)
        assert caught.value.hint == f"vds checkout {URI.format(1)} {tmp_path} --allow 'a/*' --allow b --ignore '*2'"


@pytest.mark.skipif(sys.platform == "win32", reason="another call there")
def test_room_is_counted_before_anything_is_touched(tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"gone": b"g" * 9000, "kept": b"k", "replaced": b"r" * 5000}
    two = {"kept": b"k", "new": b"n" * 9000, "replaced": b"R" * 5000}
    get(stored, stored.version(one), tmp_path)
    entries = stored.version(two)
    free = 4096  # what is removed makes room before: 5 blocks are needed, and 9 000 bytes come free

    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 0, 0, free // 4096, 0, 0, 0, 0, 255)))
    needed = 5 * 4096 - 9000
    with pytest.raises(NoSpaceError, match=f"needs {needed} bytes and has {free} free .and 5000 in files that") as caught:
        get(stored, entries, tmp_path, 2)
    assert (caught.value.needed_bytes, caught.value.free_bytes) == (needed, free)
    assert tree(tmp_path) == one
    assert status(tmp_path) == Status(URI.format(1), (), (), ())
    free = 3 * 4096
    get(stored, entries, tmp_path, 2)
    assert tree(tmp_path) == two
