"""Locks that end with their process: whether the one that made a file still lives, and whose turn it is.

Where files cannot be locked (Windows, some file systems), age decides the first, and nobody waits for the second.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress

if sys.platform != "win32":
    import fcntl

_ABANDONED_S = 24 * 3600
_PAUSE_S = 0.0005


def try_lock(descriptor: int) -> bool:
    """Lock a file for this process, until it is closed; False when a living process may have it.

    On Windows, and on file systems without locks, nothing is locked, and a file counts as left behind after a day.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no locks on this file system
        else:
            return True
    return is_abandoned(os.fstat(descriptor).st_mtime)


def wait_for_lock(descriptor: int, *, shared: bool, wait_s: float) -> None:
    """Lock a file until `unlock`, and share the lock with others who share it; where there are no locks, do nothing.

    Raises:
        TimeoutError: others have kept it for `wait_s` seconds.
    """
    if sys.platform == "win32":
        return
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    waited_s = 0.0
    while True:
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            if waited_s >= wait_s:
                raise TimeoutError(errno.ETIMEDOUT, f"another process has kept it locked for {wait_s:g} s") from None
            time.sleep(_PAUSE_S)
            waited_s += _PAUSE_S
        except OSError:
            return  # no locks on this file system
        else:
            return


def unlock(descriptor: int) -> None:
    """End what `wait_for_lock` began. Closing is not enough: the child of a fork meanwhile has the file open too."""
    if sys.platform != "win32":
        with suppress(OSError):  # no locks on this file system
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_abandoned(modified_s: float) -> bool:
    """Return whether a file of this mtime is old enough to have been left behind."""
    return modified_s < time.time() - _ABANDONED_S
