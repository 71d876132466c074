"""A process of our own, for what threads cannot do side by side: thousands of short system calls, each of which waits for its
turn with the interpreter.

It is this Python started anew, not a fork: nothing that threads, locks and connections of the caller hold is in it. It takes one
request at a time from a pipe and ends when the pipe does, however its parent ended. Ctrl-C does not reach it: the parent decides.
It is a means, never a need: where it cannot be had, or is lost, the caller does the work itself.
"""

from __future__ import annotations

import marshal
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any


class HelperLostError(Exception):
    """The helper ended or could not be started; nothing is known of the request."""


class Helper:
    """One helper, used by one thread at a time.

    Args:
        module: where the function is that answers.
        function: called in the helper with each request; requests and answers are what `marshal` takes.
        descriptor: an open file that the helper shares, under the same number.

    Raises:
        HelperLostError: it cannot be started.
    """

    def __init__(self, module: str, function: str, descriptor: int) -> None:
        if not _is_python(sys.executable):
            raise HelperLostError("embedded in a program that is not Python")
        # Isolated: neither the environment nor the current directory can slip a module in. What the parent finds, it finds.
        found_in = [str(Path(__file__).parents[1]), *filter(os.path.isabs, sys.path)]
        program = f"import sys; sys.path[:] = {found_in!r}; from vds.helper import serve; serve({module!r}, {function!r})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                process_group=0,
            )
        except (OSError, ValueError) as err:
            raise HelperLostError(str(err)) from err
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        self._has_begun = self._is_greeted = False

    def is_ready(self) -> bool:
        """Return whether it has started, or ended: whether `call` would be answered at once. Linux only."""
        if not self._has_begun:
            poll = select.poll()
            poll.register(self._answers, select.POLLIN)
            self._has_begun = bool(poll.poll(0))
        return self._has_begun

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def call(self, request: Any) -> Any:
        """Return the function's answer.

        Raises:
            HelperLostError: there will be none.
        """
        try:
            _send(self._requests, request)
            if not self._is_greeted:
                _receive(self._answers)
                self._is_greeted = True
            return _receive(self._answers)
        except (OSError, EOFError) as err:
            raise HelperLostError(str(err)) from err

    def close(self) -> None:
        """End it at once, whatever it is doing; idempotent."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):  # a request that was not sent whole
                pipe.close()


def serve(module: str, function: str) -> None:
    """Answer requests from standard input until it ends: what the helper runs."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nobody else writes between the answers
    answer: Callable[[Any], Any] = getattr(import_module(module), function)
    with suppress(EOFError, BrokenPipeError):
        _send(answers, "ready")
        while True:
            _send(answers, answer(_receive(requests)))


def _is_python(executable: str | None) -> bool:
    """Return whether this runs scripts: where Python is embedded, it may be any program."""
    name = os.path.basename(executable or "")
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


def _send(pipe: IO[bytes], message: Any) -> None:
    data = marshal.dumps(message)
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    size_bytes = int.from_bytes(_read(pipe, 8), "little")
    return marshal.loads(_read(pipe, size_bytes))  # noqa: S302 - from the process that we started, or that started us


def _read(pipe: IO[bytes], size_bytes: int) -> bytes:
    data = pipe.read(size_bytes)
    if len(data) != size_bytes:
        raise EOFError("the other process is gone")
    return data
