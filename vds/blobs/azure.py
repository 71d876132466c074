"""Blobs in an Azure storage account, or in Azurite.

Bytes of files go through `vds.blobs.hot`; everything else, and what that does not know, through the SDK. Both retry, so a
conditional put may meet its own first write: `BlobExistsError` is for the caller to check. Both send a check that the service
compares.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, ContainerClient

from vds.blobs.answers import Asked, BlobMissingError, RangeError, check_address
from vds.blobs.credential import Credential, choose_credential, principal_of
from vds.blobs.driver import Blob, Block, Buffer, check_key, check_metadata
from vds.blobs.hot import HotCalls, open_hot
from vds.blobs.http1 import Answer
from vds.blobs.location import AZURITE_ACCOUNT, AzureLocation
from vds.blobs.sdk import STORAGE_SCOPE, open_client, sdk_credential, translated
from vds.blobs.share import ask_delegation_key, check_times, open_signer
from vds.blobs.signing import quoted_path
from vds.errors import BlobExistsError, ConflictError, CorruptionError, InvalidInputError, NotFoundError, UnavailableError
from vds.pace import Pace

PACE_START = 8
PACE_MOST = 32
LIST_PAGE_BLOBS = 5000  # the service's limit
COPY_ONE_REQUEST_BYTES_MAX = 256 << 20  # Copy Blob From URL takes no more; larger blobs are copied in blocks of this size
PUT_OVER_BLOCKS_TRIES = 10
COPY_TOKEN_LIFETIME = timedelta(hours=1)


def open_azure(location: AzureLocation, credential: object = None) -> AzureDriver:
    """Return a driver for `location`; no call is made.

    Raises:
        InvalidInputError: the credential is none we know, or would be readable on the way.
    """
    return AzureDriver(location, choose_credential(location, credential, os.environ))


@dataclass(frozen=True, slots=True)
class _Clients:
    """What reaches the service; of one process.

    Attributes:
        credential: as the SDK wants it.
        hot: the calls that do without the SDK, where they know the way.
    """

    session: requests.Session
    container: ContainerClient
    credential: Any = field(repr=False)
    hot: HotCalls | None

    def close(self) -> None:
        self.session.close()
        if self.hot is not None:
            self.hot.close()


class AzureDriver:
    """A container, or a prefix in one; see the contract in `vds.blobs.driver`. Made by `open_azure`.

    Accounts with a hierarchical namespace sort "/" before all other characters; vds makes no keys whose order depends on it.
    """

    def __init__(self, location: AzureLocation, credential: Credential) -> None:
        self._location = location
        self._credential = credential
        self._is_azurite = location.account == AZURITE_ACCOUNT
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._lock = threading.Lock()
        self._clients: _Clients | None = None
        self._pid = 0
        self._pace = Pace(PACE_START, PACE_MOST)

    @property
    def url(self) -> str:
        """The address of the container and prefix, without any secret."""
        return self._location.url

    @property
    def pace(self) -> Pace:
        """How many requests at once the service takes well, learnt from its answers."""
        return self._pace

    def __repr__(self) -> str:
        return f"AzureDriver({self.url!r})"

    def __reduce__(self) -> NoReturn:
        raise InvalidInputError("a driver holds a credential and is not sent to another process", hint="send its url")

    def create_container(self) -> None:
        """Make the container if it is not there; idempotent."""
        try:
            with self._translated("make the container", writing=True):
                if not self._opened().container.exists():  # more credentials may look than may make
                    self._opened().container.create_container()
        except BlobExistsError:
            return  # somebody else was quicker

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        """Store `body` whole under `key` and return its etag; `BlobExistsError` if the key is taken."""
        checked = check_metadata(metadata)
        asked = self._asked(f"put blob {key!r}", writing=True, absent=True)
        try:
            with translated(asked):
                hot = self._opened().hot
                etag = hot.put_blob(asked, self._path(key), body, checked) if hot is not None else None
                if etag is not None:
                    return etag.strip('"')
                whole = bytes(body)  # the SDK takes nothing else for one request; no copy when it is bytes already
                return _etag(self._blob(key).upload_blob(whole, overwrite=False, metadata=checked, validate_content=True))
        except BlobExistsError:
            if not self._is_azurite or self.find_blob(key) is not None:
                raise
        return self._put_over_blocks(key, body, checked)

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        """Stage one block; the same id again replaces it."""
        asked = self._asked(f"stage a block of {key!r}", writing=True)
        with translated(asked):
            hot = self._opened().hot
            if hot is None or not hot.put_block(asked, self._path(key), block_id, body):
                self._blob(key).stage_block(block_id, bytes(body), length=memoryview(body).nbytes, validate_content=True)

    def list_blocks(self, key: str) -> list[Block]:
        """Return the staged blocks of `key`; empty when there are none."""
        try:
            with self._translated(f"list the blocks of {key!r}"):
                _, staged = self._blob(key).get_block_list("uncommitted")
                return [Block(block.id, block.size) for block in staged]
        except BlobMissingError:
            return []

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        """Make the blob out of these staged blocks, in this order, and return its etag; raises as the contract says."""
        checked = check_metadata(metadata)
        asked = self._asked(f"commit the blocks of {key!r}", writing=True, absent=True)
        with translated(asked):
            hot = self._opened().hot
            etag = hot.put_block_list(asked, self._path(key), block_ids, checked) if hot is not None else None
            if etag is not None:
                return etag.strip('"')
            blocks = [BlobBlock(block_id) for block_id in block_ids]
            blob = self._blob(key)
            return _etag(blob.commit_block_list(blocks, metadata=checked, match_condition=MatchConditions.IfMissing))

    def find_blob(self, key: str) -> Blob | None:
        """Return size, etag and metadata, or None when it is not there."""
        asked = self._asked(f"look for blob {key!r}")
        try:
            with translated(asked):
                hot = self._opened().hot
                answer = hot.head_blob(asked, self._path(key)) if hot is not None else None
                if answer is not None:
                    return _blob_of(key, answer) if answer.status == 200 else None
                found = self._blob(key).get_blob_properties()
        except BlobMissingError:
            return None
        return Blob(key, found.size, found.etag.strip('"'), dict(found.metadata or {}))

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        """Return exactly `length_bytes` from `offset_bytes` (None: up to the end), in one request."""
        assert offset_bytes >= 0 <= (length_bytes or 0), (offset_bytes, length_bytes)
        if length_bytes == 0:
            return self._read_nothing(key, offset_bytes)
        asked = self._asked(f"read blob {key!r}")
        try:
            with translated(asked):
                hot = self._opened().hot
                found = hot.get_range(asked, self._path(key), offset_bytes, length_bytes) if hot is not None else None
                if found is not None:
                    return found
                stream = self._blob(key).download_blob(offset_bytes, length_bytes)
                body: bytes = stream.readall()
                # The SDK's own `size` is what it read; the blob's stands behind the slash of "bytes 0-4/5".
                size_bytes = int(stream.properties.content_range.rpartition("/")[2])
        except RangeError:
            # Nothing begins there: right for a read to the end from the end.
            return self._read_nothing(key, offset_bytes, length_bytes or 0)
        wanted_bytes = size_bytes - offset_bytes if length_bytes is None else length_bytes
        if len(body) != wanted_bytes:
            raise _past_end(key, size_bytes, offset_bytes, offset_bytes + max(wanted_bytes, 0))
        return body

    def read_range_into(self, key: str, offset_bytes: int, target: memoryview) -> None:
        """Fill `target` with the bytes from `offset_bytes` on, in one request; raises as the contract says."""
        assert offset_bytes >= 0 < len(target), (offset_bytes, len(target))
        asked = self._asked(f"read blob {key!r}")
        with translated(asked):
            hot = self._opened().hot
            if hot is not None and hot.get_range_into(asked, self._path(key), offset_bytes, target):
                return
        target[:] = self.read_range(key, offset_bytes, len(target))

    def list_blobs(self, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        """Yield blobs by key, page by page; what comes up to `start_after` is fetched and skipped.

        The service's `startFrom` is left alone: it came in 2026, and stands for one level of a hierarchy only.
        """
        with self._translated("list blobs"):
            found = self._opened().container.list_blobs(
                self._prefix + prefix, include=["metadata"], results_per_page=LIST_PAGE_BLOBS
            )
            pages = found.by_page()
        while True:
            with self._translated("list blobs"):
                page = next(pages, None)
                blobs = None if page is None else list(page)
            if blobs is None:
                return
            for blob in blobs:
                key = blob.name[len(self._prefix) :]
                metadata = dict(blob.metadata or {})
                is_directory = metadata.get("hdi_isfolder") == "true"  # accounts with a hierarchical namespace list those too
                if key > start_after and not is_directory:
                    yield Blob(key, blob.size, blob.etag.strip('"'), metadata)

    def copy_blob(self, source_key: str, target_key: str) -> str:
        """Copy, metadata included, and return the new etag; `BlobExistsError` if the target is taken."""
        check_key(target_key)
        source = self.find_blob(source_key)
        if source is None:
            raise self._not_found(source_key)
        absent = {"match_condition": MatchConditions.IfMissing}
        with self._translated(f"copy blob {source_key!r} to {target_key!r}", writing=True, absent=True):
            return self._copy_from(self, source, target_key, source.metadata, absent)

    def delete_blob(self, key: str, etag: str | None = None) -> bool:
        """Delete the blob; False when it was not there. `ConflictError` when `etag` is given and differs."""
        condition = {} if etag is None else {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}
        if self._is_azurite and self.find_blob(key) is None:
            return False  # it would delete uncommitted blocks and report a blob
        try:
            with self._translated(f"delete blob {key!r}", writing=True):
                # Snapshots are none of ours, and with them the blob could not be deleted.
                self._blob(key).delete_blob(delete_snapshots="include", **condition)
        except BlobMissingError:
            return False
        except ConflictError:
            if self.find_blob(key) is None:
                return False  # a condition on what is not there counts as not met
            raise
        return True

    def sign_reads(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        """Return for each blob a url that reads it; with a token, the service is asked for one key that signs them all."""
        if not blobs:
            return []
        check_times(starts_at, expires_at)

        def ask_key() -> Any:
            asked = self._asked("ask for a user delegation key")
            return ask_delegation_key(asked, self._opened().credential, self._pace, starts_at, expires_at)

        sign = open_signer(self._location, self._credential, ask_key)
        return [sign(self._name(key), expires_at, file_name) for key, file_name in blobs]

    def find_principal(self) -> str | None:
        """Return the user or application that our token names; None with a key or a SAS, which name nobody."""
        if self._credential.key or self._credential.sas:
            return None
        with self._translated("ask for a token"):
            return principal_of(self._opened().credential.get_token(STORAGE_SCOPE).token)

    def close(self) -> None:
        """Let go of connections; idempotent. A later call opens new ones."""
        with self._lock:
            if self._clients is not None and self._pid == os.getpid():
                self._clients.close()
            self._clients = None

    def _opened(self) -> _Clients:
        clients = self._clients
        if clients is not None and self._pid == os.getpid():
            return clients
        if self._pid != os.getpid():
            self._lock = threading.Lock()  # after a fork it may be held by a thread that is not here; so are the connections
        with self._lock:
            if self._clients is None or self._pid != os.getpid():
                self._clients = self._connect()
                self._pid = os.getpid()
            return self._clients

    def _connect(self) -> _Clients:
        check_address(self._asked("look for the store"))
        credential = sdk_credential(self._credential)
        session, container = open_client(self._location, credential, self._pace)

        def ask_token() -> tuple[str, float]:
            found = credential.get_token(STORAGE_SCOPE)
            return found.token, found.expires_on

        return _Clients(session, container, credential, open_hot(self._location, self._credential, ask_token, self._pace))

    def _asked(self, what: str, *, writing: bool = False, absent: bool = False) -> Asked:
        return Asked(self._location, self._credential, what, writing, absent)

    def _translated(self, what: str, *, writing: bool = False, absent: bool = False) -> AbstractContextManager[None]:
        return translated(self._asked(what, writing=writing, absent=absent))

    def _name(self, key: str) -> str:
        """Return what a blob is called in the container."""
        return self._prefix + check_key(key)

    def _path(self, key: str) -> str:
        return quoted_path(urlsplit(self._location.account_url).path, self._location.container, self._name(key))

    def _blob(self, key: str) -> Any:
        return self._opened().container.get_blob_client(self._name(key))

    def _copy_from(
        self, store: AzureDriver, source: Blob, target_key: str, metadata: Mapping[str, str], condition: Mapping[str, Any]
    ) -> str:
        """Have the service copy a blob of `store`, which nobody sees before it is whole, and return the new etag."""
        target = self._blob(target_key)
        url, options = store._source_of_copy(source.key)
        if source.size_bytes <= COPY_ONE_REQUEST_BYTES_MAX:
            answer = target.start_copy_from_url(url, metadata=dict(metadata), requires_sync=True, **condition, **options)
            return _etag(answer)
        # The service's own copy in the background would show the target before it is whole; blocks do not.
        run = secrets.token_hex(8)
        ids: list[str] = []
        for offset_bytes in range(0, source.size_bytes, COPY_ONE_REQUEST_BYTES_MAX):
            length_bytes = min(COPY_ONE_REQUEST_BYTES_MAX, source.size_bytes - offset_bytes)
            ids.append(f"{run}-{len(ids):06}")
            target.stage_block_from_url(ids[-1], url, offset_bytes, length_bytes, **options)
        blocks = [BlobBlock(block_id) for block_id in ids]
        return _etag(target.commit_block_list(blocks, metadata=dict(metadata), **condition))

    def _put_over_blocks(self, key: str, body: Buffer, metadata: dict[str, str]) -> str:
        """Put where uncommitted blocks are: Azurite refuses a plain put then, the service does not.

        The block's id is random, of the length that the ids there have: all ids of one blob have one length, and another writer
        may be doing the same, in which case its commit drops our block.
        """
        for _ in range(PUT_OVER_BLOCKS_TRIES):
            length = max((len(block.block_id) for block in self.list_blocks(key)), default=16)
            block_ids = [secrets.token_hex(length)[:length]] if len(body) else []
            try:
                for block_id in block_ids:
                    self.stage_block(key, block_id, body)
                return self.commit_blocks(key, block_ids, metadata)
            except NotFoundError:
                if self.find_blob(key) is not None:
                    raise BlobExistsError(f"there is a blob {key!r} already in {self.url!r}") from None
        raise UnavailableError(f"blob {key!r} in {self.url!r}: other writers keep staging blocks of it", hint="try again")

    def _read_nothing(self, key: str, offset_bytes: int, length_bytes: int = 0) -> bytes:
        found = self.find_blob(key)
        if found is None:
            raise self._not_found(key)
        if offset_bytes + length_bytes > found.size_bytes:
            raise _past_end(key, found.size_bytes, offset_bytes, offset_bytes + length_bytes)
        return b""

    def _source_of_copy(self, key: str) -> tuple[str, dict[str, str]]:
        """Return the url to copy from and what proves that we may read it: the service checks the source on its own."""
        blob = self._blob(key)
        credential = self._credential
        if credential.sas:
            return f"{blob.url.partition('?')[0]}?{credential.sas}", {}
        if credential.key:
            sign = open_signer(self._location, credential, lambda: None)
            return sign(self._name(key), datetime.now(UTC) + COPY_TOKEN_LIFETIME, ""), {}
        return blob.url, {"source_authorization": f"Bearer {self._opened().credential.get_token(STORAGE_SCOPE).token}"}

    def _not_found(self, key: str) -> NotFoundError:
        return BlobMissingError(f"there is no blob {key!r} in {self.url!r}", hint="run: vds fsck")


def _past_end(key: str, size_bytes: int, start_bytes: int, end_bytes: int) -> CorruptionError:
    return CorruptionError(f"blob {key!r} has {size_bytes} bytes: cannot read {start_bytes} to {end_bytes}", hint="run: vds fsck")


def _blob_of(key: str, answer: Answer) -> Blob:
    """Return the blob that the answer to a HEAD tells of."""
    metadata = {name.removeprefix("x-ms-meta-"): value for name, value in answer.headers.items() if name.startswith("x-ms-meta-")}
    return Blob(key, int(answer.headers["content-length"]), answer.headers["etag"].strip('"'), metadata)


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer["etag"]).strip('"')  # listings leave the quotes out
