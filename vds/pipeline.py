"""Bounded parallelism: the only module of the package that starts threads.

Guarantees:
- at most `workers` calls run at once, and at most `in_flight_max` items and `in_flight_bytes_max` bytes are held;
- items are pulled lazily, and only in the thread that asks for results, so a generator of items needs no lock;
- the first error (in time) stops new calls; what runs is waited for; then the error is raised;
- closing the iterator, an error in the caller or Ctrl-C stops and joins everything: no thread outlives its call.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Condition, Event, Lock, Thread
from types import TracebackType
from typing import Generic, TypeVar

from vds.pace import Pace
from vds.work import Call, Job, Work

T = TypeVar("T")
R = TypeVar("R")

TRANSFER_WORKERS = 8
HASH_WORKERS = min(4, os.cpu_count() or 1)
DRAWS_MAX = max(4, os.cpu_count() or 1)
"""Pieces of works drawn at once: more threads that read and hash than there are cores push each other's out of the cache."""
IN_FLIGHT_BYTES_MAX = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one transfer may use at once."""

    workers: int = TRANSFER_WORKERS
    in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX


TRANSFER_LIMITS = Limits()
"""What is used when a caller says nothing."""

# On Windows a wait without a limit cannot be interrupted with Ctrl-C; elsewhere it can.
_WAIT_S = 0.2 if os.name == "nt" else None
BEAT_S = 5.0
"""How long a caller waits before its `on_wait` is called."""


class _DroppedError(Exception):
    """Stands for a call that was never made because another one had failed."""


def parallel_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int = TRANSFER_WORKERS,
    in_flight_max: int | None = None,
    weigh: Callable[[T], int] | None = None,
    in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX,
    ordered: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> Generator[R, None, None]:
    """Yield `function(item)` for every item, computed in parallel.

    An item counts as in flight from the moment it is pulled until its result is yielded. One that is heavier than
    `in_flight_bytes_max` goes alone. Unordered results do not wait for a slow neighbour: a transfer of files of very different
    sizes needs that, or one large file would idle all other workers.

    Use `contextlib.closing` around a loop that may be left early, or the workers are joined only when the iterator is collected.

    Args:
        function: called in worker threads.
        items: pulled lazily, in the thread that iterates.
        workers: calls that run at once.
        in_flight_max: items held at once; four for each worker when None.
        weigh: the bytes that an item (and its result) holds; no limit on bytes when None.
        in_flight_bytes_max: the limit on the sum of what `weigh` says.
        ordered: whether results come in the order of the items, or as they get ready.
        on_wait: called every few seconds while the caller waits for a result.
    """
    limit = max(workers, in_flight_max if in_flight_max is not None else workers * 4)
    flight: _Flight[T, R] = _Flight(function, workers, limit, in_flight_bytes_max if weigh else None, ordered, on_wait)
    try:
        for item in items:
            weight_bytes = weigh(item) if weigh else 0
            while not flight.has_room(weight_bytes):
                yield from flight.results()
            flight.launch(item, weight_bytes)
        while flight.is_busy:
            yield from flight.results()
    finally:
        flight.land()


class _Flight(Generic[T, R]):
    """The items between being pulled and their results being yielded; used by one thread."""

    def __init__(
        self,
        function: Callable[[T], R],
        workers: int,
        count_max: int,
        bytes_max: int | None,
        ordered: bool,
        on_wait: Callable[[], None] | None,
    ) -> None:
        self._function = function
        self._on_wait = on_wait
        self._ordered = ordered
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._weights: dict[Future[R], int] = {}
        self._order: deque[Future[R]] = deque()
        self._done: SimpleQueue[Future[R]] = SimpleQueue()
        self._stopped = Event()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="vds")

    @property
    def is_busy(self) -> bool:
        return bool(self._weights)

    def has_room(self, weight_bytes: int) -> bool:
        if not self._weights:
            return True
        fits = self._bytes_max is None or self._bytes + weight_bytes <= self._bytes_max
        return fits and len(self._weights) < self._count_max

    def launch(self, item: T, weight_bytes: int) -> None:
        future = self._pool.submit(self._call, item)
        self._weights[future] = weight_bytes
        if self._ordered:
            self._order.append(future)
        self._bytes += weight_bytes
        future.add_done_callback(self._done.put)

    def results(self) -> Iterator[R]:
        """Wait for one more call to end and yield what may be yielded then: nothing, one or several results."""
        future = self._take()
        error = future.exception()
        if error is not None:
            self._raise_first(error)
        if not self._ordered:
            yield self._release(future)
            return
        while self._order and self._order[0].done() and self._order[0].exception() is None:
            yield self._release(self._order.popleft())

    def _release(self, future: Future[R]) -> R:
        self._bytes -= self._weights.pop(future)
        return future.result()

    def _call(self, item: T) -> R:
        # Checked here as well as where items are pulled: calls that were queued before the error must not start after it.
        if self._stopped.is_set():
            raise _DroppedError
        try:
            return self._function(item)
        except BaseException:
            self._stopped.set()
            raise

    def _raise_first(self, error: BaseException) -> None:
        while isinstance(error, _DroppedError):  # dropped because of an error that is still on its way through the queue
            error = self._take().exception() or error
        raise error

    def _take(self) -> Future[R]:
        while True:
            try:
                return self._done.get(timeout=_WAIT_S or BEAT_S)
            except Empty:
                if self._on_wait is not None:
                    self._on_wait()

    def land(self) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._weights.clear()
        self._order.clear()


class Lane(Generic[R]):
    """Requests that run behind a caller who goes on with something else, such as reading the next files.

    How many run at once is for the `Pace` to say: worker threads are started as it rises. `submit` and `feed` block while the
    lane is full and raise the first error as soon as there is one. Use it as a context manager: on a clean exit nothing is left
    to do after `finish`; on an exception calls not yet begun are dropped and the rest joined. One thread submits, others work.

    Args:
        pace: how many requests run at once.
        in_flight_bytes_max: what all of them may hold, waiting ones included; one heavier call or piece runs alone.
        on_wait: called every few seconds while a caller waits here.
    """

    def __init__(
        self, pace: Pace, *, in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX, on_wait: Callable[[], None] | None = None
    ) -> None:
        self._pace = pace
        self._bytes_max = in_flight_bytes_max
        self._on_wait = on_wait
        lock = Lock()
        self._changed = Condition(lock)  # for the caller: there is room, or everything has ended
        self._ready = Condition(lock)  # for the workers: there may be a piece to draw
        self._threads: list[Thread] = []
        self._idle = 0
        self._drawing = 0
        self._jobs: list[Job[R]] = []  # all that have not ended, in the order they came
        self._bytes = 0
        self._wanted_bytes = 0  # what a waiting caller brings: pieces of large works leave room for it
        self._error: BaseException | None = None
        self._is_over = False
        self._results: list[R] = []

    def submit(self, call: Callable[[], R], weight_bytes: int = 0) -> None:
        """Run `call` in a worker thread; wait first while too many calls, or too many bytes, are in flight.

        Raises:
            BaseException: the first error of an earlier call; `call` is then not run.
        """
        self._add(Job(Call(call), held_bytes=weight_bytes))

    def feed(self, work: Work[R]) -> None:
        """Run all pieces of `work` and then its end; wait first while too much is in flight.

        Raises:
            BaseException: the first error of an earlier call; nothing of `work` is then run, and it was dropped.
        """
        try:
            self._add(Job(work, held_bytes=0))
        except BaseException:
            work.drop()
            raise

    def collect(self) -> list[R]:
        """Return the results that are ready and not yet returned, as they became ready, without waiting.

        Raises:
            BaseException: the first error of a call.
        """
        with self._changed:
            self._raise_error()
            ready, self._results = self._results, []
            return ready

    def finish(self) -> list[R]:
        """Wait for everything and return the results not yet collected; no thread is left then.

        The lane may be used again afterwards.

        Raises:
            BaseException: the first error of a call.
        """
        self._wait(lambda: not self._jobs)
        results = self.collect()
        with self._changed:
            self._is_over = True
            self._ready.notify_all()
        try:
            self._join()
        finally:
            self._is_over = False
        return results

    def close(self) -> None:
        """Drop calls not yet begun and join the rest; idempotent."""
        with self._changed:
            if self._error is None:
                self._error = CancelledError("the lane is closed")
            self._ready.notify_all()
        self._join()
        left, self._jobs = self._jobs, []
        self._results = []
        for job in left:
            job.work.drop()

    def __enter__(self) -> Lane[R]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _join(self) -> None:
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_WAIT_S)
        self._threads = []

    def _add(self, job: Job[R]) -> None:
        self._wanted_bytes = job.held_bytes
        self._wait(lambda: not self._jobs or (self._has_place() and self._bytes + job.held_bytes <= self._bytes_max))
        with self._changed:
            self._raise_error()
            self._wanted_bytes = 0
            self._bytes += job.held_bytes
            self._jobs.append(job)
            self._call_worker()

    def _has_place(self) -> bool:
        return len(self._jobs) < 2 * self._pace.limit + 2

    def _wait(self, is_ready: Callable[[], bool]) -> None:
        while True:
            with self._changed:
                self._raise_error()
                if is_ready() or self._changed.wait_for(lambda: self._error is not None or is_ready(), _WAIT_S or BEAT_S):
                    self._raise_error()
                    return
            if self._on_wait is not None:
                self._on_wait()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _call_worker(self) -> None:
        """Wake a worker, or start one more, when there is something to do; called with the lock held."""
        if self._idle:
            self._ready.notify()
        elif len(self._threads) < self._pace.limit and self._find_job() is not None:
            thread = Thread(target=self._work, name=f"vds-lane-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _find_job(self) -> Job[R] | None:
        for job in self._jobs:
            if not job.is_drawing and not job.work.is_drawn and self._fits(job.work.weight_bytes):
                return job
        return None

    def _fits(self, weight_bytes: int) -> bool:
        """Return whether a piece that holds so much may be drawn; one that holds nothing costs nothing to draw."""
        if not weight_bytes:
            return True
        if self._drawing >= DRAWS_MAX:
            return False
        return not self._bytes or self._bytes + self._wanted_bytes + weight_bytes <= self._bytes_max

    def _work(self) -> None:
        while (job := self._claim()) is not None:
            self._pace.enter()
            try:
                if self._error is None:  # it may have come while this one waited for its turn
                    self._advance(job)
            except BaseException as err:  # noqa: BLE001 - handed to the caller's thread
                with self._changed:
                    if self._error is None:
                        self._error = err
                    self._changed.notify_all()
                    self._ready.notify_all()
                return
            finally:
                self._pace.leave()

    def _claim(self) -> Job[R] | None:
        """Wait for a job with a piece to draw, and reserve the drawing; None when no more will come."""
        with self._changed:
            while self._error is None and not self._is_over:
                job = self._find_job()
                if job is not None:
                    job.is_drawing = True
                    self._bytes += job.work.weight_bytes
                    self._drawing += job.work.weight_bytes > 0
                    return job
                self._idle += 1
                self._ready.wait()
                self._idle -= 1
            return None

    def _advance(self, job: Job[R]) -> None:
        weight_bytes = job.work.weight_bytes
        piece = job.work.draw()
        with self._changed:
            job.is_drawing = False
            job.running += 1
            self._drawing -= weight_bytes > 0
            self._call_worker()
        piece()
        with self._changed:
            job.running -= 1
            self._bytes -= weight_bytes
            if job.running or job.is_drawing or not job.work.is_drawn or self._error is not None:
                self._call_worker()  # bytes came free: a heavier piece may fit now, or what the caller brings
                self._changed.notify()
                return
            job.is_drawing = True  # nobody else ends it
        result = job.work.finish()
        with self._changed:
            self._bytes -= job.held_bytes
            self._jobs.remove(job)
            self._results.append(result)
            self._changed.notify_all()


def start_call(call: Callable[[], R], name: str, *, is_daemon: bool = False) -> Future[R]:
    """Make a call in a thread that outlives this one, for `vds.background` alone; no process waits for one that is a daemon."""
    future: Future[R] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as err:  # noqa: BLE001  # for whoever asks for the result
            future.set_exception(err)

    Thread(target=work, name=name, daemon=is_daemon).start()
    return future
