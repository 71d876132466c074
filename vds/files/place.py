"""Put files into a directory of the user's.

Guarantees:
- nothing outside the directory is touched: no symlink below the root is followed, at any level;
- each file appears whole or not at all, its bytes on the disk before its name (a crash leaves at most a file in `.vds/partial`);
- a directory is never replaced by a file, nor a file or symlink by a directory;
- the process's umask holds: nothing becomes readable to more people than the user's own files are.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import NoReturn

from vds.errors import ConflictError, InvalidInputError, NoSpaceError
from vds.files.folders import Folder, Folders
from vds.files.read import hash_descriptor
from vds.files.scan import OWN_DIRECTORY
from vds.files.workdir import WorkDirectory, remove_empty
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.path import entry_path, find_unholdable, is_under

Buffer = bytes | bytearray | memoryview

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True, slots=True)
class FileState:
    """What stands at a path; `mode` is None where the system keeps none.

    Only `is_file` means something when it is not a regular file.
    """

    is_file: bool
    size_bytes: int
    modified_ns: int
    mode: int | None


class Target:
    """A directory that files are placed into; it is made when the first one is. Thread-safe; close it, or use it as a context."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._folders = Folders(os.fspath(root))
        self._work: WorkDirectory | None = None
        self._lock = threading.Lock()
        self._numbers = count()

    @property
    def root(self) -> str:
        """The directory's absolute path."""
        return self._folders.root

    def open(self) -> None:
        """Make the directory and check that it can be written; done by the first `place` otherwise.

        Raises:
            ConflictError: something that is not a directory stands there.
            InvalidInputError: it cannot be written.
        """
        self._open_work()

    def place(self, path: str, chunks: Iterable[Buffer], *, mode: int, modified_ns: int) -> int:
        """Write a file and put it at `path`, in place of the regular file that may stand there.

        Returns:
            The mtime as the file system keeps it, which may be coarser than `modified_ns`.

        Raises:
            ConflictError: something that is not a regular file stands there, or on the way.
            NoSpaceError: the disk is full.
            OSError: the system refused; as with all errors, what stood at `path` is still there.
        """
        directory, name = _split(path)
        source = self._open_work().folder
        temporary = f"{next(self._numbers):x}"
        with self._folders.open(directory, create=True) as folder:
            _refuse_other_kinds(folder, name, path)
            try:
                stored_ns = _write(source, temporary, chunks, mode, modified_ns)
                # A crash before this line leaves the old file, one after it the new one.
                os.replace(source.at(temporary), folder.at(name), src_dir_fd=source.descriptor, dst_dir_fd=folder.descriptor)
            except BaseException as err:
                with suppress(OSError):
                    os.unlink(source.at(temporary), dir_fd=source.descriptor)
                if isinstance(err, OSError):
                    _raise_explained(err, path)
                raise
        return stored_ns

    def remove(self, path: str) -> bool:
        """Remove a regular file and the directories that are empty then; False when it was not there.

        Raises:
            ConflictError: what stands there is not a regular file.
        """
        directory, name = _split(path)
        try:
            with self._folders.open(directory) as folder:
                _refuse_other_kinds(folder, name, path)
                os.unlink(folder.at(name), dir_fd=folder.descriptor)
        except FileNotFoundError:
            return False
        remove_empty(self._folders, directory)
        return True

    def find_state(self, path: str) -> FileState | None:
        """Return what stands at `path`, or None when nothing does (or something else stands on the way)."""
        directory, name = _split(path)
        try:
            with self._folders.open(directory) as folder:
                found = os.stat(folder.at(name), dir_fd=folder.descriptor, follow_symlinks=False)
        except (FileNotFoundError, PermissionError, ConflictError):
            return None
        mode = None if os.name == "nt" else MODE_EXECUTABLE if found.st_mode & 0o111 else MODE_FILE
        return FileState(stat.S_ISREG(found.st_mode), found.st_size, found.st_mtime_ns, mode)

    def find_digest(self, path: str) -> bytes | None:
        """Return the raw digest of the regular file at `path`, or None when there is none or it cannot be read."""
        try:
            descriptor = self.find_file(path)
        except OSError:
            return None
        if descriptor is None:
            return None
        try:
            return hash_descriptor(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def find_file(self, path: str) -> int | None:
        """Open the regular file at `path` for reading and return its descriptor, or None when there is none."""
        directory, name = _split(path)
        try:
            with self._folders.open(directory) as folder:
                if not stat.S_ISREG(os.stat(folder.at(name), dir_fd=folder.descriptor, follow_symlinks=False).st_mode):
                    return None
                descriptor = os.open(folder.at(name), _READ, dir_fd=folder.descriptor)
        except (FileNotFoundError, ConflictError):
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    def check_space(self, needed_bytes: int) -> None:
        """Check that the disk has room.

        Raises:
            NoSpaceError: it has not.
        """
        existing = self.root
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        free_bytes = shutil.disk_usage(existing).free
        if needed_bytes > free_bytes:
            raise NoSpaceError(
                f"{self.root!r} needs {needed_bytes} bytes and has {free_bytes} free",
                needed_bytes=needed_bytes,
                free_bytes=free_bytes,
                hint="free some space, or choose another disk",
            )

    def find_unholdable(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the paths that cannot be placed here, each with the reason; `paths` come sorted.

        Whether the disk is blind to case is found out by making a file, but only in a directory that is there.
        """
        case_blind = os.path.isdir(self.root) and self._is_case_blind()
        kept = list(paths)
        faults = find_unholdable(kept, windows=os.name == "nt", case_blind=case_blind)
        for path in kept:
            if is_under(path.casefold() if case_blind else path, OWN_DIRECTORY):
                faults[path] = f"{OWN_DIRECTORY!r} is where vds keeps its own records in a directory"
        return faults

    def close(self) -> None:
        """Remove what was temporary; idempotent."""
        if self._work is not None:
            self._work.close()
            self._work = None
        self._folders.close()

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open_work(self) -> WorkDirectory:
        if self._work is not None:
            return self._work
        with self._lock:
            if self._work is None:
                try:
                    self._work = WorkDirectory(self._folders)
                except OSError as err:
                    raise InvalidInputError(
                        f"{self.root!r} cannot be written: {err.strerror or err}", hint="choose a directory that you may write"
                    ) from err
            return self._work

    def _is_case_blind(self) -> bool:
        folder = self._open_work().folder
        os.close(os.open(folder.at("case-probe"), _CREATE, 0o600, dir_fd=folder.descriptor))
        try:
            os.stat(folder.at("CASE-PROBE"), dir_fd=folder.descriptor)
        except FileNotFoundError:
            return False
        finally:
            os.unlink(folder.at("case-probe"), dir_fd=folder.descriptor)
        return True


def _split(path: str) -> tuple[str, str]:
    # Parsed again although every caller has parsed it: a path from a damaged or hostile store must not climb out of the root.
    directory, _, name = entry_path(path).rpartition("/")
    return directory, name


def _refuse_other_kinds(folder: Folder, name: str, path: str) -> None:
    try:
        found = os.stat(folder.at(name), dir_fd=folder.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a symlink" if stat.S_ISLNK(found.st_mode) else "not a file"
        raise ConflictError(f"{path!r} is {kind} there", paths=(path,), hint="move it away, or choose another directory")


def _write(folder: Folder, name: str, chunks: Iterable[Buffer], mode: int, modified_ns: int) -> int:
    descriptor = os.open(folder.at(name), _CREATE, mode, dir_fd=folder.descriptor)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
        # A file system may not hold such a time (before 1970, say); the file matters more than its date.
        with suppress(OSError, OverflowError):
            os.utime(descriptor if os.utime in os.supports_fd else folder.at(name), ns=(modified_ns, modified_ns))
        os.fsync(descriptor)
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _raise_explained(err: OSError, path: str) -> NoReturn:
    if err.errno in _FULL:
        raise NoSpaceError(f"the disk is full: {path!r} could not be written", hint="free some space, then run it again") from err
    if err.errno == errno.EXDEV:
        raise ConflictError(
            f"{path!r} is on another disk than the directory it is placed in", paths=(path,), hint="use that disk's directory"
        ) from err
    raise err
