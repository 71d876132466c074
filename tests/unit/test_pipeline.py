from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial

import pytest

from vds import pipeline
from vds.model.batch import grouped
from vds.pace import Pace
from vds.pipeline import IN_FLIGHT_BYTES_MAX, Lane, parallel_map

WAIT_S = 30  # only ever reached by a test that fails
FAIL_S = 5  # the same, where the test itself must go on to its end


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def note_threads() -> None:
    """Tests that failed before may hold theirs."""
    _before.update(threading.enumerate())


def worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vds") and thread not in _before]


class Boom(Exception):
    pass


def count(ran: list[int]) -> int:
    ran.append(1)
    return len(ran)


def set_and_count(event: threading.Event) -> int:
    event.set()
    return 1


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


def test_who_waits_for_results_is_heard_of_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BEAT_S", 0.001)
    callers: list[threading.Thread] = []
    twice = threading.Event()

    def beat() -> None:
        callers.append(threading.current_thread())
        if len(callers) >= 2:
            twice.set()

    assert list(parallel_map(lambda _: twice.wait(WAIT_S), [0], workers=1, on_wait=beat)) == [True]
    assert set(callers) == {threading.main_thread()}


class Pieces:
    """A work that counts what is done with it, and runs `run(number)` for each of its pieces."""

    def __init__(self, count: int, run: Callable[[int], object] = int, weight_bytes: int = 0) -> None:
        self._count = count
        self._run = run
        self._weight_bytes = weight_bytes
        self._drawing = threading.Lock()
        self.lock = threading.Lock()
        self.drawn: list[int] = []
        self.running = 0
        self.ended: list[int] = []
        self.finishes = 0
        self.drops = 0
        self.finished = threading.Event()
        self.on_draw: Callable[[int], object] = int

    @property
    def weight_bytes(self) -> int:
        return self._weight_bytes

    @property
    def is_drawn(self) -> bool:
        return len(self.drawn) == self._count

    def draw(self) -> Callable[[], None]:
        assert self._drawing.acquire(blocking=False), "two threads draw at once"
        number = len(self.drawn)
        assert number < self._count, "drawn past the end"
        self.on_draw(number)
        self.drawn.append(number)
        self._drawing.release()
        return partial(self._run_one, number)

    def finish(self) -> int:
        assert not self.running
        self.finishes += 1
        self.finished.set()
        return len(self.ended)

    def drop(self) -> None:
        self.drops += 1

    def _run_one(self, number: int) -> None:
        with self.lock:
            self.running += 1
        try:
            self._run(number)
        finally:
            with self.lock:
                self.running -= 1
        with self.lock:
            self.ended.append(number)


def lane_of(workers: int, bytes_max: int = IN_FLIGHT_BYTES_MAX, on_wait: Callable[[], None] | None = None) -> Lane[int]:
    return Lane(Pace(workers, workers), in_flight_bytes_max=bytes_max, on_wait=on_wait)


def fail(*arguments: object) -> int:
    raise Boom


