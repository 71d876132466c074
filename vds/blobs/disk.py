"""Files on a local or shared disk, as the directory driver needs them: whole or absent, and still there after a crash.

Guarantees:
- a file gets its name only after its bytes are on the disk (`new_file`, then `link_if_absent` or `claim_if_absent`);
- of any number of writers of one name exactly one wins, and nothing is ever overwritten;
- works on Linux, macOS and Windows: what one of them cannot do has a fallback beside it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vds.blobs.driver import Buffer
from vds.errors import AccessDeniedError, InvalidInputError, NoSpaceError, NotFoundError, UnavailableError, VdsError

try:
    from fcntl import F_FULLFSYNC, fcntl  # type: ignore[attr-defined,unused-ignore]
except ImportError:
    F_FULLFSYNC = None

_OPEN_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_READ_FLAGS = os.O_RDONLY | _OPEN_FLAGS | getattr(os, "O_NOFOLLOW", 0)
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS
_PIECE_BYTES_MAX = 1 << 30  # Linux moves at most 2 GiB − 4 KiB a call, Windows at most 2 GiB − 1
_COPY_BUFFER_BYTES = 1 << 20

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
_NO_LINKS_WINDOWS = {1, 50}  # ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED: exFAT and many network shares
_IN_USE_WINDOWS = {32, 33}  # ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


@contextmanager
def translated(root: Path, what: str) -> Iterator[None]:
    """Turn errors of the operating system into ours; `what` says what was being done, for example "put blob 'a/b'"."""
    try:
        yield
    except VdsError:
        raise  # some of ours are OSErrors too
    except OSError as err:
        raise _translate(err, root, what) from err


def _translate(err: OSError, root: Path, what: str) -> VdsError:
    message = f"{what} in {str(root)!r}: {err.strerror or err}"
    if getattr(err, "winerror", None) in _IN_USE_WINDOWS:
        return UnavailableError(message, hint="another program has the file open; close it and try again")
    if err.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        hint = f"make room on the disk that holds {str(root)!r}, or raise the quota"
        return NoSpaceError(message, free_bytes=find_free_bytes(root), hint=hint)
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDeniedError(message, hint=f"give this user the right to read and write {str(root)!r}")
    if err.errno == errno.ENOENT:
        if not root.is_dir():
            return NotFoundError(f"there is no directory {str(root)!r}", hint="check the path, or make a store there: vds init")
        return NotFoundError(message, hint="run: vds fsck")
    if err.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.ELOOP):
        return InvalidInputError(message, hint=f"{str(root)!r} must be a directory that only vds writes to")
    if err.errno in (errno.EMFILE, errno.ENFILE):
        return UnavailableError(message, hint="raise the limit of open files (ulimit -n) or use fewer workers")
    return UnavailableError(message, hint="check the disk or the network share, then try again")


def find_free_bytes(root: Path) -> int | None:
    """Return the bytes free on the disk of `root`, or None when it does not say."""
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return None


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Make `path`, lend its descriptor, and have its bytes on the disk on the way out; after an error it is gone again."""
    descriptor = os.open(path, _NEW_FLAGS, 0o666)
    try:
        try:
            yield descriptor
            # The kernel stamps files with a clock that ticks every 4 ms, too coarse to tell two writes of one key apart.
            stamp_ns = time.time_ns()
            if os.utime in os.supports_fd:
                os.utime(descriptor, ns=(stamp_ns, stamp_ns))
            sync_file(descriptor)
        finally:
            os.close(descriptor)
        if os.utime not in os.supports_fd:
            os.utime(path, ns=(stamp_ns, stamp_ns))
    except BaseException:
        remove(path)
        raise


def write_all(descriptor: int, body: Buffer) -> None:
    """Write the whole of `body`; one `write` may take only a part of it."""
    rest = memoryview(body).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest[:_PIECE_BYTES_MAX]) :]


