from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.counting import CountedHelper
from vds.buffers import BufferPool, Loan
from vds.errors import NoSpaceError, VdsError
from vds.files import placer as placer_module
from vds.files import placers as placers_module
from vds.files.place import Target
from vds.files.placer import Row, Stamp, place_for_parent
from vds.files.placers import Placers
from vds.helper import Helper, HelperLostError
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="helpers are used on Linux alone")

NS = 1_600_000_000_123_456_700
POOL_BYTES = 1 << 20
WAIT_S = 30  # only ever reached by a test that fails


@pytest.fixture
def pool() -> Iterator[BufferPool]:
    with closing(BufferPool(POOL_BYTES, is_shared=True)) as made:
        yield made


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with Target(tmp_path / "target") as made:
        yield made


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountedHelper]:
    """Have a helper started for ten files, and one more for twenty."""
    CountedHelper.reset()
    monkeypatch.setattr(placers_module, "Helper", CountedHelper)
    monkeypatch.setattr(placers_module, "HELPER_FILES", (10, 20))
    return CountedHelper


def fill(pool: BufferPool, files: dict[str, bytes]) -> tuple[list[Row], Loan]:
    """Return a buffer with these files one behind the other, and their rows."""
    loan = pool.lend()
    rows, offset = [], 3
    for path, body in files.items():
        loan.view[offset : offset + len(body)] = body
        mode = MODE_EXECUTABLE if path.endswith("tool") else MODE_FILE
        rows.append((path, offset, len(body), blake3(body).digest(), mode, NS))
        offset += len(body)
    return rows, loan


def tree(root: str) -> dict[str, bytes]:
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}
    return {path: body for path, body in found.items() if not path.startswith(".vds/")}


def place_until_helped(placers: Placers, rows: list[Row], loan: Loan) -> list[Any]:
    """Place until it was a helper that placed."""
    while True:
        before = len(CountedHelper.calls)
        results = placers.place(rows, loan)
        if len(CountedHelper.calls) > before:
            return results


FILES = {"a/1": b"one", "a/2": b"two" * 1000, "a/b/3": b"3", "empty": b"", "tool": b"#!", "Ü/日本": b"u"}


