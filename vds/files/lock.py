"""Whether the process that made a file still lives: it holds a lock on it; where files cannot be locked, age decides."""

from __future__ import annotations

import os
import sys
import time

if sys.platform != "win32":
    import fcntl

_ABANDONED_S = 24 * 3600


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


def is_abandoned(modified_s: float) -> bool:
    """Return whether a file of this mtime is old enough to have been left behind."""
    return modified_s < time.time() - _ABANDONED_S