@contextmanager
def open_blob(path: Path) -> Iterator[int]:
    """Lend a descriptor for reading; a symbolic link fails with ELOOP."""
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    descriptor = os.open(path, _READ_FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_at(descriptor: int, offset_bytes: int, length_bytes: int) -> bytes:
    """Return `length_bytes` from `offset_bytes`, fewer when the file ends before."""
    pieces = []
    while length_bytes > 0:
        piece = _pread(descriptor, min(length_bytes, _PIECE_BYTES_MAX), offset_bytes)
        if not piece:
            break
        pieces.append(piece)
        offset_bytes += len(piece)
        length_bytes -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_into(descriptor: int, offset_bytes: int, target: memoryview) -> int:
    """Fill `target` from `offset_bytes` on and return how many bytes came: fewer when the file ends before."""
    position = 0
    while position < len(target):
        piece = target[position : position + _PIECE_BYTES_MAX]
        if hasattr(os, "preadv"):
            count = os.preadv(descriptor, [piece], offset_bytes + position)
        else:
            data = _pread(descriptor, len(piece), offset_bytes + position)
            count = len(data)
            piece[:count] = data
        if not count:
            break
        position += count
    return position


def _lseek_and_read(descriptor: int, length_bytes: int, offset_bytes: int) -> bytes:
    os.lseek(descriptor, offset_bytes, os.SEEK_SET)
    return os.read(descriptor, length_bytes)


# Windows has no pread; descriptors are never shared between threads here, so seeking is as good.
_pread: Callable[[int, int, int], bytes] = getattr(os, "pread", _lseek_and_read)


def append_file(target: int, source: Path) -> None:
    """Append the whole of `source` to the descriptor `target`, inside the kernel where it can."""
    with open_blob(source) as descriptor:
        done_bytes = 0
        left_bytes = os.fstat(descriptor).st_size
        while left_bytes and (moved_bytes := _copy_in_kernel(descriptor, target, left_bytes)):
            done_bytes += moved_bytes
            left_bytes -= moved_bytes
        # The kernel declines for some pairs of file systems, at once or (rarely) half way: the rest goes by hand.
        while piece := read_at(descriptor, done_bytes, _COPY_BUFFER_BYTES):
            write_all(target, piece)
            done_bytes += len(piece)


def _copy_in_kernel(source: int, target: int, length_bytes: int) -> int:
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(source, target, min(length_bytes, _PIECE_BYTES_MAX))
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            raise
        return 0


def sync_file(descriptor: int) -> None:
    """Have the bytes of an open file on the disk itself."""
    if F_FULLFSYNC is not None:
        with suppress(OSError):  # network shares know no F_FULLFSYNC; fsync is what is left
            fcntl(descriptor, F_FULLFSYNC)  # macOS: fsync leaves bytes in the drive's own cache
            return
    os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk; does nothing where the system cannot (Windows, some shares)."""
    if os.name == "nt":
        return  # directories cannot be opened there; NTFS journals names by itself
    descriptor = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
    try:
        os.fsync(descriptor)
    except OSError as err:
        if err.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_directory(path: Path, root: Path) -> None:
    """Make `path` and what is missing between `root` and it, each name on the disk.

    The parents are synced even when the directories are there: whoever made them may have died before doing so.
    """
    parents = [path, *path.parents]
    for directory in reversed(parents[: parents.index(root)]):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def remove(path: Path) -> bool:
    """Remove a file; False when it was not there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def link_if_absent(temp: Path, target: Path) -> bool:
    """Give the file `temp` the second name `target`, in one atomic step; False when this file system has no links.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        os.link(temp, target)
    except FileExistsError:
        # Over NFS the answer to a link that succeeded can be lost; the retry then finds our own link.
        if not os.path.samestat(os.lstat(temp), os.lstat(target)):
            raise
    except OSError as err:
        if err.errno in _NO_LINKS or getattr(err, "winerror", None) in _NO_LINKS_WINDOWS:
            return False
        raise
    return True


def claim_if_absent(temp: Path, target: Path, claim: Path) -> None:
    """Move the file `temp` to `target` where links are missing; `claim` is a directory name that only `target` uses.

    A claim file made with O_EXCL is not enough: nobody can tell a dead claimant from a slow one, so a dead claim would either
    block for ever or be broken while its owner is about to rename over the new owner's blob. Here the claim is a directory that
    carries the bytes: renaming a directory to `claim` fails while another claim with bytes in it is there (ENOTEMPTY), so there
    is one claimant at a time, and whoever meets its claim can finish its work. The argument, for a body B in `claim`:

    - only bodies inside `claim` are ever renamed to `target`, by full name, and no other body can enter while B is there;
    - who moves B saw B in `claim` first and `target` absent second; until B leaves, nothing else can have become `target`;
    - a body leaves `claim` only to become `target`, or because its own writer withdrew it. So a writer that finds its body
      gone knows that it won.

    A crash after the claim leaves B in it: the next writer of the key finishes B and loses, as if B's writer had been quicker.
    A crash after the move leaves an empty claim, which renaming replaces. All processes must reach the directory in the same
    way: one that links and one that claims (over another protocol) do not see each other.

    Raises:
        FileExistsError: the name is taken; `temp` is gone.
    """
    if os.name == "nt":
        os.rename(temp, target)  # refuses an existing name there
        return
    body_name = secrets.token_hex(8)
    own = temp.with_name(f"{temp.name}.claim")
    own.mkdir()
    os.rename(temp, own / body_name)
    try:
        while not _enter(own, claim):
            _finish_other(claim, target)
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    except BaseException:
        shutil.rmtree(own, ignore_errors=True)
        raise
    _finish_own(claim / body_name, target)


def _enter(own: Path, claim: Path) -> bool:
    try:
        os.rename(own, claim)
    except OSError as err:
        if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _finish_other(claim: Path, target: Path) -> None:
    with suppress(FileNotFoundError):  # its writer, or another helper, was quicker
        for body_name in os.listdir(claim):
            if not os.path.lexists(target):
                os.rename(claim / body_name, target)


def _finish_own(body: Path, target: Path) -> None:
    won = True
    if os.path.lexists(target):
        won = not remove(body)  # gone: a helper made it the target
    else:
        with suppress(FileNotFoundError):  # a helper was quicker, with our bytes
            os.rename(body, target)
    with suppress(OSError):  # the next claimant may be in already; an empty claim is harmless
        body.parent.rmdir()
    if not won:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
