"""Reading at a pinned version: how many requests it takes, what damage does, and what this machine knows by itself."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from pathlib import Path

import pytest

import vds
from tests.unit.store.trees import ReadDriver, write_tree
from vds.engine import versionreader
from vds.errors import CorruptionError, DownloadError, EntryNotFoundError, InvalidInputError, UnavailableError
from vds.model.checks import LEAF_BYTES
from vds.store import Store, Version
from vds.store import pinned as pinned_module
from vds.store.lock import lock_refs
from vds.store.pinned import OfflineError

KIB = 1024
MIB = 1024 * KIB
SMALL = {f"small/{number:03d}": f"content {number}".encode() * 100 for number in range(50)}
TREE = SMALL | {
    "large.bin": os.urandom(5 * MIB + 3),
    "huge.bin": os.urandom(20 * MIB),
    "empty": b"",
    "twin/a": b"the same",
    "twin/b": b"the same",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("source"), TREE)


@pytest.fixture
def version(counted: Store, source: Path, driver: ReadDriver) -> Version:
    made = counted.namespace("team/raw").upload(source, show_progress=False).version
    driver.reads.clear()
    return made


class TestRanges:
    def test_a_random_read_of_a_large_file_is_one_short_request(self, version: Version, driver: ReadDriver) -> None:
        body = TREE["huge.bin"]
        chance = random.Random(3)
        for number in range(1, 10):
            place = chance.randrange(len(body) - 64 * KIB)
            assert version.read_bytes("huge.bin", place, 64 * KIB) == body[place : place + 64 * KIB]
            assert len(driver.reads) == number
            assert driver.reads[-1].length_bytes <= 2 * LEAF_BYTES

    def test_a_file_object_asks_once_for_each_random_read(self, version: Version, driver: ReadDriver) -> None:
        body = TREE["huge.bin"]
        with version.open("huge.bin") as file:
            assert driver.reads == []
            for number, place in enumerate((19 * MIB, 100, 7 * MIB + 1), start=1):
                file.seek(place)
                assert file.read(64 * KIB) == body[place : place + 64 * KIB]
                assert len(driver.reads) == number

    @pytest.mark.parametrize("path", ["huge.bin", "large.bin", "small/007", "empty", "twin/b"])
    def test_a_whole_file(self, version: Version, path: str) -> None:
        assert version.read_bytes(path) == TREE[path]
        with version.open(path) as file:
            assert file.read() == TREE[path]
        with version.open(path) as file:
            assert b"".join(iter(lambda: file.read(300_000), b"")) == TREE[path]

    def test_ranges_at_the_edges(self, version: Version) -> None:
        body = TREE["large.bin"]
        for place, size in ((0, 1), (LEAF_BYTES - 1, 2), (len(body) - 1, 1), (len(body) - 1, 50), (0, len(body)), (MIB, None)):
            end = None if size is None else place + size
            assert version.read_bytes("large.bin", place, size) == body[place:end]

    def test_a_range_of_a_small_file_reads_that_file_alone(self, version: Version, driver: ReadDriver) -> None:
        assert version.read_bytes("small/010", 3, 4) == TREE["small/010"][3:7]
        assert [read.length_bytes for read in driver.reads] == [len(TREE["small/010"])]


class TestDamage:
    def test_a_changed_byte_is_found_by_the_range_that_holds_it(self, version: Version, driver: ReadDriver) -> None:
        body = bytearray(TREE["huge.bin"])
        body[9 * MIB] ^= 1
        key = driver.replace(bytes(TREE["huge.bin"]), bytes(body))
        assert version.read_bytes("huge.bin", 0, 100) == TREE["huge.bin"][:100]
        with pytest.raises(CorruptionError, match=rf"object b3:[0-9a-f]+ in blob '{key}' is corrupt"):
            version.read_bytes("huge.bin", 9 * MIB - 10, 20)
        with version.open("huge.bin") as file:
            file.seek(9 * MIB)
            with pytest.raises(CorruptionError, match=key):
                file.read(1)
        with version.open("huge.bin") as file, pytest.raises(CorruptionError):
            file.read()

    def test_a_blob_that_is_gone_or_cut(self, version: Version, driver: ReadDriver) -> None:
        driver.replace(TREE["huge.bin"], TREE["huge.bin"][: 10 * MIB])
        assert version.read_bytes("huge.bin", MIB, 10) == TREE["huge.bin"][MIB : MIB + 10]
        with pytest.raises(CorruptionError):
            version.read_bytes("huge.bin", 12 * MIB, 10)
        driver.replace(TREE["large.bin"], None)
        with pytest.raises(CorruptionError, match="missing"):
            version.read_bytes("large.bin")

    def test_checks_that_do_not_fit_are_not_believed(self, version: Version, driver: ReadDriver) -> None:
        with version._doors.index._live_engine().begin() as connection:
            connection.exec_driver_sql("UPDATE object_check SET checks = substr(checks, 9)")
        assert version.read_bytes("large.bin", 5, 5) == TREE["large.bin"][5:10]
        assert driver.reads[0].length_bytes == len(TREE["large.bin"])  # the whole, held against its digest

    def test_without_checks_the_whole_is_read_once_for_a_file_object(
        self, version: Version, driver: ReadDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(versionreader, "WHOLE_BYTES_MAX", MIB)
        with version._doors.index._live_engine().begin() as connection:
            connection.exec_driver_sql("DELETE FROM object_check")
        with version.open("large.bin") as file:
            for place in (4 * MIB, 5, MIB):
                file.seek(place)
                assert file.read(10) == TREE["large.bin"][place : place + 10]
        assert sum(read.length_bytes for read in driver.reads) == len(TREE["large.bin"])
        assert version.read_bytes("large.bin", MIB, 3) == TREE["large.bin"][MIB : MIB + 3]


class TestMany:
    def test_read_many_asks_once_for_neighbours(self, version: Version, driver: ReadDriver) -> None:
        paths = [*SMALL, "empty", "twin/b", "large.bin", "twin/a"]
        random.Random(2).shuffle(paths)
        found = list(version.read_many(paths))
        assert [(entry.path, body) for entry, body in found] == [(path, TREE[path]) for path in paths]
        assert len(driver.reads) == 2  # the pack, and the large file

    def test_the_same_path_twice_and_none(self, version: Version) -> None:
        assert [body for _, body in version.read_many(["twin/a", "empty", "twin/a"])] == [b"the same", b"", b"the same"]
        assert list(version.read_many([])) == []

    def test_a_path_that_is_not_there_is_said_before_anything_is_read(self, version: Version, driver: ReadDriver) -> None:
        with pytest.raises(EntryNotFoundError, match="nowhere"):
            version.read_many(["small/001", "nowhere"])
        assert driver.reads == []

    def test_streams_everything_once_in_stored_order(self, version: Version, driver: ReadDriver) -> None:
        found = {entry.path: body for entry, body in version.stream()}
        assert found == TREE
        assert len(driver.reads) == 5  # one pack, large.bin, and huge.bin in three pieces of at most 8 MiB

    def test_below_a_directory(self, version: Version) -> None:
        assert {entry.path for entry, _ in version.stream("small")} == set(SMALL)
        assert [entry.path for entry, _ in version.at("small").stream()] == [path.partition("/")[2] for path in sorted(SMALL)]
        assert [(entry.path, body) for entry, body in version.stream("empty")] == [("empty", b"")]
        with pytest.raises(EntryNotFoundError):
            version.stream("nowhere")

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
    @pytest.mark.parametrize("seed", [None, 5])
    def test_shards_share_the_files_without_a_rest(self, version: Version, count: int, seed: int | None) -> None:
        parts = [[entry.path for entry, _ in version.stream(shard=(k, count), shuffle_seed=seed)] for k in range(count)]
        assert sorted(path for part in parts for path in part) == sorted(TREE)

    def test_a_seed_is_an_order(self, version: Version) -> None:
        plain = [entry.path for entry, _ in version.stream("small")]
        first = [entry.path for entry, _ in version.stream("small", shuffle_seed=1)]
        assert first == [entry.path for entry, _ in version.stream("small", shuffle_seed=1)]
        assert first != plain
        assert first != [entry.path for entry, _ in version.stream("small", shuffle_seed=2)]
        assert sorted(first) == sorted(plain)

    @pytest.mark.parametrize("shard", [(1, 1), (-1, 2), (0, 0), (2, 1), "ab", (0,)])
    def test_what_is_no_share_is_refused(self, version: Version, shard: tuple[int, int]) -> None:
        with pytest.raises(InvalidInputError, match="shard"):
            version.stream(shard=shard)

    def test_damage_in_a_stream_is_raised_when_it_is_reached(self, version: Version, driver: ReadDriver) -> None:
        driver.replace(TREE["large.bin"], bytes(len(TREE["large.bin"])))
        with pytest.raises(CorruptionError):
            dict(version.stream())


class TestChildren:
    def test_one_level(self, version: Version) -> None:
        assert [(path, entry is None) for path, entry in version.children()] == [
            ("empty", False),
            ("huge.bin", False),
            ("large.bin", False),
            ("small", True),
            ("twin", True),
        ]
        assert [path for path, _ in version.children("twin")] == ["twin/a", "twin/b"]
        assert [path for path, _ in version.at("twin").children()] == ["a", "b"]
        assert version.children("empty") == []
        assert version.children("nowhere") == []

    def test_names_that_sort_between_a_directory_and_what_is_in_it(self, counted: Store, tmp_path: Path) -> None:
        names = ["a!b", "a/b", "a/c/d", "a0", "b/x/y/z", "b.c", "é/ü", "é.txt"]
        names += [f"many/{number:04d}/{leaf}" for number in range(90) for leaf in "xyz"]
        made = counted.namespace("n").upload(write_tree(tmp_path / "t", dict.fromkeys(names, b"x"))).version
        expected = sorted({(name.partition("/")[0], "/" not in name) for name in names})
        for _ in range(2):  # asked of the index, then of this machine
            assert sorted((path, entry is not None) for path, entry in made.children()) == expected
            assert [path for path, _ in made.children("many")] == [f"many/{number:04d}" for number in range(90)]
            assert [path for path, _ in made.children("many/0007")] == [f"many/0007/{leaf}" for leaf in "xyz"]
            made._pinned.need_manifest()


class TestThisMachine:
    def test_a_stream_is_read_again_without_a_request(self, version: Version, driver: ReadDriver) -> None:
        assert len(dict(version.stream("small"))) == len(SMALL)
        driver.reads.clear()
        assert {entry.path: body for entry, body in version.stream("small")} == SMALL
        assert driver.reads == []

    def test_damage_in_the_cache_costs_a_request_and_no_wrong_byte(
        self, version: Version, driver: ReadDriver, own_cache: Path
    ) -> None:
        list(version.stream("small"))
        for file in (own_cache / "ranges").rglob("*"):
            if file.is_file():
                file.chmod(0o600)
                file.write_bytes(bytes(file.stat().st_size))
        driver.reads.clear()
        assert {entry.path: body for entry, body in version.stream("small")} == SMALL
        assert len(driver.reads) == 1

    def test_fetch_gives_a_file_that_nobody_writes(self, version: Version, driver: ReadDriver) -> None:
        for path in ("large.bin", "small/003", "empty"):
            local = version.fetch(path)
            assert local.read_bytes() == TREE[path]
            assert not local.stat().st_mode & 0o222
        driver.reads.clear()
        assert version.at("large.bin").fetch() == version.fetch("large.bin")
        assert version.read_bytes("large.bin", 5, 10) == TREE["large.bin"][5:15]
        assert version.read_bytes("large.bin") == TREE["large.bin"]
        assert driver.reads == []

    @pytest.mark.parametrize("is_range", [True, False])
    def test_a_large_file_that_was_changed_in_the_cache_is_fetched_again(
        self, version: Version, driver: ReadDriver, is_range: bool
    ) -> None:
        kept = version.fetch("huge.bin")
        kept.chmod(0o600)
        with kept.open("r+b") as file:
            file.seek(9 * MIB)
            file.write(b"wrong")
        driver.reads.clear()
        expected = TREE["huge.bin"]
        if is_range:
            assert version.read_bytes("huge.bin", 9 * MIB, 5) == expected[9 * MIB : 9 * MIB + 5]
        else:
            assert version.read_bytes("huge.bin") == expected
        assert driver.reads

    def test_a_file_object_looks_places_and_checks_up_once(self, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
        with version.open("huge.bin") as file:
            assert file.read(1) == TREE["huge.bin"][:1]
            monkeypatch.setattr(type(version._doors.index), "read", refuse)
            file.seek(15 * MIB)
            assert file.read(5) == TREE["huge.bin"][15 * MIB : 15 * MIB + 5]

    def test_fetch_needs_a_cache(self, source: Path, driver: ReadDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VDS_CACHE_MAX", "0")
        with vds.connect(driver.url, create=True) as store:
            made = store.namespace("n").upload(source, show_progress=False).version
            with pytest.raises(InvalidInputError, match="turned off"):
                made.fetch("large.bin")
            assert {entry.path: body for entry, body in made.stream()} == TREE

    def test_after_many_lookups_the_index_is_asked_no_more(self, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
        for _ in range(pinned_module.LOOKUPS_MIN + 1):
            version.entry("small/001")
        monkeypatch.setattr(type(version._doors.index), "read", refuse)
        assert version.entry("small/002").size_bytes == len(TREE["small/002"])
        assert [entry.path for entry in version.entries("twin")] == ["twin/a", "twin/b"]
        assert version.at("twin").file_count == 2
        assert version.read_bytes("huge.bin", 5, 5) == TREE["huge.bin"][5:10]
        assert version.read_bytes("small/002") == TREE["small/002"]
        with pytest.raises(EntryNotFoundError):
            version.entry("nowhere")

    def test_what_was_moved_since_is_found_again(self, version: Version, driver: ReadDriver) -> None:
        version._pinned.need_manifest()
        for path in ("large.bin", "small/001"):
            old, new = driver.move(TREE[path])
            with version._doors.index._live_engine().begin() as connection:
                connection.exec_driver_sql("UPDATE blob SET key = ? WHERE key = ?", (new, old))
        assert version.read_bytes("large.bin") == TREE["large.bin"]
        assert version.read_bytes("large.bin", 5, 9) == TREE["large.bin"][5:14]
        assert version.read_bytes("small/001") == TREE["small/001"]
        assert {entry.path: body for entry, body in version.stream()} == TREE
        assert [body for _, body in version.read_many(["twin/a", "small/004"])] == [b"the same", TREE["small/004"]]

    def test_a_cache_that_is_lost_is_made_anew(self, version: Version, own_cache: Path) -> None:
        list(version.stream("small"))
        shutil.rmtree(own_cache)
        again = pickle.loads(pickle.dumps(version))
        assert {entry.path: body for entry, body in again.stream("twin")} == {"twin/a": b"the same", "twin/b": b"the same"}


class TestCopies:
    def test_a_second_copy_makes_no_request(self, version: Version, driver: ReadDriver, tmp_path: Path) -> None:
        version.download(tmp_path / "one", show_progress=False)
        assert driver.reads
        driver.reads.clear()
        version.checkout(tmp_path / "two", show_progress=False)
        version.download(tmp_path / "three", "small", show_progress=False)
        assert driver.reads == []
        for copy in ("one", "two"):
            assert read_tree(tmp_path / copy) == TREE
        assert {f"small/{path}": body for path, body in read_tree(tmp_path / "three").items()} == SMALL
        assert version.read_bytes("huge.bin", 5, 5) == TREE["huge.bin"][5:10]
        assert driver.reads == []

    def test_what_is_more_than_half_of_the_cache_is_not_kept(
        self, source: Path, driver: ReadDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        size_bytes = sum(map(len, TREE.values()))
        for cap, kept in ((2 * size_bytes - 1, 0), (2 * size_bytes, 2)):
            monkeypatch.setenv("VDS_CACHE", str(tmp_path / f"cache-{cap}"))
            monkeypatch.setenv("VDS_CACHE_MAX", str(cap))
            with vds.connect(driver.url, create=True) as store:
                made = store.namespace("n").upload(source, show_progress=False).version
                made.download(tmp_path / f"copy-{cap}", show_progress=False)
            objects = tmp_path / f"cache-{cap}" / "objects"
            assert sum(path.is_file() for path in objects.rglob("*")) == kept

    def test_linked_files_are_those_of_the_cache(self, version: Version, own_cache: Path, tmp_path: Path) -> None:
        version.checkout(tmp_path / "copy", link=True, show_progress=False)
        assert read_tree(tmp_path / "copy") == TREE
        placed = (tmp_path / "copy" / "large.bin").stat()
        kept = version.fetch("large.bin").stat()
        shares_bytes = placed.st_ino != kept.st_ino  # a reflink, where the disk has them
        assert shares_bytes or not placed.st_mode & 0o222
        assert (tmp_path / "copy" / "small" / "001").stat().st_mode & 0o200

    def test_a_part_can_be_checked_out(self, version: Version, tmp_path: Path) -> None:
        version.checkout(tmp_path / "copy", allow_patterns=["small/00*", "twin/"], ignore_patterns=["*/b"], show_progress=False)
        assert sorted(read_tree(tmp_path / "copy")) == [*(f"small/00{n}" for n in range(10)), "twin/a"]
        assert vds.status(tmp_path / "copy").is_clean

    def test_a_stale_manifest_costs_a_second_look(self, version: Version, driver: ReadDriver, tmp_path: Path) -> None:
        version._pinned.need_manifest()
        for path in ("large.bin", "small/001"):
            old, new = driver.move(TREE[path])
            with version._doors.index._live_engine().begin() as connection:
                connection.exec_driver_sql("UPDATE blob SET key = ? WHERE key = ?", (new, old))
        version.download(tmp_path / "copy", show_progress=False)
        assert read_tree(tmp_path / "copy") == TREE

    def test_damage_fails_the_files_it_is_in(self, version: Version, driver: ReadDriver, tmp_path: Path) -> None:
        driver.replace(TREE["large.bin"], bytes(len(TREE["large.bin"])))
        with pytest.raises(DownloadError) as caught:
            version.download(tmp_path / "copy", show_progress=False)
        assert caught.value.failures.keys() == {"large.bin"}
        assert read_tree(tmp_path / "copy") == {path: body for path, body in TREE.items() if path != "large.bin"}


class TestOffline:
    @pytest.fixture
    def away(self, version: Version, driver: ReadDriver) -> Version:
        """Return a version of which this machine has kept some, and whose store answers no more."""
        list(version.stream("small"))
        version.fetch("large.bin")
        driver.is_away = True
        version._handle.close()
        driver.reads.clear()
        return version

    def test_what_is_kept_needs_nothing_else(self, away: Version, driver: ReadDriver) -> None:
        for version in (away, vds.connect(driver.url).get("team/raw@1")):
            assert version == away or version.digest == away.digest
            assert version.entry("small/001").size_bytes == len(TREE["small/001"])
            assert {entry.path for entry in version.entries()} == set(TREE)
            assert version.read_bytes("small/001") == TREE["small/001"]
            assert version.read_bytes("large.bin", 100, 5) == TREE["large.bin"][100:105]
            assert {entry.path: body for entry, body in version.stream("small")} == SMALL
            assert version.fetch("large.bin").read_bytes() == TREE["large.bin"]
            assert version.file_count == len(TREE)
            assert version.author

    def test_what_is_missing_is_named_in_one_error(self, away: Version) -> None:
        with pytest.raises(OfflineError, match=r"cache lacks 3 files of vds://team/raw@1/") as caught:
            dict(away.stream())
        assert caught.value.paths == ("huge.bin", "twin/a", "twin/b")
        with pytest.raises(OfflineError) as caught:
            away.read_bytes("huge.bin", 5, 5)
        assert "lacks 1 file of" in caught.value.message
        assert caught.value.paths == ("huge.bin",)
        with pytest.raises(OfflineError) as caught:
            list(away.read_many(["small/001", "twin/a"]))
        assert caught.value.paths == ("twin/a",)
        with pytest.raises(OfflineError) as caught:
            away.fetch("twin/b")
        assert caught.value.paths == ("twin/b",)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.paths, again.kind, str(again)) == (("twin/b",), "offline", str(caught.value))

    def test_copies_come_from_the_cache_or_name_what_is_missing(self, away: Version, tmp_path: Path) -> None:
        away.download(tmp_path / "small", "small", show_progress=False)
        assert len(read_tree(tmp_path / "small")) == len(SMALL)
        with pytest.raises(OfflineError) as caught:
            away.checkout(tmp_path / "all", show_progress=False)
        assert caught.value.paths == ("huge.bin", "twin/a", "twin/b")
        away.checkout(tmp_path / "part", allow_patterns=["small/", "large.bin"], show_progress=False)
        with pytest.raises(OfflineError) as caught:
            away.download(tmp_path / "part", ignore_patterns=["twin/"], show_progress=False)
        assert caught.value.paths == ("huge.bin",)

    def test_only_what_is_pinned_is_found(self, away: Version, driver: ReadDriver) -> None:
        store = vds.connect(driver.url)
        for ref in ("team/raw", "team/raw@latest", "team/raw@2", "customers:prod"):
            with pytest.raises(UnavailableError, match="this machine has kept team/raw@1"):
                store.get(ref)
        with pytest.raises(UnavailableError, match="the service is away"):
            store.namespaces()

    def test_a_locked_ref_is_found_by_its_digest(
        self, version: Version, counted: Store, driver: ReadDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted.dataset("customers").register(version, "small", tags=["prod"])
        other = counted.namespace("other").upload(write_tree(tmp_path / "other", {"a": b"a"}), show_progress=False).version
        lock_refs(["customers:prod", "other@1"], counted, tmp_path / "vds.lock")
        list(version.stream("small"))
        counted.close()
        driver.is_away = True
        locked = vds.load_lock(tmp_path / "vds.lock")
        assert {entry.path: body for entry, body in locked.get("customers:prod").stream()} == {
            path.partition("/")[2]: body for path, body in SMALL.items()
        }
        with pytest.raises(UnavailableError, match="this machine has kept team/raw@1"):
            locked.get("other@1")
        assert other.number == 1

    def test_without_anything_kept_it_does_not_open(self, counted: Store, driver: ReadDriver) -> None:
        driver.is_away = True
        with pytest.raises(UnavailableError, match="the service is away"):
            vds.connect(driver.url)

    def test_it_opens_when_the_store_is_back(self, away: Version, driver: ReadDriver) -> None:
        store = vds.connect(driver.url)
        driver.is_away = False
        assert [row.name for row in store.namespaces()] == ["team/raw"]
        assert store.get("team/raw").number == 1
        assert store.get("team/raw@1").read_bytes("huge.bin") == TREE["huge.bin"]


def read_tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".vds" not in path.relative_to(root).parts
    }


def refuse(*_: object) -> None:
    raise UnavailableError("the index was asked")
