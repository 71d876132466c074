"""The fsspec file system: what it lists and reads, what it pins, what it lets travel, what it refuses."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec")

import fsspec
from hypothesis import given
from hypothesis import strategies as st

import vds
import vds.pins
from tests.counting import ReadCounter
from tests.fspins import own_process as own_process
from tests.support import write_tree
from vds.blobs.memory import MemoryDriver
from vds.errors import CorruptionError, EntryNotFoundError, InvalidInputError, NotFoundError, UnavailableError
from vds.fs import ReadOnlyError, VdsFileSystem
from vds.fs.ranges import SMALL_BYTES
from vds.fs.transfer import LARGE_BYTES
from vds.model.ref import SCHEME, parse_ref_path
from vds.store import Store, Version

CONNECT = import_module("vds.store.connect")  # `vds.store.connect` is the function
LARGE = bytes(range(256)) * 1024
FILES = {
    "a.csv": b"x,y\n1,2\n",
    "data/one": b"1",
    "data/deep/two": b"22",
    "data/deep/three [3].bin": LARGE,
    "data.txt": b"beside the directory",
    "naïve/%41.txt": b"never decoded",
}
REFS = ["team/raw@1", "team/raw@latest", "team/raw@2999-01-01T12:00:00+01:00", "customers:prod", "customers:1"]
_numbers = itertools.count(1)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ReadCounter:
    made = ReadCounter(f"fs-{next(_numbers)}")
    monkeypatch.setattr(CONNECT, "open_driver", lambda url, credential=None: made)
    return made


@pytest.fixture
def store(driver: ReadCounter, tmp_path: Path) -> Iterator[Store]:
    with vds.connect(driver.url, create=True) as made:
        write(made, FILES, tmp_path)
        made.dataset("customers").register("team/raw@1", tags=["prod"])
        yield made


@pytest.fixture
def fs(store: Store) -> VdsFileSystem:
    made = fsspec.filesystem("vds", store=store.url)
    assert isinstance(made, VdsFileSystem)
    return made


def write(store: Store, files: dict[str, bytes], scratch: Path) -> Version:
    directory = write_tree(scratch / f"tree-{next(_numbers)}", files)
    return store.namespace("team/raw").upload(directory, show_progress=False).version


def move_tag(store: Store, scratch: Path) -> None:
    """Have `customers:prod` and `team/raw@latest` mean a version whose a.csv is `new`."""
    version = write(store, {"a.csv": b"new"}, scratch)
    store.dataset("customers").register(version, tags=["prod"])


class TestPaths:
    @pytest.mark.parametrize("ref", REFS)
    def test_a_ref_is_stripped_parted_and_put_back(self, ref: str) -> None:
        fs = VdsFileSystem()
        assert fs._strip_protocol(f"vds://{ref}/a/b/") == f"{ref}/a/b"
        assert fs.unstrip_protocol(f"{ref}/a") == f"vds://{ref}/a"
        assert fs._parent(f"vds://{ref}/a/b") == f"{ref}/a"
        assert fs._parent(f"{ref}/a") == ref
        assert fs._parent(ref) == fs._parent(f"{ref}/") == ref
        assert fs._get_kwargs_from_urls(f"vds://{ref}/a@b:c") == {"ref": ref}

    def test_a_list_is_stripped_one_by_one(self) -> None:
        assert VdsFileSystem._strip_protocol(["vds://a:1/x/", "a:1"]) == ["a:1/x", "a:1"]

    @pytest.mark.parametrize("path", ["", "team/raw", "*"])
    def test_what_names_no_version_has_the_root_as_parent(self, path: str) -> None:
        assert VdsFileSystem._parent(path) == ""
        assert VdsFileSystem._get_kwargs_from_urls(path) == {}

    @given(
        st.sampled_from(REFS),
        st.lists(st.text("aé@:%[*? .+", min_size=1, max_size=5).filter(lambda s: s.strip(" .")), max_size=4),
    )
    def test_it_ends_a_ref_where_the_one_parser_does(self, ref: str, segments: list[str]) -> None:
        path = "/".join([ref, *segments])
        found = VdsFileSystem._get_kwargs_from_urls(path)["ref"]
        assert found == ref
        assert parse_ref_path(SCHEME + path) == (parse_ref_path(SCHEME + ref)[0], "/".join(segments))

    @pytest.mark.parametrize("ref", REFS)
    @pytest.mark.parametrize("protocol", ["", "vds://"])
    def test_every_form_of_a_ref_reads(self, fs: VdsFileSystem, ref: str, protocol: str) -> None:
        assert fs.cat_file(f"{protocol}{ref}/naïve/%41.txt") == b"never decoded"
        assert fs.ls(f"{protocol}{ref}/data/", detail=False) == [f"{ref}/data/deep", f"{ref}/data/one"]

    @pytest.mark.parametrize(
        "path", ["", "a.csv", "team/raw", "customers:prod//a.csv", "customers:prod/../a", "//store//a:1", "a:b:c"]
    )
    def test_what_is_no_path_is_refused_and_not_there(self, fs: VdsFileSystem, path: str) -> None:
        with pytest.raises(InvalidInputError):
            fs.info(path)
        with pytest.raises(InvalidInputError):
            fs.open(path)
        assert not fs.exists(path)
        assert not fs.isfile(path)
        assert not fs.isdir(path)

    def test_no_url_parser_sees_a_ref(self, fs: VdsFileSystem, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("a ref is no url")

        for module in ("fsspec.utils", "urllib.parse"):
            monkeypatch.setattr(f"{module}.urlsplit", refuse)
        for module in ("fsspec.utils", "fsspec.implementations.arrow"):
            monkeypatch.setattr(f"{module}.infer_storage_options", refuse)
        monkeypatch.setattr("urllib.parse.urlparse", refuse)
        url = "vds://customers:prod/a.csv"
        assert fsspec.core.url_to_fs(url, store=store.url)[1] == "customers:prod/a.csv"
        with fsspec.open(url, store=store.url) as file:
            assert file.read() == FILES["a.csv"]
        (matched,) = fsspec.open_files("vds://customers:prod/d*", store=store.url)
        assert matched.full_name == "vds://customers:prod/data.txt"
        assert len(fs.find(url)) == len(fs.glob(url)) == len(fs.ls(url)) == len(fs.cat([url])) == 1


class TestListing:
    def test_a_directory_lists_what_lies_in_it(self, fs: VdsFileSystem) -> None:
        assert [(info["name"], info["type"], info["size"]) for info in fs.ls("customers:prod")] == [
            ("customers:prod/a.csv", "file", 8),
            ("customers:prod/data", "directory", 0),
            ("customers:prod/data.txt", "file", 20),
            ("customers:prod/naïve", "directory", 0),
        ]

    def test_a_directory_is_listed_without_the_files_below(self, fs: VdsFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Version, path: str = "") -> None:
            raise AssertionError("the files below are not to be listed")

        monkeypatch.setattr("vds.store.Version.entries", refuse)
        assert fs.ls("customers:prod/data", detail=False) == ["customers:prod/data/deep", "customers:prod/data/one"]
        assert fs.glob("customers:prod/*.csv") == ["customers:prod/a.csv"]

    def test_a_file_lists_itself_as_info_says(self, fs: VdsFileSystem) -> None:
        (info,) = fs.ls("customers:prod/data/one")
        assert info == fs.info("vds://customers:prod/data/one")
        assert (info["name"], info["size"], info["type"], info["mode"]) == ("customers:prod/data/one", 1, "file", 0o644)
        assert info["digest"].startswith("b3:")

    def test_an_empty_version_lists_nothing_and_is_a_directory(self, fs: VdsFileSystem) -> None:
        assert fs.ls("team/raw@0") == []
        assert fs.find("team/raw@0") == []
        assert fs.isdir("team/raw@0")

    def test_a_release_of_a_directory_is_seen_from_there(self, fs: VdsFileSystem, store: Store) -> None:
        store.dataset("deep").register("team/raw@1", "data/deep", tags=["prod"])
        assert fs.find("deep:prod") == ["deep:prod/three [3].bin", "deep:prod/two"]
        assert fs.cat_file("deep:prod/two") == b"22"

    def test_a_release_of_a_file_is_a_directory_with_it(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        store.dataset("one").register("team/raw@1", "data/one", tags=["prod"])
        assert fs.ls("one:prod", detail=False) == fs.find("one:prod") == ["one:prod/one"]
        assert fs.cat_file("one:prod/one") == b"1"
        fs.get("one:prod/one", str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == b"1"

    @pytest.mark.parametrize(
        "path", ["customers:prod/none", "customers:prod/data/on", "customers:none/a", "none:prod", "none@1/a"]
    )
    def test_what_is_not_there_is_a_file_not_found(self, fs: VdsFileSystem, path: str) -> None:
        for ask in (fs.ls, fs.info, fs.open, fs.cat_file, fs.modified, fs.created, fs.ukey, fs.checksum):
            with pytest.raises(FileNotFoundError):
                ask(path)
        assert not fs.exists(path)
        assert not fs.isfile(path)
        assert not fs.isdir(path)

    def test_a_service_that_is_down_is_not_an_absence(self, fs: VdsFileSystem, driver: ReadCounter) -> None:
        driver.is_down = True
        for ask in (fs.exists, fs.isfile, fs.isdir, fs.info, fs.find):
            with pytest.raises(UnavailableError):
                ask("customers:prod/a.csv")

    def test_a_store_that_is_not_there_is_not_an_absence(self) -> None:
        fs = VdsFileSystem(store=f"memory://none-{next(_numbers)}")
        for ask in (fs.exists, fs.isfile, fs.isdir, fs.info, fs.find):
            with pytest.raises(NotFoundError, match="is not a vds store") as caught:
                ask("customers:prod/a.csv")
            assert not isinstance(caught.value, FileNotFoundError)

    def test_find_lists_all_files_below(self, fs: VdsFileSystem) -> None:
        names = sorted(f"customers:prod/{path}" for path in FILES)
        assert fs.find("vds://customers:prod/") == names
        detailed = fs.find("customers:prod", detail=True)
        assert isinstance(detailed, dict)
        assert list(detailed) == names
        assert all(detailed[name] == fs.info(name) for name in names)
        assert fs.find("customers:prod/data/one") == ["customers:prod/data/one"]
        assert fs.find("customers:prod/dat") == []

    def test_find_of_a_ref_that_means_nothing_is_an_error(self, fs: VdsFileSystem) -> None:
        for ask in (fs.find, fs.glob):
            with pytest.raises(FileNotFoundError, match="no dataset 'custmers'"):
                ask("custmers:prod/*")

    @pytest.mark.parametrize("path", ["customers:prod", "customers:prod/data", "customers:prod/data/one", "customers:prod/no"])
    def test_find_with_directories_is_what_a_walk_finds(self, fs: VdsFileSystem, path: str) -> None:
        expected = super(VdsFileSystem, fs).find(path, withdirs=True, detail=True)
        assert fs.find(path, withdirs=True, detail=True) == expected
        assert fs.find(path, withdirs=True) == list(expected)

    def test_find_and_walk_stop_at_a_depth(self, fs: VdsFileSystem) -> None:
        assert fs.find("customers:prod/data", maxdepth=1) == ["customers:prod/data/one"]
        assert [(path, dirs, files) for path, dirs, files in fs.walk("customers:prod/data")] == [
            ("customers:prod/data", ["deep"], ["one"]),
            ("customers:prod/data/deep", [], ["three [3].bin", "two"]),
        ]

    def test_glob_matches_paths_and_not_refs(self, fs: VdsFileSystem) -> None:
        assert fs.glob("vds://customers:prod/*.csv") == ["customers:prod/a.csv"]
        assert fs.glob("team/raw@1/**/t*") == ["team/raw@1/data/deep/three [3].bin", "team/raw@1/data/deep/two"]
        assert fs.glob("customers:prod/data*") == ["customers:prod/data", "customers:prod/data.txt"]
        assert fs.glob("customers:prod/*.none") == []
        with pytest.raises(InvalidInputError):
            fs.glob("customers:*/a.csv")

    def test_sizes_are_summed(self, fs: VdsFileSystem) -> None:
        assert fs.du("customers:prod/data") == 3 + len(LARGE)
        assert fs.du("customers:prod/data", total=False, maxdepth=1) == {"customers:prod/data/one": 1}
        assert fs.sizes(["customers:prod/a.csv", "customers:prod/data/one"]) == [8, 1]

    def test_listing_reads_no_blob(self, fs: VdsFileSystem, driver: ReadCounter) -> None:
        fs.ls("customers:prod")
        driver.calls.clear()
        fs.ls("customers:prod/data")
        fs.find("customers:prod")
        fs.info("customers:prod/a.csv")
        fs.glob("customers:prod/**")
        assert driver.calls == {}


class TestFacts:
    def test_times_are_aware(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        directory = write_tree(tmp_path / "timed", {"old": b"o"})
        os.utime(directory / "old", ns=(0, -1_500_000_000))
        version = store.namespace("timed").upload(directory, show_progress=False).version
        assert fs.modified("timed@1/old") == datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC)
        assert fs.modified("timed@1") == fs.created("timed@1/old") == version.created_at
        assert fs.info("timed@1/old")["mtime"] == -1.5

    def test_a_key_follows_the_content_alone(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        write(store, {**FILES, "a.csv": b"other", "data.txt": b"1"}, tmp_path)
        assert fs.ukey("team/raw@1/data/one") == fs.ukey("team/raw@2/data.txt") == fs.info("team/raw@1/data/one")["digest"]
        assert fs.checksum("team/raw@1/data/one") == fs.checksum("team/raw@2/data/one")
        assert fs.ukey("team/raw@1/a.csv") != fs.ukey("team/raw@2/a.csv")
        assert fs.checksum("team/raw@1/a.csv") != fs.checksum("team/raw@2/a.csv")
        assert len({fs.ukey(path) for path in ("team/raw@1", "team/raw@2", "team/raw@1/data")}) == 3

    def test_the_store_gives_its_id(self, fs: VdsFileSystem, store: Store) -> None:
        assert fs.fsid == f"vds-{store.id}"


class TestReading:
    def test_a_file_is_what_readers_expect(self, fs: VdsFileSystem) -> None:
        with fs.open("customers:prod/data/deep/three [3].bin", block_size=5, cache_type="all", cache_options={"x": 1}) as file:
            assert (file.size, file.name, file.tell(), file.readable(), file.writable(), file.closed) == (
                *(len(LARGE), "data/deep/three [3].bin", 0, True, False, False),
            )
            file.seek(-6, os.SEEK_END)
            buffer = bytearray(4)
            assert file.readinto(buffer) == 4
            assert bytes(buffer) + file.read() == LARGE[-6:]
            assert file.read(1) == b""
        assert file.closed

    def test_text_and_compression_are_fsspecs_own(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        import gzip

        write(store, {"t.gz": gzip.compress("é\n".encode())}, tmp_path)
        with fs.open("team/raw@2/t.gz", "rt", encoding="utf-8", compression="infer") as file:
            assert file.read() == "é\n"
        assert fs.read_text("team/raw@1/data.txt") == "beside the directory"
        assert fs.head("team/raw@1/data.txt", 6) == b"beside"
        assert fs.tail("team/raw@1/data.txt", 9) == b"directory"
        assert fs.read_block("team/raw@1/a.csv", 1, 5, b"\n") == b"1,2\n"

    @pytest.mark.parametrize(
        ("start", "end"), [(None, None), (0, 3), (2, None), (-3, None), (None, -3), (-5, -2), (6, 2), (99, 199)]
    )
    def test_a_slice_is_as_of_bytes(self, fs: VdsFileSystem, start: int | None, end: int | None) -> None:
        assert fs.cat_file("customers:prod/a.csv", start, end) == FILES["a.csv"][start:end]

    def test_cat_of_one_is_bytes_and_of_several_a_dict(self, fs: VdsFileSystem) -> None:
        assert fs.cat("vds://customers:prod/data/one") == b"1"
        assert fs.cat(["vds://customers:prod/data/one"]) == {"customers:prod/data/one": b"1"}
        assert fs.cat("customers:prod/data/*") == {"customers:prod/data/one": b"1"}
        assert fs.cat("customers:prod/data/d*", recursive=True).keys() == {
            "customers:prod/data/deep/two",
            "customers:prod/data/deep/three [3].bin",
        }
        found = fs.cat("customers:prod", recursive=True)
        assert found == {f"customers:prod/{path}": body for path, body in FILES.items()}
        assert fs.cat("customers:prod/a.csv", start=0, end=1) == b"x"
        with pytest.raises(FileNotFoundError, match="no files"):
            fs.cat("customers:prod/*.none")

    def test_cat_reads_versions_side_by_side(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        write(store, {"a.csv": b"new"}, tmp_path)
        assert fs.cat(["team/raw@1/a.csv", "team/raw@2/a.csv"]) == {
            "team/raw@1/a.csv": FILES["a.csv"],
            "team/raw@2/a.csv": b"new",
        }

    @pytest.mark.parametrize("missing", ["customers:prod/none", "none:prod/a", "no path"])
    def test_cat_says_what_failed_as_asked(self, fs: VdsFileSystem, missing: str) -> None:
        paths = ["customers:prod/data/one", missing, "customers:prod/data/deep/two"]
        with pytest.raises((FileNotFoundError, InvalidInputError)):
            fs.cat(paths)
        good = {"customers:prod/data/one": b"1", "customers:prod/data/deep/two": b"22"}
        assert fs.cat(paths, on_error="omit") == good
        returned = fs.cat(paths, on_error="return")
        assert isinstance(returned.pop(missing), (FileNotFoundError, InvalidInputError))
        assert returned == good

    def test_ranges_come_in_order_with_their_errors(self, fs: VdsFileSystem) -> None:
        large = "vds://customers:prod/data/deep/three [3].bin"
        paths = [large, "customers:prod/a.csv", "customers:prod/none", large, large]
        starts, ends = [100_000, 2, 0, -4, 5], [100_003, -1, 1, None, 2]
        found = fs.cat_ranges(paths, starts, ends)
        assert found[:2] == [LARGE[100_000:100_003], b"y\n1,2"]
        assert isinstance(found[2], EntryNotFoundError)
        assert found[3:] == [LARGE[-4:], b""]
        with pytest.raises(EntryNotFoundError):
            fs.cat_ranges(paths, starts, ends, on_error="raise")
        assert fs.cat_ranges([], [], []) == []

    def test_near_ranges_of_a_file_are_one_request(self, fs: VdsFileSystem, driver: ReadCounter) -> None:
        assert len(LARGE) > SMALL_BYTES
        path = "customers:prod/data/deep/three [3].bin"
        fs.cat_file(path, 0, 1)
        driver.calls.clear()
        starts = list(range(0, 40_000, 2000))
        fs.cat_ranges([path] * 20, starts, [start + 1000 for start in starts], max_gap=1000)
        assert driver.calls == {"read": 1}
        driver.calls.clear()
        fs.cat_ranges([path] * 20, starts, [start + 1000 for start in starts])
        assert driver.calls == {"read": 20}

    def test_many_small_files_are_one_request(self, fs: VdsFileSystem, store: Store, driver: ReadCounter, tmp_path: Path) -> None:
        write(store, {f"small/{number:03}": b"%03d" % number * 100 for number in range(200)}, tmp_path)
        names = [f"team/raw@2/small/{number:03}" for number in range(200)]
        fs.info(names[0])
        driver.calls.clear()
        assert fs.cat(names)[names[7]] == b"007" * 100
        assert driver.calls == {"read": 1}
        driver.calls.clear()
        found = fs.cat_ranges(names, 3, 6)
        assert found == [b"%03d" % number for number in range(200)]
        assert sum(driver.calls.values()) <= 1

    def test_a_damaged_file_does_not_take_its_neighbours_along(
        self, fs: VdsFileSystem, store: Store, driver: ReadCounter
    ) -> None:
        version = store.get("team/raw@1")
        (place,) = version._objects.find_placements([version.entry("data/one")]).values()
        damage(driver, place.key, place.offset_bytes)
        names = ["customers:prod/data/one", "customers:prod/data/deep/two"]
        with pytest.raises(CorruptionError):
            fs.cat(names)
        found = fs.cat(names, on_error="return")
        assert isinstance(found[names[0]], CorruptionError)
        assert found[names[1]] == b"22"


def damage(driver: MemoryDriver, key: str, offset_bytes: int) -> None:
    """Change one byte of a blob, as a failing disk does."""
    body = bytearray(driver.read_range(key))
    body[offset_bytes] ^= 1
    driver.delete_blob(key)
    driver.put_if_absent(key, bytes(body))


class TestGetting:
    def test_a_file_gets_any_name_whole_with_its_time(self, fs: VdsFileSystem, tmp_path: Path) -> None:
        target = tmp_path / "new" / "name"
        fs.get_file("vds://customers:prod/data.txt", str(target))
        assert target.read_bytes() == FILES["data.txt"]
        assert target.stat().st_mtime == pytest.approx(fs.modified("customers:prod/data.txt").timestamp())
        assert os.listdir(target.parent) == ["name"]

    @pytest.mark.parametrize("size_bytes", [LARGE_BYTES - 1, LARGE_BYTES])
    def test_large_files_too(self, fs: VdsFileSystem, store: Store, tmp_path: Path, size_bytes: int) -> None:
        body = os.urandom(size_bytes)
        write(store, {"big": body}, tmp_path)
        (tmp_path / "copy").write_bytes(b"older")
        fs.get("team/raw@2/big", str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == body

    def test_a_damaged_file_leaves_what_was_there(
        self, fs: VdsFileSystem, store: Store, driver: ReadCounter, tmp_path: Path
    ) -> None:
        version = store.get("team/raw@1")
        (place,) = version._objects.find_placements([version.entry("data/one")]).values()
        damage(driver, place.key, place.offset_bytes)
        target = tmp_path / "copy"
        target.write_bytes(b"older")
        with pytest.raises(CorruptionError):
            fs.get("customers:prod/data/one", str(target))
        assert target.read_bytes() == b"older"

    def test_an_open_file_takes_the_bytes(self, fs: VdsFileSystem, tmp_path: Path) -> None:
        with (tmp_path / "copy").open("wb") as file:
            fs.get_file("customers:prod/data.txt", file)
        assert (tmp_path / "copy").read_bytes() == FILES["data.txt"]

    def test_a_tree_comes_down_with_few_requests(self, fs: VdsFileSystem, driver: ReadCounter, tmp_path: Path) -> None:
        fs.ls("customers:prod")
        driver.calls.clear()
        fs.get("customers:prod", tmp_path / "copy", recursive=True)
        assert {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()} == {
            *FILES
        }
        assert driver.calls["read"] == 1

    def test_an_empty_tree_makes_its_directory(self, fs: VdsFileSystem, tmp_path: Path) -> None:
        fs.get("team/raw@0", str(tmp_path / "copy"), recursive=True)
        assert os.listdir(tmp_path / "copy") == []

    def test_a_pattern_brings_its_files_in_few_requests(
        self, fs: VdsFileSystem, store: Store, driver: ReadCounter, tmp_path: Path
    ) -> None:
        write(store, {f"small/{number:03}": b"%03d" % number for number in range(50)}, tmp_path)
        fs.ls("team/raw@2")
        driver.calls.clear()
        fs.get("team/raw@2/small/*", str(tmp_path / "copy"))
        assert sorted(os.listdir(tmp_path / "copy")) == [f"{number:03}" for number in range(50)]
        assert driver.calls["read"] == 1

    def test_callbacks_hear_of_it(self, fs: VdsFileSystem, tmp_path: Path) -> None:
        from fsspec.callbacks import Callback

        calls: dict[str, Callable[[Any], None]] = {
            "file": lambda callback: fs.get_file("customers:prod/a.csv", str(tmp_path / "1"), callback=callback),
            "tree": lambda callback: fs.get("customers:prod", str(tmp_path / "2"), recursive=True, callback=callback),
            "files": lambda callback: fs.get(["customers:prod/a.csv"], [str(tmp_path / "3")], callback=callback),
        }
        heard = {}
        for name, call in calls.items():
            callback = Callback()
            call(callback)
            heard[name] = (callback.size, callback.value)
        assert heard == {"file": (8, 8), "tree": (len(FILES), len(FILES)), "files": (1, 1)}

    def test_what_is_not_there_is_not_got(self, fs: VdsFileSystem, tmp_path: Path) -> None:
        for path in ("customers:prod/none", "none:prod"):
            with pytest.raises(FileNotFoundError):
                fs.get(path, str(tmp_path / "copy"))
            with pytest.raises(FileNotFoundError):
                fs.get(path, str(tmp_path / "copy"), recursive=True)
        assert not (tmp_path / "copy").exists()


class TestWriting:
    @pytest.mark.parametrize("mode", ["wb", "ab", "xb", "r+b", "w"])
    def test_files_open_for_reading_alone(self, fs: VdsFileSystem, mode: str) -> None:
        with pytest.raises(ReadOnlyError, match="read-only") as caught:
            fs.open("customers:prod/a.csv", mode)
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, ValueError)
        assert caught.value.errno == errno.EROFS
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again), again.hint, again.errno) == (
            ReadOnlyError,
            str(caught.value),
            caught.value.hint,
            errno.EROFS,
        )

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("mkdir", ["a:1/x"]),
            ("makedirs", ["a:1/x"]),
            ("rmdir", ["a:1/x"]),
            ("rm", ["a:1/x"]),
            ("rm_file", ["a:1/x"]),
            ("delete", ["a:1/x"]),
            ("touch", ["a:1/x"]),
            ("pipe", ["a:1/x", b""]),
            ("pipe_file", ["a:1/x", b""]),
            ("write_text", ["a:1/x", ""]),
            ("write_bytes", ["a:1/x", b""]),
            ("put", ["here", "a:1/x"]),
            ("put_file", ["here", "a:1/x"]),
            ("upload", ["here", "a:1/x"]),
            ("copy", ["a:1/x", "a:1/y"]),
            ("cp", ["a:1/x", "a:1/y"]),
            ("mv", ["a:1/x", "a:1/y"]),
            ("rename", ["a:1/x", "a:1/y"]),
            ("start_transaction", []),
        ],
    )
    def test_nothing_writes(self, name: str, arguments: list[Any]) -> None:
        with pytest.raises(ReadOnlyError):
            getattr(VdsFileSystem(), name)(*arguments)


class TestPins:
    def test_a_ref_stays_until_refresh(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        refs = ["customers:prod", "customers:latest", "team/raw@latest"]
        assert [fs.cat_file(f"{ref}/a.csv") for ref in refs] == [FILES["a.csv"]] * 3
        move_tag(store, tmp_path)
        assert [fs.cat_file(f"{ref}/a.csv") for ref in refs] == [FILES["a.csv"]] * 3
        assert [fs.info(f"{ref}/a.csv")["size"] for ref in refs] == [8] * 3
        vds.refresh()
        assert [fs.cat_file(f"{ref}/a.csv") for ref in refs] == [b"new"] * 3
        assert fs.cat_file("team/raw@1/a.csv") == FILES["a.csv"]

    def test_all_instances_and_threads_agree(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        fs.info("customers:prod")
        move_tag(store, tmp_path)
        seen = {}

        def look() -> None:
            other, path = fsspec.core.url_to_fs("vds://customers:prod/a.csv", store=store.url)
            seen[other] = other.cat_file(path)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        look()
        assert len(seen) == 2
        assert {*seen.values()} == {FILES["a.csv"]}

    def test_a_pickle_takes_the_pin_along(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        fs.info("customers:prod")
        pickled = pickle.dumps(fs)
        move_tag(store, tmp_path)
        vds.refresh()
        assert fs.cat_file("customers:prod/a.csv") == b"new"
        again = pickle.loads(pickled)
        assert again.cat_file("customers:prod/a.csv") == FILES["a.csv"]
        assert pickle.loads(pickle.dumps(again)).cat_file("customers:prod/a.csv") == FILES["a.csv"]
        assert again == fs
        assert hash(again) == hash(fs)
        vds.refresh()
        assert again.cat_file("customers:prod/a.csv") == b"new"
        assert pickle.loads(pickled).cat_file("customers:prod/a.csv") == FILES["a.csv"]

    def test_two_pickles_with_other_pins_live_side_by_side(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        fs.info("customers:prod")
        first = pickle.dumps(fs)
        move_tag(store, tmp_path)
        vds.refresh()
        fs.info("customers:prod")
        second = pickle.dumps(fs)
        one, two = pickle.loads(first), pickle.loads(second)
        assert (one.cat_file("customers:prod/a.csv"), two.cat_file("customers:prod/a.csv")) == (FILES["a.csv"], b"new")

    def test_a_file_that_was_never_opened_has_its_ref_resolved_when_it_is_pickled(self, store: Store, tmp_path: Path) -> None:
        files = fsspec.open_files(["vds://customers:prod/a.csv", "vds://customers:prod/data/one"], store=store.url)
        pickled = [pickle.dumps(file) for file in files]
        move_tag(store, tmp_path)
        vds.refresh()
        found = []
        for file in map(pickle.loads, pickled):
            with file as opened:
                found.append(opened.read())
        assert found == [FILES["a.csv"], b"1"]

    def test_a_ref_that_is_gone_is_forgotten_with_refresh(self, fs: VdsFileSystem, store: Store) -> None:
        fs.info("customers:prod")
        store.dataset("customers").untag("prod")
        assert pickle.loads(pickle.dumps(fs)).exists("customers:prod/a.csv")
        vds.refresh()
        again = pickle.loads(pickle.dumps(fs))
        assert not again.exists("customers:prod/a.csv")
        assert again.exists("team/raw@1/a.csv")

    def test_json_carries_the_pin_too(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        fs.info("customers:prod")
        text = fs.to_json()
        assert json.loads(text)["pins"] == {"customers:prod": "vds://team/raw@1/"}
        move_tag(store, tmp_path)
        vds.refresh()
        assert VdsFileSystem.from_json(text).cat_file("customers:prod/a.csv") == FILES["a.csv"]
        assert VdsFileSystem.from_dict(fs.to_dict()).cat_file("customers:prod/a.csv") == b"new"

    def test_an_open_file_stays_what_it_is(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        with fs.open("customers:prod/a.csv") as file:
            move_tag(store, tmp_path)
            vds.refresh()
            assert file.read() == FILES["a.csv"]

    def test_an_unpickled_one_shares_the_store_of_the_process(self, fs: VdsFileSystem, driver: ReadCounter) -> None:
        fs.info("customers:prod")
        pickled = pickle.dumps(fs)
        driver.calls.clear()
        assert pickle.loads(pickled).info("customers:prod/a.csv") == fs.info("customers:prod/a.csv")
        assert driver.calls == {}

    def test_the_store_is_found_as_connect_finds_it(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VDS_STORE", store.url)
        with fsspec.open("vds://customers:prod/a.csv", "r") as file:
            assert file.read() == FILES["a.csv"].decode()


class TestSecrets:
    KEY = "c2VjcmV0LWtleS1vZi1hbi1hY2NvdW50"

    @pytest.fixture
    def secretive(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> VdsFileSystem:
        """Return a file system whose every option holds a secret."""
        asked: list[tuple[object, ...]] = []

        def connect(url: str, *, index: str, read_only: bool, credential: object) -> Store:
            asked.append((url, index, credential))
            return Store(store._handle)

        monkeypatch.setattr(vds.pins, "connect", connect)
        options = {"store": f"az://data@account?sig={self.KEY}", "index": f"postgresql://me:{self.KEY}@host/db"}
        fs: VdsFileSystem = fsspec.filesystem("vds", **options, credential=self.KEY)
        fs.info("customers:prod/a.csv")
        assert asked == [(options["store"], options["index"], self.KEY)]
        return fs

    def test_no_secret_is_shown_or_travels(self, secretive: VdsFileSystem) -> None:
        shown = [
            repr(secretive),
            secretive._fs_token,
            secretive.to_json(),
            repr(secretive.to_dict()),
            repr(secretive.storage_options),
        ]
        shown += [repr(pickle.dumps(secretive)), repr(secretive.storage_args), repr(fsspec.open("vds://customers:prod/a.csv"))]
        assert [text for text in shown if self.KEY in text] == []

    def test_the_address_does(self, secretive: VdsFileSystem, store: Store) -> None:
        assert secretive.to_dict()["store"] == store.url
        assert pickle.loads(pickle.dumps(secretive)).cat_file("customers:prod/data/one") == b"1"

    def test_another_credential_is_another_instance(self, store: Store) -> None:
        one = fsspec.filesystem("vds", store=store.url, credential="one")
        assert one is fsspec.filesystem("vds", store=store.url, credential="one")
        assert one is not fsspec.filesystem("vds", store=store.url, credential="two")


class TestProtocol:
    def test_it_is_registered_by_its_entry_point(self) -> None:
        from importlib.metadata import entry_points

        (found,) = entry_points(group="fsspec.specs", name="vds")
        assert found.load() is VdsFileSystem
        assert fsspec.get_filesystem_class("vds") is VdsFileSystem

    def test_instances_are_cached_by_their_options(self, store: Store) -> None:
        one = fsspec.filesystem("vds", store=store.url)
        assert one is fsspec.filesystem("vds", store=store.url)
        assert one is not fsspec.filesystem("vds")

    def test_a_local_copy_can_stand_in_front(self, store: Store, tmp_path: Path) -> None:
        with fsspec.open(
            "simplecache::vds://customers:prod/a.csv",
            vds={"store": store.url},
            simplecache={"cache_storage": str(tmp_path / "copies")},
        ) as file:
            assert file.read() == FILES["a.csv"]

    def test_a_mapper_reads(self, fs: VdsFileSystem) -> None:
        mapper = fs.get_mapper("vds://customers:prod/data")
        assert sorted(mapper) == ["deep/three [3].bin", "deep/two", "one"]
        assert mapper["deep/two"] == b"22"
        assert mapper.getitems(["one", "none"], on_error="omit") == {"one": b"1"}
