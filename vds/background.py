"""What goes on behind a caller who does something else, for longer than one call: a heartbeat, the steps of a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from vds.pipeline import start_call

R = TypeVar("R")


class Beat:
    """Makes a call every few seconds, from a thread of its own, for as long as it is open.

    An error of the call ends the beat, and is raised by who closes it. The thread is no reason for a process to go on.
    """

    def __init__(self, call: Callable[[], None], every_s: float) -> None:
        self._call = call
        self._every_s = every_s
        self._over = threading.Event()
        self._work_done = start_call(self._work, "vds-beat", is_daemon=True)

    def close(self) -> None:
        """Make no more calls; one that is under way is waited for."""
        self._over.set()
        self._work_done.result()

    def _work(self) -> None:
        while not self._over.wait(self._every_s):
            self._call()


class Background(Generic[R]):
    """One call in a thread of its own. A process that comes to its end waits for it, with all threads still able to work."""

    def __init__(self, call: Callable[[], R], name: str, on_exit: Callable[[], None] | None = None) -> None:
        """Begin the call.

        Args:
            call: what to call.
            name: of the thread.
            on_exit: called when the process comes to its end before the call does, which is then waited for.
        """
        self.on_exit = on_exit
        self._done = start_call(call, name)
        _wait_at_exit(self)
        self._done.add_done_callback(lambda done: _open.discard(self))

    def is_over(self) -> bool:
        """Return whether the call has ended."""
        return self._done.done()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the call, and return whether it has come."""
        # Not by joining the thread: a join that Ctrl-C interrupts can take it for ended (Python 3.11).
        with suppress(TimeoutError):
            self._done.exception(timeout_s)
        return self.is_over()

    def result(self) -> R:
        """Wait, and return what the call returned.

        Raises:
            BaseException: what the call raised.
        """
        return self._done.result()


_open: set[Background[Any]] = set()
_is_registered = False


def _wait_at_exit(background: Background[Any]) -> None:
    """Have the interpreter wait for a call before it shuts down the pools of others, which the call may need."""
    global _is_registered
    _open.add(background)
    if not _is_registered:
        # Without a public name; what it registers last is called first, and concurrent.futures has registered already.
        register = getattr(threading, "_register_atexit", None)
        if register is not None:
            with suppress(RuntimeError):  # it is shutting down: a thread that is started now is joined all the same
                register(_wait_for_all)
        _is_registered = True


def _wait_for_all() -> None:
    left = list(_open)
    for background in left:
        if background.on_exit is not None:
            background.on_exit()
    for background in left:
        background.wait()
