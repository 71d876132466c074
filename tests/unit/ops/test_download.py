from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ops.stored import MODIFIED_NS, Stored
from vds.blobs import reads
from vds.errors import ConflictError, DownloadError, NoSpaceError, UnavailableError
from vds.files import place, placers
from vds.files.cache import Cache
from vds.files.place import Target
from vds.model.digest import Digest
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE, Entry
from vds.model.path import EntryPath, entry_path
from vds.ops import placing
from vds.ops.download import DownloadPlan, DownloadResult, Present, download, plan_download
from vds.pipeline import Limits
from vds.progress import SilentProgress

FILES = {"a/1": b"one", "a/2": b"two", "b": b"", "c/deep/er": b"one", "z": b"zz"}


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def get(stored: Stored, entries: list[Entry], dst: Path, **options: object) -> DownloadResult:
    return download(stored.source, entries, dst, SilentProgress(), **options)  # type: ignore[arg-type]


class Counting(SilentProgress):
    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None, int | None]] = []
        self.files = self.bytes = 0

    def stage(self, name: str, *, files: int | None = None, bytes: int | None = None) -> None:
        self.stages.append((name, files, bytes))
        self.files = self.bytes = 0

    def add(self, *, files: int = 0, bytes: int = 0) -> None:
        self.files += files
        self.bytes += bytes


def test_a_version_is_copied_with_one_request_a_pack(tmp_path: Path) -> None:
    stored, dst = Stored(), tmp_path / "dst"
    entries = stored.version(FILES, executable=["z"])
    progress = Counting()
    times = iter([10.0, 12.5])
    result = download(stored.source, entries, dst, progress, clock=lambda: next(times))
    assert tree(dst) == FILES
    assert sorted(os.listdir(dst)) == ["a", "b", "c", "z"]
    assert (result.files, result.placed, result.bytes, result.skipped, result.seconds) == (5, 5, 11, 0, 2.5)
    assert not result.dry_run
    assert stored.driver.requests["read"] == 1
    assert stored.lookups == 1
    assert progress.stages == [("comparing", 5, None), ("downloading", 5, 11)]
    assert (progress.files, progress.bytes) == (5, 11)
    assert (dst / "a" / "1").stat().st_mtime_ns == MODIFIED_NS
    if os.name != "nt":
        assert (dst / "z").stat().st_mode & 0o100
        assert not (dst / "b").stat().st_mode & 0o100


def test_again_reads_no_blob_and_writes_nothing(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version(FILES)
    get(stored, entries, tmp_path)
    stored.driver.requests.clear()
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    result = get(stored, entries, tmp_path)
    assert (result.placed, result.bytes, result.skipped) == (0, 0, 5)
    assert stored.driver.requests == {}
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_other_bytes_are_replaced_and_other_files_stay(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version(FILES)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").write_bytes(b"eno")  # the same size
    (tmp_path / "a" / "2").write_bytes(b"longer")
    (tmp_path / "z").write_bytes(b"zz")
    (tmp_path / "mine").write_bytes(b"mine")
    result = get(stored, entries, tmp_path)
    assert tree(tmp_path) == {**FILES, "mine": b"mine"}
    assert [entry.path for entry in result.plan.to_replace] == ["a/1", "a/2"]
    assert [entry.path for entry in result.plan.unchanged] == ["z"]
    assert result.skipped == 1


def test_patterns(tmp_path: Path) -> None:
    stored = Stored()
    result = get(stored, stored.version(FILES), tmp_path, allow_patterns=["a/", "z"], ignore_patterns="*2")
    assert sorted(tree(tmp_path)) == ["a/1", "z"]
    assert result.files == 2


def test_a_dry_run_decides_and_touches_nothing(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version(FILES)
    result = get(stored, entries, tmp_path / "dst", dry_run=True)
    assert result.dry_run
    assert (result.placed, result.bytes) == (5, 11)
    assert result.plan.to_place == tuple(entries)
    assert not (tmp_path / "dst").exists()
    assert stored.driver.requests["read"] == 0


def test_large_objects_are_read_in_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "READ_BYTES_MAX", 400_000)
    monkeypatch.setattr(placing, "READ_BYTES_MAX", 400_000)
    stored = Stored()
    files = {"large": os.urandom(2_000_000), "copy": b"", "middle": os.urandom(1_200_000), "small": b"s"}
    files["copy"] = files["large"]
    get(stored, stored.version(files), tmp_path, limits=Limits(3, 1_000_000))
    assert tree(tmp_path) == files
    assert stored.driver.requests["read"] == 5 + 3 + 1  # the copy is made here


def test_pieces_of_many_large_objects_and_small_ones_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "READ_BYTES_MAX", 400_000)
    stored = Stored()
    files = {f"{number:02}": os.urandom(1_000_000 + 100_000 * number) for number in range(8)}
    files |= {f"small/{number}": os.urandom(number) for number in range(200)}
    progress = Counting()
    download(stored.source, stored.version(files, executable=["03"]), tmp_path, progress)
    assert tree(tmp_path) == files
    assert (progress.files, progress.bytes) == (208, sum(map(len, files.values())))
    if os.name != "nt":
        assert (tmp_path / "03").stat().st_mode & 0o100
    assert not (tmp_path / ".vds").exists()


def test_one_that_is_gone_or_too_short_and_one_in_whose_way_something_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "READ_BYTES_MAX", 400_000)
    stored = Stored()
    files = {name: os.urandom(2_000_000) for name in ("blocked", "gone", "good", "short")}
    entries = stored.version(files)
    places = {str(entry.path): stored.placements[entry.digest.raw] for entry in entries}
    stored.driver.delete_blob(places["gone"].key)
    stored.driver.delete_blob(places["short"].key)
    stored.driver.put_if_absent(places["short"].key, files["short"][:1_500_000])
    (tmp_path / "blocked").mkdir()
    with pytest.raises(DownloadError) as caught:
        get(stored, entries, tmp_path)
    assert tree(tmp_path) == {"good": files["good"]}
    assert "is missing: no blob" in caught.value.failures["gone"]
    assert "has 1500000 bytes" in caught.value.failures["short"]
    assert caught.value.failures["blocked"] == "'blocked' is a directory there"


