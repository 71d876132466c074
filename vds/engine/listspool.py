"""A change list between the index and the container: its key holds its digest, which is known only when all of it is encoded."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from tempfile import SpooledTemporaryFile, gettempdir
from types import TracebackType

from vds.blobs.driver import BlobDriver
from vds.blobs.streams import StreamWriter
from vds.errors import NoSpaceError
from vds.index.manifests import SentList
from vds.model.manifest import ChangeListEncoder, ChangeRow

SPOOL_BYTES_MAX = 8 * 1024 * 1024
"""How much of a list is kept in memory; the rest waits in a temporary file."""

SPOOL_READ_BYTES = 1024 * 1024


class ListSpool:
    """One encoded list, waiting; used by one thread, as a context manager."""

    def __init__(self) -> None:
        self._encoder = ChangeListEncoder()
        self._file = SpooledTemporaryFile(max_size=SPOOL_BYTES_MAX)  # noqa: SIM115 - closed on exit
        self.size_bytes = 0

    @property
    def digest(self) -> bytes:
        """The digest of the rows."""
        return self._encoder.digest

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._encoder.count

    def fill(self, rows: Iterable[ChangeRow]) -> None:
        """Encode the rows, which come sorted by path.

        Raises:
            NoSpaceError: a long list waits in a temporary file, and its disk cannot take it.
        """
        for frame in self._encoder.frames(rows):
            try:
                self._file.write(frame)
            except OSError as err:
                raise NoSpaceError(
                    f"the list of changes could not be written below {gettempdir()!r}: {err.strerror or err}",
                    hint="free some space, or set TMPDIR to another disk",
                ) from err
        self.size_bytes = self._file.tell()

    def read(self) -> bytes:
        """Return all of it."""
        self._file.seek(0)
        return self._file.read()

    def put(self, driver: BlobDriver, key: str, blob_id: int) -> SentList:
        """Store it as a blob, the row of whose intent has this id."""
        self._file.seek(0)
        with StreamWriter(driver, key) as writer:
            for piece in iter(partial(self._file.read, SPOOL_READ_BYTES), b""):
                writer.write(piece)
            writer.seal()
            etag = writer.commit()
        return SentList(blob_id, self.digest, self.count, self.size_bytes, etag)

    def __enter__(self) -> ListSpool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
