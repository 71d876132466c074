"""The cap of the local cache: what goes, in which order, and that its total is neither lost nor counted at each put."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from blake3 import blake3

from tests.unit.files.test_cache_ranges import count_calls
from vds.errors import InvalidInputError, UnavailableError
from vds.files import cache as cache_module
from vds.files import cacheroom
from vds.files.cache import Cache
from vds.files.cacheroom import PruneResult, Room
from vds.files.cachetree import CacheTree
from vds.files.lease import LeaseBook, find_held


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where caches are made."""
    return tmp_path / "cache"


def digest(number: int) -> bytes:
    return blake3(body(number)).digest()


def body(number: int, size_bytes: int = 100) -> bytes:
    return f"{number:05}".encode().ljust(size_bytes, b".")


def put(cache: Cache, number: int, used_s: int | None = None) -> Path | None:
    """Put an object of 100 bytes, last used at `used_s`."""
    path = cache.put_object(digest(number), [body(number)], size_bytes=100)
    if path is not None and used_s is not None:
        os.utime(path, (used_s, path.stat().st_mtime))
    return path


def writer(content: bytes) -> Callable[[BinaryIO], None]:
    """Return what writes a manifest of these bytes."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def present(cache: Cache, count: int) -> list[int]:
    """Return the numbers of the objects that are there, without using them."""
    return [
        number for number in range(count) if (cache.root / "objects" / digest(number).hex()[:2] / digest(number).hex()).exists()
    ]


def total(cache: Cache) -> int:
    """Return the number that is kept instead of walking."""
    with CacheTree(str(cache.root)).locked("total", wait_s=0) as descriptor:
        return cacheroom._read(descriptor).size_bytes


def size(cache: Cache) -> int:
    return cache.list().size_bytes


def test_what_was_not_used_for_longest_goes_first(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    for number, used_s in enumerate((50, 20, 40, 10, 30)):
        put(cache, number, 1000 + used_s)
    result = cache.prune(300)
    assert present(cache, 5) == [0, 2, 4]
    assert (result.files, result.size_bytes, result.kept_bytes) == (2, 200, 300)
    cache.find_object(digest(4))  # a use
    assert cache.prune(299).files == 1
    assert present(cache, 5) == [0, 4]
    assert cache.prune(0).files == 2
    assert total(cache) == size(cache) == 0


def test_all_kinds_count_and_go_by_their_use(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    put(cache, 0, 300)
    cache.put_manifest(digest(1), writer(body(1)))
    cache.put_range("store", "key", 0, body(2))
    [manifest], [piece] = cache.manifests(), cache.root.glob("ranges/*/*/*")
    os.utime(manifest, (200, 1))
    os.utime(piece, (100, 1))
    for to_bytes, left in ((299, [manifest]), (199, []), (99, [])):
        cache.prune(to_bytes)
        assert not piece.exists()
        assert cache.manifests() == left
    assert size(cache) == 0


def test_of_one_second_a_manifest_goes_last(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    cache.put_manifest(digest(1), writer(body(1)))
    cache.put_range("store", "key", 0, body(2))
    put(cache, 0)
    for path in (*cache.manifests(), *cache.root.glob("ranges/*/*/*"), *cache.root.glob("objects/*/*")):
        os.utime(path, (100, 1))
    cache.prune(250)
    assert present(cache, 1) == []
    cache.prune(150)
    assert size(cache) == 100
    assert len(cache.manifests()) == 1


def test_older_seconds_go_before_a_share_of_the_last_one(root: Path) -> None:
    cache = Cache(root, bytes_max=10_000)
    for number in range(40):
        put(cache, number, 200)
    cache.put_range("store", "key", 0, body(0))  # found after the objects, though older
    [piece] = cache.root.glob("ranges/*/*/*")
    os.utime(piece, (100, 1))
    cache.prune(3800)
    assert not piece.exists()
    assert len(present(cache, 40)) == 38


def test_the_cap_is_kept_and_room_is_made_in_advance(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(root, bytes_max=1000)
    walks = count_calls(monkeypatch, "scandir")
    for number in range(10):
        put(cache, number, 1000 + number)
    assert size(cache) == total(cache) == 1000, "the cap itself may be reached"
    assert present(cache, 10) == list(range(10))
    put(cache, 10)
    assert present(cache, 11) == [*range(2, 11)], "down to 90 %, so that it is not needed again at once"
    walks.clear()
    put(cache, 11)
    assert walks == []
    assert size(cache) == total(cache) == 1000
    large = body(99, 700)
    assert cache.put_object(blake3(large).digest(), [large], size_bytes=700) is not None
    assert size(cache) == total(cache) == 900


def test_puts_do_not_walk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Cache(root, bytes_max=10**6), 0)
    walks = count_calls(monkeypatch, "scandir", "listdir")
    for number in range(100):
        put(Cache(root, bytes_max=10**6), number)
    assert walks == []


def test_what_is_held_stays(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    for number in range(3):
        put(cache, number, 100 + number)
    assert cache.hold_object(digest(0)) is not None
    cache.put_manifest(digest(5), writer(body(5)))
    assert cache.hold_manifest(digest(5)) is not None
    result = Cache(root, bytes_max=1000).prune(0)
    assert (result.files, result.held_bytes, result.kept_bytes) == (2, 200, 200)
    assert present(cache, 3) == [0]
    assert cache.find_manifest(digest(5)) is not None


def test_a_cache_full_of_what_is_held_takes_no_more(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(root, bytes_max=1000)
    for number in range(10):
        put(cache, number, 100 + number)
        assert cache.hold_object(digest(number)) is not None
    assert put(cache, 10) is None
    walks = count_calls(monkeypatch, "scandir")
    assert put(cache, 11) is None
    assert not cache.put_range("store", "key", 0, b"x")
    assert walks == [], "it is not walked for each put"
    assert present(cache, 12) == list(range(10))
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "what running programs use leaves no room for 100 bytes"
    ]
    later_s = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    cache.drop_object(digest(0))
    assert put(cache, 12) is not None


def test_a_use_is_noted_once_a_minute(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(root, bytes_max=1000)
    path = put(cache, 0)
    assert path is not None
    modified_ns = path.stat().st_mtime_ns
    notes = count_calls(monkeypatch, "utime")
    for ago_s, expected in ((0, 0), (59, 0), (61, 1), (10**6, 1), (-30, 0), (-100, 1)):
        used_ns = time.time_ns() - ago_s * 10**9
        os.utime(path, ns=(used_ns, modified_ns))
        notes.clear()
        assert cache.find_object(digest(0)) == path
        assert len(notes) == expected, ago_s
        assert abs(path.stat().st_atime_ns - time.time_ns()) < 61 * 10**9
    assert path.stat().st_mtime_ns == modified_ns


def test_a_time_in_the_future_keeps_nothing_for_ever(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    put(cache, 0, int(time.time()) + 10**8)
    assert cache.prune(0).files == 1


def test_use_of_a_range_is_noted(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    cache.put_range("store", "old", 0, body(0))
    [old] = cache.root.glob("ranges/*/*/*")
    os.utime(old, (100, 1))
    put(cache, 1, 200)
    cache.find_range("store", "old", 10, 10)
    cache.prune(100)
    assert present(cache, 2) == []
    assert old.exists()


@pytest.mark.parametrize("content", [b"", b"x" * 24, b"\0" * 24, b"short"])
def test_a_damaged_total_is_counted_again(root: Path, content: bytes) -> None:
    cache = Cache(root, bytes_max=1000)
    for number in range(5):
        put(cache, number)
    (root / "total").write_bytes(content)
    put(cache, 5)
    assert total(cache) == size(cache) == 600


def test_the_total_is_counted_once_a_day(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(root, bytes_max=1000)
    for number in range(5):
        put(cache, number)
    stranger = root / "objects" / "00" / ("0" * 64)
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_bytes(body(9))  # put by something that does not count
    now_s = time.time()
    for later_s, expected in ((cacheroom.RECOUNT_S - 1, 600), (cacheroom.RECOUNT_S + 1, 800)):
        monkeypatch.setattr(time, "time", lambda later_s=later_s: now_s + later_s)
        put(cache, 100 + later_s)
        assert total(cache) == expected
    monkeypatch.setattr(time, "time", lambda: now_s - 10**6)
    stranger.unlink()
    put(cache, 7)
    assert total(cache) == 800 == size(cache), "a clock that was set back is a reason too"


def test_failed_puts_leave_the_total_as_it_was(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    put(cache, 0)
    for _ in range(3):
        with pytest.raises(ValueError, match="never"):
            cache.put_object(digest(1), (bytes(int("never")) for _ in range(1)), size_bytes=100)
    put(cache, 0)
    cache.drop_object(digest(5))
    assert total(cache) == 100
    cache.drop_object(digest(0))
    assert total(cache) == 0


def test_what_is_being_written_counts_as_what_it_will_be(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)

    def chunks() -> Iterator[bytes]:
        yield body(0)[:10]
        cache.prune(1000)
        assert total(cache) == 100
        yield body(0)[10:]

    assert cache.put_object(digest(0), chunks(), size_bytes=100) is not None
    assert total(cache) == size(cache) == 100


def test_a_manifest_that_just_fits_after_an_eviction(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    put(cache, 0)
    assert cache.put_manifest(digest(1), writer(body(1, 1000))) is not None
    assert total(cache) == size(cache) == 1000


def test_two_evictors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(root, bytes_max=1000)
    for number in range(10):
        put(cache, number, 100 + number)
    monkeypatch.setattr(cache_module, "_PRUNE_WAIT_S", 0.0)
    with CacheTree(str(root)).locked("evict.lock", wait_s=0):
        assert put(cache, 10) is not None, "a writer does not wait for the other evictor"
        with pytest.raises(UnavailableError, match="another process is pruning"):
            cache.prune()
    assert total(cache) == size(cache) == 1100
    assert cache.prune().kept_bytes == 1000


def test_a_lock_that_is_kept_is_not_waited_for_without_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(root, bytes_max=1000)
    put(cache, 0)
    monkeypatch.setattr(cacheroom, "_TOTAL_WAIT_S", 0.0)
    monkeypatch.setattr("vds.files.lease.LOCK_WAIT_S", 0.0)
    with CacheTree(str(root)).locked("total", wait_s=0):
        assert put(cache, 1) is None
    with CacheTree(str(root)).locked("leases.lock", wait_s=0):
        assert cache.hold_object(digest(0)) is None
        assert cache.find_object(digest(0)) is not None


def test_a_fork_in_the_middle_keeps_no_lock(root: Path) -> None:
    tree = CacheTree(str(root))
    with tree.locked("total", wait_s=0) as descriptor:
        inherited = os.dup(descriptor)  # as the child of a fork has it
    try:
        with tree.locked("total", wait_s=0):
            pass
    finally:
        os.close(inherited)


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_is_shared_only_by_those_who_share_it(root: Path, shared: bool) -> None:
    tree = CacheTree(str(root))
    with tree.locked("leases.lock", shared=True, wait_s=0):
        if shared:
            with tree.locked("leases.lock", shared=True, wait_s=0):
                pass
        else:
            with pytest.raises(TimeoutError, match="for 0 s"), tree.locked("leases.lock", wait_s=0):
                pass


@pytest.mark.parametrize("to_bytes", [-1, -(10**12)])
def test_prune_to_less_than_nothing(root: Path, to_bytes: int) -> None:
    cache = Cache(root, bytes_max=1000)
    put(cache, 0)
    with pytest.raises(InvalidInputError, match=str(to_bytes)):
        cache.prune(to_bytes)
    assert present(cache, 1) == [0]


def test_foreign_files_are_left_alone(root: Path) -> None:
    cache = Cache(root, bytes_max=1000)
    put(cache, 0)
    kept = [root / "objects" / "README", root / "objects" / "ab" / "x", root / "stat" / "a.frames", root / "notes"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    cache.prune(0)
    assert present(cache, 1) == []
    assert all(path.exists() for path in kept)


def test_a_file_used_while_others_are_removed_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(root, bytes_max=1000)
    for number in range(3):
        put(cache, number, 100)
    real = LeaseBook.refresh

    def use_one(book: LeaseBook, *, is_first: bool = False) -> None:
        real(book, is_first=is_first)
        if not is_first:  # between the second walk and the removal
            cache.find_object(digest(1))

    monkeypatch.setattr(LeaseBook, "refresh", use_one)
    assert cache.prune(0).files == 2
    assert present(cache, 3) == [1]


def test_what_is_put_and_dropped_during_a_walk_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(root, bytes_max=10_000)
    for number in range(5):
        put(cache, number, 100)
    real = cacheroom._find_cutoff

    def put_some(used: Counter[int], excess_bytes: int) -> tuple[int, int]:
        for number in range(5, 12):
            put(cache, number)
        cache.drop_object(digest(0))
        return real(used, excess_bytes)

    monkeypatch.setattr(cacheroom, "_find_cutoff", put_some)
    cache.prune(300)
    assert total(cache) == size(cache)
    assert {5, 11} < set(present(cache, 12))


def test_room_that_others_take_at_once_is_no_full_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, other = Cache(root, bytes_max=1000), Cache(root, bytes_max=1000)
    for number in range(10):
        put(cache, number, 100 + number)
    real = Room.evict

    def evict(room: Room, to_bytes: int, *, wait_s: float = 0.0) -> PruneResult | None:
        result = real(room, to_bytes, wait_s=wait_s)
        monkeypatch.undo()
        put(other, 20)
        put(other, 21)
        return result

    monkeypatch.setattr(Room, "evict", evict)
    assert put(cache, 10) is not None
    assert total(cache) == size(cache) == 1100
    assert put(cache, 11) is not None
    assert total(cache) == size(cache) <= 1000


def test_a_lease_on_a_full_disk_holds_no_half_digest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(root, bytes_max=1000)
    for number in range(3):
        put(cache, number)
    assert cache.hold_object(digest(0)) is not None
    real = os.write

    def write_half(descriptor: int, data: memoryview) -> int:
        if len(data) < 32:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:16])

    monkeypatch.setattr(os, "write", write_half)
    assert cache.hold_object(digest(1)) is None
    monkeypatch.undo()
    assert cache.hold_object(digest(2)) is not None
    assert find_held(CacheTree(str(root))) == {digest(0), digest(2)}


@pytest.mark.parametrize(
    ("free_bytes", "is_taken"), [(cacheroom.FREE_BYTES_MIN + 99, False), (cacheroom.FREE_BYTES_MIN + 100, True)]
)
def test_the_last_of_the_disk_is_left_to_others(
    root: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, is_taken: bool
) -> None:
    usage = shutil.disk_usage(root.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free_bytes))
    assert (put(Cache(root, bytes_max=1000), 1) is not None) is is_taken