@pytest.mark.parametrize("files", [0, 10])
def test_threads_and_helpers_place_alike(target: Target, pool: BufferPool, files: int) -> None:
    rows, loan = fill(pool, FILES)
    with closing(Placers(target, pool, files, helpers_max=1)) as placers:
        results = place_until_helped(placers, rows, loan) if files else placers.place(rows, loan)
    assert tree(target.root) == FILES
    for row, stamp in zip(rows, results, strict=True):
        found = (Path(target.root) / row[0]).stat()
        assert stamp == Stamp(found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        assert found.st_mtime_ns == NS
        assert bool(found.st_mode & 0o111) is (row[4] == MODE_EXECUTABLE)
    assert len(os.listdir(Path(target.root) / target.work_path)) == 1  # the lock


@pytest.mark.parametrize("files", [0, 10])
def test_what_cannot_be_placed_is_told_and_the_rest_is_there(target: Target, pool: BufferPool, files: int) -> None:
    rows, loan = fill(
        pool, {"a/bad": b"wrong", "a/good": b"good", "a/dir": b"x", "file/below": b"y", "../out": b"z", "link": b"l"}
    )
    loan.view[rows[0][1]] ^= 1
    root = Path(target.root)
    (root / "a" / "dir").mkdir(parents=True)
    (root / "file").write_bytes(b"mine")
    (root / "link").symlink_to("file")
    with closing(Placers(target, pool, files, helpers_max=1)) as placers:
        results = place_until_helped(placers, rows, loan) if files else placers.place(rows, loan)
    assert results[0] == blake3(b"vrong").digest()
    assert isinstance(results[1], tuple)
    assert results[2] == "'a/dir' is a directory there"
    assert "a directory 'file' is needed" in results[3]
    assert "has the segment '..'" in results[4]
    assert results[5] == "'link' is a symlink there"
    assert (root / "file").read_bytes() == b"mine"
    assert tree(target.root) == {"a/good": b"good", "file": b"mine", "link": b"mine"}


def test_a_directory_placed_before_is_not_replaced_by_a_file(target: Target, pool: BufferPool) -> None:
    rows, loan = fill(pool, {"new/a/f": b"1", "new/a": b"2"})
    results, _ = target.placer.place_rows(rows, loan.view)
    assert isinstance(results[0], tuple)
    assert results[1] == "'new/a' is a directory there"


def test_a_full_disk_stops_it(target: Target, pool: BufferPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rows, loan = fill(pool, FILES)
    monkeypatch.setattr(os, "write", full)
    with closing(Placers(target, pool, 0)) as placers, pytest.raises(NoSpaceError, match="'a/1' could not be written"):
        placers.place(rows, loan)
    assert tree(target.root) == {}


def test_a_full_disk_in_a_helper_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def place_rows(self, *_: object) -> None:
            raise NoSpaceError("the disk is full: 'f' could not be written")

    monkeypatch.setattr(placer_module, "_placer", lambda *_: Full())
    monkeypatch.setattr(placer_module, "_buffer", lambda *_: memoryview(b""))
    answer = place_for_parent(("/", "", 0, 0, 0, 0, []))
    assert answer == ([], False, "the disk is full: 'f' could not be written")


def test_a_full_disk_of_a_helper_stops_the_caller(
    target: Target, pool: BufferPool, monkeypatch: pytest.MonkeyPatch, counted: type[CountedHelper]
) -> None:
    rows, loan = fill(pool, FILES)
    monkeypatch.setattr(counted, "call", lambda self, request: ([], False, "the disk is full"))
    with closing(Placers(target, pool, 10, helpers_max=1)) as placers:
        monkeypatch.setattr(placers_module, "_PAUSE_S", float("inf"))
        placers.note_planning()  # so that it waits for the helper
        with pytest.raises(NoSpaceError, match="the disk is full"):
            placers.place(rows, loan)


def test_nothing_is_placed_for_an_owner_that_is_gone(target: Target, pool: BufferPool) -> None:
    rows, loan = fill(pool, FILES)
    with pytest.raises(VdsError, match="is gone"):
        target.placer.place_rows(rows, loan.view, owner_pid=os.getppid() + 1)
    assert tree(target.root) == {}


class TestWhenHelpersAreUsed:
    @pytest.mark.parametrize(
        ("files", "most", "started"), [(9, 2, 0), (10, 2, 1), (19, 2, 1), (20, 2, 2), (20, 1, 1), (20, 0, 0)]
    )
    def test_as_many_as_there_are_files_for(
        self, target: Target, pool: BufferPool, counted: type[CountedHelper], files: int, most: int, started: int
    ) -> None:
        with closing(Placers(target, pool, files, helpers_max=most)):
            assert len(counted.started) == started
        assert not any(Path(f"/proc/{helper.pid}").exists() for helper in counted.started)

    def test_none_where_buffers_are_private(self, target: Target, counted: type[CountedHelper]) -> None:
        private = BufferPool(POOL_BYTES)
        rows, loan = fill(private, FILES)
        with closing(Placers(target, private, 100, helpers_max=1)) as placers:
            placers.place(rows, loan)
        assert counted.started == []
        assert tree(target.root) == FILES

    def test_while_the_caller_plans_it_is_the_helper_that_places(
        self, target: Target, pool: BufferPool, counted: type[CountedHelper], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(placers_module, "_PAUSE_S", float("inf"))
        rows, loan = fill(pool, FILES)
        with closing(Placers(target, pool, 10, helpers_max=1)) as placers:
            placers.note_planning()
            for _ in range(3):
                placers.place(rows, loan)
            assert len(counted.calls) == 3

    def test_while_the_disk_is_slow_threads_place_beside_it(
        self, target: Target, pool: BufferPool, counted: type[CountedHelper]
    ) -> None:
        rows, loan = fill(pool, FILES)
        with closing(Placers(target, pool, 10, helpers_max=1)) as placers:
            place_until_helped(placers, rows, loan)
            placers._is_disk_slow = True
            placers._alone = 5
            busy, go = threading.Event(), threading.Event()

            def hold(helper: CountedHelper) -> None:
                busy.set()
                assert go.wait(WAIT_S)

            counted.before = hold
            first = threading.Thread(target=placers.place, args=(rows, loan))
            first.start()
            assert busy.wait(WAIT_S)
            placers.place(rows, loan)  # the helper is taken, and this does not wait for it
            go.set()
            first.join(WAIT_S)


class TestLoss:
    def test_a_group_of_a_helper_that_is_killed_is_placed_here(
        self, target: Target, pool: BufferPool, counted: type[CountedHelper]
    ) -> None:
        rows, loan = fill(pool, FILES)
        with closing(Placers(target, pool, 10, helpers_max=1)) as placers:
            place_until_helped(placers, rows, loan)
            counted.before = lambda helper: os.kill(helper.pid, 9)
            rows, loan = fill(pool, {"other": b"o", "more": b"m"})
            place_until_helped(placers, rows, loan)
            calls = len(counted.calls)
            placers.place(rows, loan)
            assert len(counted.calls) == calls  # there is none any more
        assert tree(target.root) == {**FILES, "other": b"o", "more": b"m"}

    def test_where_none_can_be_started_threads_place(
        self, target: Target, pool: BufferPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> Helper:
            raise HelperLostError("no more processes")

        monkeypatch.setattr(placers_module, "Helper", refuse)
        rows, loan = fill(pool, FILES)
        with closing(Placers(target, pool, 10, helpers_max=1)) as placers:
            placers.place(rows, loan)
        assert tree(target.root) == FILES

    def test_one_that_dies_as_it_starts_is_lost_too(
        self, target: Target, pool: BufferPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(place_for_parent, "__name__", "no_such_function")
        rows, loan = fill(pool, FILES)
        with closing(Placers(target, pool, 10, helpers_max=1)) as placers:
            place_until_helped(placers, rows, loan)
        assert tree(target.root) == FILES
