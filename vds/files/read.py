"""Read and hash source files, and notice when one changes meanwhile.

A file is compared with what the scan found once it has been read: size, mtime and inode; what changed before shows then too. What
a writer hides from that (it writes without touching the mtime) the digest of the bytes sent still shows.
"""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import closing
from typing import NamedTuple

import xxhash
from blake3 import blake3

from vds.files.scan import SourceFile
from vds.model.checks import LEAF_BYTES, fingerprint_of, leaf_checks
from vds.model.content import CHANGED_HINT, SourceChangedError

SAMPLE_BYTES = 64 * 1024
_PIECE_BYTES = 1024 * 1024  # read at 24 GB/s from the page cache, where 64 KiB pieces reach 11 and 256 KiB 13
# O_NONBLOCK: opening a named pipe that took the file's place must not wait for a writer.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class _Buffers(threading.local):
    """One page-aligned buffer a thread: reused, it is read into at full speed and costs nothing to make."""

    def __init__(self) -> None:
        self.view = memoryview(mmap.mmap(-1, _PIECE_BYTES))


_buffers = _Buffers()


def read_into(file: SourceFile, target: memoryview) -> None:
    """Read the whole content of a file into `target`, which has exactly its size.

    The file is compared once, after it was read: a million small files pass here, and what changed before shows then too.

    Raises:
        SourceChangedError: it is not, or no longer, what the scan found; `target` then holds anything.
        OSError: it cannot be opened or read.
    """
    descriptor = os.open(file.os_path, _FLAGS)
    try:
        count = _read_some(descriptor, target)
        if count != len(target):  # seldom: regular files give what is asked for
            _fill(descriptor, target[count:], file)
        _compare(file, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def check_file(file: SourceFile) -> None:
    """Check that a file is still what the scan found, without opening it: enough for an empty one.

    Raises:
        SourceChangedError: it is not.
        OSError: it is not there.
    """
    _compare(file, os.stat(file.os_path))


class SourceReader:
    """A large source file, open and read in order; used by one thread at a time.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._descriptor: int | None = os.open(file.os_path, _FLAGS)

    def read(self, target: memoryview) -> None:
        """Fill `target` with the next bytes.

        Raises:
            SourceChangedError: the file ends before that.
            OSError: it cannot be read.
        """
        assert self._descriptor is not None, "read after close"
        _fill(self._descriptor, target, self._file)

    def check(self) -> None:
        """Check that the file is still what the scan found; after the last byte was read.

        Raises:
            SourceChangedError: it is not.
        """
        assert self._descriptor is not None, "check after close"
        _compare(self._file, os.fstat(self._descriptor))

    def close(self) -> None:
        """Close the file; idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def sample_file(file: SourceFile) -> str:
    """Return a fingerprint of a file: its size and the XXH3-128 of 64 KiB at its start, middle and end.

    Equal files have equal ones. Different files mostly have not, so that who knows no such fingerprint has no such file.

    Raises:
        OSError: it cannot be opened or read.
    """
    hasher = xxhash.xxh3_128()
    descriptor = os.open(file.os_path, _FLAGS)
    try:
        for offset in (0, file.size_bytes // 2, max(0, file.size_bytes - SAMPLE_BYTES)):
            os.lseek(descriptor, offset, os.SEEK_SET)
            hasher.update(os.read(descriptor, SAMPLE_BYTES))
    finally:
        os.close(descriptor)
    return f"{file.size_bytes:x}-{hasher.hexdigest()}"


class BlockHashes(NamedTuple):
    """What a large file holds: its digest, and the fingerprints of its blocks in order."""

    digest: bytes
    fingerprints: list[str]


def hash_blocks(file: SourceFile, block_bytes: int) -> BlockHashes:
    """Return the digest of a file and the fingerprints of its blocks, by which it is known again when it is read to be sent.

    Raises:
        SourceChangedError: it is not, or no longer, what the scan found.
        OSError: it cannot be opened or read.
    """
    hasher, view = blake3(), _buffers.view
    fingerprints: list[str] = []
    with closing(SourceReader(file)) as reader:
        left = file.size_bytes
        while left:
            leaves: list[bytes] = []
            block_left = min(left, block_bytes)
            left -= block_left
            while block_left:
                piece = view[: min(block_left, len(view))]
                reader.read(piece)
                hasher.update(piece)
                leaves.append(leaf_checks(piece))
                block_left -= len(piece)
            fingerprints.append(fingerprint_of(b"".join(leaves)))
        reader.check()
    return BlockHashes(hasher.digest(), fingerprints)


def hash_descriptor(descriptor: int) -> bytes:
    """Return the raw digest of the bytes that an open file still has to give."""
    hasher = blake3()
    view = _buffers.view
    while count := _read_some(descriptor, view):
        hasher.update(view[:count])
    return hasher.digest()


def _compare(file: SourceFile, found: os.stat_result) -> None:
    if found.st_size != file.size_bytes:
        raise _changed(file, f"has {found.st_size} bytes, not {file.size_bytes}")
    if found.st_mtime_ns != file.modified_ns or (file.inode and found.st_ino != file.inode):
        raise _changed(file, "was written to or replaced")


def _changed(file: SourceFile, what: str) -> SourceChangedError:
    return SourceChangedError(f"{file.path!r} changed while it was being read: it {what}", hint=CHANGED_HINT)


def _fill(descriptor: int, target: memoryview, file: SourceFile) -> None:
    position = 0
    while position < len(target):
        count = _read_some(descriptor, target[position:])
        if not count:
            raise _changed(file, f"ends {len(target) - position} bytes early")
        position += count


if hasattr(os, "readv"):

    def _read_some(descriptor: int, target: memoryview) -> int:
        return os.readv(descriptor, [target])

else:  # Windows has no call that reads into a buffer of ours without a file object around the descriptor

    def _read_some(descriptor: int, target: memoryview) -> int:
        data = os.read(descriptor, len(target))
        target[: len(data)] = data
        return len(data)


assert _PIECE_BYTES % LEAF_BYTES == 0, "pieces are read whole leaves at a time"
