from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from tests.unit.store.trees import write_tree
from vds.blobs.objects import SINGLE_PUT_BYTES_MAX
from vds.blobs.packs import (
    MEMBER_BYTES_END,
    PACK_BUFFER_BYTES,
    PACK_MEMBERS_MAX,
    PACK_TARGET_BYTES,
    ROW_BYTES,
    PackBuilder,
    parse_tail,
)
from vds.buffers import BufferPool
from vds.engine import gather
from vds.engine.gather import GROUP_FILES_MAX, Group, Grouper, Kind, read_group
from vds.files.read import read_into
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.model.digest import EMPTY_RAW
from vds.model.entry import MODE_FILE
from vds.model.path import EntryPath


def made_up(sizes: Iterable[int]) -> list[SourceFile]:
    return [SourceFile(EntryPath(f"{number:06}"), "", size, 1, 1, 1, MODE_FILE) for number, size in enumerate(sizes)]


def scan(root: Path) -> list[SourceFile]:
    return list(scan_directory(root, ScanReport()))


def groups_of(files: Iterable[SourceFile], kind: Kind) -> Iterator[Group]:
    """Cut files into groups of one kind."""
    grouper = Grouper(kind)
    for file in files:
        if (group := grouper.add(file)) is not None:
            yield group
    if (group := grouper.flush()) is not None:
        yield group


def digest(body: bytes) -> bytes:
    return blake3(body).digest()


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool(PACK_BUFFER_BYTES)


