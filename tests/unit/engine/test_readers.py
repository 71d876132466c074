from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.counting import CountedHelper
from tests.unit.engine.test_gather import break_tree, scan
from tests.unit.store.trees import write_tree
from vds.blobs.packs import PACK_BUFFER_BYTES
from vds.buffers import BufferPool
from vds.engine import readers as readers_module
from vds.engine.gather import Group, Read, read_group
from vds.engine.readers import Readers
from vds.files.scan import SourceFile
from vds.helper import Helper, HelperLostError
from vds.model.batch import batched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="helpers are used on Linux alone")

WAIT_S = 30  # only ever reached by a test that fails


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountedHelper]:
    """Have a helper started after ten small files, and one more after twenty and thirty."""
    CountedHelper.reset()
    monkeypatch.setattr(readers_module, "Helper", CountedHelper)
    monkeypatch.setattr(readers_module, "HELPER_FILES", (10, 20, 30))
    return CountedHelper


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool(PACK_BUFFER_BYTES, is_shared=True)


@pytest.fixture
def readers(pool: BufferPool) -> Iterator[Readers]:
    with closing(Readers(pool, 1)) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree of small files, two of them alike and one empty."""
    bodies = {f"{number:03}": os.urandom(number * 700 % 9000 + 1) for number in range(40)}
    return write_tree(tmp_path / "tree", {**bodies, "twin": bodies["007"], "empty": b"", "Ünïcode": b"u"})


def said(read: Read) -> tuple[Any, ...]:
    """Return what a read found, and the bytes it left in the buffer; the buffer goes back."""
    assert read.loan is not None
    view = read.loan.view
    bodies = [bytes(view[body.offset_bytes : body.offset_bytes + body.length_bytes]) for body in read.bodies]
    read.loan.release()
    return list(read.digests), read.bodies, read.failures, read.rows, bodies


def read_until_helped(readers: Readers, group: Group) -> Read:
    """Read until it was a helper that read."""
    while True:
        before = len(CountedHelper.calls)
        read = readers.read(group)
        if len(CountedHelper.calls) > before:
            return read
        assert read.loan is not None
        read.loan.release()


def test_a_helper_reads_what_a_thread_reads(pool: BufferPool, readers: Readers, tree: Path) -> None:
    group = Group("pack", scan(tree))
    expected = said(read_group(group, pool))
    for _ in range(3):
        read = read_until_helped(readers, group)
        assert read.read_at_ns > group.files[0].modified_ns
        assert said(read) == expected


def test_a_helper_tells_of_files_that_changed(pool: BufferPool, readers: Readers, tmp_path: Path) -> None:
    names = ("also calm", "calm", "directory", "gone", "grown", "pipe", "shrunk", "touched", *"0123456789")
    root = write_tree(tmp_path / "tree", {name: name.encode() for name in names})
    files = scan(root)
    wrong = break_tree(root)
    read = read_until_helped(readers, Group("pack", files))
    assert read.failures.keys() == wrong.keys()
    assert said(read) == said(read_group(Group("pack", files), pool))


def test_names_that_are_no_unicode_are_opened(pool: BufferPool, readers: Readers, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(raw)).write_bytes(b"body")
    found = os.stat(raw)
    file = scan(write_tree(tmp_path / "tree", {"a": b"body"}))[0]
    odd = file._replace(os_path=os.fsdecode(raw), modified_ns=found.st_mtime_ns, inode=found.st_ino)
    assert read_until_helped(readers, Group("pack", [odd] * 12)).failures == {}


class TestWhenHelpersAreUsed:
    def test_few_files_start_none(self, counted: type[CountedHelper], readers: Readers, tree: Path) -> None:
        for _ in range(2):
            readers.read(Group("pack", scan(tree)[:9]))
        assert counted.started == []

    def test_many_files_in_one_group_start_none(self, counted: type[CountedHelper], readers: Readers, tree: Path) -> None:
        readers.read(Group("pack", scan(tree)))  # it would be up when all is read
        assert counted.started == []

    @pytest.mark.parametrize("kind", ["whole", "hash", "look", "known"])
    def test_files_that_are_not_small_start_none(
        self, counted: type[CountedHelper], readers: Readers, tree: Path, kind: Any
    ) -> None:
        files = scan(tree)
        readers.read(Group(kind, files, [b""] * len(files)))
        assert counted.started == []

    def test_more_are_started_as_files_come_but_no_more_than_allowed(
        self, counted: type[CountedHelper], pool: BufferPool, tree: Path
    ) -> None:
        group = Group("pack", scan(tree)[:10])
        with closing(Readers(pool, 2)) as readers:
            for started in (0, 1, 2, 2, 2):
                readers.read(group)
                assert len(counted.started) == started

    def test_none_where_buffers_are_private(self, counted: type[CountedHelper], tree: Path) -> None:
        with closing(Readers(BufferPool(PACK_BUFFER_BYTES), 1)) as readers:
            group = Group("pack", scan(tree))
            assert said(readers.read(group)) == said(read_group(group, BufferPool(PACK_BUFFER_BYTES)))
        assert counted.started == []

    def test_the_group_that_starts_one_is_not_held_up(self, counted: type[CountedHelper], readers: Readers, tree: Path) -> None:
        for started in (0, 1):
            readers.read(Group("pack", scan(tree)))
            assert (len(counted.started), counted.calls) == (started, [])

    def test_threads_share_one_and_wait_for_it(
        self, counted: type[CountedHelper], readers: Readers, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # On a machine that does much else a disk can seem slow.
        monkeypatch.setattr(Readers, "_is_disk_slow", property(lambda self: False, lambda self, told: None), raising=False)
        group = Group("pack", scan(tree))
        expected = said(read_until_helped(readers, group))
        before = len(counted.calls)
        reads: list[Read] = []
        threads = [threading.Thread(target=lambda: reads.append(readers.read(group))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert [said(read) for read in reads] == [expected] * 6
        assert (len(counted.calls) - before, max(counted.depths)) == (6, 1)

    def test_while_the_disk_is_slow_threads_read_beside_it(
        self, counted: type[CountedHelper], readers: Readers, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        group = Group("pack", scan(tree))
        read_until_helped(readers, group)
        readers._is_disk_slow = True
        busy, go = threading.Event(), threading.Event()

        def hold(helper: CountedHelper) -> None:
            busy.set()
            assert go.wait(WAIT_S)

        counted.before = hold
        first = threading.Thread(target=readers.read, args=(group,))
        first.start()
        assert busy.wait(WAIT_S)
        beside = readers.read(group)  # the one helper is taken, and this does not wait for it
        assert len(beside.digests) == len(group.files)
        go.set()
        first.join(WAIT_S)


class TestLoss:
    def test_when_a_helper_is_killed_its_group_is_read_here(
        self, counted: type[CountedHelper], pool: BufferPool, readers: Readers, tree: Path
    ) -> None:
        group = Group("pack", scan(tree))
        expected = said(read_until_helped(readers, group))
        counted.before = lambda helper: os.kill(helper.pid, 9)
        assert said(readers.read(group)) == expected
        calls = len(counted.calls)
        assert said(readers.read(group)) == expected  # and no other is started
        assert (len(counted.started), len(counted.calls)) == (1, calls)

    def test_who_waits_for_a_helper_that_is_lost_goes_on_alone(
        self, counted: type[CountedHelper], readers: Readers, tree: Path
    ) -> None:
        group = Group("pack", scan(tree))
        expected = said(read_until_helped(readers, group))
        waiting = threading.Event()

        def kill(helper: CountedHelper) -> None:
            assert waiting.wait(WAIT_S)
            os.kill(helper.pid, 9)

        counted.before = kill
        reads: list[Read] = []
        threads = [threading.Thread(target=lambda: reads.append(readers.read(group))) for _ in range(3)]
        for thread in threads:
            thread.start()
        waiting.set()
        for thread in threads:
            thread.join(WAIT_S)
        assert [said(read) for read in reads] == [expected] * 3

    def test_where_none_can_be_started_threads_read(
        self, pool: BufferPool, readers: Readers, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*words: Any) -> Helper:
            raise HelperLostError("no more processes")

        monkeypatch.setattr(readers_module, "Helper", refuse)
        group = Group("pack", scan(tree))
        expected = said(read_group(group, pool))
        assert [said(readers.read(group)) for _ in range(3)] == [expected] * 3

    def test_one_that_dies_as_it_starts_is_lost_too(
        self, counted: type[CountedHelper], pool: BufferPool, readers: Readers, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(readers_module.read_for_parent, "__name__", "no_such_function")
        group = Group("pack", scan(tree))
        assert said(read_until_helped(readers, group)) == said(read_group(group, pool))

    def test_closing_leaves_no_process(self, counted: type[CountedHelper], pool: BufferPool, tree: Path) -> None:
        files: Sequence[SourceFile] = scan(tree)
        with closing(Readers(pool, 3)) as readers:
            for part in batched(files, 10):
                readers.read(Group("pack", part))
        assert len(counted.started) >= 2
        assert not any(Path(f"/proc/{helper.pid}").exists() for helper in counted.started)
