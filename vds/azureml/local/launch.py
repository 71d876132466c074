"""Start a step's script so that it does not outlive who started it: `python -I -S launch.py PARENT COMMAND…`.

Run as a file by an interpreter without site packages, so it imports nothing of vds. On Linux the kernel kills the script when the
thread that started it is gone (prctl(2), PR_SET_PDEATHSIG, which survives execve); elsewhere nothing does.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Become the command."""
    parent, command = int(argv[0]), argv[1:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it went between the start and the call
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  # no shell is meant


if __name__ == "__main__":
    main(sys.argv[1:])
