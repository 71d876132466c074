"""What processes hold in the local cache: it is not evicted while they live.

Each process that holds something keeps one file in `leases`: the digests it holds, appended, and locked until the process ends,
however it ends. An evictor reads the leases and removes files only while it has `leases.lock` to itself; a process adds to its
lease, and then looks whether the file is still there, while it shares that lock. So either the evictor sees the digest, or
the process sees that the file is gone.

A child of a fork inherits its parent's open lease, and with it the lock: what the parent held stays held until both have ended.
Once the child holds something itself, it gets a lease of its own with all of that in it.

On Windows, and on file systems without locks, a lease counts until a day after something was last added to it.
"""

from __future__ import annotations

import os
import stat
import sys
import threading

from vds.files.cachetree import LEASES, READ_FLAGS, CacheTree, remove, remove_dead_file
from vds.model.digest import DIGEST_SIZE_BYTES

LOCK = "leases.lock"
LOCK_WAIT_S = 10.0

_leases: dict[str, Lease] = {}
_leases_lock = threading.Lock()


def lease_of(tree: CacheTree) -> Lease:
    """Return the one lease that this process has in a cache."""
    with _leases_lock:
        return _leases.setdefault(os.path.realpath(tree.root), Lease(tree))


class Lease:
    """What this process holds in one cache, until it ends. Thread-safe."""

    def __init__(self, tree: CacheTree) -> None:
        self._tree = tree
        self.lock = threading.Lock()
        """Renewed in the child of a fork: another thread may have had it."""
        self._descriptor = -1
        self._path = ""
        self._pid = 0
        self._held: set[bytes] = set()

    def hold(self, digest_raw: bytes, path: str) -> bool:
        """Hold a digest and return whether its file, at `path`, is there.

        Raises:
            OSError: the lease cannot be written, or others have kept the lock for ten seconds.
        """
        with self.lock:
            if digest_raw not in self._held or not self._is_current():
                with self._tree.locked(LOCK, shared=True, wait_s=LOCK_WAIT_S):
                    self._add(digest_raw)
                    return _is_file(path)
            return _is_file(path)

    def _add(self, digest_raw: bytes) -> None:
        if self._is_current():
            _write(self._descriptor, digest_raw)
        else:
            self._renew(digest_raw)
        self._held.add(digest_raw)

    def _is_current(self) -> bool:
        """Return whether there is a lease of this very process that evictors see: the whole cache may have been removed."""
        if self._pid != os.getpid():
            return False
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _renew(self, digest_raw: bytes) -> None:
        descriptor, path = self._tree.create(LEASES, 0o600)
        try:
            _write(descriptor, b"".join([*self._held, digest_raw]))
        except OSError:
            os.close(descriptor)
            remove(path)
            raise
        inherited, self._descriptor, self._path, self._pid = self._descriptor, descriptor, path, os.getpid()
        if inherited >= 0:
            os.close(inherited)  # a parent's: it stays locked by the parent


class LeaseBook:
    """What all living processes hold in a cache, for an evictor. Leases only grow, so each is read once."""

    def __init__(self, tree: CacheTree) -> None:
        self._tree = tree
        self._read_bytes: dict[str, int] = {}
        self.held: set[bytes] = set()
        """Raw digests."""

    def refresh(self, *, is_first: bool = False) -> None:
        """Read what was added since; the caller has `leases.lock` to itself.

        Args:
            is_first: leave out the leases of dead processes, and remove them.

        Raises:
            OSError: a lease cannot be read, so nothing may be evicted.
        """
        for file in self._tree.loose_files(LEASES):
            if is_first and remove_dead_file(file.path):
                continue
            if (start := self._read_bytes.get(file.name, 0)) < file.size_bytes:
                data = _read_from(file.path, start)
                whole_bytes = len(data) - len(data) % DIGEST_SIZE_BYTES
                self.held.update(data[at : at + DIGEST_SIZE_BYTES] for at in range(0, whole_bytes, DIGEST_SIZE_BYTES))
                self._read_bytes[file.name] = start + whole_bytes


def find_held(tree: CacheTree) -> set[bytes]:
    """Return the raw digests that living processes hold; of a cache that cannot be written also what dead ones held."""
    book = LeaseBook(tree)
    try:
        with tree.locked(LOCK, wait_s=LOCK_WAIT_S):
            book.refresh(is_first=True)
    except OSError:
        book.refresh()
    return book.held


def _write(descriptor: int, data: bytes) -> None:
    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        # What follows half a digest would be read as others.
        os.lseek(descriptor, start, os.SEEK_SET)
        os.ftruncate(descriptor, start)
        raise


def _read_from(path: str, start: int) -> bytes:
    descriptor = os.open(path, READ_FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        file.seek(start)
        return file.read()


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _after_fork_in_child() -> None:
    global _leases_lock
    _leases_lock = threading.Lock()
    for lease in _leases.values():
        lease.lock = threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
