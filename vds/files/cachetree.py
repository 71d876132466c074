"""The directory of the local cache: what its files are called, how they appear, how they are found, how processes take turns.

    objects/<hh>/<digest>                       one object each
    ranges/<hh>/<blob>/<offset>-<length>        bytes of a blob; <blob> is the hash of store id and key
    manifests/<digest>                          one pinned version each
    partial/<random>-<bytes>                    being written, after so much room was reserved for it
    leases/<random>                             what a process holds
    leases.lock, evict.lock, total              locked for moments, by whoever works with what they stand for
    stat/                                       the stat cache of uploads, which goes by rules of its own

Guarantees:
- nothing is made before something is put;
- a file appears under its name whole or not at all; its bytes are on the disk before its name where that is asked for;
- a file in `partial` or `leases` whose process is no more is known as such at once: it is locked while its process lives;
- no symlink that stands below the root is followed when something is written; directories are private to the user (0700);
- whatever the system refuses to writers is a NotTakenError, and nothing is left of it.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple

from vds.files.folders import is_junction
from vds.files.lock import try_lock, unlock, wait_for_lock

if sys.platform != "win32":
    import fcntl

OBJECTS, RANGES, MANIFESTS = "objects", "ranges", "manifests"
KINDS = (OBJECTS, RANGES, MANIFESTS)
"""In the order of eviction among files that were last used in the same second: a manifest saves the most."""
PARTIAL, LEASES = "partial", "leases"

READ_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NAMES = {
    OBJECTS: re.compile(r"[0-9a-f]{64}"),
    RANGES: re.compile(r"([0-9]{1,19})-([0-9]{1,19})"),
    MANIFESTS: re.compile(r"[0-9a-f]{64}"),
}
_USE_NOTED_NS = 60_000_000_000  # a use within the minute after another one is not written down
_ATTEMPTS = 5  # for directories that others remove as empty just before something is put into them
_MADE_MAX = 4096


class NotTakenError(Exception):
    """The cache cannot take something; its caller goes on without.

    Attributes:
        reason: the same for the same cause, so that it is said once: an error number, or a word.
    """

    def __init__(self, message: str, reason: int | str | None) -> None:
        super().__init__(message)
        self.reason = reason


class CachedFile(NamedTuple):
    """A file of the cache as a walk found it."""

    kind: str
    path: str
    name: str
    size_bytes: int
    used_ns: int


def parse_range(name: str) -> tuple[int, int] | None:
    """Return the first byte and the end that the name of a range's file says, or None for another name."""
    match = _NAMES[RANGES].fullmatch(name)
    return (int(match[1]), int(match[1]) + int(match[2])) if match else None


def mark_used(target: str | int, found: os.stat_result) -> None:
    """Keep the time of this use as the atime of a file, given by its path or descriptor.

    It is set by us, so it holds on disks that are mounted with `noatime`; the mtime belongs to whoever linked the file.
    """
    now_ns = time.time_ns()
    if abs(now_ns - found.st_atime_ns) > _USE_NOTED_NS:
        with suppress(OSError):  # not ours, or read-only: it is evicted a little early, if at all
            if isinstance(target, str) and os.utime in os.supports_follow_symlinks:
                os.utime(target, ns=(now_ns, found.st_mtime_ns), follow_symlinks=False)
            else:
                os.utime(target, ns=(now_ns, found.st_mtime_ns))