class TestLaneCalls:
    def test_every_result_comes_once_and_the_lane_may_be_used_again(self) -> None:
        with lane_of(3) as lane:
            found: list[int] = []
            for number in range(500):
                lane.submit(partial(abs, number))
                if number % 7 == 0:
                    found += lane.collect()
            found += lane.finish()
            assert sorted(found) == list(range(500))
            assert (lane.collect(), lane.finish()) == ([], [])
            assert worker_threads() == [], "whoever never closes it leaves no thread behind"
            lane.submit(lambda: 7)
            assert lane.finish() == [7]
        assert worker_threads() == []

    def test_results_come_as_they_become_ready(self) -> None:
        gates = [threading.Event(), threading.Event()]
        with lane_of(2) as lane:
            first = Pieces(1, lambda number: gates[0].wait(WAIT_S))
            second = Pieces(2, lambda number: gates[1].wait(WAIT_S))
            lane.feed(first)
            lane.feed(second)
            assert lane.collect() == []
            gates[1].set()
            assert second.finished.wait(WAIT_S)
            gates[0].set()
            assert lane.finish() == [2, 1]

    def test_calls_in_flight_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "BEAT_S", 0.001)
        release, blocked = threading.Event(), threading.Event()
        submitted: list[int] = []

        def call() -> int:
            assert release.wait(WAIT_S)
            return 0

        def fill(lane: Lane[int]) -> None:
            for number in range(50):
                lane.submit(call)
                submitted.append(number)

        with lane_of(3, on_wait=blocked.set) as lane:
            filler = threading.Thread(target=fill, args=(lane,))
            filler.start()
            assert blocked.wait(WAIT_S)
            assert len(submitted) == 2 * 3 + 2
            assert len(worker_threads()) == 3
            release.set()
            filler.join(WAIT_S)
            assert len(lane.finish()) == 50

    def test_bytes_in_flight_are_bounded_and_a_heavy_call_goes_alone(self) -> None:
        lock, held, peaks = threading.Lock(), list[int](), list[int]()

        def call(weight: int) -> int:
            with lock:
                held.append(weight)
                peaks.append(sum(held))
            with lock:
                held.remove(weight)
            return weight

        weights = [3, 4, 3, 50, 1, 9, 10, 2] * 20
        with lane_of(8, 10) as lane:
            for weight in weights:
                lane.submit(partial(call, weight), weight)
            assert sorted(lane.finish()) == sorted(weights)
        assert all(peak <= 10 or peak == 50 for peak in peaks)

    def test_waiting_bytes_count_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "BEAT_S", 0.001)
        release, blocked, third = threading.Event(), threading.Event(), threading.Event()

        def fill(lane: Lane[int]) -> None:
            lane.submit(lambda: int(release.wait(WAIT_S)), 4)
            lane.submit(lambda: 2, 4)  # waits behind the first, its body in memory
            lane.submit(lambda: 3, 4)
            third.set()

        with lane_of(1, 10, blocked.set) as lane:
            filler = threading.Thread(target=fill, args=(lane,))
            filler.start()
            assert blocked.wait(WAIT_S)
            assert not third.is_set()
            release.set()
            assert third.wait(WAIT_S)
            assert sorted(lane.finish()) == [1, 2, 3]
            filler.join(WAIT_S)

    def test_more_threads_as_the_pace_rises(self) -> None:
        pace, started, both = Pace(1, 2), threading.Event(), threading.Barrier(2)

        def call() -> int:
            started.set()
            return both.wait(WAIT_S)

        with Lane[int](pace) as lane:
            lane.submit(call)
            assert started.wait(WAIT_S)
            assert len(worker_threads()) == 1
            pace._limit = 2
            lane.submit(call)
            assert sorted(lane.finish()) == [0, 1]

    def test_the_caller_is_heard_of_while_it_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "BEAT_S", 0.001)
        callers: list[threading.Thread] = []
        twice = threading.Event()

        def beat() -> None:
            callers.append(threading.current_thread())
            if len(callers) >= 2:
                twice.set()

        with lane_of(1, on_wait=beat) as lane:
            lane.submit(lambda: int(twice.wait(WAIT_S)))
            assert lane.finish() == [1]
        assert set(callers) == {threading.main_thread()}

    def test_an_error_of_on_wait_ends_the_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "BEAT_S", 0.001)
        release = threading.Event()

        def beat() -> None:
            release.set()
            raise Boom

        def wait(lane: Lane[int]) -> None:
            lane.submit(lambda: int(release.wait(WAIT_S)))
            lane.finish()

        with lane_of(1, on_wait=beat) as lane, pytest.raises(Boom):
            wait(lane)
        assert worker_threads() == []


