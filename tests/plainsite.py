"""Places where other tools keep plain blobs, for tests: memory, a directory, Azurite. Blobs come, change and go there."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
from azure.storage.blob import ContainerClient

from vds.blobs.credential import _AZURITE_KEY
from vds.blobs.location import AZURITE_ACCOUNT
from vds.blobs.memory import MemoryDriver, _Stored

PLAIN_KINDS = ["memory", "directory", pytest.param("azurite", marks=pytest.mark.services)]


class PlainSite(Protocol):
    """A container that others write to."""

    url: str

    def put(self, name: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Write a blob, or write it anew."""
        ...

    def delete(self, name: str) -> None:
        """Delete a blob."""
        ...

    def names(self) -> list[str]:
        """Return the names of all blobs, sorted."""
        ...


class MemorySite:
    """A container in memory."""

    def __init__(self, name: str) -> None:
        self.url = f"memory://{name}"
        driver = MemoryDriver(name)
        driver.create_container()
        self._container = driver._container

    def put(self, name: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self._container.blobs[name] = _Stored(body, f"{next(self._container.etags):x}", dict(metadata or {}))

    def delete(self, name: str) -> None:
        del self._container.blobs[name]

    def names(self) -> list[str]:
        return sorted(self._container.blobs)


class DirectorySite:
    """A directory; each write has a time of its own, however coarse the clock is."""

    def __init__(self, root: Path) -> None:
        self.url = root.as_uri()
        self._root = root
        self._times = itertools.count(1_700_000_000_000_000_000, 1_000_000_000)
        root.mkdir(exist_ok=True, parents=True)

    def put(self, name: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        stamp = next(self._times)
        os.utime(path, ns=(stamp, stamp))

    def delete(self, name: str) -> None:
        (self._root / name).unlink()

    def names(self) -> list[str]:
        return sorted(path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file())


class AzuriteSite:
    """A container in Azurite."""

    def __init__(self, url: str, client: ContainerClient) -> None:
        self.url = url
        self.client = client

    def put(self, name: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self.client.upload_blob(name, body, overwrite=True, metadata=dict(metadata or {}))

    def delete(self, name: str) -> None:
        self.client.delete_blob(name)

    def names(self) -> list[str]:
        return sorted(self.client.list_blob_names())


@contextmanager
def open_site(kind: str, request: pytest.FixtureRequest) -> Iterator[PlainSite]:
    """Lend a new, empty place of a kind."""
    name = f"plain-{uuid.uuid4().hex[:12]}"
    if kind == "memory":
        yield MemorySite(name)
    elif kind == "directory":
        yield DirectorySite(request.getfixturevalue("tmp_path") / name)
    else:
        azurite = request.getfixturevalue("azurite_url")
        account_url = f"http://{urlsplit(azurite).netloc}/{AZURITE_ACCOUNT}"
        with ContainerClient(account_url, name, _AZURITE_KEY) as client:
            client.create_container()
            yield AzuriteSite(f"{azurite}/{name}", client)
