"""Plain blobs of a container in an Azure storage account, or in Azurite."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from azure.core import MatchConditions

from vds.blobs.answers import BlobMissingError
from vds.blobs.azure import LIST_PAGE_BLOBS, AzureDriver
from vds.blobs.credential import Credential, choose_credential
from vds.blobs.driver import BlobDriver
from vds.blobs.location import AzureLocation
from vds.blobs.plaindriver import PlainBlob, changed_error
from vds.blobs.sdk import translated
from vds.errors import ConflictError

_FOLDER = "hdi_isfolder"
"""Metadata of what stands for a directory: accounts with a hierarchical namespace list those too."""


def open_plain_azure(location: AzureLocation, credential: object = None, beside: BlobDriver | None = None) -> PlainAzure:
    """Return a driver for the whole container of `location`; no call is made.

    Without a credential of its own (`credential`, or a SAS in the url) it takes that of the store `beside` it where the account
    is the same or the credential is a token, and what the environment says else.

    Raises:
        InvalidInputError: the credential is none we know, or would be readable on the way.
    """
    container = replace(location, prefix="")
    if credential is None and not location.sas and isinstance(beside, AzureDriver):
        if beside._location.account_url == location.account_url:
            return PlainAzure(container, beside._credential)
        credential = beside._credential.token
    return PlainAzure(container, choose_credential(container, credential, os.environ))


class PlainAzure(AzureDriver):
    """A container whose blobs are called anything; see `vds.blobs.plain.PlainDriver`. Made by `open_plain_azure`."""

    def __init__(self, location: AzureLocation, credential: Credential) -> None:
        super().__init__(location, credential)

    def list_plain(self, prefix: str = "") -> Iterator[PlainBlob]:
        """Yield blobs in the order of the service: by name, "/" first in an account with a hierarchical namespace."""
        with self._translated("list blobs"):
            found = self._opened().container.list_blobs(prefix or None, include=["metadata"], results_per_page=LIST_PAGE_BLOBS)
            pages = found.by_page()
        while True:
            with self._translated("list blobs"):
                page = next(pages, None)
                blobs = None if page is None else list(page)
            if blobs is None:
                return
            for blob in blobs:
                if not _is_folder(blob.metadata):
                    yield PlainBlob(blob.name, blob.size, blob.etag.strip('"'), blob.last_modified)

    def find_plain(self, name: str) -> PlainBlob | None:
        """Return a blob, or None when it is not there."""
        asked = self._asked(f"look for blob {name!r}")
        try:
            with translated(asked):
                hot = self._opened().hot
                answer = hot.head_blob(asked, self._path(name)) if hot is not None else None
                if answer is not None and answer.status != 200:
                    return None
                if answer is not None and "last-modified" in answer.headers:
                    headers = answer.headers
                    if headers.get(f"x-ms-meta-{_FOLDER}") == "true":
                        return None
                    modified_at: datetime = parsedate_to_datetime(headers["last-modified"])
                    return PlainBlob(name, int(headers["content-length"]), headers["etag"].strip('"'), modified_at)
                found = self._blob(name).get_blob_properties()
        except BlobMissingError:
            return None
        return None if _is_folder(found.metadata) else PlainBlob(name, found.size, found.etag.strip('"'), found.last_modified)

    def read_plain(self, name: str, etag: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return a range of a blob, in one request that carries its etag."""
        if length_bytes == 0:
            found = self.find_plain(name)
            if found is None or found.etag != etag:
                raise changed_error(self.url, name, etag, found)
            return b""
        asked = self._asked(f"read blob {name!r}")
        try:
            with translated(asked):
                hot = self._opened().hot
                body = hot.get_range(asked, self._path(name), offset_bytes, length_bytes, etag=etag) if hot is not None else None
                if body is not None:
                    return body
                condition: dict[str, Any] = {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}
                # The bytes as they are stored: what they are encoded with is none of our business.
                stream = self._blob(name).download_blob(offset_bytes, length_bytes, decompress=False, **condition)
                return bytes(stream.readall())
        except BlobMissingError:
            raise changed_error(self.url, name, etag, None) from None
        except ConflictError:
            now = self.find_plain(name)
            if now is not None and now.etag == etag:
                raise  # archived, say
            raise changed_error(self.url, name, etag, now) from None

    def _name(self, key: str) -> str:
        return key


def _is_folder(metadata: Mapping[str, str] | None) -> bool:
    return bool(metadata) and dict(metadata or {}).get(_FOLDER) == "true"