class TestLaneWorks:
    def test_pieces_are_drawn_in_order_and_run_side_by_side(self) -> None:
        barrier = threading.Barrier(3)
        work = Pieces(30, lambda number: barrier.wait(WAIT_S))
        with lane_of(3) as lane:
            lane.feed(work)
            assert lane.finish() == [30]
        assert work.drawn == list(range(30))
        assert sorted(work.ended) == list(range(30))

    def test_the_end_comes_once_after_the_last_piece(self) -> None:
        works = [Pieces(count) for count in range(1, 60)]
        with lane_of(4) as lane:
            for work in works:
                lane.feed(work)
            assert sorted(lane.finish()) == list(range(1, 60))
        assert [(work.finishes, work.drops) for work in works] == [(1, 0)] * 59

    def test_several_works_are_drawn_side_by_side(self) -> None:
        barrier = threading.Barrier(3)
        works = [Pieces(5), Pieces(5), Pieces(5)]
        with lane_of(3) as lane:
            for work in works:
                work.on_draw = lambda number: barrier.wait(WAIT_S)
                lane.feed(work)
            assert lane.finish() == [5, 5, 5]

    def test_one_that_is_slow_to_draw_holds_up_no_other(self) -> None:
        release, slow, quick = threading.Event(), Pieces(1), Pieces(20)
        slow.on_draw = lambda number: release.wait(WAIT_S)
        with lane_of(2) as lane:
            lane.feed(slow)
            lane.feed(quick)
            assert quick.finished.wait(WAIT_S)
            assert slow.drawn == []
            release.set()
            assert sorted(lane.finish()) == [1, 20]

    def test_pieces_in_memory_are_bounded(self) -> None:
        peaks: list[int] = []
        works = [Pieces(40, weight_bytes=3), Pieces(40, weight_bytes=4)]

        def note(number: int) -> None:
            peaks.append(sum(len(one.drawn) - len(one.ended) for one in works))

        for work in works:
            work.on_draw = note
        with lane_of(8, 10) as lane:
            for work in works:
                lane.feed(work)
            assert lane.finish() == [40, 40]
        # At most three hold bytes at once; a piece counts as ended here a moment before its bytes come free.
        assert max(peaks) <= 3

    def test_no_piece_is_drawn_for_which_there_is_no_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "BEAT_S", 0.001)
        gate, blocked, started = threading.Event(), threading.Event(), threading.Semaphore(0)

        def run(number: int) -> None:
            started.release()
            assert gate.wait(WAIT_S)

        work = Pieces(20, run, 4)
        with lane_of(8, 10, blocked.set) as lane:
            lane.feed(work)
            assert started.acquire(timeout=WAIT_S)
            assert started.acquire(timeout=WAIT_S)
            submitter = threading.Thread(target=lane.submit, args=(lambda: 0, 3))
            submitter.start()
            assert blocked.wait(WAIT_S)
            assert work.drawn == [0, 1]
            gate.set()
            submitter.join(WAIT_S)
            assert sorted(lane.finish()) == [0, 20]

    def test_a_heavy_piece_runs_alone(self) -> None:
        running: list[int] = []
        lock, sums = threading.Lock(), list[int]()

        def run(weight: int, _: int) -> None:
            with lock:
                running.append(weight)
                sums.append(sum(running))
            with lock:
                running.remove(weight)

        with lane_of(4, 10) as lane:
            for _ in range(10):
                lane.feed(Pieces(3, partial(run, 50), 50))
                lane.feed(Pieces(5, partial(run, 5), 5))
                lane.submit(lambda: 0, 4)
            assert len(lane.finish()) == 30
        assert max(sums) == 50
        assert all(total <= 10 or total == 50 for total in sums)

    def test_bytes_of_a_piece_that_ended_are_free_for_a_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "BEAT_S", 2.0 * WAIT_S)  # nobody looks again by himself
        gates = [threading.Event(), threading.Event()]
        started = threading.Semaphore(0)
        submitted = threading.Event()

        def run(number: int) -> None:
            started.release()
            assert gates[number].wait(2 * WAIT_S)

        def submit(lane: Lane[int]) -> None:
            lane.submit(lambda: 7, 5)
            submitted.set()

        with lane_of(4, 10) as lane:
            lane.feed(Pieces(2, run, 5))
            assert started.acquire(timeout=WAIT_S)
            assert started.acquire(timeout=WAIT_S)
            submitter = threading.Thread(target=submit, args=(lane,))
            submitter.start()
            gates[0].set()
            is_submitted = submitted.wait(FAIL_S)
            gates[1].set()
            assert is_submitted
            submitter.join(WAIT_S)
            assert sorted(lane.finish()) == [2, 7]

    def test_a_large_work_leaves_room_for_what_the_caller_brings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "BEAT_S", 0.001)
        gate, blocked, submitted = threading.Event(), threading.Event(), threading.Event()
        started = threading.Semaphore(0)
        came_first: list[bool] = []

        def run(number: int) -> None:
            if number < 2:
                started.release()
                assert (gate, submitted)[number].wait(WAIT_S)
            elif number < 4:
                came_first.append(submitted.wait(FAIL_S))

        def submit(lane: Lane[int]) -> None:
            lane.submit(lambda: 0, 5)
            submitted.set()

        with lane_of(4, 10, blocked.set) as lane:
            lane.feed(Pieces(100, run, 5))
            assert started.acquire(timeout=WAIT_S)
            assert started.acquire(timeout=WAIT_S)  # two pieces hold all there is
            submitter = threading.Thread(target=submit, args=(lane,))
            submitter.start()
            assert blocked.wait(WAIT_S)
            gate.set()
            submitter.join(WAIT_S)
            assert sorted(lane.finish()) == [0, 100]
        assert came_first == [True, True]


