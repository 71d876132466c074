"""A process that uses a local cache: `python -m tests.fault.cacheuser`, told what to do as `tests.support` says.

`put` puts the same objects as others do, `use` does everything in a cache that is too small, `hold` holds an object and waits,
`stall` stops in the middle of a put, `fork` leaves children to what it held; `nursery` forks victims that are killed around one
call of the system each.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from tests.fault.nursery import Trap
from tests.support import say, take_task
from vds.files.cache import Cache
from vds.files.cacheroom import _read
from vds.files.cachetree import CacheTree, Temporary

SYSCALLS = ("open", "close", "mkdir", "replace", "unlink", "rmdir", "utime", "write", "fsync", "ftruncate")
SYSCALLS_MAX = 60
STORE = "store"


def body(number: int, size_bytes: int = 10_000) -> bytes:
    """Return the bytes of an object."""
    return number.to_bytes(4, "big") * (size_bytes // 4)


def digest(number: int) -> bytes:
    """Return their raw digest."""
    return blake3(body(number)).digest()


def put(cache: Cache, number: int) -> Path | None:
    """Put an object in three chunks."""
    data = body(number)
    return cache.put_object(digest(number), [data[:3000], data[3000:4000], data[4000:]], size_bytes=len(data))


def put_many(cache: Cache, task: dict[str, Any]) -> None:
    """Put the objects that others put too, and say how many are whole."""
    whole = 0
    for number in range(task["count"]):
        path = put(cache, number)
        whole += path is not None and path.read_bytes() == body(number)
    say(whole=whole)


def use_many(cache: Cache, task: dict[str, Any]) -> None:
    """Put, read and hold at random in a cache that is much too small; whatever is held must be there and whole."""
    draw = random.Random(task["seed"])
    held: list[int] = []
    for _ in range(task["count"]):
        number = draw.randrange(60)
        what = draw.randrange(4)
        if what == 0:
            cache.put_range(STORE, f"key{number % 7}", number * 10_000, body(number))
        elif what == 1:
            found = cache.find_range(STORE, f"key{number % 7}", number * 10_000 + 8, 80)
            assert found in (None, body(number)[8:88])
        else:
            path = put(cache, number) and cache.hold_object(digest(number)) if len(held) < 5 else put(cache, number)
            if path is not None and len(held) < 5:
                held.append(number)
        for other in held:
            path = cache.find_object(digest(other))
            assert path is not None, other
            assert path.read_bytes() == body(other)
    say(held=held)


def hold(cache: Cache, task: dict[str, Any]) -> None:
    """Hold an object and wait to be killed."""
    say(held=cache.hold_object(digest(task["number"])) is not None)
    sys.stdin.read()


def stall(cache: Cache, task: dict[str, Any]) -> None:
    """Stop in the middle of a put."""

    def chunks() -> Iterator[bytes]:
        yield body(task["number"])[:5000]
        say(written=5000)
        sys.stdin.read()

    cache.put_object(digest(task["number"]), chunks(), size_bytes=10_000)


def fork(cache: Cache, task: dict[str, Any]) -> None:
    """Hold 0, fork a child that holds nothing and one that holds 1, and end without them."""
    assert cache.hold_object(digest(0)) is not None
    for number in (None, 1):
        child = os.fork()
        if not child:
            if number is not None:
                assert cache.hold_object(digest(number)) is not None
            os.write(1, f'{{"pid": {os.getpid()}}}\n'.encode())  # in one piece: the other child writes here too
            sys.stdin.read()
            os._exit(0)
    os._exit(0)


def nursery(cache: Cache, task: dict[str, Any]) -> None:
    """Kill victims, and check after each of them what must hold."""
    draw = random.Random(task["seed"])
    killed = kept = 0
    for number in range(task["tries"]):
        at, after = draw.randint(1, SYSCALLS_MAX), draw.random() < 0.5
        victim = os.fork()
        if not victim:
            work(cache, number, Trap(at, after))
        _, status = os.waitpid(victim, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
        killed += os.WIFSIGNALED(status)
        kept += cache.find_object(digest(number)) is not None
        check(Cache(cache.root, bytes_max=cache.bytes_max))
    say(killed=killed, kept=kept)


def work(cache: Cache, number: int, trap: Trap) -> None:
    """Use a cache in every way, with the trap set; never returns."""
    for name in SYSCALLS:
        setattr(os, name, trap.around(getattr(os, name)))
    Temporary.write = trap.around(Temporary.write)  # type: ignore[method-assign]

    def write(file: BinaryIO) -> None:
        file.write(body(number))

    put(cache, number)
    cache.put_range(STORE, f"key{number % 3}", number * 10_000, body(number))
    cache.hold_object(digest(number))
    cache.put_manifest(digest(number), write)
    cache.drop_object(digest(max(0, number - 1)))
    cache.drop_range(STORE, f"key{number % 3}", number * 10_000, 1)
    cache.prune(30_000)
    os._exit(0)


def check(cache: Cache) -> None:
    """Check what a victim left."""
    for kind, paths in (("object", cache.root.glob("objects/*/*")), ("manifest", cache.root.glob("manifests/*"))):
        for path in paths:
            data = path.read_bytes()
            assert len(data) == 10_000, (kind, path)
            assert kind == "manifest" or blake3(data).hexdigest() == path.name, path
    for path in cache.root.glob("ranges/*/*/*"):
        assert path.stat().st_size == 10_000, path
    if (cache.root / "total").exists():
        with CacheTree(str(cache.root)).locked("total", wait_s=0) as descriptor:
            total = _read(descriptor)
        assert total.size_bytes >= cache.list().size_bytes - leftover_bytes(cache) or not total.is_recent
    cache.prune()
    assert leftover_bytes(cache) == 0
    assert list(cache.root.glob("leases/*")) == []
    listing = cache.list()
    assert listing.size_bytes <= listing.bytes_max
    assert listing.held_files == 0


def leftover_bytes(cache: Cache) -> int:
    """Return what is half written."""
    return sum(path.stat().st_size for path in cache.root.glob("partial/*"))


ACTIONS: dict[str, Callable[[Cache, dict[str, Any]], None]] = {
    "put": put_many,
    "use": use_many,
    "hold": hold,
    "stall": stall,
    "fork": fork,
    "nursery": nursery,
}

if __name__ == "__main__":
    given = take_task()
    ACTIONS[given["do"]](Cache(given["root"], bytes_max=given["bytes_max"]), given)
