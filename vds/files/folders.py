"""Directories below a root, opened so that no symlink below it is ever followed.

Where the system has it (POSIX), a directory is opened step by step relative to its parent's descriptor with O_NOFOLLOW, so
nothing that others plant or swap meanwhile can lead outside. Elsewhere (Windows) each step is checked with lstat, which a
determined racer could outrun; making symlinks there needs a privilege.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from vds.errors import ConflictError
from vds.model.path import ancestors

OPEN_FOLDERS_MAX = 64

HAS_DIR_FD = {os.open, os.stat, os.mkdir, os.rename, os.unlink, os.rmdir} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_BLOCKED = {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}  # what systems say of a symlink or file where O_NOFOLLOW met one


@dataclass(eq=False)
class Folder:
    """One open directory.

    Attributes:
        descriptor: None where directories cannot be opened.
        is_new: whether this process made it, since when it has been open.
    """

    path: str
    descriptor: int | None
    users: int = 0
    is_new: bool = False
    is_forgotten: bool = False

    def at(self, name: str) -> str:
        """Return what to pass as the path, along with `dir_fd=folder.descriptor`, to reach `name` in it."""
        return name if self.descriptor is not None else os.path.join(self.path, name)


class Folders:
    """The directories below `root`, by relative path; at most 64 unused ones are kept open. Thread-safe."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Folder] = OrderedDict()

    @contextmanager
    def open(self, directory: str, *, create: bool = False) -> Iterator[Folder]:
        """Lend a directory; "" is the root, which alone may be a symlink.

        Raises:
            FileNotFoundError: it is not there, and `create` is false.
            ConflictError: something on the way is a file or a symlink.
        """
        folder = self.borrow(directory, create=create)
        try:
            yield folder
        finally:
            self.give_back(folder)

    def borrow(self, directory: str, *, create: bool = False) -> Folder:
        """As `open`, to be given back."""
        with self._lock:
            folder = self._reach(directory, create)
            folder.users += 1
            self._trim()
            return folder

    def give_back(self, folder: Folder) -> None:
        """End a loan."""
        with self._lock:
            folder.users -= 1
            if folder.is_forgotten:
                _close(folder)

    def forget(self, directory: str) -> None:
        """Close a directory that was removed, so that a new one of its name is seen."""
        with self._lock:
            for path in [path for path in self._open if path == directory or path.startswith(f"{directory}/")]:
                _close(self._open.pop(path))

    def close(self) -> None:
        """Close all; those on loan close when they come back."""
        with self._lock:
            for folder in self._open.values():
                _close(folder)
            self._open.clear()

    def _reach(self, directory: str, create: bool) -> Folder:
        if directory in self._open:
            self._open.move_to_end(directory)
            return self._open[directory]
        folder = self._open.get("") or self._keep("", _open_root(self.root, create))
        for path in (*ancestors(directory), directory) if directory else ():
            folder = self._open.get(path) or self._keep(path, _enter(folder, path, create))
        return folder

    def _keep(self, path: str, folder: Folder) -> Folder:
        self._open[path] = folder
        return folder

    def _trim(self) -> None:
        excess = len(self._open) - OPEN_FOLDERS_MAX
        if excess > 0:
            for path in [path for path, folder in self._open.items() if not folder.users][:excess]:
                _close(self._open.pop(path))


def _close(folder: Folder) -> None:
    folder.is_forgotten = True
    if folder.descriptor is not None and not folder.users:
        os.close(folder.descriptor)
        folder.descriptor = -1  # a use after this must fail, not reach whatever gets the same number


def _open_root(root: str, create: bool) -> Folder:
    is_new = create and not os.path.lexists(root)
    if create:
        try:
            os.makedirs(root, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as err:
            raise ConflictError(f"{root!r} cannot be made: a file stands in its way", hint="choose another directory") from err
    found = os.stat(root)
    if not stat.S_ISDIR(found.st_mode):
        raise ConflictError(f"{root!r} is not a directory", hint="choose another directory")
    return Folder(root, os.open(root, os.O_RDONLY | os.O_DIRECTORY) if HAS_DIR_FD else None, is_new=is_new)


def _enter(parent: Folder, path: str, create: bool) -> Folder:
    name = path.rpartition("/")[2]
    try:
        return _step(parent, name, path)
    except FileNotFoundError:
        if not create:
            raise
    # Another thread or process may be faster: whatever it made is checked like any other.
    is_new = False
    with suppress(FileExistsError):
        os.mkdir(parent.at(name), dir_fd=parent.descriptor)
        is_new = True
    folder = _step(parent, name, path)
    folder.is_new = is_new
    return folder


def _step(parent: Folder, name: str, path: str) -> Folder:
    full = os.path.join(parent.path, name)
    try:
        if HAS_DIR_FD:
            return Folder(full, os.open(name, _FLAGS, dir_fd=parent.descriptor))
        found = os.lstat(full)
        if not stat.S_ISDIR(found.st_mode) or is_junction(found):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), full)
    except OSError as err:
        if err.errno not in _BLOCKED:
            raise
        raise ConflictError(
            f"a directory {path!r} is needed, but a file or symlink of that name is in the way",
            paths=(path,),
            hint="move it away, or choose another directory",
        ) from err
    return Folder(full, None)


def is_junction(found: os.stat_result) -> bool:
    """Return whether an lstat result is that of a Windows junction, which leads elsewhere although it is no symlink."""
    if sys.platform == "win32":
        return found.st_reparse_tag == stat.IO_REPARSE_TAG_MOUNT_POINT
    return False
