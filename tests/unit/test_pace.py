from __future__ import annotations

import heapq
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable

import pytest

from vds.pace import BURST_S, GROWTH_MIN, REQUEST_BYTES, STEADY_WINDOWS, WINDOW_S_MIN, Pace

WAIT_S = 30  # only ever reached by a test that fails


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run_window(pace: Pace, clock: Clock, rate: float) -> int:
    """Use every place for one window in which one more waits, at `rate` bytes a second; return the limit after it."""
    count = 2 * pace.limit
    for _ in range(pace.limit):
        pace.enter()
    pace._is_full = True  # what somebody sets who finds no place in `enter` and waits there
    clock.now_s += max(count * REQUEST_BYTES / rate, 2 * WINDOW_S_MIN)
    for _ in range(count):
        pace.done(0)
    for _ in range(pace._active):
        pace.leave()
    return pace.limit


def settle(pace: Pace, clock: Clock) -> int:
    """Run windows of one rate until the limit stays, and return it."""
    run_window(pace, clock, 1e6)
    run_window(pace, clock, 1e6)
    return pace.limit


class TestGrowth:
    def test_it_begins_where_it_is_told(self) -> None:
        assert (Pace(8, 64).limit, Pace(8, 64).most) == (8, 64)

    def test_it_doubles_while_more_at_once_bring_more(self, clock: Clock) -> None:
        pace = Pace(4, 64, clock=clock)
        assert [run_window(pace, clock, rate) for rate in (1e6, 1.16e6, 1.4e6, 2e6)] == [8, 16, 32, 64]

    def test_it_never_rises_above_the_most(self, clock: Clock) -> None:
        pace = Pace(4, 10, clock=clock)
        assert [run_window(pace, clock, 1e6 * 2**step) for step in range(20)] == [8] + [10] * 19
        fixed = Pace(3, 3, clock=clock)
        assert {run_window(fixed, clock, 1e6 * 2**step) for step in range(2 * STEADY_WINDOWS)} == {3}

    @pytest.mark.parametrize(("gain", "limit"), [(GROWTH_MIN - 0.01, 4), (GROWTH_MIN + 0.01, 16)])
    def test_a_step_that_brings_too_little_is_taken_back(self, clock: Clock, gain: float, limit: int) -> None:
        pace = Pace(4, 64, clock=clock)
        run_window(pace, clock, 1e6)
        assert run_window(pace, clock, 1e6 * gain) == limit

    def test_where_it_settled_it_stays_until_it_looks_again(self, clock: Clock) -> None:
        pace = Pace(8, 64, clock=clock)
        assert settle(pace, clock) == 8
        assert {run_window(pace, clock, 1e6) for _ in range(STEADY_WINDOWS - 1)} == {8}
        assert run_window(pace, clock, 1e6) == 10  # a quarter more, for one window
        assert run_window(pace, clock, 1e6) == 8

    def test_a_look_that_shows_more_goes_on_in_small_steps(self, clock: Clock) -> None:
        pace = Pace(64, 256, clock=clock)
        settle(pace, clock)
        for _ in range(STEADY_WINDOWS):
            run_window(pace, clock, 1e6)
        assert [run_window(pace, clock, 1e6 * 1.2**step) for step in range(1, 3)] == [100, 125]

    @pytest.mark.parametrize("limit", range(1, 18))
    def test_from_any_limit_a_look_pays_where_the_service_takes_more(self, clock: Clock, limit: int) -> None:
        pace = Pace(2 * limit, 1000, clock=clock)
        pace.throttled()
        assert pace.limit == limit
        for _ in range(STEADY_WINDOWS + 10):
            run_window(pace, clock, 1e5 * pace.limit)
        assert pace.limit > 2 * limit

    def test_windows_in_which_nobody_waited_change_nothing(self, clock: Clock) -> None:
        pace = Pace(8, 64, clock=clock)
        for step in range(3 * STEADY_WINDOWS):
            for _ in range(16):
                pace.enter()
                pace.leave()
                clock.now_s += 0.01
                pace.done(2**step)
        assert pace.limit == 8

    def test_a_window_is_neither_short_nor_small(self, clock: Clock) -> None:
        pace = Pace(2, 64, clock=clock)
        pace._is_full = True
        for _ in range(100):
            pace.done(1)
        assert pace.limit == 2  # at one moment
        clock.now_s += 2 * WINDOW_S_MIN
        pace.done(1)
        assert pace.limit == 4
        pace._is_full = True
        for _ in range(7):
            clock.now_s += 10
            pace.done(1)
        assert pace.limit == 4  # seven answers are less than two for each place
        assert pace._count == 7

    def test_bodies_count_as_well_as_requests(self, clock: Clock) -> None:
        pace = Pace(1, 64, clock=clock)
        run_window(pace, clock, 1e6)
        pace.enter()
        pace.enter()
        pace._is_full = True
        clock.now_s += 4 * REQUEST_BYTES / 1e6  # as many requests a second as before
        for _ in range(4):
            pace.done(REQUEST_BYTES)
        assert pace.limit == 4


