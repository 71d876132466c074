"""How much the local cache holds, and room for more: what was not used for longest goes first.

The total is a number in a small file, not a walk: whoever puts something adds its size before it is written, under the file's
lock (some ten microseconds). So a process that dies leaves the number too high, never too low, which costs at most a walk that
comes early. A walk (some ten microseconds a file) happens when the number reaches the cap, and once a day; it sets the number
right. It counts what is being written as large as it will be, and adds what other processes have added or taken away meanwhile.

Eviction goes down to 90 % of the cap, so that it is seldom needed. It removes nothing that a living process holds. It knows the
time of use to the second: among files of one second, those found first go first. Two passes over the names keep its memory
small: the first adds up the bytes of each second, the second removes what is older than the moment found so.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import xxhash

from vds.files.cachetree import KINDS, PARTIAL, RANGES, CachedFile, CacheTree, NotTakenError, remove
from vds.files.lease import LOCK as LEASES_LOCK
from vds.files.lease import LOCK_WAIT_S, LeaseBook
from vds.model.batch import batched

EVICT_LOCK = "evict.lock"
TOTAL = "total"
RECOUNT_S = 24 * 3600
FREE_BYTES_MIN = 256 * 1024 * 1024
"""What is left free on the disk whatever the cap says: others need it more than a cache does."""

_LOW_SHARE = 0.9
_FULL_S = 60.0  # how long a cache that could not make room is left alone before it is walked again
_TOTAL_WAIT_S = 5.0
_REMOVED_AT_ONCE = 256  # between them, whoever waits to hold something gets its turn
_NS = 1_000_000_000
_FIELDS = struct.Struct("<QQ")
_SUM = struct.Struct("<Q")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What an eviction did.

    Attributes:
        files: that were removed because they had not been used for longest.
        size_bytes: of those.
        leftover_files: that writers which are no more had left half written, and were removed.
        leftover_bytes: of those.
        kept_bytes: what is in the cache now.
        held_bytes: of that, what living processes held when it began.
    """

    files: int
    size_bytes: int
    leftover_files: int
    leftover_bytes: int
    kept_bytes: int
    held_bytes: int


@dataclass(frozen=True, slots=True)
class _Total:
    size_bytes: int
    counted_s: int

    @property
    def is_recent(self) -> bool:
        return 0 <= time.time() - self.counted_s < RECOUNT_S


_UNKNOWN = _Total(0, 0)


