"""Where files are written before they take their place: one directory for each run, `ROOT/.vds/partial/<random>`.

It lies below the root so that a rename moves a file from it into place, and apart from the user's own directories so that nobody
who lists those ever meets a half-written file. A run holds a lock while it lives; the next one removes what a dead one left.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress

from vds.errors import ConflictError
from vds.files.folders import Folder, Folders
from vds.files.lock import try_lock
from vds.files.scan import OWN_DIRECTORY

if sys.platform != "win32":
    import fcntl

RUNS_DIRECTORY = f"{OWN_DIRECTORY}/partial"
_LOCK = "lock"
_ATTEMPTS_MAX = 100
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


class WorkDirectory:
    """The directory of this run; made when it is opened, removed when it is closed."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self.path = f"{RUNS_DIRECTORY}/{secrets.token_hex(10)}"
        """Relative to the root."""
        self._lock_descriptor = -1
        for attempt in range(_ATTEMPTS_MAX):
            try:
                self._remove_dead()
                if self._is_locked():
                    break
            except FileNotFoundError:
                # A run that ended just now took the empty directories above along.
                if attempt == _ATTEMPTS_MAX - 1:
                    raise
            folders.forget(OWN_DIRECTORY)
        self.folder = folders.borrow(self.path)
        """The open directory; valid until `close`."""

    def close(self) -> None:
        """Remove the directory, and those above it that are empty now; idempotent."""
        if self._lock_descriptor < 0:
            return
        os.close(self._lock_descriptor)
        self._lock_descriptor = -1
        self._folders.give_back(self.folder)
        with suppress(FileNotFoundError):
            with self._folders.open(self.path) as own:
                for name in _names(own):
                    os.unlink(own.at(name), dir_fd=own.descriptor)
            remove_empty(self._folders, self.path)

    def _is_locked(self) -> bool:
        with self._folders.open(self.path, create=True) as own:
            self._lock_descriptor = os.open(own.at(_LOCK), _FLAGS, 0o600, dir_fd=own.descriptor)
            if sys.platform != "win32":
                with suppress(OSError):  # no locks on this file system: then age decides
                    fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX)
            if _is_current(own, self._lock_descriptor):
                return True
        # Another run took it for a dead one's in the moment between its making and its locking.
        os.close(self._lock_descriptor)
        self._lock_descriptor = -1
        return False

    def _remove_dead(self) -> None:
        with self._folders.open(RUNS_DIRECTORY, create=True) as runs:
            names = _names(runs)
        for name in names:
            path = f"{RUNS_DIRECTORY}/{name}"
            # Whatever cannot be looked at or removed (another user's, a stray file) is left: it only takes space.
            with suppress(OSError, ConflictError), self._folders.open(path) as run:
                _remove_if_dead(self._folders, path, run)
            self._folders.forget(path)


def _remove_if_dead(folders: Folders, path: str, run: Folder) -> None:
    if sys.platform == "win32":
        with suppress(FileNotFoundError):
            os.unlink(run.at(_LOCK))  # fails while its owner holds it open
        _remove(folders, path, run)
        return
    descriptor = os.open(run.at(_LOCK), _FLAGS, 0o600, dir_fd=run.descriptor)
    try:
        # Held until all is removed: whoever waits for it then finds that its file is gone, and begins anew.
        if try_lock(descriptor) and _is_current(run, descriptor):
            _remove(folders, path, run)
    finally:
        os.close(descriptor)


def _is_current(folder: Folder, lock_descriptor: int) -> bool:
    """Return whether the lock that was got is still the one that others see: it may have been removed while it was waited for."""
    try:
        return os.path.samestat(os.stat(folder.at(_LOCK), dir_fd=folder.descriptor), os.fstat(lock_descriptor))
    except FileNotFoundError:
        return False


def _remove(folders: Folders, path: str, run: Folder) -> None:
    for name in _names(run):
        os.unlink(run.at(name), dir_fd=run.descriptor)
    with folders.open(RUNS_DIRECTORY) as runs:
        os.rmdir(runs.at(path.rpartition("/")[2]), dir_fd=runs.descriptor)


def _names(folder: Folder) -> list[str]:
    return os.listdir(folder.path if folder.descriptor is None else folder.descriptor)


def remove_empty(folders: Folders, directory: str) -> None:
    """Remove `directory` and then those above it, up to the root, as long as they are empty."""
    while directory:
        parent, _, name = directory.rpartition("/")
        try:
            with folders.open(parent) as above:
                os.rmdir(above.at(name), dir_fd=above.descriptor)
        except OSError:
            return  # not empty, or gone already
        folders.forget(directory)
        directory = parent
