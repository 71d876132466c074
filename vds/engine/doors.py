"""The two doors of an open store, handed to every operation: its blobs and its index."""

from __future__ import annotations

from dataclasses import dataclass

from vds.blobs.driver import BlobDriver
from vds.errors import AccessDeniedError, FormatError
from vds.index.database import Database
from vds.index.stores import StoreRow


@dataclass(frozen=True, slots=True)
class Doors:
    """An open store, as operations see it."""

    blobs: BlobDriver
    index: Database
    store: StoreRow
    read_only: bool = False
    outdated: str = ""
    """What showed, when the store was opened, that its index is older than its container; such a store can be read alone."""

    def check_writable(self) -> None:
        """Check that this store was opened for writing, and may be written to.

        Raises:
            AccessDeniedError: it was opened with read_only=True.
            FormatError: its index is older than its container.
        """
        if self.outdated:
            raise FormatError(self.outdated, hint="vds index rebuild")
        if self.read_only:
            raise AccessDeniedError("the store was opened with read_only=True", hint="connect without read_only to write")
