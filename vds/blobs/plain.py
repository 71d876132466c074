"""Blobs that vds did not write, read as they are: names of any shape, in a container, a directory or memory.

Guarantees:
- nothing is written;
- bytes are handed out only of the blob that was listed: every read carries its etag, and a blob that was changed or deleted since
  is an error;
- what a store keeps for itself is not listed: neither that of a store at the place, nor that of one above or below it;
- thread-safe; drivers survive fork.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from vds.blobs import disk
from vds.blobs.driver import BlobDriver, no_signing_error
from vds.blobs.location import AzureLocation, DirectoryLocation, Location, parse_location
from vds.blobs.memory import MemoryDriver
from vds.blobs.plaindriver import PlainBlob, PlainDriver, changed_error
from vds.errors import InvalidInputError
from vds.model.format import format_key

OWN_DIRECTORIES = frozenset(
    {
        *("format", "store", "namespaces", "journal", "changes", "checkpoints", "datasets", "objects", "packs", "runs"),
        *("adopted", "doctor", ".vds-tmp", ".vds-meta", ".vds-index"),
    }
)
"""Below the place of a store these are its own."""

# What follows one of them in a key: two characters of a digest or "~~", a digest, a ulid, or a number.
_OWN_NEXT = re.compile(r"(?:[0-9a-f~]{2}|[0-9a-f]{64}|[0-9a-z]{26}(?:-[0-9a-f]{64})?|[0-9]{16})")


_named: dict[str, object] = {}


def name_place(location: Location, credential: object = None) -> None:
    """Note that this process named a container itself, and with which credential; both go with the process.

    What a store says of containers elsewhere is not believed so far: see `vds.blobs.outside`.
    """
    sas = location.sas if isinstance(location, AzureLocation) else ""
    url = container_url(location)
    given = credential if credential is not None else sas or None
    if given is not None or url not in _named:
        _named[url] = given


def is_named(url: str) -> bool:
    """Return whether this process named a container itself."""
    return url in _named


def named_credential(url: str) -> object:
    """Return the credential that this process gave for a container, or None."""
    return _named.get(url)


def container_url(location: Location) -> str:
    """Return the address of the container that a location lies in, without any secret."""
    if isinstance(location, AzureLocation):
        return replace(location, prefix="").url
    return location.path.as_uri() if isinstance(location, DirectoryLocation) else f"memory://{location.name}"


def open_plain_driver(location: Location, credential: object = None, beside: BlobDriver | None = None) -> PlainDriver:
    """Return a driver for the whole container that a location lies in; no call is made.

    Args:
        location: where.
        credential: as `vds.blobs.open.open_driver` takes it.
        beside: a store whose credential serves where none is given: for its own account, and if it is a token, for any.

    Raises:
        InvalidInputError: the credential is none we know, or would be readable on the way.
    """
    if isinstance(location, AzureLocation):
        # Loading the Azure SDK takes half a second, which other places need not pay.
        from vds.blobs.plainazure import open_plain_azure

        return open_plain_azure(location, credential, beside)
    return PlainDirectory(location.path) if isinstance(location, DirectoryLocation) else PlainMemory(location.name)


class PlainDirectory:
    """The files below a directory of this machine; symbolic links and what is no regular file are left out."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))

    @property
    def url(self) -> str:
        """The address: `file:///DIR`."""
        return self._root.as_uri()

    def list_plain(self, prefix: str = "") -> Iterator[PlainBlob]:
        """Yield the files by name; holds the names of one directory at a time and each of its parents."""
        with disk.translated(self._root, "list files"):
            if not self._root.is_dir():
                raise FileNotFoundError(2, os.strerror(2), str(self._root))
        yield from self._walk(self._root, "", prefix)

    def find_plain(self, name: str) -> PlainBlob | None:
        """Return a file, or None when it is not there."""
        path = self._find(name)
        if path is None:
            return None
        with disk.translated(self._root, f"look for file {name!r}"):
            try:
                found = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _describe(name, found) if stat.S_ISREG(found.st_mode) else None

    def read_plain(self, name: str, etag: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return a range of a file, which is compared before and after."""
        path = self._find(name)
        if path is None:
            raise changed_error(self.url, name, etag, None)
        with disk.translated(self._root, f"read file {name!r}"):
            try:
                with disk.open_blob(path) as source:
                    before = _describe(name, os.fstat(source))
                    body = disk.read_at(source, offset_bytes, length_bytes)
                    after = _describe(name, os.fstat(source))
            except (FileNotFoundError, NotADirectoryError):
                raise changed_error(self.url, name, etag, None) from None
        if before.etag != etag or after.etag != etag or len(body) != length_bytes:
            raise changed_error(self.url, name, etag, after)
        return body

    def sign_reads(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        """Raise `InvalidInputError`: there is nobody to ask for a file."""
        raise no_signing_error(self.url)

    def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    def _find(self, name: str) -> Path | None:
        """Return the path of a name, which comes out of records too; None for one that leads elsewhere."""
        segments = name.split("/")
        if any(segment in ("", ".", "..") or "\0" in segment or (os.sep != "/" and os.sep in segment) for segment in segments):
            return None
        directory = self._root
        for segment in segments[:-1]:
            directory /= segment
            if directory.is_symlink():
                return None
        return directory / segments[-1]

    def _walk(self, directory: Path, above: str, prefix: str) -> Iterator[PlainBlob]:
        names = []
        gone = suppress(FileNotFoundError, NotADirectoryError)  # deleted since its parent was read
        with disk.translated(self._root, "list files"), gone, os.scandir(directory) as entries:
            for entry in entries:
                if not entry.is_symlink():
                    names.append(f"{entry.name}/" if entry.is_dir() else entry.name)
        # A directory sorts with its slash: "a-b" < "a/b" < "a0", as the names of blobs do.
        for name in sorted(names):
            own = above + name
            if name.endswith("/"):
                if own.startswith(prefix) or prefix.startswith(own):
                    yield from self._walk(directory / name, own, prefix)
            elif own.startswith(prefix) and (found := self.find_plain(own)) is not None:
                yield found


def _describe(name: str, found: os.stat_result) -> PlainBlob:
    modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
    return PlainBlob(name, found.st_size, f"{found.st_mtime_ns:x}-{found.st_size:x}", modified_at)


class PlainMemory:
    """The blobs of a container in the memory of this process."""

    def __init__(self, name: str) -> None:
        self._driver = MemoryDriver(name)

    @property
    def url(self) -> str:
        """The address: `memory://NAME`."""
        return self._driver.url

    def list_plain(self, prefix: str = "") -> Iterator[PlainBlob]:
        """Yield the blobs by name."""
        for name in sorted(self._driver._opened().blobs):
            if name.startswith(prefix) and (found := self.find_plain(name)) is not None:
                yield found

    def find_plain(self, name: str) -> PlainBlob | None:
        """Return a blob, or None when it is not there."""
        stored = self._driver._opened().blobs.get(name)
        if stored is None or stored.metadata.get("hdi_isfolder") == "true":
            return None
        return PlainBlob(name, len(stored.body), stored.etag, stored.modified_at)

    def read_plain(self, name: str, etag: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return a range of a blob."""
        stored = self._driver._opened().blobs.get(name)
        if stored is None or stored.etag != etag:
            raise changed_error(self.url, name, etag, self.find_plain(name))
        return stored.body[offset_bytes : offset_bytes + length_bytes]

    def sign_reads(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        """Raise `InvalidInputError`: there is nobody to ask for a blob."""
        raise no_signing_error(self.url)

    def close(self) -> None:
        """Do nothing: the blobs stay."""


class PlainPlace:
    """A container, or a prefix in one, seen as plain blobs: names are relative to it, and what is a store's own is left out."""

    def __init__(self, driver: PlainDriver, prefix: str = "") -> None:
        self.driver = driver
        self._above = f"{prefix}/" if prefix else ""
        self._stores: dict[str, bool] = {}

    @property
    def url(self) -> str:
        """The address, without any secret."""
        return f"{self.driver.url}/{self._above}".rstrip("/") if self._above else self.driver.url

    def full_name(self, name: str) -> str:
        """Return what a blob is called in the container."""
        return self._above + name

    def list(self, prefix: str = "") -> Iterator[PlainBlob]:
        """Yield the blobs whose names begin with `prefix`, by name."""
        for blob in self.driver.list_plain(self._above + prefix):
            if not self._is_own(blob.name):
                yield replace(blob, name=blob.name[len(self._above) :])

    def find(self, name: str) -> PlainBlob | None:
        """Return a blob, or None when there is none, or it is a store's own."""
        full = self._above + name
        found = None if self._is_own(full) else self.driver.find_plain(full)
        return None if found is None else replace(found, name=name)

    def read(self, blob: PlainBlob, offset_bytes: int, length_bytes: int) -> bytes:
        """Return a range of a blob, which lies within it.

        Raises:
            PlainChangedError: it was changed or deleted since it was listed.
        """
        return self.driver.read_plain(self._above + blob.name, blob.etag, offset_bytes, length_bytes)

    def _is_own(self, full: str) -> bool:
        """Return whether a blob is a store's own: the store's place is above one of its directories."""
        segments = full.split("/")
        for count, segment in enumerate(segments[:-1]):
            if segment in OWN_DIRECTORIES and self._is_store("/".join(segments[:count]), segments[count + 1]):
                return True
        return False

    def _is_store(self, place: str, following: str) -> bool:
        known = self._stores.get(place)
        if known is None:
            # Directories of such names are common: elsewhere than here the service is asked only where what follows is of a key.
            if place != self._above.rstrip("/") and not _OWN_NEXT.match(following):
                return False
            name = f"{place}/{format_key(1)}" if place else format_key(1)
            known = self._stores[place] = self.driver.find_plain(name) is not None
        return known


def parse_place(url: str) -> Location:
    """Return where a url of plain blobs points to.

    Raises:
        InvalidInputError: it is none.
    """
    location = parse_location(url)
    if location is None:
        raise InvalidInputError(
            f"{url!r} is a name, not a place", hint=f"write ./{url} for a directory, or az://CONTAINER@ACCOUNT"
        )
    return location


def open_place(location: Location, credential: object = None, beside: BlobDriver | None = None) -> PlainPlace:
    """Return the plain blobs at a location; see `open_plain_driver`."""
    prefix = location.prefix if isinstance(location, AzureLocation) else ""
    return PlainPlace(open_plain_driver(location, credential, beside), prefix)
