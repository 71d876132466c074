"""Blobs named by the paths of files, below a container or a prefix: for tools that know nothing of vds.

Guarantees:
- a blob appears whole, and takes the place of another only where its caller has seen that one and says so, by its etag;
- no name leads out of the prefix;
- the digest of what was put stands in the metadata `vds_digest`, so that a second run knows what is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock

from vds.blobs.azure import AzureDriver
from vds.blobs.credential import Credential, choose_credential
from vds.blobs.driver import Blob, BlobDriver, Buffer
from vds.blobs.location import AzureLocation
from vds.blobs.objects import DIGEST_METADATA
from vds.blobs.outside import unrouted
from vds.errors import AccessDeniedError, ConflictError
from vds.model.digest import Digest
from vds.model.format import format_key
from vds.model.path import ancestors, entry_path, is_under

NAME_CHARS_MAX = 1024
SEGMENTS_MAX = 254


def open_path_blobs(location: AzureLocation, store: BlobDriver, credential: object = None) -> PathBlobs:
    """Return what puts files at `location`; no call is made.

    Without a credential of its own (`credential`, or a SAS in the url) it takes the store's when the account is the same, and
    what the environment says else.

    Raises:
        InvalidInputError: the credential is none we know, or would be readable on the way.
    """
    own = unrouted(store)
    neighbour = own if isinstance(own, AzureDriver) and own._location.account_url == location.account_url else None
    if credential is None and not location.sas and neighbour is not None:
        return PathBlobs(location, neighbour._credential, neighbour)
    return PathBlobs(location, choose_credential(location, credential, os.environ), neighbour)


class PathBlobs(AzureDriver):
    """A container, or a prefix in one, whose blobs are called as files are. Made by `open_path_blobs`; thread-safe.

    Args:
        location: where.
        credential: who we are there.
        neighbour: the store, when it is in the same account: the service then copies from it by itself. From another account it
            could too, but would have to be shown what proves that we may read the store.
    """

    def __init__(self, location: AzureLocation, credential: Credential, neighbour: AzureDriver | None) -> None:
        super().__init__(location, credential)
        self._neighbour = neighbour

    @property
    def is_beside_store(self) -> bool:
        """Whether `copy_file` may be used."""
        return self._neighbour is not None

    def find_store(self) -> str | None:
        """Return the address of a store that this place lies in, or that lies in it; None when it is clear of any.

        Where the credential may not look above the prefix, a store above it is not found.
        """
        account, container, own = self._location.account_url, self._location.container, self._location.prefix
        neighbour = self._neighbour._location if self._neighbour is not None else None
        if neighbour is not None and neighbour.container == container and is_under(neighbour.prefix, own):
            return neighbour.url
        for prefix in dict.fromkeys([own, *reversed(ancestors(own)), ""]):
            name = f"{prefix}/{format_key(1)}" if prefix else format_key(1)
            try:
                with self._translated(f"look whether {prefix!r} is a store"):
                    is_store = self._opened().container.get_blob_client(name).exists()
            except AccessDeniedError:
                if prefix == own:
                    raise
                return None
            if is_store:
                return "/".join(filter(None, (account, container, prefix)))
        return None

    def find_fault(self, path: str) -> str | None:
        """Return why the service would not keep a file's name as it is, or None when it does.

        Source: https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
        """
        name = self._prefix + path
        if len(name) > NAME_CHARS_MAX:
            return f"has {len(name)} characters with its prefix, a blob's name at most {NAME_CHARS_MAX}"
        segments = name.split("/")
        if len(segments) > SEGMENTS_MAX:
            return f"has {len(segments)} segments with its prefix, a blob's name at most {SEGMENTS_MAX}"
        if any(segment.endswith(".") for segment in segments):
            return "has a segment that ends in a dot, which the service drops"
        return None

    def put_file(self, path: str, body: Buffer, digest: Digest, replaces: str = "") -> None:
        """Put a file in one request, where no blob is or in place of the one whose etag is `replaces`; again is harmless.

        Raises:
            ConflictError: another blob is there, or none any more; it was left as it is.
        """
        metadata = {DIGEST_METADATA: str(digest)}
        with self._unless_done(path, len(body), digest):
            if not replaces:
                self.put_if_absent(path, body, metadata)
                return
            with self._translated(f"replace blob {path!r}", writing=True):
                self._blob(path).upload_blob(
                    bytes(body), overwrite=True, metadata=metadata, validate_content=True, **_condition(replaces)
                )

    def commit_file(self, path: str, block_ids: Sequence[str], size_bytes: int, digest: Digest, replaces: str = "") -> None:
        """Make the file out of staged blocks; as `put_file` else."""
        metadata = {DIGEST_METADATA: str(digest)}
        with self._unless_done(path, size_bytes, digest):
            if not replaces:
                self.commit_blocks(path, block_ids, metadata)
                return
            with self._translated(f"replace blob {path!r}", writing=True):
                blocks = [BlobBlock(block_id) for block_id in block_ids]
                self._blob(path).commit_block_list(blocks, metadata=metadata, **_condition(replaces))

    def copy_file(self, path: str, key: str, size_bytes: int, digest: Digest, replaces: str = "") -> None:
        """Have the service copy a whole blob of the store; as `put_file` else. Its bytes do not come by here."""
        assert self._neighbour is not None, "only from the same account"
        source, metadata = Blob(key, size_bytes, ""), {DIGEST_METADATA: str(digest)}
        with (
            self._unless_done(path, size_bytes, digest),
            self._translated(f"copy {key!r} of the store to {path!r}", writing=True, absent=not replaces),
        ):
            self._copy_from(self._neighbour, source, path, metadata, _condition(replaces))

    @contextmanager
    def _unless_done(self, path: str, size_bytes: int, digest: Digest) -> Iterator[None]:
        try:
            yield
        except ConflictError:
            # A first try whose answer was lost may have put it; then size and digest are those, as no one else would write them.
            found = self.find_blob(path)
            if found is None or not is_file(found, size_bytes, digest):
                raise

    def _name(self, key: str) -> str:
        # A file's path instead of a key that vds made; checked as strictly, for it comes out of a database too.
        return self._prefix + entry_path(key)


def is_file(blob: Blob, size_bytes: int, digest: Digest) -> bool:
    """Return whether a blob says of itself that it holds this content."""
    return blob.size_bytes == size_bytes and blob.metadata.get(DIGEST_METADATA) == digest


def _condition(replaces: str) -> dict[str, Any]:
    if not replaces:
        return {"match_condition": MatchConditions.IfMissing}
    return {"etag": f'"{replaces}"', "match_condition": MatchConditions.IfNotModified}