class TestThrottled:
    def test_a_burst_halves_it_once(self, clock: Clock) -> None:
        pace = Pace(32, 64, clock=clock)
        for _ in range(20):
            pace.throttled()
            clock.now_s += BURST_S / 21
        assert pace.limit == 16
        clock.now_s += BURST_S
        pace.throttled()
        assert pace.limit == 8

    @pytest.mark.parametrize("retry_after_s", [0.0, 1.0, 7.0])
    def test_a_service_that_goes_on_throttling_is_asked_for_less_and_less(self, clock: Clock, retry_after_s: float) -> None:
        pace = Pace(32, 64, clock=clock)
        for _ in range(40):
            pace.throttled(retry_after_s)
            clock.now_s += retry_after_s + BURST_S / 3
        assert pace.limit == 1

    def test_it_never_falls_below_one(self, clock: Clock) -> None:
        pace = Pace(3, 64, clock=clock)
        for limit in (1, 1, 1):
            pace.throttled()
            assert pace.limit == limit
            clock.now_s += 2 * BURST_S
        pace.enter()
        pace.leave()

    def test_the_longest_wait_asked_for_is_kept_up_to_a_minute(self, clock: Clock) -> None:
        pace = Pace(8, 64, clock=clock)
        assert pace.pause_s() == 0
        for asked_s, pause_s in [(0.0, 0.0), (5.0, 5.0), (2.0, 5.0), (30.0, 30.0), (3600.0, 60.0), (1.0, 60.0)]:
            pace.throttled(asked_s)
            assert pace.pause_s() == pytest.approx(pause_s)
        clock.now_s += 59
        assert pace.pause_s() == pytest.approx(1)
        clock.now_s += 2
        assert pace.pause_s() == 0

    def test_answers_during_the_pause_are_of_the_same_burst(self, clock: Clock) -> None:
        pace = Pace(32, 64, clock=clock)
        pace.throttled(10.0)
        clock.now_s += 9
        pace.throttled()
        assert pace.limit == 16

    def test_it_grows_no_further_and_looks_again_in_small_steps(self, clock: Clock) -> None:
        pace = Pace(16, 64, clock=clock)
        run_window(pace, clock, 1e6)
        pace.throttled()
        assert pace.limit == 16
        assert {run_window(pace, clock, 1e6 * 2**step) for step in range(STEADY_WINDOWS - 1)} == {16}
        assert run_window(pace, clock, 1e6) == 20


