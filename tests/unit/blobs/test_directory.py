"""What the directory driver promises beyond the contract: order on the disk, crashes at every step, and what it refuses."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vds.blobs import disk
from vds.blobs.directory import LEFTOVER_AGE_S, DirectoryDriver
from vds.blobs.memory import MemoryDriver
from vds.errors import (
    AccessDeniedError,
    BlobExistsError,
    CorruptionError,
    InvalidInputError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)

KEY = "objects/aa/b3"
CALLS = ("mkdir", "open", "write", "fsync", "utime", "link", "rename", "replace", "unlink", "rmdir")
NAMING_CALLS = ("open", "link", "rename", "unlink", "rmdir")
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows renames without overwriting, so it needs no claims")

both = pytest.mark.parametrize("links", [True, pytest.param(False, marks=POSIX)])


class Killed(BaseException):
    """The process died; nothing after this has an effect."""


@contextmanager
def watched(before: Callable[[int, str, tuple[Any, ...]], None], names: Sequence[str] = CALLS) -> Iterator[None]:
    """Call `before(count, name, arguments)` ahead of each call of these names that changes the disk."""
    count = 0

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if name != "open" or args[1] & os.O_CREAT:
                count += 1
                before(count, name, args)
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        # `os.utime in os.supports_fd` must still hold for the wrapped function.
        patch.setattr(os, "supports_fd", {*os.supports_fd, os.utime})
        yield


def opened(root: Path, links: bool = True) -> DirectoryDriver:
    driver = DirectoryDriver(root, links=links)
    driver.create_container()
    return driver


def count_steps(root: Path, links: bool, names: Sequence[str] = CALLS) -> int:
    steps: list[int] = []
    driver = opened(root, links)
    with watched(lambda count, name, args: steps.append(count), names):
        driver.put_if_absent(KEY, b"count", {"by": "count"})
    return len(steps)


def check_one_blob(root: Path, links: bool, allowed: dict[str, bytes]) -> str:
    """Assert that one whole blob of an allowed writer is there, with that writer's metadata; return the writer."""
    driver = opened(root, links)
    (blob,) = driver.list_blobs()
    writer = blob.metadata["by"]
    assert blob.key == KEY
    assert driver.read_range(KEY) == allowed[writer]
    with pytest.raises(BlobExistsError):
        driver.put_if_absent(KEY, b"too late", {"by": "late"})
    assert driver.find_blob(KEY) == blob
    return writer


@both
def test_a_writer_killed_at_any_step_blocks_nobody(tmp_path: Path, links: bool) -> None:
    bodies = {"first": b"first body", "second": b"2nd"}
    outcomes = set()
    for step in range(1, count_steps(tmp_path / "count", links) + 1):
        root = tmp_path / f"{step}"
        victim = opened(root, links)

        def kill(count: int, name: str, args: tuple[Any, ...], step: int = step) -> None:
            if count >= step:
                raise Killed

        with watched(kill), pytest.raises(Killed):
            victim.put_if_absent(KEY, bodies["first"], {"by": "first"})
        visible = [blob.key for blob in opened(root, links).list_blobs()]
        assert visible in ([], [KEY])
        try:
            opened(root, links).put_if_absent(KEY, bodies["second"], {"by": "second"})
            expected = "second"
        except BlobExistsError:
            expected = "first"
        assert check_one_blob(root, links, bodies) == expected
        outcomes.add((bool(visible), expected))
    assert {(False, "second"), (True, "first")} <= outcomes
    # Only where links are missing can a dead writer's blob be finished by the next one.
    assert ((False, "first") in outcomes) is (not links)


@both
def test_writers_interleaved_at_any_step_have_one_winner(tmp_path: Path, links: bool) -> None:
    """A second writer runs whole at each step of the first, and a third at each step of that one."""
    bodies = {"first": b"first body", "second": b"2nd", "third": b"the third"}
    winners = set()
    steps = count_steps(tmp_path / "count", links, NAMING_CALLS)
    for outer in range(1, steps + 1):
        for inner in range(1, steps + 1):
            root = tmp_path / f"{outer}-{inner}"
            won: list[str] = []

            def put(driver: DirectoryDriver, writer: str, won: list[str] = won) -> None:
                try:
                    driver.put_if_absent(KEY, bodies[writer], {"by": writer})
                    won.append(writer)
                except BlobExistsError:
                    pass

            first, second, third = (opened(root, links) for _ in range(3))
            started = 0

            def third_at(
                count: int, name: str, args: tuple[Any, ...], inner: int = inner, third: DirectoryDriver = third
            ) -> None:
                nonlocal started
                if count == inner and started == 1:
                    started = 2
                    put(third, "third")

            def second_at(
                count: int, name: str, args: tuple[Any, ...], outer: int = outer, second: DirectoryDriver = second
            ) -> None:
                nonlocal started
                if count == outer and started == 0:
                    started = 1
                    with watched(third_at, NAMING_CALLS):
                        put(second, "second")

            with watched(second_at, NAMING_CALLS):
                put(first, "first")
            assert len(won) == 1, (outer, inner, won)
            assert check_one_blob(root, links, bodies) == won[0]
            winners.add(won[0])
    assert winners == set(bodies)


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path: Path) -> None:
    driver = opened(tmp_path / "store")
    driver.put_if_absent("objects/aa/other", b"1")  # makes the directories
    steps: list[str] = []
    with watched(lambda count, name, args: steps.append(name)):
        driver.put_if_absent(KEY, b"hello")
    if sys.platform == "linux":
        assert steps == ["open", "write", "utime", "fsync", "link", "unlink", "fsync"]


