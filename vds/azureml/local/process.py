"""The process of one step: started with its output in a file, watched, stopped with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import vds
from vds.azureml.local import launch

POLL_S = 0.05
STOP_S = 10.0
"""How long a script that is told to stop has before it is killed."""

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)

How = Literal["ended", "canceled", "timed out"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended."""

    how: How
    code: int

    @property
    def why(self) -> str:
        """Say how it failed; empty when it did not."""
        if self.how != "ended":
            return self.how
        if self.code < 0:
            return f"killed by signal {-self.code} ({_signal_name(-self.code)})"
        return f"exit code {self.code}" if self.code else ""


def run_process(
    command: Sequence[str],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    output: Path,
    timeout_s: float | None,
    is_canceled: Callable[[], bool],
    on_poll: Callable[[], None],
) -> Ended:
    """Run a command to its end, its output appended to a file; called in a thread that lives at least as long.

    Raises:
        OSError: it cannot be started.
    """
    starter = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())] if os.name == "posix" else []
    begun_s = time.monotonic()
    with output.open("ab") as out:
        process = subprocess.Popen(
            [*starter, *command],
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it is stopped with all that it started; Ctrl-C reaches it through who waits
        )
    how: How = "ended"
    try:
        while process.poll() is None:
            time.sleep(POLL_S)
            on_poll()
            if is_canceled():
                how = "canceled"
            elif timeout_s is not None and time.monotonic() - begun_s > timeout_s:
                how = "timed out"
            if how != "ended":
                _stop(process)
                break
    except BaseException:
        _stop(process)
        raise
    code = process.wait()
    _signal(process, _KILL)  # what it has left running would go on writing
    return Ended(how, code)


def python_path(environ: Mapping[str, str], code: Path) -> str:
    """Return a PYTHONPATH by which a script finds its own modules first, and this package last."""
    own = str(Path(vds.__file__).parent.parent)
    is_installed = own in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return os.pathsep.join(filter(None, [environ.get("PYTHONPATH", ""), str(code), "" if is_installed else own]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        _signal(process, _KILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        if os.name == "posix":
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except (ProcessLookupError, PermissionError):
        return  # it has ended by itself, and so has all that it started


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