SIZES = {
    "mixed": [random.Random(1).randrange(MEMBER_BYTES_END) for _ in range(400)],
    "tiny": [random.Random(2).randrange(3) for _ in range(3 * PACK_MEMBERS_MAX)],
    "largest": [MEMBER_BYTES_END - 1] * 40,
    "exact": [PACK_TARGET_BYTES // 16 - ROW_BYTES] * 40,
    "kilobytes": [1024 - ROW_BYTES] * 20_000,
}


class TestGrouper:
    @pytest.mark.parametrize("sizes", SIZES.values(), ids=list(SIZES))
    def test_a_group_of_small_files_fits_one_pack(self, pool: BufferPool, sizes: list[int]) -> None:
        loan = pool.lend()
        files = made_up(sizes)
        groups = list(groups_of(files, "pack"))
        assert [file for group in groups for file in group.files] == files
        for group in groups:
            builder = PackBuilder(buffer=loan.view)
            assert len(group.files) <= PACK_MEMBERS_MAX
            for file in group.files:
                if file.size_bytes:
                    builder.room(file.size_bytes)  # asserts that it fits
                    builder.claim(bytes(32), file.size_bytes)
            assert builder.size_bytes <= PACK_TARGET_BYTES

    @pytest.mark.parametrize("sizes", SIZES.values(), ids=list(SIZES))
    def test_no_group_ends_before_it_must(self, sizes: list[int]) -> None:
        groups = list(groups_of(made_up(sizes), "pack"))
        for group, following in itertools.pairwise(groups):
            weight = sum(file.size_bytes + ROW_BYTES for file in [*group.files, following.files[0]])
            assert len(group.files) == PACK_MEMBERS_MAX or weight > PACK_TARGET_BYTES - ROW_BYTES

    def test_whole_files_fit_one_buffer(self) -> None:
        chance = random.Random(3)
        sizes = [chance.randrange(MEMBER_BYTES_END, SINGLE_PUT_BYTES_MAX + 1) for _ in range(300)]
        sizes += [SINGLE_PUT_BYTES_MAX] * 3 + [MEMBER_BYTES_END] * 20
        groups = list(groups_of(made_up(sizes), "whole"))
        assert all(sum(file.size_bytes for file in group.files) <= PACK_BUFFER_BYTES for group in groups)
        assert sum(len(group.files) for group in groups) == len(sizes)
        assert max(len(group.files) for group in groups) > 1

    @pytest.mark.parametrize(
        ("kind", "count"), [("known", GROUP_FILES_MAX), ("look", GROUP_FILES_MAX), ("hash", 1), ("pack", PACK_MEMBERS_MAX)]
    )
    def test_groups_are_bounded_in_number(self, kind: Kind, count: int) -> None:
        groups = list(groups_of(made_up([0] * (2 * count + 1)), kind))
        assert [len(group.files) for group in groups] == [count, count, 1]
        assert {group.kind for group in groups} == {kind}

    def test_files_that_are_not_read_may_be_of_any_size(self) -> None:
        assert [len(group.files) for group in groups_of(made_up([1 << 40] * 5), "known")] == [5]

    def test_digests_stay_with_their_files(self) -> None:
        grouper = Grouper("pack")
        files = made_up([MEMBER_BYTES_END - 1] * 20)
        full = [group for file in files if (group := grouper.add(file, file.path.encode()))]
        last = grouper.flush()
        assert last is not None
        for group in [*full, last]:
            assert [file.path.encode() for file in group.files] == group.digests
        assert grouper.flush() is None


class TestRead:
    @pytest.mark.parametrize("kind", ["pack", "whole"])
    def test_each_content_stands_once_in_the_buffer(self, pool: BufferPool, tmp_path: Path, kind: Kind) -> None:
        bodies = {f"{number:03}": os.urandom(number * 7 % 50 + 1) for number in range(100)}
        bodies |= {"twin": bodies["007"], "twin of it": bodies["007"]}
        files = scan(write_tree(tmp_path / "tree", bodies))
        read = read_group(Group(kind, files), pool)
        assert list(read.digests) == [digest(bodies[file.path]) for file in files]
        assert read.failures == {}
        assert read.loan is not None
        found = {m.digest: bytes(read.loan.view[m.offset_bytes : m.offset_bytes + m.length_bytes]) for m in read.bodies}
        assert found == {digest(body): body for body in bodies.values()}
        assert len(read.bodies) == len(found)
        assert sum(member.length_bytes for member in read.bodies) == sum(map(len, set(bodies.values())))

    def test_a_group_of_small_files_is_a_pack_already(self, pool: BufferPool, tmp_path: Path) -> None:
        bodies = {"a": b"one", "b": b"three", "c": b"one", "empty": b"", "last": b"x"}
        read = read_group(Group("pack", scan(write_tree(tmp_path / "tree", bodies))), pool)
        assert read.loan is not None
        pack = PackBuilder.adopt(read.loan.view, read.rows, sum(member.length_bytes for member in read.bodies)).finish()
        assert [(row.digest_raw, row.offset_bytes, row.length_bytes) for row in parse_tail(pack, len(pack), "k")] == [
            (member.digest, member.offset_bytes, member.length_bytes) for member in read.bodies
        ]
        assert bytes(pack[:9]) == b"onethreex"
        assert bytes(read.loan.view[: len(pack)]) == bytes(pack)  # not copied

    def test_an_empty_file_has_no_body(self, pool: BufferPool, tmp_path: Path) -> None:
        read = read_group(Group("pack", scan(write_tree(tmp_path / "tree", {"a": b"", "b": b""}))), pool)
        assert (list(read.digests), read.bodies) == ([EMPTY_RAW] * 2, [])

    def test_buffers_are_aligned_and_used_again(self, pool: BufferPool, tmp_path: Path) -> None:
        files = scan(write_tree(tmp_path / "tree", {"a": b"1", "b": b"2"}))
        places = set()
        kinds: list[Kind] = ["pack", "whole", "pack"]
        for kind in kinds:
            read = read_group(Group(kind, files), pool)
            assert read.loan is not None
            places.add(ctypes.addressof(ctypes.c_char.from_buffer(read.loan.view)))
            read.loan.release()
        assert len(places) == 1
        assert places.pop() % mmap.PAGESIZE == 0

    def test_when_reading_began_is_told(self, pool: BufferPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = scan(write_tree(tmp_path / "tree", {"a": b"1", "b": b"2"}))
        ticks = iter(range(7, 100))

        def read(file: SourceFile, target: memoryview) -> None:
            next(ticks)
            read_into(file, target)

        monkeypatch.setattr(gather, "read_into", read)
        monkeypatch.setattr(time, "time_ns", lambda: next(ticks))
        assert read_group(Group("pack", files), pool).read_at_ns == 7  # before the first file was touched

    def test_large_files_are_only_hashed(self, pool: BufferPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gather, "block_size_bytes", lambda size_bytes: 1024)
        body = os.urandom(2500)
        files = scan(write_tree(tmp_path / "tree", {"large": body}))
        read = read_group(Group("hash", files), pool)
        assert list(read.digests) == [digest(body)]
        assert read.loan is None
        assert len(read.block_hashes[digest(body)].fingerprints) == 3

    def test_known_files_are_not_touched(self, pool: BufferPool) -> None:
        files = made_up([5, 6])  # there are no such files
        read = read_group(Group("known", files, [b"5", b"6"]), pool)
        assert (list(read.digests), read.failures, read.loan) == ([b"5", b"6"], {}, None)


def break_tree(root: Path) -> dict[str, str]:
    """Make a tree of which every file but two changes after the scan; return path → what its failure says."""
    said = {"gone": "FileNotFoundError", "grown": "changed", "shrunk": "changed", "touched": "changed", "directory": "Directory"}
    (root / "gone").unlink()
    (root / "grown").write_bytes(b"more than before")
    (root / "shrunk").write_bytes(b"less")
    os.utime(root / "touched", ns=(1, 1))
    (root / "directory").unlink()
    (root / "directory").mkdir()
    if sys.platform != "win32":
        (root / "pipe").unlink()
        os.mkfifo(root / "pipe")
        said["pipe"] = "changed"
    return said


class TestFailures:
    NAMES = ("also calm", "calm", "directory", "gone", "grown", "pipe", "shrunk", "touched")

    @pytest.mark.parametrize("kind", ["pack", "whole", "hash"])
    def test_a_file_that_changed_is_a_failure_of_its_own(self, pool: BufferPool, tmp_path: Path, kind: Kind) -> None:
        root = write_tree(tmp_path / "tree", {name: name.encode() for name in self.NAMES})
        files = scan(root)
        said = break_tree(root)
        read = read_group(Group(kind, files), pool)
        assert read.failures.keys() == said.keys()
        for path, words in said.items():
            assert words in read.failures[path]
        expected = [digest(file.path.encode()) if file.path not in said else b"" for file in files]
        assert list(read.digests) == expected
        if kind != "hash":
            assert read.loan is not None
            view = read.loan.view
            stored = {bytes(view[m.offset_bytes : m.offset_bytes + m.length_bytes]) for m in read.bodies}
            assert stored == {name.encode() for name in self.NAMES if name not in said}

    @pytest.mark.parametrize("name", ["gone", "grown", "touched"])
    def test_an_empty_file_that_changed_is_a_failure_too(self, pool: BufferPool, tmp_path: Path, name: str) -> None:
        root = write_tree(tmp_path / "tree", {"calm": b"", "directory": b"", "gone": b"", "grown": b"", "touched": b""})
        files = scan(root)
        (root / "gone").unlink()
        (root / "grown").write_bytes(b"written just now")
        os.utime(root / "touched", ns=(1, 1))
        read = read_group(Group("pack", files), pool)
        assert read.failures.keys() == {"gone", "grown", "touched"}
        assert read.digests[[str(file.path) for file in files].index(name)] == b""

    def test_a_look_names_what_cannot_be_opened_and_reads_nothing(self, pool: BufferPool, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {"calm": b"1", "gone": b"2", "grown": b"3"})
        files = scan(root)
        (root / "gone").unlink()
        (root / "grown").write_bytes(b"more than before")
        read = read_group(Group("look", files), pool)
        assert list(read.failures) == ["gone"]
        assert "No such file" in read.failures["gone"]
        assert (list(read.digests), read.bodies, read.loan) == ([b""] * 3, [], None)

    @pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in directories")
    def test_a_look_at_a_pipe_does_not_block(self, pool: BufferPool, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {"pipe": b"1"})
        files = scan(root)
        (root / "pipe").unlink()
        os.mkfifo(root / "pipe")
        assert read_group(Group("look", files), pool).failures == {}  # an upload that failed already may leave that out

    @pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
    @pytest.mark.parametrize("kind", ["pack", "whole", "hash", "look"])
    def test_every_descriptor_is_closed(self, pool: BufferPool, tmp_path: Path, kind: Kind) -> None:
        root = write_tree(tmp_path / "tree", dict.fromkeys(self.NAMES, b"x" * 20))
        files = scan(root)
        break_tree(root)
        open_before = len(os.listdir("/proc/self/fd"))
        read_group(Group(kind, files), pool)
        assert len(os.listdir("/proc/self/fd")) <= open_before