def test_metadata_is_on_the_disk_before_the_name(tmp_path: Path) -> None:
    driver = opened(tmp_path / "store")
    steps: list[str] = []
    with watched(lambda count, name, args: steps.append(f"{name} {Path(args[0]).name}" if name == "open" else name)):
        driver.put_if_absent(KEY, b"hello", {"k": "v"})
    sidecar = max(number for number, step in enumerate(steps) if step.startswith("open"))
    assert "put-" not in steps[sidecar]
    if sys.platform == "linux":
        assert steps[sidecar + 1 : sidecar + 4] == ["write", "utime", "fsync"]
        assert sidecar < steps.index("link")


@both
def test_no_temp_file_stays_behind(tmp_path: Path, links: bool) -> None:
    driver = opened(tmp_path, links)
    driver.stage_block(KEY, "0001", b"1")
    driver.commit_blocks(KEY, ["0001"], {"k": "v"})
    for _ in range(2):
        with pytest.raises(BlobExistsError):
            driver.put_if_absent(KEY, b"2", {"k": "w"})
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files)[1:] == [KEY]
    assert files[0].startswith(f".vds-meta/{KEY}/") or files[1].startswith(f".vds-meta/{KEY}/")


def test_leftovers_are_not_listed_and_go_after_a_week(tmp_path: Path) -> None:
    driver = opened(tmp_path)
    driver.stage_block("old", "0001", b"1")
    driver.stage_block("young", "0001", b"1")
    (tmp_path / ".vds-tmp/put-old").write_bytes(b"half a bl")
    (tmp_path / ".vds-tmp/put-young").write_bytes(b"half a bl")
    past_s = time.time() - LEFTOVER_AGE_S - 60
    for name in ("put-old", "blocks/old"):
        os.utime(tmp_path / ".vds-tmp" / name, (past_s, past_s))
    assert list(driver.list_blobs()) == []
    again = opened(tmp_path)
    again.put_if_absent("a", b"1")
    assert [blob.key for blob in again.list_blobs()] == ["a"]
    assert again.list_blocks("old") == []
    assert len(again.list_blocks("young")) == 1
    assert [path.name for path in (tmp_path / ".vds-tmp").glob("put-*")] == ["put-young"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EXDEV])
@POSIX
def test_missing_links_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    tried = []

    def no_link(source: object, target: object) -> None:
        tried.append(target)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_link)
    driver = opened(tmp_path)
    driver.put_if_absent("a", b"1")
    driver.put_if_absent("b", b"2")
    assert len(tried) == 1
    assert driver.read_range("a") + driver.read_range("b") == b"12"


def test_a_lost_answer_to_a_link_is_no_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link_then_fail(source: Any, target: Any) -> None:
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", link_then_fail)
    opened(tmp_path).put_if_absent("a", b"1")
    assert opened(tmp_path).read_range("a") == b"1"


def test_blocks_are_joined_without_help_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.delattr(os, "pread", raising=False)
    monkeypatch.setattr(disk, "_pread", disk._lseek_and_read)
    monkeypatch.setattr(disk, "_PIECE_BYTES_MAX", 3)
    driver = opened(tmp_path)
    driver.stage_block("a", "1", b"hello ")
    driver.stage_block("a", "2", b"world")
    driver.commit_blocks("a", ["1", "2"])
    assert driver.read_range("a") == b"hello world"


