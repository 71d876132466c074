"""Start a step's script so that it does not outlive who started it: `python -I -S launch.py PARENT COMMAND…`.

Run as a file by an interpreter without site packages, so it imports nothing of vds. It stays beside the script, and ends as that
does. On Linux the kernel tells it when the thread that started it is gone (prctl(2), PR_SET_PDEATHSIG), and it kills the script
with all that this has started; elsewhere nothing does.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Run the command, and end as it does."""
    parent, command = int(argv[0]), argv[1:]
    # Before there is a script: the signal that stops it is sent to the group, which this belongs to.
    signal.signal(signal.SIGHUP, lambda *_: os.killpg(0, signal.SIGKILL))
    _die_with_parent(signal.SIGHUP, parent)
    own = os.getpid()
    script = os.fork()
    if script == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        _die_with_parent(signal.SIGKILL, own)
        try:
            os.execvp(command[0], command)  # noqa: S606  # no shell is meant
        except OSError as err:
            os.write(2, f"cannot run {command[0]!r}: {err.strerror}\n".encode())
            os._exit(127)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _, status = os.waitpid(script, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(own, -code)
    os._exit(code if code >= 0 else 128 - code)


def _die_with_parent(number: int, parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it went between the start and the call
            os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
