"""Ranges of blobs in the local cache, as they were fetched; a part of one is served from any that covers it.

What is cached of a blob is known from the names in its directory, listed again only when the directory has changed. Of ranges
that lie within another one the listing keeps only the outer one, so starts and ends both ascend, and one bisection finds what
covers a part.

The bytes are not synced: readers compare the digest of everything that they take from a range, and drop one that is damaged.
A file that a power loss made shorter than its name says is dropped here.
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from blake3 import blake3

from vds.files.cacheroom import Room
from vds.files.cachetree import RANGES, READ_FLAGS, CacheTree, mark_used, parse_range, remove

Buffer = bytes | bytearray | memoryview

_LISTINGS_MAX = 8192  # of some hundred bytes each
_LOOKS = 3  # at a blob whose ranges are removed while we look
_GONE = {errno.ENOENT, errno.ENOTDIR}


class _Listing(NamedTuple):
    """The ranges of one blob of which none lies within another: `starts` and `ends` both ascend."""

    directory: str
    modified_ns: int
    starts: list[int]
    ends: list[int]

    def find_cover(self, start: int, end: int) -> tuple[int, int] | None:
        position = bisect_right(self.starts, start) - 1
        if position < 0 or self.ends[position] < end:
            return None
        return self.starts[position], self.ends[position]

    def with_range(self, start: int, end: int, modified_ns: int) -> _Listing:
        """Return the listing with a range that nothing in it covers."""
        low = bisect_left(self.starts, start)
        high = max(low, bisect_right(self.ends, end))  # those between lie within the new one
        starts = [*self.starts[:low], start, *self.starts[high:]]
        return _Listing(self.directory, modified_ns, starts, [*self.ends[:low], end, *self.ends[high:]])


class RangeFiles:
    """The ranges of a cache; thread-safe, and usable after a fork."""

    def __init__(self, tree: CacheTree, room: Room) -> None:
        self._tree = tree
        self._room = room
        self._listings: dict[tuple[str, str], _Listing] = {}

    def find(self, store: str, key: str, start: int, end: int) -> bytes | None:
        """Return bytes of a blob, or None when no range in the cache covers them.

        Raises:
            OSError: the cache cannot be read.
        """
        listing = self._listings.get((store, key))
        for _ in range(_LOOKS):
            cover = listing.find_cover(start, end) if listing else None
            if listing is None or cover is None:
                listing, known = self._list(store, key), listing
                cover = listing.find_cover(start, end) if listing and listing is not known else None
                if listing is None or cover is None:
                    return None
            data = self._read(listing.directory, cover, start, end)
            if data is not None:
                return data
            self._listings.pop((store, key), None)  # evicted by another process, or damaged
            listing = None
        return None

    def put(self, store: str, key: str, start: int, data: Buffer) -> None:
        """Keep bytes of a blob, unless a range in the cache covers them.

        Raises:
            NotTakenError: the cache cannot take them.
            OSError: it cannot be read.
        """
        size_bytes = memoryview(data).nbytes
        end = start + size_bytes
        listing = self._list(store, key)
        if listing is not None and listing.find_cover(start, end):
            return
        directory = _directory(store, key)
        self._room.reserve(size_bytes)
        try:
            with self._tree.temporary(size_bytes) as file:
                file.write_all(data)
                before_ns = self._modified_ns(directory)
                file.place(f"{directory}/{start}-{size_bytes}", sync=False)
        except BaseException:
            self._room.release(size_bytes)
            raise
        after_ns = self._modified_ns(directory)
        if listing is not None and listing.modified_ns == before_ns and after_ns is not None:
            # Nobody else was there, so that the next look need not list it again.
            self._listings[store, key] = listing.with_range(start, end, after_ns)

    def drop(self, store: str, key: str, start: int, end: int) -> None:
        """Remove every range that covers these bytes."""
        self._listings.pop((store, key), None)
        directory = self._tree.at(_directory(store, key))
        for name in _names(directory):
            found = parse_range(name)
            if found is not None and found[0] <= start and end <= found[1]:
                self._remove(os.path.join(directory, name), found[1] - found[0])
        with suppress(OSError):  # other ranges are left
            os.rmdir(directory)

    def _list(self, store: str, key: str) -> _Listing | None:
        """Return what is cached of a blob; the very listing that is known when the directory has not changed."""
        known = self._listings.get((store, key))
        directory = known.directory if known else _directory(store, key)
        modified_ns = self._modified_ns(directory)
        if modified_ns is None:
            self._listings.pop((store, key), None)
            return None
        if known is not None and known.modified_ns == modified_ns:
            return known
        if len(self._listings) >= _LISTINGS_MAX:
            self._listings.clear()
        starts, ends = _outermost(filter(None, map(parse_range, _names(self._tree.at(directory)))))
        self._listings[store, key] = listing = _Listing(directory, modified_ns, starts, ends)
        return listing

    def _modified_ns(self, directory: str) -> int | None:
        try:
            found = os.lstat(self._tree.at(directory))
        except OSError as err:
            if err.errno in _GONE:
                return None
            raise
        return found.st_mtime_ns if stat.S_ISDIR(found.st_mode) else None

    def _read(self, directory: str, cover: tuple[int, int], start: int, end: int) -> bytes | None:
        """Return bytes from the range `cover`, or None when its file is gone or short; then it is removed."""
        size_bytes = cover[1] - cover[0]
        path = self._tree.at(f"{directory}/{cover[0]}-{size_bytes}")
        try:
            descriptor = os.open(path, READ_FLAGS)
        except OSError as err:
            if err.errno in _GONE:
                return None
            raise
        try:
            found = os.fstat(descriptor)
            if found.st_size == size_bytes:
                mark_used(descriptor if os.utime in os.supports_fd else path, found)
                data = _read_at(descriptor, start - cover[0], end - start)
                if len(data) == end - start:
                    return data
        finally:
            os.close(descriptor)
        self._remove(path, size_bytes)
        return None

    def _remove(self, path: str, size_bytes: int) -> None:
        if remove(path):
            self._room.release(size_bytes)


def _directory(store: str, key: str) -> str:
    name = blake3(f"{store}\0{key}".encode()).hexdigest(length=16)
    return f"{RANGES}/{name[:2]}/{name}"


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _outermost(ranges: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    starts: list[int] = []
    ends: list[int] = []
    for start, end in sorted(ranges, key=lambda found: (found[0], -found[1])):
        if not ends or end > ends[-1]:
            starts.append(start)
            ends.append(end)
    return starts, ends


if hasattr(os, "pread"):

    def _read_at(descriptor: int, offset: int, length: int) -> bytes:
        return os.pread(descriptor, length, offset)

else:  # Windows

    def _read_at(descriptor: int, offset: int, length: int) -> bytes:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)