def test_the_kernel_may_decline_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "copy_file_range"):
        pytest.skip("this system has no copy_file_range")
    real = os.copy_file_range
    moved: list[int] = []

    def half(source: int, target: int, count: int) -> int:
        if moved:
            raise OSError(errno.EXDEV, "declined")
        moved.append(real(source, target, count // 2))
        return moved[0]

    monkeypatch.setattr(os, "copy_file_range", half)
    driver = opened(tmp_path)
    driver.put_if_absent("a", b"hello world")
    driver.copy_blob("a", "b")
    assert driver.read_range("b") == b"hello world"
    assert moved == [5]


class TestRefused:
    def test_a_symbolic_link_for_a_blob(self, tmp_path: Path) -> None:
        driver = opened(tmp_path / "store")
        (tmp_path / "secret").write_bytes(b"secret")
        (tmp_path / "store/a").symlink_to(tmp_path / "secret")
        calls: list[Callable[[], object]] = [
            lambda: driver.find_blob("a"),
            lambda: driver.read_range("a"),
            lambda: driver.copy_blob("a", "b"),
            lambda: driver.delete_blob("a"),
            lambda: list(driver.list_blobs()),
            lambda: driver.put_if_absent("a", b"1"),
        ]
        for call in calls:
            with pytest.raises(CorruptionError, match="symbolic link"):
                call()
        assert (tmp_path / "secret").read_bytes() == b"secret"

    def test_a_symbolic_link_for_a_directory(self, tmp_path: Path) -> None:
        opened(tmp_path / "store")
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/a").write_bytes(b"secret")
        (tmp_path / "store/objects").symlink_to(tmp_path / "outside")
        driver = DirectoryDriver(tmp_path / "store")
        calls: list[Callable[[], object]] = [
            lambda: driver.find_blob("objects/a"),
            lambda: driver.read_range("objects/a"),
            lambda: driver.delete_blob("objects/a"),
            lambda: list(driver.list_blobs()),
            lambda: list(driver.list_blobs("objects/")),
            lambda: driver.put_if_absent("objects/b", b"1"),
        ]
        for call in calls:
            with pytest.raises(CorruptionError, match="symbolic link"):
                call()
        assert [path.name for path in (tmp_path / "outside").iterdir()] == ["a"]

    def test_a_key_that_is_a_directory_of_keys(self, tmp_path: Path) -> None:
        driver = opened(tmp_path)
        driver.put_if_absent("a/b", b"1")
        with pytest.raises(InvalidInputError):
            driver.put_if_absent("a", b"1")
        with pytest.raises(InvalidInputError):
            driver.put_if_absent("a/b/c", b"1")
        assert driver.find_blob("a") is driver.find_blob("a/b/c") is None

    def test_a_root_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(InvalidInputError):
            DirectoryDriver(tmp_path / "file").create_container()

    def test_names_that_are_no_keys_are_not_listed(self, tmp_path: Path) -> None:
        driver = opened(tmp_path)
        driver.put_if_absent("a", b"1")
        for name in (".DS_Store", "with space", "ä", "trailing."):
            (tmp_path / name).write_bytes(b"")
        assert [blob.key for blob in driver.list_blobs()] == ["a"]

    def test_damaged_metadata(self, tmp_path: Path) -> None:
        driver = opened(tmp_path)
        driver.put_if_absent("a", b"1", {"k": "v"})
        (sidecar,) = (tmp_path / ".vds-meta/a").iterdir()
        for damage in (b"{", b"[5]", b'{"k": 5}', b"\xff"):
            sidecar.write_bytes(damage)
            with pytest.raises(CorruptionError, match="metadata"):
                driver.find_blob("a")


def test_metadata_survives_a_copy_that_drops_times(tmp_path: Path) -> None:
    driver = opened(tmp_path)
    driver.put_if_absent("a", b"1", {"k": "v"})
    os.utime(tmp_path / "a", (1, 1))
    found = driver.find_blob("a")
    assert found is not None
    assert found.metadata == {"k": "v"}


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    driver = DirectoryDriver(Path("a/../store é"))
    driver.create_container()
    monkeypatch.chdir("/")
    driver.put_if_absent("a", b"1")
    assert (tmp_path / "store é/a").read_bytes() == b"1"
    assert driver.url.startswith("file:///")
    assert " " not in driver.url


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EACCES, AccessDeniedError),
        (errno.EPERM, AccessDeniedError),
        (errno.EROFS, AccessDeniedError),
        (errno.EIO, UnavailableError),
        (errno.EMFILE, UnavailableError),
        (errno.ESTALE, UnavailableError),
        (errno.ENAMETOOLONG, InvalidInputError),
    ],
)
def test_errors_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]) -> None:
    driver = opened(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(error) as caught:
        driver.put_if_absent("a", b"1")
    monkeypatch.undo()
    assert type(caught.value) is error
    assert os.strerror(code) in str(caught.value)
    assert getattr(caught.value, "hint", "")
    if isinstance(caught.value, NoSpaceError):
        assert caught.value.free_bytes
    assert list(driver.list_blobs()) == []
    assert not list((tmp_path / ".vds-tmp").glob("put-*"))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_file_in_use_on_windows_is_unavailable() -> None:
    err = PermissionError(errno.EACCES, "in use")
    err.winerror = 32  # type: ignore[attr-defined,unused-ignore]
    with pytest.raises(UnavailableError), disk.translated(Path("x"), "delete"):
        raise err


def test_files_take_the_rights_of_the_umask(tmp_path: Path) -> None:
    opened(tmp_path).put_if_absent("a", b"1")
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_root_removed_meanwhile(tmp_path: Path) -> None:
    driver = opened(tmp_path / "store")
    driver.put_if_absent("a/b", b"1")
    (tmp_path / "store").rename(tmp_path / "gone")
    with pytest.raises(NotFoundError, match="there is no directory"):
        driver.put_if_absent("a/c", b"1")


def test_a_memory_store_is_not_sent_to_another_process() -> None:
    with pytest.raises(InvalidInputError, match="memory of one process"):
        pickle.dumps(MemoryDriver("x"))
