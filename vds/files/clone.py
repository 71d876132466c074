"""Give a new file the content of another one: sharing its bytes where the file system can, else by copying them."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from blake3 import blake3

from vds.errors import CorruptionError
from vds.files.placer import READ, write_all
from vds.model.digest import Digest

if sys.platform == "linux":
    import fcntl

_FICLONE = 0x40049409
"""Source: linux/fs.h, `_IOW(0x94, 9, int)`"""
_PIECE_BYTES = 1 << 20


def open_source(path: str | os.PathLike[str], size_bytes: int) -> int:
    """Open a regular file of this size, and return its descriptor.

    Raises:
        CorruptionError: it is something else, or has another size.
        OSError: it is not there, or cannot be opened.
    """
    descriptor = os.open(path, READ)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size == size_bytes:
        return descriptor
    os.close(descriptor)
    raise CorruptionError(f"{os.fspath(path)!r} is no file of {size_bytes} bytes", hint="vds cache verify")


def clone(source: int, target: int) -> bool:
    """Have an empty file share the bytes of another one, copied when either is written to; False where that cannot be."""
    if sys.platform == "linux":
        with suppress(OSError):  # another disk, or a file system that cannot
            fcntl.ioctl(target, _FICLONE, source)
            return True
    return False


def copy_checked(source: int, target: int, digest_raw: bytes) -> None:
    """Copy a whole file into an empty one.

    Raises:
        CorruptionError: its bytes have another digest; `target` then holds anything.
    """
    hasher = blake3()
    while data := os.read(source, _PIECE_BYTES):
        hasher.update(data)
        write_all(target, data)
    if hasher.digest() != digest_raw:
        expected, found = Digest.from_raw(digest_raw), Digest.from_raw(hasher.digest())
        raise CorruptionError(f"a copy of {expected} is corrupt: it has the digest {found}", hint="vds cache verify")
