"""Ranges of blobs in the local cache: a part is served from whatever covers it, and a damaged file never counts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vds.files.cache import Cache
from vds.files.cacheranges import _Listing, _outermost

BLOB = bytes(range(256)) * 40
KEY = "packs/ab/01HZX.pack"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache that nothing was put into."""
    return Cache(tmp_path / "cache", bytes_max=1_000_000)


def put(cache: Cache, start: int, end: int, key: str = KEY) -> bool:
    return cache.put_range("store", key, start, BLOB[start:end])


def find(cache: Cache, start: int, end: int, key: str = KEY) -> bytes | None:
    return cache.find_range("store", key, start, end - start)


def names(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.root.glob("ranges/*/*/*"))


def count_calls(monkeypatch: pytest.MonkeyPatch, *functions: str) -> list[str]:
    """Note each call of these functions of `os`."""
    calls: list[str] = []

    def around(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return real(*arguments, **options)

        return call

    for name in functions:
        monkeypatch.setattr(os, name, around(name, getattr(os, name)))
    return calls


@pytest.mark.parametrize(
    ("start", "end", "is_there"),
    [
        (100, 200, True),
        (100, 101, True),
        (199, 200, True),
        (150, 160, True),
        (99, 101, False),
        (99, 200, False),
        (100, 201, False),
        (200, 201, False),
        (0, 100, False),
        (150, 350, False),
        (300, 400, True),
    ],
)
def test_a_part_of_a_range_is_served(cache: Cache, start: int, end: int, is_there: bool) -> None:
    put(cache, 100, 200)
    put(cache, 300, 400)
    for reader in (cache, Cache(cache.root)):
        assert find(reader, start, end) == (BLOB[start:end] if is_there else None)


def test_stores_and_blobs_are_kept_apart(cache: Cache) -> None:
    put(cache, 0, 100)
    assert find(cache, 0, 100, "packs/ab/other.pack") is None
    assert cache.find_range("another", KEY, 0, 100) is None
    assert cache.find_range("storepacks", "/ab/01HZX.pack", 0, 100) is None


def test_keys_are_no_paths(cache: Cache) -> None:
    assert put(cache, 0, 100, "../../../../escape")
    assert find(cache, 0, 100, "../../../../escape") == BLOB[:100]
    assert [path.name for path in cache.root.parent.iterdir()] == ["cache"]


def test_a_covered_range_is_not_kept_twice(cache: Cache) -> None:
    assert put(cache, 100, 300)
    assert put(cache, 150, 200)
    assert names(cache) == ["100-200"]
    assert put(cache, 50, 400), "one that covers others is kept"
    assert names(cache) == ["100-200", "50-350"]
    assert find(cache, 60, 390) == BLOB[60:390]
    assert cache.prune().kept_bytes == 550


def test_ranges_that_overlap(cache: Cache) -> None:
    for start, end in ((0, 1000), (200, 300), (900, 1200), (1100, 1300), (250, 950)):
        put(cache, start, end)
    for reader in (cache, Cache(cache.root)):
        assert find(reader, 240, 960) == BLOB[240:960]
        assert find(reader, 950, 1150) == BLOB[950:1150]
        assert find(reader, 1150, 1300) == BLOB[1150:1300]
        assert find(reader, 850, 1201) is None


_ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair))), max_size=12)


@given(_ranges, st.integers(0, 40), st.integers(1, 20))
def test_the_listing_finds_a_cover_exactly_when_there_is_one(ranges: list[tuple[int, int]], start: int, length: int) -> None:
    end = start + length
    starts, ends = _outermost(ranges)
    grown = _Listing("", 0, [], [])
    for one in ranges:
        if grown.find_cover(*one) is None:
            grown = grown.with_range(*one, 0)
    assert (grown.starts, grown.ends) == (starts, ends)
    cover = grown.find_cover(start, end)
    assert (cover is not None) == any(one[0] <= start and end <= one[1] for one in ranges)
    assert cover is None or (cover in ranges and cover[0] <= start and end <= cover[1])