class CacheTree:
    """The directory at `root`; thread-safe, and usable after a fork."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._made: set[str] = set()

    def at(self, name: str) -> str:
        """Return the path of a name below the root."""
        return os.path.join(self.root, name)

    def is_there(self) -> bool:
        """Return whether anything was put yet."""
        return os.path.isdir(self.root)

    def temporary(self, reserved_bytes: int) -> Temporary:
        """Return a new file, which is removed when it is left as a context, unless it was placed.

        Args:
            reserved_bytes: what was counted for it already, so that a walk meanwhile counts it too; all that it will hold, or 0.

        Raises:
            NotTakenError: it cannot be made, or what its methods raise.
        """
        with _refusals():
            descriptor, path = self.create(PARTIAL, 0o444, f"-{reserved_bytes}")
        return Temporary(self, descriptor, path)

    def create(self, directory: str, mode: int, suffix: str = "") -> tuple[int, str]:
        """Make a file of a random name, and return it open for writing, locked until it is closed, and its path.

        Raises:
            OSError: it cannot be made.
        """
        for attempt in range(_ATTEMPTS):
            path = os.path.join(self.make_directory(directory), secrets.token_hex(10) + suffix)
            try:
                descriptor = os.open(path, _CREATE_FLAGS, mode)
            except FileNotFoundError:
                self._made.clear()  # someone has removed the whole cache
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            if sys.platform == "win32":
                return descriptor, path
            with suppress(OSError):  # no locks on this file system: then age decides
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor, path
            os.close(descriptor)  # taken for a dead process's in the moment between its making and its locking
        raise FileNotFoundError(errno.ENOENT, "the cache was removed again and again", self.at(directory))

    def make_directory(self, directory: str) -> str:
        """Return the path of a directory below the root, made if it is not there.

        Raises:
            OSError: it cannot be made, or a file or a symlink is in the way.
        """
        path = self.at(directory)
        if directory in self._made:
            return path
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        step = self.root
        for name in directory.split("/"):
            step = os.path.join(step, name)
            with suppress(FileExistsError):
                os.mkdir(step, 0o700)
            found = os.lstat(step)
            if not stat.S_ISDIR(found.st_mode) or is_junction(found):
                raise NotADirectoryError(errno.ENOTDIR, "a file or a symlink is in the way", step)
        if len(self._made) >= _MADE_MAX:
            self._made.clear()
        self._made.add(directory)
        return path

    def move(self, path: str, name: str) -> None:
        """Give a file of `partial` its name."""
        for attempt in range(_ATTEMPTS):
            self.make_directory(name.rpartition("/")[0])
            try:
                os.replace(path, self.at(name))
            except FileNotFoundError:
                self._made.clear()  # its directory was empty, and an evictor took it
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    @contextmanager
    def locked(self, name: str, *, shared: bool = False, wait_s: float) -> Iterator[int]:
        """Lend the lock file `name`, open and locked; where a file system has no locks, as if it were.

        Opened each time: a descriptor that was kept would share its lock with other threads, and with a fork's child.

        Raises:
            TimeoutError: others have kept it for `wait_s` seconds. A stopped process (Ctrl-Z) must not stop all readers.
            OSError: it cannot be opened.
        """
        try:
            descriptor = os.open(self.at(name), _LOCK_FLAGS, 0o600)
        except FileNotFoundError:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            descriptor = os.open(self.at(name), _LOCK_FLAGS, 0o600)
        try:
            wait_for_lock(descriptor, shared=shared, wait_s=wait_s)
            try:
                yield descriptor
            finally:
                unlock(descriptor)
        finally:
            os.close(descriptor)

    def files(self, kind: str) -> Iterator[CachedFile]:
        """Yield the files of a kind as they are found; one directory is held in memory at a time."""
        pattern = _NAMES[kind]
        for directory in self.directories(kind):
            for entry in _scan(directory):
                if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        found = os.lstat(entry.path)  # an entry's own stat lacks the inode's times on Windows
                        yield CachedFile(kind, entry.path, entry.name, found.st_size, found.st_atime_ns)

    def directories(self, kind: str) -> list[str] | Iterator[str]:
        """Yield the directories that hold the files of a kind."""
        depth = {OBJECTS: 1, RANGES: 2}.get(kind, 0)
        found: list[str] | Iterator[str] = [self.at(kind)] if os.path.isdir(self.at(kind)) else []
        for _ in range(depth):
            found = _below(found)
        return found

    def loose_files(self, directory: str) -> Iterator[CachedFile]:
        """Yield the files of a directory whose names mean nothing: `partial`, `leases`, `stat`."""
        for entry in _scan(self.at(directory)):
            if entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    found = os.lstat(entry.path)
                    yield CachedFile(directory, entry.path, entry.name, found.st_size, found.st_atime_ns)

    def reserved_bytes(self) -> int:
        """Return what is reserved for all that is being written now."""
        counts = (file.name.rpartition("-")[2] for file in self.loose_files(PARTIAL))
        return sum(int(count) for count in counts if count.isdecimal())

    def remove_dead(self, directory: str) -> tuple[int, int]:
        """Remove what dead processes left in `partial` or `leases`; return the number of files and their bytes."""
        files = size_bytes = 0
        for file in self.loose_files(directory):
            if remove_dead_file(file.path):
                files += 1
                size_bytes += file.size_bytes
        return files, size_bytes

    def remove_empty(self) -> None:
        """Remove the directories of blobs that no range is left of."""
        for directory in self.directories(RANGES):
            with suppress(OSError):  # it is not empty
                os.rmdir(directory)


UNTOUCHED_NS = 1_000_000_000 * 1_000_000_000
"""The mtime of what is placed whole: whoever writes to it later, by whatever name, gives it another one."""


class Temporary(io.FileIO):
    """A file of `partial` while it is written. Its methods raise NotTakenError for what the system refuses.

    So a refusal is told from an error of whoever writes through it.
    """

    def __init__(self, tree: CacheTree, descriptor: int, path: str) -> None:
        super().__init__(descriptor, "wb")
        self._tree = tree
        self._path: str | None = path

    def write(self, data: Any, /) -> int:
        """Write some of `data` and return how much."""
        try:
            return super().write(data)
        except OSError as err:
            raise _not_taken(err) from err

    def write_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            view = view[self.write(view) :]

    def write_at(self, data: memoryview, offset_bytes: int) -> int:
        """Write some of `data` at a place and return how much; used by one thread at a time."""
        with _refusals():
            if sys.platform == "win32":  # which has no call for a place in a file
                self.seek(offset_bytes)
                return self.write(data)
            return os.pwrite(self.fileno(), data, offset_bytes)

    def place(self, name: str, *, sync: bool) -> None:
        """Give it its name below the root; what stands there is replaced.

        Args:
            name: relative to the root.
            sync: its bytes are on the disk first. Without it, a power loss may leave a short or an empty file.
        """
        assert self._path is not None, "placed twice"
        with _refusals():
            if sync:
                os.utime(self.fileno() if os.utime in os.supports_fd else self._path, ns=(time.time_ns(), UNTOUCHED_NS))
                os.fsync(self.fileno())
            if sys.platform == "win32":
                self.close()  # an open file cannot be renamed there; elsewhere the lock goes with the descriptor
            self._tree.move(self._path, name)
        self._path = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        if self._path is not None:
            remove(self._path)


def remove(path: str) -> bool:
    """Remove a file; False when it is gone already, or held open by a process of Windows, or not ours to remove."""
    try:
        if sys.platform == "win32":
            os.chmod(path, stat.S_IWRITE)  # a read-only file cannot be removed there
        os.unlink(path)
    except OSError:
        return False
    return True


def remove_dead_file(path: str) -> bool:
    """Remove a file of `partial` or `leases` unless a living process has it open; return whether it was removed."""
    try:
        descriptor = os.open(path, READ_FLAGS)
    except OSError:  # gone, or not ours to look at
        return False
    try:
        if not try_lock(descriptor):
            return False
        if sys.platform != "win32":
            # Still locked: a process that has just made the file, and waits for the lock, then finds that it is gone.
            return remove(path)
    finally:
        os.close(descriptor)
    return remove(path)


def _below(directories: list[str] | Iterator[str]) -> Iterator[str]:
    for directory in directories:
        for entry in _scan(directory):
            if entry.is_dir(follow_symlinks=False):
                yield entry.path


def _scan(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise _not_taken(err) from err


def _not_taken(err: OSError) -> NotTakenError:
    return NotTakenError(str(err), err.errno)