class TestDraws:
    def test_only_so_many_draw_at_once_however_many_may_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "DRAWS_MAX", 2)
        lock, drawing, depths = threading.Lock(), list[int](), list[int]()
        running = threading.Barrier(6)  # while two draw, all others run

        def draw(number: int) -> None:
            with lock:
                drawing.append(1)
                depths.append(len(drawing))
            time.sleep(0.002)
            with lock:
                drawing.pop()

        with lane_of(6) as lane:
            works = [Pieces(3, lambda number: running.wait(WAIT_S), weight_bytes=1) for _ in range(6)]
            for work in works:
                work.on_draw = draw
                lane.feed(work)
            assert lane.finish() == [3] * 6
        assert max(depths) == 2

    def test_pieces_that_hold_nothing_need_no_turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "DRAWS_MAX", 1)
        drawing, go = threading.Event(), threading.Event()

        def hold(number: int) -> None:
            drawing.set()
            assert go.wait(WAIT_S)

        with lane_of(2) as lane:
            heavy = Pieces(1, weight_bytes=1)
            heavy.on_draw = hold
            lane.feed(heavy)
            assert drawing.wait(WAIT_S)
            lane.submit(partial(set_and_count, go))  # were it to wait for the other's draw, neither would end
            assert len(lane.finish()) == 2


