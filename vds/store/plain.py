"""Plain blobs, as other tools wrote them: listed, read and downloaded as they are. Nothing is written there."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType

from vds.blobs.plain import PlainPlace, name_place, open_place, parse_place
from vds.blobs.plaindriver import PlainBlob
from vds.blobs.reads import READ_BYTES_MAX
from vds.errors import AccessDeniedError, InvalidInputError, NoSpaceError, VdsError
from vds.pipeline import parallel_map

__all__ = ["PlainBlob", "PlainContainer", "open_plain"]

_READ_WORKERS = 4
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class PlainContainer:
    """The plain blobs of a container, or of a prefix in one; names are relative to it. Also a context manager; thread-safe.

    What belongs to a vds store there is not listed.
    """

    def __init__(self, place: PlainPlace) -> None:
        self._place = place

    def __repr__(self) -> str:
        return f"<PlainContainer {self.url}>"

    def __enter__(self) -> PlainContainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address, without any secret."""
        return self._place.url

    def list(self, prefix: str = "") -> Iterator[PlainBlob]:
        """Yield the blobs whose names begin with `prefix`, by name, page by page.

        Raises:
            NotFoundError: there is no such container or directory.
        """
        return self._place.list(prefix)

    def find(self, name: str) -> PlainBlob | None:
        """Return the blob of this name, or None when there is none."""
        return self._place.find(name)

    def read_bytes(self, blob: PlainBlob, offset: int = 0, size: int | None = None) -> bytes:
        """Return a range of a blob; what would lie past its end is left out.

        Raises:
            ConflictError: the blob was changed or deleted since it was listed.
            InvalidInputError: the range begins before the blob, or ends before it begins.
        """
        if offset < 0 or (size is not None and size < 0):
            raise InvalidInputError(f"offset {offset} and size {size} must not be negative")
        begin = min(offset, blob.size_bytes)
        end = blob.size_bytes if size is None else min(begin + size, blob.size_bytes)
        with closing(self._pieces(blob, begin, end)) as pieces:
            return b"".join(pieces)

    def download(self, blob: PlainBlob, target: str | os.PathLike[str]) -> None:
        """Copy a blob into a file, which appears whole or not at all; directories are made, a file that is there is replaced.

        Raises:
            ConflictError: the blob was changed or deleted since it was listed; the file is as it was.
            NoSpaceError: the disk is full.
            InvalidInputError, AccessDeniedError: the file cannot be written there.
        """
        path = Path(os.path.abspath(target))
        temporary = path.with_name(f".vds-{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, _NEW_FLAGS, 0o666)
            with open(descriptor, "wb") as file, closing(self._pieces(blob, 0, blob.size_bytes)) as pieces:
                for piece in pieces:
                    file.write(piece)
            os.replace(temporary, path)
        except BaseException as err:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(err, OSError) and not isinstance(err, VdsError):
                raise _target_error(path, blob, err) from err
            raise

    def close(self) -> None:
        """Let go of connections; idempotent. A later call opens new ones."""
        self._place.driver.close()

    def _pieces(self, blob: PlainBlob, begin: int, end: int) -> Generator[bytes, None, None]:
        """Yield a range in pieces, some read ahead; a blob without bytes is looked at all the same."""

        def read(offset: int) -> bytes:
            return self._place.read(blob, offset, min(READ_BYTES_MAX, end - offset))

        offsets = range(begin, end, READ_BYTES_MAX)
        if len(offsets) <= 1:
            yield read(begin)
            return
        with closing(parallel_map(read, offsets, workers=_READ_WORKERS, in_flight_max=_READ_WORKERS + 1)) as pieces:
            yield from pieces


def open_plain(url: str, credential: object = None) -> PlainContainer:
    """Return the plain blobs at a url; no call is made, and nothing is written.

    Args:
        url: as `vds.connect` takes it (https, abfss, az, azurite, file, memory, a path); the place need not be a store.
        credential: as `vds.connect` takes it.

    Raises:
        InvalidInputError: the url does not parse, or the credential is none we know.
    """
    location = parse_place(os.fspath(url))
    name_place(location, credential)
    return PlainContainer(open_place(location, credential))


def _target_error(path: Path, blob: PlainBlob, err: OSError) -> VdsError:
    message = f"write {str(path)!r}: {err.strerror or err}"
    if err.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return NoSpaceError(message, needed_bytes=blob.size_bytes, hint="free some space, or name another disk")
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDeniedError(message, hint="give this user the right to write there")
    return InvalidInputError(message, hint="name a file that can be made")
