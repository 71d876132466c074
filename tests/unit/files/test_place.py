from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from vds.errors import ConflictError, CorruptionError, InvalidInputError, NoSpaceError, UnavailableError
from vds.files import folders, place
from vds.files.place import FileState, Target
from vds.files.placer import Stamp
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.pipeline import parallel_map

NS = 1_600_000_000_123_456_700


@pytest.fixture(params=["descriptors", "paths"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run a test with directory descriptors, and as on systems that have none."""
    if request.param == "paths":
        monkeypatch.setattr(folders, "HAS_DIR_FD", False)
    elif not folders.HAS_DIR_FD:
        pytest.skip("no directory descriptors here")
    return tmp_path / "target"


def put(target: Target, path: str, body: bytes = b"body") -> None:
    target.place(path, [body], mode=MODE_FILE, modified_ns=NS)


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_file_has_its_bytes_mode_and_time(root: Path) -> None:
    with Target(root) as target:
        stamp = target.place("a/b/tool", [b"one", bytearray(b"two"), memoryview(b"3")], mode=MODE_EXECUTABLE, modified_ns=NS)
        put(target, "empty", b"")
    assert tree(root) == {"a/b/tool": b"onetwo3", "empty": b""}
    found = (root / "a" / "b" / "tool").stat()
    assert stamp == (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    assert abs(stamp.modified_ns - NS) < 2_000_000_000
    if os.name != "nt":
        assert found.st_mode & 0o111
        assert not (root / "empty").stat().st_mode & 0o111


@pytest.mark.skipif(sys.platform == "win32", reason="no umask")
def test_the_umask_holds(root: Path) -> None:
    before = os.umask(0o077)
    try:
        with Target(root) as target:
            put(target, "d/f")
    finally:
        os.umask(before)
    assert (root / "d" / "f").stat().st_mode & 0o777 == 0o600
    assert (root / "d").stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_but_what_was_placed(root: Path) -> None:
    with Target(root):
        pass
    assert not root.exists()
    with Target(root) as target:
        put(target, "f")
        assert (root / ".vds").exists()
    assert sorted(os.listdir(root)) == ["f"]


def test_a_file_is_replaced_whole_or_stays(root: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half of the new"
        raise UnavailableError("the blob service did not answer")

    with Target(root) as target:
        put(target, "f", b"old")
        with pytest.raises(UnavailableError):
            target.place("f", broken(), mode=MODE_FILE, modified_ns=NS)
        with pytest.raises(UnavailableError):
            target.place("g", broken(), mode=MODE_FILE, modified_ns=NS)
        assert list(tree(root / ".vds").values()) == [b""]  # the lock alone
        put(target, "h", b"new")
        put(target, "f", b"new")
    assert tree(root) == {"f": b"new", "h": b"new"}


@pytest.mark.parametrize("path", ["../f", "a/../../f", "/etc/f", "a//f", "./f", "", "a\\f"])
def test_paths_that_climb_are_refused(root: Path, path: str) -> None:
    with Target(root) as target:
        with pytest.raises(InvalidInputError):
            put(target, path)
        with pytest.raises(InvalidInputError):
            target.remove(path)
    assert not (root.parent / "f").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="making symlinks needs a privilege")
@pytest.mark.parametrize("planted", ["a", "a/b"])
def test_a_planted_symlink_is_never_followed(root: Path, planted: str) -> None:
    outside = root.parent / "outside"
    (outside / "b").mkdir(parents=True)
    (outside / "b" / "f").write_bytes(b"precious")
    (root / planted).parent.mkdir(parents=True)
    (root / planted).symlink_to(outside if planted == "a" else outside / "b")
    with Target(root) as target:
        with pytest.raises(ConflictError, match=f"a directory '{planted}' is needed"):
            put(target, "a/b/f")
        with pytest.raises(ConflictError, match=planted):
            target.remove("a/b/f")
        assert target.find_state("a/b/f") is None
        assert target.find_digest("a/b/f") is None
    assert tree(outside) == {"b/f": b"precious"}


@pytest.mark.skipif(sys.platform == "win32", reason="making symlinks needs a privilege")
def test_a_symlink_in_place_of_a_file_or_of_the_own_directory_is_refused(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"precious")
    root.mkdir()
    (root / "f").symlink_to(outside / "f")
    with Target(root) as target:
        with pytest.raises(ConflictError, match="'f' is a symlink"):
            put(target, "f")
        with pytest.raises(ConflictError, match="'f' is a symlink"):
            target.remove("f")
        assert target.find_state("f") is not None
        assert target.find_digest("f") is None
    (root / ".vds").symlink_to(outside)
    with Target(root) as target, pytest.raises(ConflictError, match=r"'\.vds' is needed"):
        put(target, "g")
    assert tree(outside) == {"f": b"precious"}


@pytest.mark.skipif(sys.platform == "win32", reason="making symlinks needs a privilege")
def test_the_root_itself_may_be_a_symlink(root: Path) -> None:
    real = root.parent / "real"
    real.mkdir()
    root.symlink_to(real)
    with Target(root) as target:
        put(target, "a/f")
    assert tree(real) == {"a/f": b"body"}


def test_files_and_directories_do_not_replace_each_other(root: Path) -> None:
    with Target(root) as target:
        put(target, "file")
        put(target, "directory/f")
        with pytest.raises(ConflictError, match="'directory' is a directory") as caught:
            put(target, "directory")
        assert caught.value.paths == ("directory",)
        with pytest.raises(ConflictError, match="a directory 'file' is needed"):
            put(target, "file/below")
        with pytest.raises(ConflictError, match="'directory' is a directory"):
            target.remove("directory")
    assert tree(root) == {"file": b"body", "directory/f": b"body"}


def test_a_root_that_is_a_file(root: Path) -> None:
    root.write_bytes(b"")
    with Target(root) as target, pytest.raises(ConflictError, match="a file stands in its way"):
        put(target, "f")
    with Target(root / "below") as target, pytest.raises(ConflictError, match="a file stands in its way"):
        put(target, "f")


def test_remove_takes_empty_directories_along_up_to_the_root(root: Path) -> None:
    with Target(root) as target:
        put(target, "a/b/c/f")
        put(target, "a/g")
        assert target.remove("a/b/c/f") is True
        assert target.remove("a/b/c/f") is False
        assert not (root / "a" / "b").exists()
        put(target, "a/b/c/f", b"again")  # directories once open and now removed are made anew
        assert target.remove("a/g")
        assert target.remove("a/b/c/f")
        put(target, "a")
    assert tree(root) == {"a": b"body"}
    with Target(root) as target:
        target.remove("a")
    assert os.listdir(root) == []


def test_states_and_digests(root: Path) -> None:
    with Target(root) as target:
        assert target.find_state("a/f") is None
        put(target, "a/f")
        assert target.find_state("a/f") == FileState(
            True, 4, (root / "a" / "f").stat().st_mtime_ns, None if os.name == "nt" else MODE_FILE
        )
        state = target.find_state("a")
        assert state is not None
        assert not state.is_file
        assert target.find_state("a/f/g") is None
        assert target.find_digest("a/f") == blake3(b"body").digest()
        assert target.find_digest("a") is None
        assert target.find_digest("none/f") is None


def test_many_directories_and_threads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "OPEN_FOLDERS_MAX", 3)
    names = [f"{number % 7}/{number % 11}/{number}" for number in range(150)]
    with Target(root) as target:
        list(parallel_map(lambda name: put(target, name, name.encode()), names, workers=8))
        assert len(target._folders._open) <= 3 + 3 * 8
    assert tree(root) == {name: name.encode() for name in names}


def test_space_is_checked(root: Path) -> None:
    with Target(root) as target:
        target.check_space(0)
        with pytest.raises(NoSpaceError) as caught:
            target.check_space(1 << 60)
    assert caught.value.needed_bytes == 1 << 60
    assert caught.value.free_bytes
    assert not root.exists()


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a disk with ten free blocks of 4 KiB, and room for three files."""
    found = os.statvfs_result((4096, 4096, 100, 12, 10, 1000, 5, 3, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: found)


@pytest.mark.skipif(sys.platform == "win32", reason="another call there")
@pytest.mark.usefixtures("small_disk")
def test_room_is_counted_in_blocks_and_files(root: Path) -> None:
    with Target(root) as target:
        assert target.round_up([0, 1, 4096, 4097]) == 4 * 4096
        target.check_space(10 * 4096, files=3)
        with pytest.raises(NoSpaceError, match=r"needs 40961 bytes and has 40960 free$") as caught:
            target.check_space(10 * 4096 + 1, files=3)
        assert (caught.value.needed_bytes, caught.value.free_bytes) == (40961, 40960)
        with pytest.raises(NoSpaceError, match=r"has 40960 free \(and 5000 in files that are freed only as they are replaced\)$"):
            target.check_space(10 * 4096 + 1, replaced_bytes=5000)
        with pytest.raises(NoSpaceError, match=r"needs 4 files and has room for 3$"):
            target.check_space(0, files=4)


class TestFilesFromElsewhere:
    """Files that get the content of others, as of those in the cache."""

    BODY = os.urandom(3_000_000)

    @pytest.fixture
    def source(self, root: Path) -> Path:
        path = root.parent / "cached"
        path.write_bytes(self.BODY)
        path.chmod(0o444)
        return path

    def place(self, target: Target, source: Path, **changes: Any) -> Stamp:
        options: dict[str, Any] = {
            "size_bytes": len(self.BODY),
            "digest_raw": blake3(self.BODY).digest(),
            "mode": MODE_FILE,
            "modified_ns": NS,
        }
        return target.place_file("a/f", source, **{**options, **changes})

    @pytest.mark.parametrize("is_linked", [False, True])
    @pytest.mark.parametrize("mode", [MODE_FILE, MODE_EXECUTABLE])
    def test_a_copy(self, root: Path, source: Path, mode: int, is_linked: bool) -> None:
        with Target(root) as target:
            stamp = self.place(target, source, mode=mode, is_linked=is_linked)
        found = (root / "a" / "f").stat()
        assert (root / "a" / "f").read_bytes() == self.BODY
        assert stamp == (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        if found.st_ino == source.stat().st_ino:
            assert is_linked
            assert mode == MODE_FILE
            assert found.st_mode & 0o777 == 0o444
        else:
            assert found.st_mtime_ns == NS
            assert os.name == "nt" or bool(found.st_mode & 0o111) is (mode == MODE_EXECUTABLE)
            assert os.name == "nt" or found.st_mode & 0o200

    @pytest.mark.skipif(sys.platform == "win32", reason="links may need a privilege")
    def test_a_second_name_where_bytes_cannot_be_shared(self, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(place, "clone", lambda *_: False)
        before = source.stat()
        with Target(root) as target:
            for _ in range(2):  # the second time in place of itself
                self.place(target, source, is_linked=True)
                assert (root / "a" / "f").samefile(source)
        assert (source.stat().st_mtime_ns, source.stat().st_nlink) == (before.st_mtime_ns, 2)

    def test_a_copy_where_links_are_refused(self, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(place, "clone", lambda *_: False)
        monkeypatch.setattr(os, "link", refuse)
        with Target(root) as target:
            self.place(target, source, is_linked=True)
        assert (root / "a" / "f").read_bytes() == self.BODY
        assert not (root / "a" / "f").samefile(source)

    def test_bytes_are_shared_where_the_disk_can(self, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def share(descriptor: int, target: int) -> bool:
            os.write(target, os.pread(descriptor, len(self.BODY), 0))
            return True

        monkeypatch.setattr(place, "clone", share)
        monkeypatch.setattr(place, "copy_checked", None)
        with Target(root) as target:
            stamp = self.place(target, source, is_linked=True)
        assert stamp.modified_ns == NS
        assert (root / "a" / "f").read_bytes() == self.BODY

    def test_a_source_that_is_not_it(self, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(place, "clone", lambda *_: False)
        with Target(root) as target:
            put(target, "a/f", b"old")
            with pytest.raises(CorruptionError, match="is corrupt"):
                self.place(target, source, digest_raw=blake3(b"").digest())
            with pytest.raises(CorruptionError, match=r"is no file of 5 bytes") as caught:
                self.place(target, source, size_bytes=5)
            assert caught.value.hint
            with pytest.raises(CorruptionError, match="is no file"):
                self.place(target, root)
            with pytest.raises(FileNotFoundError):
                self.place(target, source.parent / "none")
            assert list(tree(root / ".vds").values()) == [b""]  # the lock alone
        assert tree(root) == {"a/f": b"old"}

    def test_what_stands_in_the_way(self, root: Path, source: Path) -> None:
        (root / "a" / "f").mkdir(parents=True)
        with Target(root) as target, pytest.raises(ConflictError, match="is a directory there"):
            self.place(target, source)


def test_whether_there_is_anything(root: Path) -> None:
    with Target(root) as target:
        assert target.is_empty()
        root.mkdir()
        assert target.is_empty()
        (root / "f").write_bytes(b"")
        assert not target.is_empty()
    with Target(root / "f") as target:
        assert target.is_empty()


@pytest.mark.parametrize("number", [errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)])
def test_a_full_disk_is_said_so(root: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    with Target(root) as target:
        put(target, "f", b"old")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(NoSpaceError, match="'f' could not be written"):
                put(target, "f")
    assert tree(root) == {"f": b"old"}


def test_another_disk_below_the_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    with Target(root) as target:
        put(target, "f", b"old")
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", other_disk)
            with pytest.raises(ConflictError, match="another disk"):
                put(target, "f")
    assert tree(root) == {"f": b"old"}


def test_what_a_dead_run_left_is_removed_and_a_living_one_is_left_alone(root: Path) -> None:
    dead = root / ".vds" / "partial" / "dead"
    dead.mkdir(parents=True)
    (dead / "lock").write_bytes(b"")
    (dead / "7").write_bytes(b"half a file")
    with Target(root) as living:
        put(living, "f")
        assert not dead.exists()
        with Target(root) as other:
            put(other, "g")
            assert len(os.listdir(root / ".vds" / "partial")) == 2
        put(living, "h")
    assert sorted(tree(root)) == ["f", "g", "h"]
    assert not (root / ".vds").exists()


def test_what_cannot_be_held_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    with Target(root) as target:
        faults = target.find_unholdable([".vds/x", ".vdsx", "A", "a", "b"])
        assert ".vds/x" in faults
        assert not {".vdsx", "b"} & faults.keys()
        monkeypatch.setattr(Target, "_is_case_blind", lambda _: True)
        faults = target.find_unholdable([".VDS/x", "A", "a", "b"])
    assert faults == {".VDS/x": "'.vds' is where vds keeps its own records in a directory", "a": "differs only in case from 'A'"}


def test_runs_that_begin_and_end_at_the_same_time(root: Path) -> None:
    def run(name: str) -> None:
        with Target(root) as target:
            put(target, f"{name}/f", name.encode())

    names = [str(number) for number in range(120)]
    list(parallel_map(run, names, workers=8))
    assert tree(root) == {f"{name}/f": name.encode() for name in names}