class TestLaneErrors:
    def test_the_first_error_is_raised_wherever_the_caller_is(self) -> None:
        with lane_of(1) as lane:
            lane.submit(fail)
            for ask in (lane.finish, lane.collect, lambda: lane.submit(lambda: 1), lambda: lane.feed(Pieces(1))):
                with pytest.raises(Boom):
                    ask()
        assert worker_threads() == []

    def test_what_is_not_taken_in_is_dropped(self) -> None:
        work = Pieces(3)
        with lane_of(1) as lane:
            lane.submit(fail)
            with pytest.raises(Boom):
                lane.finish()
            with pytest.raises(Boom):
                lane.feed(work)
        assert (work.drawn, work.finishes, work.drops) == ([], 0, 1)

    def test_an_error_stops_new_work(self) -> None:
        ran: list[int] = []

        def submit_many(lane: Lane[int]) -> None:
            for _ in range(1_000):
                lane.submit(partial(count, ran))
            lane.finish()

        with lane_of(1) as lane:
            lane.submit(fail)
            with pytest.raises(Boom):
                submit_many(lane)
        assert ran == []

    @pytest.mark.parametrize("where", ["draw", "piece", "finish"])
    def test_works_that_did_not_end_are_dropped_once_and_what_runs_is_joined(self, where: str) -> None:
        begun, failing = threading.Event(), threading.Event()

        def wait(number: int) -> None:
            begun.set()
            assert failing.wait(WAIT_S)

        def fail_now(*arguments: object) -> int:
            assert begun.wait(WAIT_S)
            failing.set()
            raise Boom

        running, broken, waiting = Pieces(1, wait), Pieces(2), Pieces(1)
        if where == "draw":
            broken.on_draw = fail_now
        elif where == "piece":
            broken = Pieces(2, fail_now)
        else:
            broken.finish = fail_now  # type: ignore[method-assign]
        ended = Pieces(1)
        with lane_of(2) as lane:
            lane.feed(ended)
            lane.finish()
            lane.feed(running)
            assert begun.wait(WAIT_S)
            lane.feed(broken)
            with pytest.raises(Boom):
                feed_and_finish(lane, waiting)
        assert worker_threads() == []
        assert running.ended == [0]
        assert (ended.finishes, ended.drops) == (1, 0)
        assert (broken.finishes, broken.drops) == (0, 1)
        assert running.finishes + running.drops == 1
        assert waiting.finishes + waiting.drops == 1

    def test_an_error_in_the_body_joins_what_runs_and_drops_the_rest(self) -> None:
        started, release = threading.Event(), threading.Event()

        def wait(number: int) -> None:
            started.set()
            assert release.wait(WAIT_S)

        running, waiting = Pieces(1, wait), Pieces(1)

        def body() -> None:
            with lane_of(1) as lane:
                lane.feed(running)
                lane.feed(waiting)
                assert started.wait(WAIT_S)
                threading.Thread(target=release_when_closed, args=(lane, release.set)).start()
                raise Boom

        with pytest.raises(Boom):
            body()
        assert worker_threads() == []
        assert running.ended == [0]
        assert (waiting.drawn, waiting.drops) == ([], 1)

    def test_closing_is_idempotent_and_nothing_is_taken_in_afterwards(self) -> None:
        lane, work = lane_of(2), Pieces(1)
        lane.submit(lambda: 1)
        lane.close()
        lane.close()
        for ask in (lane.collect, lane.finish, lambda: lane.submit(lambda: 1), lambda: lane.feed(work)):
            with pytest.raises(CancelledError):
                ask()
        assert work.drops == 1
        assert worker_threads() == []

    def test_who_still_waited_for_a_place_when_it_closed_begins_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pace, entering = Pace(1, 4), threading.Event()
        wait = pace._condition.wait

        def note() -> None:
            entering.set()
            wait()

        monkeypatch.setattr(pace._condition, "wait", note)
        pace.enter()  # another lane of the same service is at work
        lane: Lane[int] = Lane(pace)
        work = Pieces(1)
        lane.feed(work)
        assert entering.wait(WAIT_S)
        closed = threading.Thread(target=lane.close)
        closed.start()
        release_when_closed(lane, pace.leave)
        closed.join(WAIT_S)
        assert (work.drawn, work.drops) == ([], 1)
        assert worker_threads() == []

    def test_ctrl_c_while_waiting_closes_cleanly(self) -> None:
        def interrupt(number: int) -> None:
            _thread.interrupt_main()

        works = [Pieces(1, interrupt), Pieces(10**9), Pieces(10**9)]

        def wait(lane: Lane[int]) -> None:
            for work in works[1:]:
                lane.feed(work)
            lane.feed(works[0])
            lane.finish()

        with pytest.raises(KeyboardInterrupt), lane_of(3) as lane:
            wait(lane)
        assert worker_threads() == []
        assert [work.finishes + work.drops for work in works if work.drawn] == [1] * sum(bool(work.drawn) for work in works)
        assert [work.running for work in works] == [0, 0, 0]

    def test_an_interrupt_in_a_worker_is_raised_to_the_caller(self) -> None:
        def call() -> int:
            raise KeyboardInterrupt

        with lane_of(1) as lane:
            lane.submit(call)
            with pytest.raises(KeyboardInterrupt):
                lane.finish()
        assert worker_threads() == []


def feed_and_finish(lane: Lane[int], work: Pieces) -> None:
    lane.feed(work)
    lane.finish()


def release_when_closed(lane: Lane[int], release: Callable[[], object]) -> None:
    """Let go of what is held once `close` has begun, so that it is certain to have begun first."""
    with lane._changed:
        assert lane._ready.wait_for(lambda: lane._error is not None, WAIT_S)
    release()
