from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Semaphore

import pytest
from blake3 import blake3

from vds.buffers import BufferPool, Loan
from vds.errors import ConflictError, NoSpaceError
from vds.files.assembly import Assembly
from vds.files.place import Target
from vds.model.entry import MODE_FILE
from vds.pipeline import parallel_map

NS = 1_600_000_000_123_456_700
PIECE = 5000
BODY = random.Random(1).randbytes(10 * PIECE + 17)
OFFSETS = list(range(0, len(BODY), PIECE))


class CountedPool(BufferPool):
    """Counts what is lent."""

    lent = 0

    def lend(self, shares: int = 1) -> Loan:
        self.lent += 1
        return super().lend(shares)

    def take_back(self, view: memoryview, offset_bytes: int) -> None:
        self.lent -= 1
        super().take_back(view, offset_bytes)


@pytest.fixture
def pool() -> CountedPool:
    return CountedPool(PIECE)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with Target(tmp_path / "target") as made:
        yield made


def put(assembly: Assembly, pool: BufferPool, offset: int) -> bool:
    body = BODY[offset : offset + PIECE]
    loan = pool.lend()
    loan.view[: len(body)] = body
    return assembly.put(offset, len(body), loan)


def temporaries(target: Target) -> list[str]:
    return sorted(os.listdir(Path(target.root) / target.work_path))


@pytest.mark.parametrize("waiting_max", [0, 1, 3, 100])
@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_pieces_in_any_order_make_the_file(target: Target, pool: CountedPool, order: str, waiting_max: int) -> None:
    offsets = OFFSETS[:: -1 if order == "backward" else 1]
    if order == "shuffled":
        random.Random(2).shuffle(offsets)
    waiting = Semaphore(waiting_max)
    assembly = Assembly(target, "a/f", len(BODY), MODE_FILE, waiting)
    ended = [put(assembly, pool, offset) for offset in offsets]
    assert ended == [False] * (len(offsets) - 1) + [True]
    assert not (Path(target.root) / "a" / "f").exists()
    assert assembly.digest() == blake3(BODY).digest()
    stamp = assembly.finish(NS)
    file = Path(target.root) / "a" / "f"
    assert file.read_bytes() == BODY
    assert stamp == (file.stat().st_mtime_ns, file.stat().st_ctime_ns, file.stat().st_ino)
    assert pool.lent == 0
    assert sum(waiting.acquire(blocking=False) for _ in range(200)) == waiting_max
    assert temporaries(target) == ["lock"]


def test_threads_bring_pieces_side_by_side(target: Target, pool: CountedPool) -> None:
    waiting = Semaphore(2)
    for number in range(20):
        assembly = Assembly(target, f"{number}", len(BODY), MODE_FILE, waiting)
        ended = list(parallel_map(lambda offset, one=assembly: put(one, pool, offset), OFFSETS, workers=8))  # type: ignore[misc]
        assert sum(ended) == 1
        assert assembly.digest() == blake3(BODY).digest()
        assembly.finish(NS)
        assert (Path(target.root) / f"{number}").read_bytes() == BODY
    assert pool.lent == 0


def test_what_comes_while_another_hashes_is_hashed_by_that_one(
    target: Target, pool: CountedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly = Assembly(target, "f", len(BODY), MODE_FILE, Semaphore(100))
    hasher, busy, go = assembly._hasher, threading.Event(), threading.Event()

    class Held:
        def update(self, data: memoryview) -> None:
            busy.set()
            assert go.wait(30)
            hasher.update(data)

        def digest(self) -> bytes:
            return hasher.digest()

    monkeypatch.setattr(assembly, "_hasher", Held())
    ended: list[bool] = []
    first = threading.Thread(target=lambda: ended.append(put(assembly, pool, 0)))
    first.start()
    assert busy.wait(30)
    assert not any(put(assembly, pool, offset) for offset in OFFSETS[1:])
    go.set()
    first.join(30)
    assert ended == [True]
    assert assembly.digest() == blake3(BODY).digest()
    assembly.close()


def test_one_that_is_closed_leaves_nothing(target: Target, pool: CountedPool) -> None:
    waiting = Semaphore(4)
    (Path(target.root)).mkdir()
    (Path(target.root) / "f").write_bytes(b"old")
    assembly = Assembly(target, "f", len(BODY), MODE_FILE, waiting)
    for offset in OFFSETS[1:]:
        put(assembly, pool, offset)
    for _ in range(2):
        assembly.close()
    assert temporaries(target) == ["lock"]
    assert (Path(target.root) / "f").read_bytes() == b"old"
    assert pool.lent == 0
    assert sum(waiting.acquire(blocking=False) for _ in range(200)) == 4


def test_what_stands_in_the_way_is_found_before_the_first_byte(target: Target) -> None:
    (Path(target.root) / "f").mkdir(parents=True)
    (Path(target.root) / "file").write_bytes(b"")
    for path in ("f", "file/below"):
        with pytest.raises(ConflictError):
            Assembly(target, path, 1, MODE_FILE, Semaphore(1))
    assert temporaries(target) == ["lock"]


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="pieces are written otherwise")
def test_a_full_disk_is_said_so(target: Target, pool: CountedPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with closing(Assembly(target, "f", len(BODY), MODE_FILE, Semaphore(1))) as assembly:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(NoSpaceError, match="'f' could not be written"):
            put(assembly, pool, 0)
    assert pool.lent == 0
