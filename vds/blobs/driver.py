"""The contract between vds and a blob service.

Every driver (Azure, directory, memory) keeps these promises, and one suite checks them on all three:

- **Atomicity.** A blob is there whole or not at all; no reader ever sees a part of one.
- **Put if absent.** Of any number of concurrent `put_if_absent` and `commit_blocks` calls on one key, exactly one succeeds;
  all others raise `BlobExistsError`. A blob is never overwritten.
- **Durability.** When a put returns, the blob survives a crash of the machine that holds it.
- **Read after write.** Once a put has returned, every `find_blob`, read and `list_blobs` sees it.
- **Uncommitted blocks** are invisible to all but `list_blocks`, and do not stop a `put_if_absent`.
- **Thread safety.** Every method may be called from any thread; a driver survives fork.
- **No policy.** Drivers do not cache, hash or interpret keys, and retry only where a service asks for it (the Azure one): after
  a retry, `BlobExistsError` may stand for our own first write, so the caller compares before it believes a conflict.

Errors: `NotFoundError` (no such blob or container), `BlobExistsError`, `ConflictError` (an etag did not match),
`AccessDeniedError`, `UnavailableError`, `NoSpaceError`, `CorruptionError` (a transport check failed), each with a hint.

Keys are `/`-separated ASCII, at most 200 characters, made by vds alone: user paths never appear in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from vds.errors import InvalidInputError
from vds.pace import Pace

Buffer = bytes | bytearray | memoryview

KEY_CHARS_MAX = 200
METADATA_BYTES_MAX = 8 * 1024  # Azure's limit, names and values together

# No segment begins or ends with a dot: ".." cannot climb, dot names are the drivers' own, and Azure drops dots at the end.
_SEGMENT = r"[A-Za-z0-9_~@+=-](?:[A-Za-z0-9._~@+=-]*[A-Za-z0-9_~@+=-])?"
_KEY = re.compile(f"{_SEGMENT}(?:/{_SEGMENT})*")
_METADATA_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_METADATA_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


@dataclass(frozen=True, slots=True)
class Blob:
    """What the service says of one blob."""

    key: str
    size_bytes: int
    etag: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """One staged, uncommitted block of a blob's upload."""

    block_id: str
    size_bytes: int


def is_key(text: str) -> bool:
    """Return whether `text` may be the key of a blob."""
    return len(text) <= KEY_CHARS_MAX and _KEY.fullmatch(text) is not None


def check_key(key: str) -> str:
    """Return `key` when it may name a blob: keys come out of databases too, and must never lead out of the container.

    Raises:
        InvalidInputError: it is empty, too long, climbs, or has a character outside the set.
    """
    if not is_key(key):
        raise InvalidInputError(f"{key!r} is not the key of a blob", hint="the index or the journal is damaged; run: vds fsck")
    return key


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of `metadata` when every driver can hold it: lower-case names, printable ASCII values, 8 KiB in all.

    Raises:
        InvalidInputError: a name or value is of another shape, or they are too long.
    """
    checked = dict(metadata or {})
    for name, value in checked.items():
        if not _METADATA_NAME.fullmatch(name) or not _METADATA_VALUE.fullmatch(value):
            raise InvalidInputError(f"metadata {name!r} = {value!r} is not lower_case = printable ASCII")
    if sum(len(name) + len(value) for name, value in checked.items()) > METADATA_BYTES_MAX:
        raise InvalidInputError(f"metadata is longer than {METADATA_BYTES_MAX} bytes")
    return checked


def no_signing_error(url: str) -> InvalidInputError:
    """Return the error of a driver whose blobs no service hands out."""
    return InvalidInputError(
        f"{url!r} is not in an Azure storage account: there is no service that would hand out its files",
        hint="hand them over with vds export or vds download",
    )


class BlobDriver(Protocol):
    """Where blobs live. The guarantees are listed at the top of this module."""

    @property
    def url(self) -> str:
        """The address of the container and prefix, without any secret; `connect` accepts it."""
        ...

    @property
    def pace(self) -> Pace:
        """How many requests at once this service takes well; one and the same for all who send through this driver."""
        ...

    def create_container(self) -> None:
        """Make the container if it is not there; idempotent."""
        ...

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        """Store `body` whole under `key` and return its etag; `BlobExistsError` if the key is taken."""
        ...

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        """Stage one block; the same id again replaces it. Ids of one key are ASCII of one length, at most 48."""
        ...

    def list_blocks(self, key: str) -> list[Block]:
        """Return the staged blocks of `key`, in no particular order; empty when there are none."""
        ...

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        """Make the blob out of these staged blocks, in this order, and return its etag; all other staged blocks are dropped.

        Raises:
            BlobExistsError: the key is taken.
            NotFoundError: one of the blocks is not staged (any more); stage it again.
        """
        ...

    def find_blob(self, key: str) -> Blob | None:
        """Return what the service knows of the blob, metadata included, or None when it is not there."""
        ...

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        """Return exactly `length_bytes` from `offset_bytes` (None: up to the end).

        Raises:
            NotFoundError: there is no such blob.
            CorruptionError: the blob ends before the range does.
        """
        ...

    def read_range_into(self, key: str, offset_bytes: int, target: memoryview) -> None:
        """Fill `target`, which is not empty, with the bytes from `offset_bytes` on; memory that is used again costs less.

        Raises:
            NotFoundError, CorruptionError: as `read_range`; as after all errors, `target` then holds anything.
        """
        ...

    def list_blobs(self, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        """Yield blobs whose key begins with `prefix` and sorts after `start_after`, by key, page by page, metadata included."""
        ...

    def copy_blob(self, source_key: str, target_key: str) -> str:
        """Copy within the container, metadata included, and return the new etag; `BlobExistsError` if the target is taken."""
        ...

    def delete_blob(self, key: str, etag: str | None = None) -> bool:
        """Delete the blob; False when it was not there. `ConflictError` when `etag` is given and differs."""
        ...

    def sign_reads(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        """Return for each blob a url with which whoever has it reads that blob until `expires_at`, and nothing else; a secret.

        Whether the blobs are there is not asked.

        Args:
            blobs: for each its key, and the name under which it is offered for saving.
            starts_at: when the urls begin to be good at the latest; some minutes ago, as clocks differ.
            expires_at: at most seven days later.

        Raises:
            InvalidInputError: this place, or the credential it was opened with, makes no such urls.
        """
        ...

    def find_principal(self) -> str | None:
        """Return who the service takes us for, where the credential says so; it may ask for a token. Never a secret."""
        ...

    def close(self) -> None:
        """Let go of connections; idempotent."""
        ...
