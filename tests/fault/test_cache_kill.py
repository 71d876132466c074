"""The local cache with many processes at once, some of them killed: nothing half written counts, nothing held is evicted."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fault.cacheuser import body, digest, put
from tests.support import Helper, run_together
from vds.files.cache import Cache

USER = "tests.fault.cacheuser"
BYTES_MAX = 1_000_000

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="locks and victims of POSIX")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache", bytes_max=BYTES_MAX)


def task(cache: Cache, do: str, **more: Any) -> dict[str, Any]:
    return {"root": str(cache.root), "bytes_max": cache.bytes_max, "do": do, **more}


@contextmanager
def user(cache: Cache, do: str, **more: Any) -> Iterator[Helper]:
    """Start a process that does something with the cache, and end it."""
    helper = Helper.start(USER, task(cache, do, **more))
    try:
        helper.wait_ready()
        helper.go()
        yield helper
    finally:
        helper.stop()


def read(helper: Helper) -> dict[str, Any]:
    """Return the next thing that a process says."""
    assert helper.process.stdout is not None
    said: dict[str, Any] = json.loads(helper.process.stdout.readline())
    return said


def kill(helper: Helper) -> None:
    helper.process.kill()
    helper.process.wait()


def test_processes_that_put_the_same_objects_at_once(cache: Cache) -> None:
    outcomes = run_together(USER, [task(cache, "put", count=50) for _ in range(4)])
    assert outcomes == [[{"whole": 50}]] * 4
    assert len(list(cache.root.glob("objects/*/*"))) == 50
    assert list(cache.root.glob("partial/*")) == []
    assert cache.verify().ok
    assert cache.prune().kept_bytes == 50 * 10_000


def test_processes_that_evict_while_others_hold(cache: Cache) -> None:
    small = Cache(cache.root, bytes_max=250_000)
    outcomes = run_together(USER, [task(small, "use", count=150, seed=seed) for seed in range(4)])
    assert all(outcome[0]["held"] for outcome in outcomes), "else nothing was put to the test"
    assert small.verify().ok
    assert small.prune(0).kept_bytes == 0


def test_what_a_process_holds_stays_until_it_is_killed(cache: Cache) -> None:
    for number in range(3):
        assert put(cache, number) is not None
    with user(cache, "hold", number=1) as holder:
        assert read(holder) == {"held": True}
        result = cache.prune(0)
        assert (result.files, result.held_bytes) == (2, 10_000)
        assert cache.list().held_files == 1
        path = cache.find_object(digest(1))
        assert path is not None
        assert path.read_bytes() == body(1)
        kill(holder)
        assert cache.list().held_files == 0
        assert cache.prune(0).files == 1
    assert cache.find_object(digest(1)) is None


def kill_stranger(pid: int) -> None:
    """Kill a process that is no child of ours, and wait until it has closed its files."""
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([descriptor], [], [])
    os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits as only Linux can")
@pytest.mark.parametrize(("killed", "left"), [(0, [0, 1]), (1, [0])])
def test_what_a_parent_held_stays_for_its_children(cache: Cache, killed: int, left: list[int]) -> None:
    for number in range(3):
        put(cache, number)
    with user(cache, "fork") as parent:
        pids = [read(parent)["pid"], read(parent)["pid"]]
        try:
            parent.process.wait()
            assert parent.process.returncode == 0
            assert cache.prune(0).files == 1, "each child keeps what its parent held, and one an object of its own"
            assert cache.find_object(digest(0)) is not None
            assert cache.find_object(digest(1)) is not None
            kill_stranger(pids.pop(killed))
            cache.prune(0)
            assert [number for number in range(3) if cache.find_object(digest(number)) is not None] == left
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        assert parent.process.stdout is not None
        assert parent.process.stdout.read() == "", "all have ended"
    assert cache.prune(0).files == len(left)
    assert cache.list().size_bytes == 0


def test_a_writer_killed_in_the_middle(cache: Cache) -> None:
    with user(cache, "stall", number=7) as writer:
        assert read(writer) == {"written": 5000}
        assert cache.find_object(digest(7)) is None
        assert cache.list().kinds[0].files == 0
        assert len(list(cache.root.glob("partial/*"))) == 1
        assert cache.prune(0).leftover_files == 0, "it lives"
        assert len(list(cache.root.glob("partial/*"))) == 1
        kill(writer)
    assert cache.find_object(digest(7)) is None
    result = cache.prune()
    assert (result.leftover_files, result.leftover_bytes, result.files, result.kept_bytes) == (1, 5000, 0, 0)
    assert list(cache.root.glob("partial/*")) == []
    assert put(cache, 7) is not None


@pytest.mark.parametrize("seed", range(2))
def test_users_killed_around_each_call_of_the_system(cache: Cache, seed: int) -> None:
    small = Cache(cache.root, bytes_max=60_000)
    ((outcome,),) = run_together(USER, [task(small, "nursery", seed=seed, tries=120)])
    assert outcome["killed"] > 60, "else nothing was put to the test"
    assert outcome["kept"] > 0
