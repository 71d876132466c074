"""Write files beside their places and move them there: what a target does by itself, and has processes do for many small files.

See `vds.files.place` for what is guaranteed. This module is all that such a process loads.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from typing import Any, NamedTuple

from blake3 import blake3

from vds.buffers import map_buffer
from vds.errors import ConflictError, NoSpaceError, VdsError
from vds.files.folders import Folder, Folders
from vds.model.path import entry_path

Buffer = bytes | bytearray | memoryview

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
SLOW_SYNC_S = 50e-6
"""A file system whose quickest fsync takes longer has a disk below it: who waits for one lets others go on meanwhile."""

_HAS_UTIME_FD = os.utime in os.supports_fd


class Stamp(NamedTuple):
    """By what a file is known again, as the file system keeps it right after the file was placed.

    Attributes:
        modified_ns: its mtime, which may be coarser than the one asked for.
        changed_ns: its ctime (on Windows the time of its creation).
        inode: 0 where the file system has none.
    """

    modified_ns: int
    changed_ns: int
    inode: int


Row = tuple[str, int, int, bytes, int, int]
"""One file to be placed out of a buffer: path, offset and length there, digest, mode, mtime. Not named: a million are made."""

Result = tuple[int, int, int] | bytes | str
"""Of one file: its stamp; the digest that its bytes have instead of the right one; or why it could not be placed."""


class Placer:
    """Places files below a root, each through a temporary file in the directory `work`; thread-safe.

    Args:
        folders: of the root.
        work: where temporary files are; on the same file system.
        prefix: begins the names of temporary files: each process has its own.
    """

    def __init__(self, folders: Folders, work: Folder, prefix: str = "") -> None:
        self._folders = folders
        self._work = work
        self._prefix = prefix
        self._numbers = count()

    def place(self, path: str, chunks: Iterable[Buffer], *, mode: int, modified_ns: int) -> Stamp:
        """Write a file and put it at `path`; see `Target.place`."""
        directory, _, name = entry_path(path).rpartition("/")
        with self._folders.open(directory, create=True) as folder:
            refuse_other_kinds(folder, name, path)
            with explained(path), self.begin(mode) as temporary:
                for chunk in chunks:
                    write_all(temporary.descriptor, chunk)
                return self._finish(temporary, folder, name, path, modified_ns)[0]

    def place_rows(self, rows: Iterable[Row], view: memoryview, owner_pid: int = 0) -> tuple[list[Result], bool]:
        """Place many files whose bytes are in `view`, each checked against its digest; those of one directory stand together.

        Args:
            rows: the files.
            view: where their bytes are.
            owner_pid: whose child this process must still be: a later run must not meet files of one whose owner was killed.

        Returns:
            What came of each, and whether a disk is waited for.

        Raises:
            NoSpaceError: the disk is full; what was placed stays.
        """
        results: list[Result] = []
        folder: Folder | None = None
        directory = ""
        quickest_s = float("inf")
        try:
            for path, offset, length, digest, mode, modified_ns in rows:
                body = view[offset : offset + length]
                found = blake3(body).digest()
                if found != digest:
                    results.append(found)
                    continue
                if owner_pid and os.getppid() != owner_pid:
                    raise VdsError("the process that asked for it is gone")
                try:
                    above, _, name = entry_path(path).rpartition("/")
                    if folder is None or above != directory:
                        folder = self._enter(folder, above)
                        directory = above
                    stamp, sync_s = self._place_row(folder, name, body, path, mode, modified_ns)
                except NoSpaceError:
                    raise
                except VdsError as err:
                    results.append(err.message)
                except OSError as err:
                    results.append(f"cannot be written: {err.strerror or err}")
                else:
                    results.append(stamp)
                    quickest_s = min(quickest_s, sync_s)
        finally:
            if folder is not None:
                self._folders.give_back(folder)
        return results, SLOW_SYNC_S < quickest_s < float("inf")

    def begin(self, mode: int) -> Temporary:
        """Make a temporary file; use it as a context: what was not placed is removed."""
        name = f"{self._prefix}{next(self._numbers):x}"
        return Temporary(self._work, name, os.open(self._work.at(name), CREATE, mode, dir_fd=self._work.descriptor))

    def check_place(self, path: str) -> None:
        """Make the directory of a file, and check that nothing but a regular file stands in its place.

        Raises:
            ConflictError, OSError: as `Target.place` does.
        """
        directory, _, name = entry_path(path).rpartition("/")
        with self._folders.open(directory, create=True) as folder:
            refuse_other_kinds(folder, name, path)

    def link(self, temporary: Temporary, source: str | os.PathLike[str]) -> bool:
        """Make a temporary file a second name of `source`; False where that cannot be, and then it is as it was."""
        work = self._work
        name = f"{temporary.name}-link"
        try:
            os.link(source, work.at(name), dst_dir_fd=work.descriptor, follow_symlinks=False)
        except (OSError, NotImplementedError):
            return False
        temporary.close()
        os.replace(work.at(name), work.at(temporary.name), src_dir_fd=work.descriptor, dst_dir_fd=work.descriptor)
        temporary.descriptor = os.open(work.at(temporary.name), READ, dir_fd=work.descriptor)
        return True

    def finish(self, temporary: Temporary, path: str, modified_ns: int | None) -> Stamp:
        """Put a temporary file that is whole at `path`; its mtime is left when `modified_ns` is None.

        Raises:
            ConflictError, NoSpaceError, OSError: as `Target.place` does.
        """
        directory, _, name = entry_path(path).rpartition("/")
        with self._folders.open(directory, create=True) as folder, explained(path):
            return self._finish(temporary, folder, name, path, modified_ns)[0]

    def _enter(self, left: Folder | None, directory: str) -> Folder:
        folder = self._folders.borrow(directory, create=True)
        if left is not None:
            self._folders.give_back(left)
        return folder

    def _place_row(
        self, folder: Folder, name: str, body: memoryview, path: str, mode: int, modified_ns: int
    ) -> tuple[Stamp, float]:
        if not folder.is_new:  # nobody else has put anything into one that this run made
            refuse_other_kinds(folder, name, path)
        with explained(path), self.begin(mode) as temporary:
            write_all(temporary.descriptor, body)
            return self._finish(temporary, folder, name, path, modified_ns)

    def _finish(self, temporary: Temporary, folder: Folder, name: str, path: str, modified_ns: int | None) -> tuple[Stamp, float]:
        descriptor, work = temporary.descriptor, self._work
        # A file system may not hold such a time (before 1970, say); the file matters more than its date.
        with suppress(OSError, OverflowError):
            if modified_ns is not None:
                os.utime(descriptor if _HAS_UTIME_FD else work.at(temporary.name), ns=(modified_ns, modified_ns))
        begun_s = time.perf_counter()
        os.fsync(descriptor)
        sync_s = time.perf_counter() - begun_s
        if os.name == "nt":  # no open file is renamed there
            temporary.close()
        try:
            # A crash before this line leaves the old file, one after it the new one.
            os.replace(work.at(temporary.name), folder.at(name), src_dir_fd=work.descriptor, dst_dir_fd=folder.descriptor)
        except OSError:
            refuse_other_kinds(folder, name, path)
            raise
        temporary.is_placed = True
        # Looked at afterwards: to be renamed changes the ctime.
        found = os.stat(folder.at(name), follow_symlinks=False) if os.name == "nt" else os.fstat(descriptor)
        return Stamp(found.st_mtime_ns, found.st_ctime_ns, found.st_ino), sync_s


class Temporary:
    """A file that is being written; closed at the end of the context, and removed if it was not placed."""

    __slots__ = ("_folder", "descriptor", "is_placed", "name")

    def __init__(self, folder: Folder, name: str, descriptor: int) -> None:
        self._folder = folder
        self.name = name
        self.descriptor = descriptor
        self.is_placed = False

    def __enter__(self) -> Temporary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if not self.is_placed:
            with suppress(OSError):
                os.unlink(self._folder.at(self.name), dir_fd=self._folder.descriptor)

    def close(self) -> None:
        """Close the descriptor; idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def write_all(descriptor: int, data: Buffer) -> None:
    """Write the whole of `data` where the file stands; one call may take only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def refuse_other_kinds(folder: Folder, name: str, path: str) -> None:
    """Check that nothing but a regular file stands at a name.

    Raises:
        ConflictError: something does.
    """
    try:
        found = os.stat(folder.at(name), dir_fd=folder.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a symlink" if stat.S_ISLNK(found.st_mode) else "not a file"
        raise ConflictError(f"{path!r} is {kind} there", paths=(path,), hint="move it away, or choose another directory")


class explained:
    """Turn errors of the system's into what they mean for a file that is placed; a generator would cost a microsecond more."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, err: BaseException | None, trace: object) -> None:
        if not isinstance(err, OSError) or isinstance(err, VdsError):
            return
        if err.errno in FULL:
            raise NoSpaceError(
                f"the disk is full: {self._path!r} could not be written", hint="free some space, then run it again"
            ) from err
        if err.errno == errno.EXDEV:
            raise ConflictError(
                f"{self._path!r} is on another disk than the directory it is placed in",
                paths=(self._path,),
                hint="use that disk's directory",
            ) from err


Request = tuple[str, str, int, int, int, int, list[Sequence[Any]]]
"""root, directory of temporary files, pid of the owner, descriptor, offset and size of the buffer, the columns of the rows"""


def place_for_parent(request: Request) -> tuple[list[tuple[Any, ...] | bytes | str], bool, str]:
    """Place files out of a buffer of the parent's: what a helper runs.

    Returns:
        As `Placer.place_rows`, and why it stopped when the disk was full.
    """
    root, work, owner_pid, descriptor, offset_bytes, size_bytes, columns = request
    view = _buffer(descriptor, offset_bytes, size_bytes)
    try:
        results, is_slow = _placer(root, work).place_rows(zip(*columns, strict=True), view, owner_pid)
    except NoSpaceError as err:
        return [], False, err.message
    return [tuple(result) if isinstance(result, Stamp) else result for result in results], is_slow, ""


@cache
def _placer(root: str, work: str) -> Placer:
    folders = Folders(root)
    return Placer(folders, folders.borrow(work), f"{os.getpid():x}-")


@cache
def _buffer(descriptor: int, offset_bytes: int, size_bytes: int) -> memoryview:
    return map_buffer(descriptor, offset_bytes, size_bytes)