class TestPlaces:
    def test_who_comes_beyond_the_limit_waits_for_a_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pace = Pace(2, 2)
        pace.enter()
        pace.enter()
        entered = enter_behind(pace, monkeypatch)
        assert not entered.is_set()
        pace.leave()
        assert entered.wait(WAIT_S)

    def test_a_limit_that_rises_lets_those_in_who_wait(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        pace = Pace(1, 8, clock=clock)
        pace.enter()
        entered = enter_behind(pace, monkeypatch)
        clock.now_s += 1
        pace.done(1)
        pace.done(1)
        assert entered.wait(WAIT_S)
        assert pace.limit == 2

    def test_never_more_at_once_than_the_limit(self) -> None:
        pace, lock, peaks, now = Pace(3, 3), threading.Lock(), list[int](), [0]

        def work() -> None:
            for _ in range(200):
                pace.enter()
                with lock:
                    now[0] += 1
                    peaks.append(now[0])
                with lock:
                    now[0] -= 1
                pace.leave()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert len(peaks) == 1600
        assert max(peaks) <= 3
        assert pace._active == 0

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_begins_with_free_places(self) -> None:
        pace = Pace(2, 2)
        pace.enter()
        pace.enter()
        pace._condition.acquire()  # as a thread of the parent may that is not in the child
        child = os.fork()
        if not child:
            signal.alarm(WAIT_S)  # ends a child that waits for ever
            pace.enter()
            pace.enter()
            os._exit(0 if pace._active == 2 else 1)
        pace._condition.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pace._active == 2


def enter_behind(pace: Pace, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let another thread come and wait for a place; return what it sets once it is in."""
    waiting, entered = threading.Event(), threading.Event()
    wait = pace._condition.wait

    def note() -> None:
        waiting.set()
        wait()

    def enter() -> None:
        pace.enter()
        entered.set()

    monkeypatch.setattr(pace._condition, "wait", note)
    threading.Thread(target=enter, daemon=True).start()
    assert waiting.wait(WAIT_S)
    return entered


class Service:
    """A service in simulated time: everybody who waits for a place lets the next thing happen instead.

    Args:
        at_once: how many requests it works on at once; more of them take longer, or are refused.
        refuses: whether more are refused.
    """

    def __init__(self, pace: Pace, clock: Clock, *, at_once: int, refuses: bool, retry_after_s: float = 0.0) -> None:
        self._pace = pace
        self._clock = clock
        self._at_once = at_once
        self._refuses = refuses
        self._retry_after_s = retry_after_s
        self._order = itertools.count()
        self._chance = random.Random(1)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._working = 0
        self._queue = 0
        self.answered = 0
        self.windows = 0.0
        self.refused_s: list[float] = []
        self.began_early = 0

    def run(self, requests: int) -> None:
        for _ in range(requests):
            self._pace.enter()
            self._after(self._pace.pause_s(), self._arrive)

    def step(self) -> None:
        self._clock.now_s, _, event = heapq.heappop(self._events)
        event()

    @property
    def bursts(self) -> int:
        return sum(later - earlier >= BURST_S for earlier, later in itertools.pairwise([-1e9, *self.refused_s]))

    def _after(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._clock.now_s + delay_s, next(self._order), event))

    def _work_s(self) -> float:
        return self._chance.uniform(0.015, 0.025)  # all alike would march in step, and make windows of uneven size

    def _arrive(self) -> None:
        self.began_early += self._pace.pause_s() > 1e-6
        if self._working < self._at_once:
            self._working += 1
            self._after(self._work_s(), self._answer)
        elif self._refuses:
            self._after(0.002, self._refuse)
        else:
            self._queue += 1

    def _answer(self) -> None:
        self.answered += 1
        self.windows += 1 / (2 * self._pace.limit)
        if self._queue:
            self._queue -= 1
            self._after(self._work_s(), self._answer)
        else:
            self._working -= 1
        self._pace.done(100_000)
        self._pace.leave()

    def _refuse(self) -> None:
        self.refused_s.append(self._clock.now_s)
        self._pace.throttled(self._retry_after_s)
        self._after(max(self._pace.pause_s(), 0.05), self._try_again)

    def _try_again(self) -> None:
        if (pause_s := self._pace.pause_s()) > 1e-6:
            self._after(pause_s, self._try_again)  # others were refused meanwhile
        else:
            self._arrive()


class TestConvergence:
    @pytest.mark.parametrize("at_once", [3, 20, 40, 100])
    def test_a_service_that_only_queues(self, clock: Clock, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
        pace = Pace(8, 256, clock=clock)
        service = Service(pace, clock, at_once=at_once, refuses=False)
        monkeypatch.setattr(pace._condition, "wait", service.step)
        service.run(15_000)
        assert min(8, at_once) <= pace.limit <= max(8, 2 * at_once) * 1.25  # it may be looking again just now
        begun_s, answered = clock.now_s, service.answered
        service.run(2_000)
        assert (service.answered - answered) / (clock.now_s - begun_s) > 0.8 * at_once / 0.02

    @pytest.mark.parametrize("retry_after_s", [0.0, 1.0])
    @pytest.mark.parametrize(("start", "at_once"), [(8, 24), (64, 24), (64, 5), (16, 100)])
    def test_a_service_that_throttles(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch, start: int, at_once: int, retry_after_s: float
    ) -> None:
        pace = Pace(start, 256, clock=clock)
        service = Service(pace, clock, at_once=at_once, refuses=True, retry_after_s=retry_after_s)
        monkeypatch.setattr(pace._condition, "wait", service.step)
        service.run(10_000)
        refused, windows = service.bursts, service.windows
        service.run(10_000)
        # It feels its way up to what the service takes, and a quarter beyond, about once in a steady stretch.
        assert service.bursts - refused <= (service.windows - windows) / STEADY_WINDOWS + 1
        assert at_once / 2.5 <= pace.limit <= at_once * 1.25
        assert service.began_early == 0

    def test_no_request_is_lost(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        pace = Pace(64, 256, clock=clock)
        service = Service(pace, clock, at_once=10, refuses=True, retry_after_s=0.5)
        monkeypatch.setattr(pace._condition, "wait", service.step)
        service.run(3_000)
        while pace._active:
            service.step()
        assert service.answered == 3_000