def test_a_service_that_goes_away_in_a_large_object_leaves_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "READ_BYTES_MAX", 400_000)
    stored = Stored()
    entries = stored.version({"large": os.urandom(4_000_000)})
    read = stored.driver.read_range

    def fail_later(key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        stored.driver.down = stored.driver.requests["read"] >= 5
        return read(key, offset_bytes, length_bytes)

    monkeypatch.setattr(stored.driver, "read_range", fail_later)
    with pytest.raises(UnavailableError):
        get(stored, entries, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_copies_of_a_large_object_are_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "READ_BYTES_MAX", 400_000)
    stored = Stored()
    body = os.urandom(2_000_000)
    (tmp_path / "c").mkdir()
    with pytest.raises(DownloadError) as caught:
        get(stored, stored.version({"a": body, "b/b": body, "c": body}), tmp_path)
    assert caught.value.failures == {"c": "'c' is a directory there"}
    assert tree(tmp_path) == {"a": body, "b/b": body}
    assert stored.driver.requests["read"] == 5


def test_what_was_damaged_on_its_way_is_read_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored()
    entries = stored.version({"a": b"aaaa", "b": b"bbbb", "c": b"cccc"})
    stored.driver.damaged["packs/00/1.pack"] = 5
    read = stored.driver.read_range

    def heal(key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        try:
            return read(key, offset_bytes, length_bytes)
        finally:
            stored.driver.damaged.clear()

    monkeypatch.setattr(stored.driver, "read_range", heal)
    get(stored, entries, tmp_path)
    assert tree(tmp_path) == {"a": b"aaaa", "b": b"bbbb", "c": b"cccc"}
    assert stored.driver.requests["read"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="helpers are used on Linux alone")
def test_many_small_files_are_placed_by_helpers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "HELPER_FILES", (100,))
    monkeypatch.setattr(placers, "HELPER_FILES", (100,))
    monkeypatch.setattr(placers, "HELPERS_MAX", 1)
    stored = Stored()
    files = {f"{number // 100:02}/{number}": b"%d" % number for number in range(300)}
    entries = stored.version({**files, "bad": b"bad"})
    place = stored.placements[Digest.of(b"bad").raw]
    stored.driver.damaged[place.key] = place.offset_bytes
    with pytest.raises(DownloadError) as caught:
        get(stored, entries, tmp_path)
    assert list(caught.value.failures) == ["bad"]
    assert tree(tmp_path) == files
    assert not (tmp_path / ".vds").exists()


class TestCache:
    """What this machine has already is placed from there."""

    FILES = {"large": os.urandom(3_000_000), "middle": os.urandom(1_100_000), "tiny": b"t"} | {
        f"small/{number}": os.urandom(20_000) for number in range(20)
    }

    @pytest.fixture
    def cache(self, tmp_path: Path) -> Cache:
        return Cache(tmp_path / "cache", bytes_max=50_000_000)

    @pytest.fixture(autouse=True)
    def _pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reads, "READ_BYTES_MAX", 1_200_000)
        monkeypatch.setattr(placing, "READ_BYTES_MAX", 1_200_000)

    def get(self, stored: Stored, cache: Cache, dst: Path, **options: Any) -> Counter[str]:
        """Download, and return the requests that it took."""
        source = replace(stored.source, cache=cache, store_uid="uid", **options)
        stored.driver.requests.clear()
        download(source, stored.version(self.FILES), dst, SilentProgress())
        assert tree(dst) == self.FILES
        return Counter(stored.driver.requests)

    def test_the_second_time_makes_no_request(self, tmp_path: Path, cache: Cache) -> None:
        stored = Stored()
        assert self.get(stored, cache, tmp_path / "1", keeps=True)["read"] == 3 + 1 + 1
        assert self.get(stored, cache, tmp_path / "2", keeps=True) == {}
        assert self.get(stored, cache, tmp_path / "3") == {}
        found = (tmp_path / "3" / "large").stat()
        assert found.st_mtime_ns == MODIFIED_NS

    def test_nothing_is_kept_unless_asked_for(self, tmp_path: Path, cache: Cache) -> None:
        stored = Stored()
        self.get(stored, cache, tmp_path / "1")
        assert cache.list().size_bytes == 0

    def test_more_than_half_of_the_cache_is_not_kept(self, tmp_path: Path) -> None:
        total = sum(map(len, self.FILES.values()))
        for bytes_max, is_kept in ((2 * total, True), (2 * total - 1, False)):
            cache = Cache(tmp_path / f"cache {bytes_max}", bytes_max=bytes_max)
            self.get(Stored(), cache, tmp_path / f"dst {bytes_max}", keeps=True)
            assert bool(cache.list().size_bytes) is is_kept

    @pytest.mark.skipif(sys.platform == "win32", reason="links may need a privilege")
    def test_links_where_asked_for(self, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(place, "clone", lambda *_: False)
        stored = Stored()
        self.get(stored, cache, tmp_path / "1", keeps=True, is_linked=True)
        cached = cache.find_object(Digest.of(self.FILES["large"]).raw)
        assert cached is not None
        assert (tmp_path / "1" / "large").samefile(cached)
        self.get(stored, cache, tmp_path / "2")
        assert not (tmp_path / "2" / "large").samefile(cached)

    @pytest.mark.parametrize("is_silent", [True, False])
    def test_a_damaged_cache_costs_requests_and_is_mended(
        self, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, is_silent: bool
    ) -> None:
        monkeypatch.setattr(place, "clone", lambda *_: False)
        stored = Stored()
        self.get(stored, cache, tmp_path / "1", keeps=True)
        for kind in ("objects", "ranges"):
            for path in (cache.root / kind).rglob("*"):
                if path.is_file():
                    path.chmod(0o644)
                    before = path.stat()
                    body = bytearray(path.read_bytes())
                    body[len(body) // 2] ^= 1
                    path.write_bytes(body)
                    if is_silent:  # as a failing disk does it
                        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert self.get(stored, cache, tmp_path / "2", keeps=True)["read"] == 3 + 1 + 1
        kept = cache.find_object(Digest.of(self.FILES["large"]).raw)
        if is_silent:
            assert kept is None  # found while it was copied, and fetched without the cache
        else:
            assert kept is not None  # found before, and kept anew
            assert kept.read_bytes() == self.FILES["large"]
        self.get(stored, cache, tmp_path / "3", keeps=True)
        assert self.get(stored, cache, tmp_path / "4", keeps=True) == {}

    def test_one_that_was_evicted_meanwhile_is_read(self, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        stored = Stored()
        self.get(stored, cache, tmp_path / "1", keeps=True)
        monkeypatch.setattr(cache, "find_object", lambda digest_raw: cache.root / "gone")
        assert self.get(stored, cache, tmp_path / "2")["read"] == 3 + 1

    def test_a_cache_that_takes_nothing_is_done_without(
        self, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache, "put_object", lambda *_, **__: None)
        monkeypatch.setattr(cache, "put_range", lambda *_: False)
        assert self.get(Stored(), cache, tmp_path / "1", keeps=True)["read"] == 3 + 1 + 1

    def test_a_damaged_object_is_kept_nowhere(self, tmp_path: Path, cache: Cache) -> None:
        stored = Stored()
        entries = stored.version(self.FILES)
        large = next(entry for entry in entries if entry.path == "large")
        stored.driver.damaged[stored.placements[large.digest.raw].key] = 2_999_999
        with pytest.raises(DownloadError) as caught:
            self.get(stored, cache, tmp_path / "1", keeps=True)
        assert list(caught.value.failures) == ["large"]
        assert "is corrupt" in caught.value.failures["large"]
        assert cache.find_object(large.digest.raw) is None


def test_exactly_the_damaged_and_missing_are_named_and_the_rest_is_there(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version({"a": b"aaaa", "b": b"bbbb", "c": b"cccc", "lost": b"x" * 9})
    stored.driver.damaged["packs/00/1.pack"] = 5
    del stored.placements[Digest.of(b"x" * 9).raw]
    with pytest.raises(DownloadError) as caught:
        get(stored, entries, tmp_path)
    assert tree(tmp_path) == {"a": b"aaaa", "c": b"cccc"}
    assert sorted(caught.value.failures) == ["b", "lost"]
    assert "is corrupt" in caught.value.failures["b"]
    assert "there is no place of object b3:" in caught.value.failures["lost"]
    assert "2 files could not be downloaded" in str(caught.value)


def test_a_damaged_large_object_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "READ_BYTES_MAX", 400_000)
    monkeypatch.setattr(placing, "READ_BYTES_MAX", 400_000)
    stored = Stored()
    entries = stored.version({"large": os.urandom(2_000_000)})
    (tmp_path / "large").write_bytes(b"old")
    stored.driver.damaged[stored.placements[entries[0].digest.raw].key] = 1_999_999
    with pytest.raises(DownloadError):
        get(stored, entries, tmp_path)
    assert tree(tmp_path) == {"large": b"old"}


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version(FILES)
    (tmp_path / "b").mkdir()
    (tmp_path / "c").write_bytes(b"a file")
    with pytest.raises(DownloadError) as caught:
        get(stored, entries, tmp_path)
    assert sorted(caught.value.failures) == ["b", "c/deep/er"]
    assert tree(tmp_path) == {"a/1": b"one", "a/2": b"two", "c": b"a file", "z": b"zz"}


def test_a_service_that_is_away_stops_it_and_the_next_call_goes_on(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version({"a": b"a", "b": b"b"})
    get(stored, entries[:1], tmp_path)
    stored.driver.down = True
    with pytest.raises(UnavailableError):
        get(stored, entries, tmp_path)
    stored.driver.down = False
    assert get(stored, entries, tmp_path).skipped == 1
    assert tree(tmp_path) == {"a": b"a", "b": b"b"}


def test_space_is_checked_before_the_first_byte(tmp_path: Path) -> None:
    stored = Stored()
    huge = Entry(entry_path("huge"), Digest.of(b"huge"), 1 << 60, MODE_FILE, 0)
    with pytest.raises(NoSpaceError):
        get(stored, [*stored.version({"a": b"a"}), huge], tmp_path)
    assert tree(tmp_path) == {}
    assert stored.driver.requests["read"] == 0


def test_names_that_cannot_be_held_are_found_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "_is_case_blind", lambda _: True)
    stored = Stored()
    with pytest.raises(DownloadError) as caught:
        get(stored, stored.version({"README": b"1", "readme": b"2", ".vds/x": b"3"}), tmp_path)
    assert sorted(caught.value.failures) == [".vds/x", "readme"]
    assert tree(tmp_path) == {}


def test_a_hostile_path_cannot_leave_the_directory(tmp_path: Path) -> None:
    stored = Stored()
    (entry,) = stored.version({"f": b"f"})
    hostile = Entry(EntryPath("../f"), entry.digest, 1, MODE_FILE, 0)
    with pytest.raises(DownloadError):
        get(stored, [hostile], tmp_path / "dst")
    assert not (tmp_path / "f").exists()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    stored = Stored()
    with pytest.raises(ConflictError, match="a file stands in its way"):
        get(stored, stored.version(FILES), tmp_path / "file" / "dst")


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
def test_an_executable_bit_that_differs_is_a_difference(tmp_path: Path) -> None:
    stored = Stored()
    get(stored, stored.version({"f": b"f"}), tmp_path)
    result = get(stored, stored.version({"f": b"f"}, executable=["f"]), tmp_path)
    assert result.placed == 1
    assert (tmp_path / "f").stat().st_mode & 0o100


def test_the_plan_is_pure() -> None:
    a, b, c, d = (Entry(entry_path(name), Digest.of(name.encode()), 1, MODE_FILE, 0) for name in "abcd")
    present = {
        "b": Present(b.digest.raw, None),
        "c": Present(None, MODE_FILE),
        "d": Present(d.digest.raw, MODE_EXECUTABLE),
    }
    plan = plan_download([a, b, c, d], present)
    assert plan == DownloadPlan(to_add=(a,), to_replace=(c, d), unchanged=(b,))
    assert plan.to_place == (a, c, d)
    assert plan.size_bytes == 3
