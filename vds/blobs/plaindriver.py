"""What reads blobs that vds did not write: the contract, which Azure, directories and memory keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vds.errors import ConflictError


class PlainChangedError(ConflictError):
    """A blob is not the one that was listed any more: it was changed or deleted. List again."""

    kind = "plain-changed"


@dataclass(frozen=True, slots=True)
class PlainBlob:
    """A blob that vds did not write."""

    name: str
    size_bytes: int
    etag: str
    modified_at: datetime


class PlainDriver(Protocol):
    """All blobs of one container, by their names there."""

    @property
    def url(self) -> str:
        """The address of the container, without any secret."""
        ...

    def list_plain(self, prefix: str = "") -> Iterator[PlainBlob]:
        """Yield the blobs whose names begin with `prefix`, by name, page by page; entries that stand for directories are none."""
        ...

    def find_plain(self, name: str) -> PlainBlob | None:
        """Return a blob, or None when it is not there."""
        ...

    def read_plain(self, name: str, etag: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly `length_bytes`, which are there, of the blob that has this etag.

        Raises:
            PlainChangedError: it has another one, or is gone.
        """
        ...

    def sign_reads(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        """Return urls that read these blobs; as `BlobDriver.sign_reads`, by names."""
        ...

    def close(self) -> None:
        """Let go of connections; idempotent."""
        ...


def changed_error(url: str, name: str, etag: str, found: PlainBlob | None) -> PlainChangedError:
    """Return the error of a blob that is not what was listed."""
    what = "is gone" if found is None else f"was changed: its etag is {found.etag!r}, expected {etag!r}"
    return PlainChangedError(f"blob {name!r} in {url!r} {what}", hint="list again, and see who changes it")
