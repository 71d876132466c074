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
from threading import Condition, Event
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

TRANSFER_WORKERS = 8
HASH_WORKERS = min(4, os.cpu_count() or 1)
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
    """
    limit = max(workers, in_flight_max if in_flight_max is not None else workers * 4)
    flight: _Flight[T, R] = _Flight(function, workers, limit, in_flight_bytes_max if weigh else None, ordered)
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


def grouped(items: Iterable[T], weigh: Callable[[T], int], *, count_max: int, bytes_max: int) -> Iterator[list[T]]:
    """Cut items into lists for `parallel_map`: handing over a list costs as much as handing over one small item.

    A list ends when it has `count_max` items or reaches `bytes_max`, so that heavy items are spread over the workers.
    """
    group: list[T] = []
    group_bytes = 0
    for item in items:
        group.append(item)
        group_bytes += weigh(item)
        if len(group) == count_max or group_bytes >= bytes_max:
            yield group
            group, group_bytes = [], 0
    if group:
        yield group


class _Flight(Generic[T, R]):
    """The items between being pulled and their results being yielded; used by one thread."""

    def __init__(self, function: Callable[[T], R], workers: int, count_max: int, bytes_max: int | None, ordered: bool) -> None:
        self._function = function
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
        future = _take(self._done)
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
            error = _take(self._done).exception() or error
        raise error

    def land(self) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._weights.clear()
        self._order.clear()


def _take(queue: SimpleQueue[Future[R]]) -> Future[R]:
    while True:
        try:
            return queue.get(timeout=_WAIT_S)
        except Empty:
            continue


class Lane(Generic[R]):
    """Calls that run behind a caller who goes on with something else, such as filling the next pack.

    `submit` blocks while the lane is full and raises the first error as soon as there is one. Use it as a context manager: on a
    clean exit nothing is left to do after `finish`; on an exception calls not yet begun are dropped and the rest joined.
    One thread submits; the calls run in others.
    """

    def __init__(
        self, *, workers: int = TRANSFER_WORKERS, in_flight_max: int | None = None, in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX
    ) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="vds-lane")
        self._count_max = in_flight_max if in_flight_max is not None else workers * 4
        self._bytes_max = in_flight_bytes_max
        self._changed = Condition()
        self._count = 0
        self._bytes = 0
        self._error: BaseException | None = None
        self._results: deque[Future[R]] = deque()

    def submit(self, call: Callable[[], R], weight_bytes: int = 0) -> None:
        """Run `call` in a worker thread; wait first while too many calls, or too many bytes, are in flight.

        A call heavier than the limit waits until it is alone.

        Raises:
            BaseException: the first error of an earlier call; `call` is then not run.
        """
        with self._changed:
            while self._error is None and not self._has_room(weight_bytes):
                self._changed.wait(_WAIT_S)
            self._raise_error()
            self._count += 1
            self._bytes += weight_bytes
        self._results.append(self._pool.submit(self._run, call, weight_bytes))

    def collect(self) -> list[R]:
        """Return the results that are ready and not yet returned, in order of submission, without waiting.

        Raises:
            BaseException: the first error of a call.
        """
        with self._changed:
            self._raise_error()
        ready = []
        while self._results and self._results[0].done():
            ready.append(self._results.popleft().result())
        return ready

    def finish(self) -> list[R]:
        """Wait for all calls and return the results not yet collected, in order of submission.

        The lane may be used again afterwards.

        Raises:
            BaseException: the first error of a call; everything has ended by then.
        """
        with self._changed:
            while self._count:
                self._changed.wait(_WAIT_S)
            self._raise_error()
        ready = [future.result() for future in self._results]
        self._results.clear()
        return ready

    def close(self) -> None:
        """Drop calls not yet begun and join the rest; idempotent."""
        with self._changed:
            if self._error is None:
                self._error = CancelledError("the lane is closed")
            self._changed.notify_all()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._results.clear()

    def __enter__(self) -> Lane[R]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _has_room(self, weight_bytes: int) -> bool:
        return not self._count or (self._count < self._count_max and self._bytes + weight_bytes <= self._bytes_max)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, call: Callable[[], R], weight_bytes: int) -> R:
        try:
            with self._changed:
                if self._error is not None:
                    raise _DroppedError
            return call()
        except BaseException as err:
            with self._changed:
                if self._error is None:
                    self._error = err
            raise
        finally:
            with self._changed:
                self._count -= 1
                self._bytes -= weight_bytes
                self._changed.notify_all()
