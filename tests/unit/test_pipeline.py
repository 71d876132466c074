from __future__ import annotations

import _thread
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from vds.pipeline import Lane, grouped, parallel_map

WAIT_S = 30  # only ever reached by a test that fails


def worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vds")]


class Boom(Exception):
    pass


def count(ran: list[int]) -> int:
    ran.append(1)
    return len(ran)


@pytest.mark.parametrize("ordered", [True, False])
def test_every_item_once(ordered: bool) -> None:
    found = list(parallel_map(lambda item: item * 2, range(500), workers=4, ordered=ordered))
    assert sorted(found) == [item * 2 for item in range(500)]
    assert found == sorted(found) or not ordered
    assert worker_threads() == []


def test_no_items() -> None:
    assert list(parallel_map(str, [])) == []


def test_calls_run_at_the_same_time() -> None:
    barrier = threading.Barrier(4)
    assert len(list(parallel_map(lambda _: barrier.wait(WAIT_S), range(4), workers=4))) == 4


def test_ordered_results_wait_for_the_first_and_unordered_ones_do_not() -> None:
    second_done, release = threading.Event(), threading.Event()

    def call(item: int) -> int:
        if item == 0:
            assert release.wait(WAIT_S)
        second_done.set()
        return item

    results = parallel_map(call, [0, 1], workers=2, ordered=False)
    assert next(results) == 1
    release.set()
    assert list(results) == [0]

    release.clear()
    second_done.clear()

    def items() -> Iterator[int]:
        yield from (0, 1)
        assert second_done.wait(WAIT_S)
        release.set()

    assert list(parallel_map(call, items(), workers=2)) == [0, 1]


def test_items_are_pulled_lazily_and_bounded_in_number() -> None:
    pulled: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            pulled.append(item)
            yield item

    results = parallel_map(lambda item: item, items(), workers=2, in_flight_max=5)
    assert pulled == []
    for count, result in enumerate(results):
        assert result == count
        # Five in flight, one more pulled to be weighed, and those whose results were yielded.
        assert len(pulled) <= count + 1 + 5 + 1


def test_bytes_in_flight_are_bounded_and_a_heavy_item_goes_alone() -> None:
    lock = threading.Lock()
    running: list[int] = []
    peaks: list[int] = []

    def call(weight: int) -> int:
        with lock:
            running.append(weight)
            peaks.append(sum(running))
        with lock:
            running.remove(weight)
        return weight

    weights = [3, 4, 3, 50, 1, 9, 10, 2] * 20
    found = list(parallel_map(call, weights, workers=8, in_flight_max=100, weigh=lambda w: w, in_flight_bytes_max=10))
    assert found == weights
    assert all(peak <= 10 or peak == 50 for peak in peaks)


@pytest.mark.parametrize("ordered", [True, False])
def test_first_error_stops_new_work_and_waits_for_running_calls(ordered: bool) -> None:
    failing, ended, started = threading.Event(), threading.Event(), list[int]()

    def call(item: int) -> int:
        started.append(item)
        if item == 0:  # is running when item 1 fails, and must have ended when the error arrives
            assert failing.wait(WAIT_S)
            ended.set()
        if item == 1:
            failing.set()
            raise Boom(item)
        return item

    with pytest.raises(Boom):
        list(parallel_map(call, range(1000), workers=2, in_flight_max=8, ordered=ordered))
    assert ended.is_set()
    assert len(started) < 100
    assert worker_threads() == []


def test_error_of_the_items_stops_everything() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise Boom

    with pytest.raises(Boom):
        list(parallel_map(lambda item: item, items()))
    assert worker_threads() == []


def test_closing_the_iterator_joins_everything() -> None:
    results = parallel_map(lambda item: item, iter(range(10**9)), workers=3)
    assert next(results) == 0
    assert worker_threads() != []
    results.close()
    assert worker_threads() == []


def test_interrupt_in_a_call_is_raised() -> None:
    def call(item: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(parallel_map(call, [1, 2, 3]))
    assert worker_threads() == []


def test_ctrl_c_while_waiting_joins_everything() -> None:
    interrupted = threading.Event()

    def call(item: int) -> int:
        if item == 50:
            _thread.interrupt_main()
            interrupted.set()
        assert item < 50 or interrupted.wait(WAIT_S)
        return item

    with pytest.raises(KeyboardInterrupt):
        list(parallel_map(call, iter(range(10**9)), workers=2))
    assert worker_threads() == []


def test_groups_are_bounded_in_number_and_bytes() -> None:
    assert list(grouped([1, 1, 1, 9, 1, 20, 1], abs, count_max=2, bytes_max=10)) == [[1, 1], [1, 9], [1, 20], [1]]
    assert list(grouped([5, 1, 20, 3], abs, count_max=9, bytes_max=10)) == [[5, 1, 20], [3]]
    assert list(grouped([], abs, count_max=9, bytes_max=10)) == []


def test_lane_runs_behind_its_caller_and_returns_results_in_order() -> None:
    with Lane[int](workers=3) as lane:
        for number in range(50):
            lane.submit(partial(abs, number))
        assert lane.finish() == list(range(50))
        lane.submit(lambda: 7)
        assert lane.finish() == [7]
    assert worker_threads() == []


def test_lane_blocks_while_it_is_full() -> None:
    release, submitted = threading.Event(), threading.Event()
    with Lane[str](workers=2, in_flight_bytes_max=10) as lane:

        def fill() -> None:
            lane.submit(lambda: str(release.wait(WAIT_S)), 8)
            lane.submit(lambda: "second", 8)
            submitted.set()

        filler = threading.Thread(target=fill)
        filler.start()
        assert not submitted.wait(0)
        release.set()
        filler.join(WAIT_S)
        assert submitted.is_set()
        assert lane.finish() == ["True", "second"]


def test_lane_takes_a_call_heavier_than_its_limit() -> None:
    with Lane[int](workers=2, in_flight_bytes_max=10) as lane:
        lane.submit(lambda: 1, 5)
        lane.submit(lambda: 2, 1000)
        lane.submit(lambda: 3, 5)
        assert lane.finish() == [1, 2, 3]


def test_lane_collects_what_is_ready() -> None:
    release = threading.Event()
    with Lane[int](workers=1) as lane:
        lane.submit(lambda: int(release.wait(WAIT_S)))
        assert lane.collect() == []
        release.set()
        lane.submit(lambda: 2)
        assert lane.finish() == [1, 2]
        assert lane.collect() == []


def test_lane_raises_the_first_error_and_drops_the_rest() -> None:
    ran: list[int] = []

    def fail() -> int:
        raise Boom

    def submit_many() -> None:
        for _ in range(1_000):
            lane.submit(partial(count, ran))
        lane.finish()

    with Lane[int](workers=1) as lane:
        lane.submit(fail)
        with pytest.raises(Boom):
            submit_many()
        with pytest.raises(Boom):
            lane.finish()
        with pytest.raises(Boom):
            lane.submit(lambda: 1)
    assert len(ran) < 1_000
    assert worker_threads() == []


def test_an_error_in_the_body_joins_the_lane() -> None:
    started, release = threading.Event(), threading.Event()

    def call() -> int:
        started.set()
        assert release.wait(WAIT_S)
        return 1

    def body() -> None:
        with Lane[int](workers=1) as lane:
            lane.submit(call)
            lane.submit(call)
            assert started.wait(WAIT_S)
            release.set()
            raise Boom

    with pytest.raises(Boom):
        body()
    assert worker_threads() == []