def test_what_others_put_and_remove_is_seen(cache: Cache) -> None:
    other = Cache(cache.root, bytes_max=1_000_000)
    put(cache, 0, 100)
    assert find(other, 0, 100) is not None
    put(cache, 200, 300)
    assert find(other, 200, 300) == BLOB[200:300]
    cache.drop_range("store", KEY, 0, 100)
    assert find(other, 10, 20) is None
    assert find(other, 210, 220) is not None
    shutil.rmtree(cache.root / "ranges")
    assert find(cache, 210, 220) is find(other, 210, 220) is None


def test_a_look_lists_a_directory_only_when_it_has_changed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, 0, 100)
    reader = Cache(cache.root, bytes_max=1_000_000)
    listings = count_calls(monkeypatch, "listdir", "scandir")
    opened = count_calls(monkeypatch, "open")
    for _ in range(10):
        assert find(reader, 10, 20) is not None
        assert find(reader, 100, 110) is None
        assert find(reader, 0, 10, "packs/none") is None
    assert listings == ["listdir"]
    assert len(opened) == 10
    for number in range(1, 10):
        put(reader, number * 200, number * 200 + 100)
        assert find(reader, number * 200, number * 200 + 50) is not None
    assert listings == ["listdir"], "what we put ourselves is known"


@pytest.mark.parametrize("left_bytes", [0, 99])
def test_a_short_file_is_as_none(cache: Cache, left_bytes: int) -> None:
    put(cache, 0, 100)
    [path] = cache.root.glob("ranges/*/*/*")
    path.chmod(0o600)
    os.truncate(path, left_bytes)
    assert find(cache, 0, 10) is None
    assert names(cache) == []
    assert put(cache, 0, 100)
    assert find(cache, 0, 100) == BLOB[:100]


def test_an_inner_range_serves_when_the_outer_one_is_gone(cache: Cache) -> None:
    put(cache, 100, 200)
    put(cache, 0, 1000)
    [outer] = cache.root.glob("ranges/*/*/0-1000")
    outer.unlink()
    assert find(cache, 120, 130) == BLOB[120:130]
    assert find(cache, 0, 10) is None


def test_drop_removes_all_that_covers_the_damaged_bytes(cache: Cache) -> None:
    for start, end in ((100, 200), (0, 1000), (500, 2000)):
        put(cache, start, end)
    cache.drop_range("store", KEY, 110, 20)
    assert names(cache) == ["500-1500"]
    assert find(cache, 110, 130) is None
    assert find(cache, 600, 700) is not None
    assert cache.prune().kept_bytes == 1500
    cache.drop_range("store", KEY, 500, 1500)
    assert list(cache.root.glob("ranges/*/*")) == [], "nor an empty directory"
    assert put(cache, 100, 200), "which another writer may have known"


def test_empty_directories_are_removed_and_made_again(cache: Cache) -> None:
    put(cache, 0, 100)
    cache.prune(0)
    assert list(cache.root.glob("ranges/*/*")) == []
    assert put(cache, 0, 100)
    assert find(cache, 0, 100) == BLOB[:100]


def test_foreign_names_are_left_alone(cache: Cache) -> None:
    put(cache, 0, 100)
    [path] = cache.root.glob("ranges/*/*/*")
    for name in ("README", "1-", "-5", "1-2-3", "1-2 ", "9" * 30 + "-1"):
        (path.parent / name).write_bytes(b"x")
    assert find(Cache(cache.root), 0, 100) == BLOB[:100]
    assert cache.list().kinds[1].files == 1
    cache.prune(0)
    assert len(list(path.parent.iterdir())) == 6


def test_a_symlink_is_no_range(cache: Cache, tmp_path: Path) -> None:
    put(cache, 0, 100)
    [path] = cache.root.glob("ranges/*/*/*")
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 100)
    path.unlink()
    path.symlink_to(outside)
    assert find(cache, 0, 100) is None
    assert outside.read_bytes() == b"x" * 100
