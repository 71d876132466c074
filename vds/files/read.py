"""Read and hash source files, and notice when one changes meanwhile.

A file is compared with what the scan found twice, when it is opened and when it has been read: size, mtime and inode. What a
writer hides from that (it writes without touching the mtime) the digest of the bytes sent still shows.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blake3 import blake3

from vds.files.scan import SourceFile
from vds.model.content import CHANGED_HINT, SourceChangedError

_PIECE_BYTES = 1024 * 1024  # read at 24 GB/s from the page cache, where 64 KiB pieces reach 11 and 256 KiB 13
# O_NONBLOCK: opening a named pipe that took the file's place must not wait for a writer.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class _Buffers(threading.local):
    """One page-aligned buffer a thread: reused, it is read into at full speed and costs nothing to make."""

    def __init__(self) -> None:
        self.view = memoryview(mmap.mmap(-1, _PIECE_BYTES))


_buffers = _Buffers()


def read_file(file: SourceFile) -> bytes:
    """Return the whole content of a small file.

    Raises:
        SourceChangedError: it is not, or no longer, what the scan found.
        OSError: it cannot be opened or read.
    """
    with _opened(file) as descriptor:
        return _read_exactly(descriptor, file.size_bytes, file)


def read_into(file: SourceFile, target: memoryview) -> None:
    """Read the whole content of a file into `target`, which has exactly its size.

    Raises:
        SourceChangedError: it is not, or no longer, what the scan found; `target` then holds anything.
        OSError: it cannot be opened or read.
    """
    assert len(target) == file.size_bytes, (len(target), file.size_bytes)
    with _opened(file) as descriptor:
        position = 0
        while position < len(target):
            count = _read_some(descriptor, target[position:])
            if not count:
                raise _changed(file, f"ends at byte {position} of {file.size_bytes}")
            position += count


def hash_file(file: SourceFile, on_bytes: Callable[[int], None] | None = None) -> bytes:
    """Return the raw BLAKE3 digest of a file's content.

    Args:
        file: as it was scanned.
        on_bytes: told the number of bytes after each piece.

    Raises:
        SourceChangedError: it is not, or no longer, what the scan found.
        OSError: it cannot be opened or read.
    """
    with _opened(file) as descriptor:
        digest_raw, size_bytes = hash_descriptor(descriptor, on_bytes)
        if size_bytes != file.size_bytes:
            raise _changed(file, f"has {size_bytes} bytes, not {file.size_bytes}")
    return digest_raw


def hash_descriptor(descriptor: int, on_bytes: Callable[[int], None] | None = None) -> tuple[bytes, int]:
    """Return the raw digest and the count of the bytes that an open file still has to give."""
    hasher = blake3()
    size_bytes = 0
    view = _buffers.view
    while count := _read_some(descriptor, view):
        hasher.update(view[:count])
        size_bytes += count
        if on_bytes is not None:
            on_bytes(count)
    return hasher.digest(), size_bytes


def read_blocks(file: SourceFile, block_size_bytes: int) -> Iterator[bytes]:
    """Yield the content in order, cut into blocks of `block_size_bytes` (the last may be shorter); none is reused.

    Raises:
        SourceChangedError: it is not, or no longer, what the scan found; at the latest after the last block.
        OSError: it cannot be opened or read.
    """
    with _opened(file) as descriptor:
        left = file.size_bytes
        while left:
            block = _read_exactly(descriptor, min(block_size_bytes, left), file)
            left -= len(block)
            yield block


@contextmanager
def _opened(file: SourceFile) -> Iterator[int]:
    descriptor = os.open(file.os_path, _FLAGS)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise _changed(file, "is no longer a regular file")
        _compare(file, before)
        yield descriptor
        _compare(file, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _compare(file: SourceFile, found: os.stat_result) -> None:
    if found.st_size != file.size_bytes:
        raise _changed(file, f"has {found.st_size} bytes, not {file.size_bytes}")
    if found.st_mtime_ns != file.modified_ns or (file.inode and found.st_ino != file.inode):
        raise _changed(file, "was written to or replaced")


def _changed(file: SourceFile, what: str) -> SourceChangedError:
    return SourceChangedError(f"{file.path!r} changed while it was being read: it {what}", hint=CHANGED_HINT)


def _read_exactly(descriptor: int, length_bytes: int, file: SourceFile) -> bytes:
    data = os.read(descriptor, length_bytes)
    if len(data) == length_bytes:  # nearly always: regular files give what is asked for
        return data
    pieces = [data]
    missing = length_bytes - len(data)
    while missing:
        data = os.read(descriptor, missing)
        if not data:
            raise _changed(file, f"ends {missing} bytes early")
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


if hasattr(os, "readv"):

    def _read_some(descriptor: int, target: memoryview) -> int:
        return os.readv(descriptor, [target])

else:  # Windows has no call that reads into a buffer of ours without a file object around the descriptor

    def _read_some(descriptor: int, target: memoryview) -> int:
        data = os.read(descriptor, len(target))
        target[: len(data)] = data
        return len(data)
