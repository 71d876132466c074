from __future__ import annotations

import ctypes
import mmap
import threading

from vds.buffers import BufferPool, Loan

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
