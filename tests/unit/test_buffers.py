from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
import threading
import weakref

import pytest

from vds.buffers import BufferPool, Loan, map_buffer

WAIT_S = 30  # only ever reached by a test that fails


def address(loan: Loan) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(loan.view))


def test_a_buffer_has_the_size_of_its_pool_and_begins_on_a_page() -> None:
    pool = BufferPool(3 * mmap.PAGESIZE + 1)
    for loan in [pool.lend() for _ in range(5)]:
        assert len(loan.view) == pool.size_bytes
        assert address(loan) % mmap.PAGESIZE == 0
        loan.view[-1] = 7
        loan.release()


def test_what_came_back_is_lent_again() -> None:
    pool = BufferPool(10)
    first = pool.lend()
    first.view[:3] = b"abc"
    place = address(first)
    first.release()
    again = pool.lend()
    assert address(again) == place
    assert bytes(again.view[:3]) == b"abc"  # it holds anything


def test_a_buffer_that_is_out_is_not_lent() -> None:
    pool = BufferPool(10)
    out = [pool.lend() for _ in range(10)]
    assert len({address(loan) for loan in out}) == 10


def test_it_makes_no_more_buffers_than_were_out_at_once() -> None:
    pool = BufferPool(10)
    places = set()
    for _ in range(50):
        out = [pool.lend() for _ in range(3)]
        places |= {address(loan) for loan in out}
        for loan in out:
            loan.release()
    assert len(places) == 3


def test_a_shared_buffer_comes_back_with_the_last_share() -> None:
    pool = BufferPool(10)
    loan = pool.lend(3)
    place = address(loan)
    loan.release()
    loan.release()
    assert address(pool.lend()) != place
    loan.release()
    assert address(pool.lend()) == place


def test_shares_may_be_counted_after_the_buffer_was_filled() -> None:
    pool = BufferPool(10)
    loan = pool.lend()
    loan.shares = 2
    loan.release()
    assert not pool._free
    loan.release()
    assert len(pool._free) == 1


def test_shares_released_by_many_threads_bring_it_back_once() -> None:
    pool = BufferPool(10)
    for _ in range(20):
        loan, start = pool.lend(8), threading.Barrier(8)
        threads = [threading.Thread(target=lambda loan=loan, start=start: (start.wait(WAIT_S), loan.release())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert loan.shares == 0
        assert len(pool._free) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="files without a name are Linux's")
class TestSharedPools:
    def test_a_buffer_can_be_mapped_again_at_its_offset(self) -> None:
        pool = BufferPool(mmap.PAGESIZE + 1, is_shared=True)
        loans = [pool.lend() for _ in range(3)]
        assert pool.descriptor is not None
        for number, loan in enumerate(loans):
            loan.view[-1] = number
        for number, loan in enumerate(loans):
            again = map_buffer(pool.descriptor, loan.offset_bytes, pool.size_bytes)
            assert again[-1] == number
            again[0] = 100 + number
            assert loan.view[0] == 100 + number
            assert address(loan) % mmap.PAGESIZE == 0

    def test_its_file_is_closed_with_it(self) -> None:
        gc.collect()  # of what other tests left
        before = len(os.listdir("/proc/self/fd"))
        pool = BufferPool(10, is_shared=True)
        pool.lend().release()
        del pool
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_many_may_ask_at_once(self) -> None:
        pool = BufferPool(10, is_shared=True)
        start = threading.Barrier(8)
        offsets: list[int] = []

        def borrow() -> None:
            start.wait(WAIT_S)
            offsets.extend(pool.lend().offset_bytes for _ in range(20))

        threads = [threading.Thread(target=borrow) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert len(set(offsets)) == 160

    def test_where_there_are_no_such_files_buffers_are_private(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(name: str) -> int:
            raise PermissionError(name)

        monkeypatch.setattr(os, "memfd_create", refuse)
        pool = BufferPool(10, is_shared=True)
        assert pool.descriptor is None
        assert len(pool.lend().view) == 10


@pytest.mark.parametrize("is_shared", [True, False])
def test_closing_gives_memory_and_file_back_at_once(is_shared: bool) -> None:
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
        pool = BufferPool(10, is_shared=is_shared)
        cycle = [pool]
        cycle.append(cycle)  # type: ignore[arg-type]
        returned, lent, late = pool.lend(), pool.lend(), pool.lend()
        gone = [weakref.ref(loan.view) for loan in (returned, lent, late)]
        returned.release()
        del returned
        pool.close()
        pool.close()
        assert [reference() is None for reference in gone] == [True, False, False]
        lent.view[0] = 1  # a request may still be reading from it
        lent.release()
        late.release()
        del lent, late
        assert [reference() is None for reference in gone] == [True] * 3
        if sys.platform == "linux":
            assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_a_private_pool_has_no_file() -> None:
    assert BufferPool(10).descriptor is None