class Room:
    """The room of one cache, for all its users on this machine; thread-safe, and usable after a fork."""

    def __init__(self, tree: CacheTree, bytes_max: int) -> None:
        self._tree = tree
        self._bytes_max = bytes_max
        self._full_until_s = 0.0

    def reserve(self, size_bytes: int) -> None:
        """Count bytes that are about to be put; what was not used for longest is evicted for them where need be.

        While another process evicts, or takes the room that was made, nothing waits: the cap may be exceeded for that moment.

        Raises:
            NotTakenError: they are more than the cap, what is held leaves no room for them, or the disk is nearly full.
        """
        if size_bytes > self._bytes_max:
            raise NotTakenError(f"{size_bytes} bytes are more than its cap of {self._bytes_max}", "large")
        if self._free_bytes() - size_bytes < FREE_BYTES_MIN:
            raise NotTakenError(f"its disk would have less than {FREE_BYTES_MIN} bytes left for others", "disk")
        try:
            if self._add(size_bytes):
                return
            if time.monotonic() >= self._full_until_s:
                result = self.evict(max(0, int(self._bytes_max * _LOW_SHARE) - size_bytes))
                if result is None or result.kept_bytes + size_bytes <= self._bytes_max:
                    self._add(size_bytes, regardless=True)
                    return
                self._full_until_s = time.monotonic() + _FULL_S
        except OSError as err:
            raise NotTakenError(str(err), err.errno) from err
        raise NotTakenError(f"what running programs use leaves no room for {size_bytes} bytes", "held")

    def _free_bytes(self) -> int:
        root = self._tree.root
        while not os.path.exists(root) and root != os.path.dirname(root):
            root = os.path.dirname(root)
        return shutil.disk_usage(root).free

    def release(self, size_bytes: int) -> None:
        """Take back bytes that were reserved and not put, or that were removed."""
        if not size_bytes:
            return
        try:
            with self._tree.locked(TOTAL, wait_s=_TOTAL_WAIT_S) as descriptor:
                total = _read(descriptor)
                _write(descriptor, _Total(max(0, total.size_bytes - size_bytes), total.counted_s))
        except OSError as err:
            _log.debug("the total of the cache %s stays too high until it is counted again: %s", self._tree.root, err)

    def evict(self, to_bytes: int, *, wait_s: float = 0.0) -> PruneResult | None:
        """Remove what was not used for longest until `to_bytes` are left, and what dead writers left behind.

        Args:
            to_bytes: what may stay; what is held stays in any case.
            wait_s: how long to wait for another process that is evicting.

        Returns:
            None when that one has not ended by then.

        Raises:
            OSError: the directory cannot be read or written.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._tree.locked(EVICT_LOCK, wait_s=wait_s))
            except TimeoutError:
                return None
            return self._evict(to_bytes)

    def _evict(self, to_bytes: int) -> PruneResult:
        with self._tree.locked(TOTAL, wait_s=_TOTAL_WAIT_S) as descriptor:
            before = _read(descriptor)
        leftover_files, leftover_bytes = self._tree.remove_dead(PARTIAL)
        book = LeaseBook(self._tree)
        with self._tree.locked(LEASES_LOCK, wait_s=LOCK_WAIT_S):
            book.refresh(is_first=True)
        reserved_bytes = self._tree.reserved_bytes()  # first: what is placed meanwhile is counted twice rather than not at all
        used, held_bytes = self._survey(book)
        found_bytes = used.total() + held_bytes + reserved_bytes
        files, size_bytes = self._remove(book, *_find_cutoff(used, found_bytes - to_bytes))
        self._tree.remove_empty()
        self._recount(before, found_bytes - size_bytes)
        return PruneResult(files, size_bytes, leftover_files, leftover_bytes, found_bytes - size_bytes, held_bytes)

    def _survey(self, book: LeaseBook) -> tuple[Counter[int], int]:
        """Return the bytes that were last used in each second, and those that are held."""
        used: Counter[int] = Counter()
        held_bytes = 0
        for file in self._files():
            if _is_held(file, book):
                held_bytes += file.size_bytes
            else:
                used[_second(file)] += file.size_bytes
        return used, held_bytes

    def _remove(self, book: LeaseBook, second: int, share_bytes: int) -> tuple[int, int]:
        """Remove what was last used before `second`, and `share_bytes` of what was used in it; return files and bytes."""
        files = size_bytes = 0
        candidates = (file for file in self._files() if _second(file) <= second) if second >= 0 else iter(())
        for batch in batched(candidates, _REMOVED_AT_ONCE):
            with self._tree.locked(LEASES_LOCK, wait_s=LOCK_WAIT_S):
                book.refresh()
                for file in batch:
                    if (_second(file) == second and share_bytes <= 0) or _is_held(file, book) or _was_used_since(file):
                        continue
                    if remove(file.path):
                        files += 1
                        size_bytes += file.size_bytes
                        share_bytes -= file.size_bytes if _second(file) == second else 0
        return files, size_bytes

    def _files(self) -> Iterator[CachedFile]:
        for kind in KINDS:
            yield from self._tree.files(kind)

    def _add(self, size_bytes: int, *, regardless: bool = False) -> bool:
        """Add to the total and return True; False when it is not known well enough, or would exceed the cap."""
        with self._tree.locked(TOTAL, wait_s=_TOTAL_WAIT_S) as descriptor:
            total = _read(descriptor)
            if regardless or (total.is_recent and total.size_bytes + size_bytes <= self._bytes_max):
                _write(descriptor, _Total(total.size_bytes + size_bytes, total.counted_s))
                return True
        return False

    def _recount(self, before: _Total, found_bytes: int) -> None:
        with self._tree.locked(TOTAL, wait_s=_TOTAL_WAIT_S) as descriptor:
            meanwhile_bytes = _read(descriptor).size_bytes - before.size_bytes
            _write(descriptor, _Total(max(0, found_bytes + meanwhile_bytes), int(time.time())))


def _find_cutoff(used: Counter[int], excess_bytes: int) -> tuple[int, int]:
    """Return a second, and how much of its bytes makes up `excess_bytes` with all older ones; -1 when nothing need go."""
    if excess_bytes <= 0:
        return -1, 0
    older_bytes = second = 0
    for second in sorted(used):
        if older_bytes + used[second] >= excess_bytes:
            return second, excess_bytes - older_bytes
        older_bytes += used[second]
    return second, excess_bytes  # all that is not held


def _second(file: CachedFile) -> int:
    # A time in the future is a clock's mistake, and must not keep a file for ever.
    return min(max(0, file.used_ns), time.time_ns()) // _NS


def _is_held(file: CachedFile, book: LeaseBook) -> bool:
    return file.kind != RANGES and bytes.fromhex(file.name) in book.held


def _was_used_since(file: CachedFile) -> bool:
    try:
        return os.lstat(file.path).st_atime_ns > file.used_ns
    except FileNotFoundError:
        return True  # removed by someone else


def _read(descriptor: int) -> _Total:
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = os.read(descriptor, _FIELDS.size + _SUM.size)
    fields = data[: _FIELDS.size]
    if data[_FIELDS.size :] != _SUM.pack(xxhash.xxh3_64_intdigest(fields)):
        return _UNKNOWN  # new, or cut by a power loss: it is counted again
    return _Total(*_FIELDS.unpack(fields))


def _write(descriptor: int, total: _Total) -> None:
    fields = _FIELDS.pack(total.size_bytes, total.counted_s)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, fields + _SUM.pack(xxhash.xxh3_64_intdigest(fields)))
