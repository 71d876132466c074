"""Replace a small text file of the user's: whole, on the disk, and only if it is still what was read.

Guarantees:
- whoever reads the file sees the old text or the new one, also after a crash at any line;
- a change that someone else made since it was read is not lost: the file stays as they left it;
- a symlink stays one: what it points to is replaced.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from vds.errors import AccessDeniedError, ConflictError, InvalidInputError, NoSpaceError, VdsError

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def read_text(path: Path) -> str | None:
    """Return the text of a file, or None when it is not there.

    Raises:
        InvalidInputError: it is not UTF-8, or not a file.
        AccessDeniedError: it may not be read.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as err:
        raise InvalidInputError(f"{path} is not UTF-8: {err.reason} at byte {err.start}", hint="undo the edit") from err
    except OSError as err:
        raise _explained(err, path, "read") from err


def rewrite(path: Path, before: str | None, after: str) -> bool:
    """Write `after` to a file that held `before` (None: was not there); False, and nothing done, when they are equal.

    Raises:
        ConflictError: it holds something else by now.
        NoSpaceError: the disk is full; as with all errors, what stood there still does.
        AccessDeniedError: it may not be written.
    """
    if before == after:
        return False
    place = Path(os.path.realpath(path))
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}.partial")
    try:
        try:
            _write(temporary, after.encode("utf-8"), place)
            if read_text(place) != before:
                raise ConflictError(f"{path} was changed by someone else just now", hint="look at it and run again")
            # A crash before this line leaves the old file and a hidden one beside it, one after it the new file.
            os.replace(temporary, place)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _flush_directory(place.parent)
    except OSError as err:
        if isinstance(err, VdsError):
            raise
        raise _explained(err, path, "written") from err
    return True


def _write(temporary: Path, data: bytes, place: Path) -> None:
    descriptor = os.open(temporary, _CREATE, 0o666)  # less what the umask takes
    with os.fdopen(descriptor, "wb") as file:
        if sys.platform != "win32" and place.exists():
            os.fchmod(file.fileno(), place.stat().st_mode & 0o777)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(directory: Path) -> None:
    if sys.platform == "win32":
        return  # directories cannot be opened there
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(err: OSError, path: Path, done: str) -> VdsError:
    said = f"{path} cannot be {done}: {err.strerror or err}"
    if err.errno in _FULL:
        return NoSpaceError(said, hint="free some space, then run it again")
    if err.errno in _REFUSED:
        return AccessDeniedError(said, hint="choose a file that you may write" if done == "written" else "ask its owner")
    return InvalidInputError(said, hint="name a file in a directory that is there")
