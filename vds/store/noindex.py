"""A version without the index: read from the container alone, by who may do no more than read it.

For a store whose index is lost, or out of reach. It begins slower than with the index, since the files of the version have to be
put together from its history; from then on it is a version like any other. What asks for more than that one version says so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vds.blobs.driver import BlobDriver
from vds.blobs.open import open_driver
from vds.blobs.outside import RoutedDriver
from vds.config import find_store_settings
from vds.engine.doors import Doors
from vds.engine.resolve import Resolution
from vds.engine.view import LocalView
from vds.errors import CorruptionError, FormatError, InvalidInputError, NoSpaceError, VdsError
from vds.files.localmanifest import LocalManifest
from vds.index.erasure import ErasedRow
from vds.index.versions import VersionRow
from vds.model.digest import Digest
from vds.model.entry import EntryRow
from vds.model.ref import parse_ref_path, version_uri
from vds.ops.fromcontainer import RecordedVersion, read_version
from vds.ops.open import find_format, not_a_store
from vds.progress import open_progress
from vds.store.handle import Address, Handle
from vds.store.pinned import Pinned, facts_of
from vds.store.version import Version

NO_INDEX = "none"


def open_version(
    url: str | os.PathLike[str] | None, ref: str, *, credential: object = None, show_progress: bool = False
) -> Version:
    """Return the version that a ref names, seen from the ref's path, from the container alone.

    Args:
        url: of the store, as `connect` takes it; its index is not looked for.
        ref: as `Store.get` takes it. Where VDS_AS_OF says what it means, nobody checks that the moment has passed.
        credential: as `connect` takes it.
        show_progress: show it on stderr.

    Raises:
        NotFoundError: there is no such store or version, or it has expired.
        EntryNotFoundError: there is nothing at the ref's path.
        CorruptionError: what tells of the version is missing, or cannot be believed; the message names its key.
        InvalidInputError: the ref does not parse.
        NoSpaceError: the temporary directory is full.
        UnavailableError: the container does not answer.
    """
    parsed, path = parse_ref_path(ref)
    blobs = RoutedDriver(open_driver(find_store_settings(None if url is None else os.fspath(url)).url, credential))
    try:
        record = find_format(blobs, read_only=True)
        if record is None:
            raise not_a_store(blobs.url)

        def describe(name: str, row: VersionRow) -> Mapping[str, Any]:
            return {"store": record.store, "url": blobs.url, "namespace": name, "version": facts_of(row)}

        with (
            open_progress(show_progress, f"read {ref} without the index") as progress,
            tempfile.TemporaryDirectory(prefix="vds-", ignore_cleanup_errors=True) as directory,
        ):
            file_path = Path(directory) / "manifest"
            with file_path.open("wb") as file:
                found = read_version(blobs, record.store, parsed, path, file, describe=describe, progress=progress)
            pinned = UnindexedPinned(_handle_of(blobs), found, LocalManifest(file_path))  # mapped, so it needs no name any more
        version = Version._seen(pinned, "")
        return version.at(found.path) if found.path else version
    except BaseException as err:
        blobs.close()
        if isinstance(err, OSError) and not isinstance(err, VdsError):
            raise NoSpaceError(
                f"the list of files could not be written below {tempfile.gettempdir()!r}: {err.strerror or err}",
                hint="free some space, or set TMPDIR to another disk",
            ) from err
        raise


class UnindexedPinned(Pinned):
    """A version of which this process knows everything; pickled, it is read from the container anew."""

    def __init__(self, handle: Handle, found: RecordedVersion, manifest: LocalManifest) -> None:
        super().__init__(handle, found.name, found.row.number, Digest.from_raw(found.row.digest))
        self._manifest = manifest
        self._has_looked = True
        self._own_view = _UnindexedView(manifest, found.erased)
        self.index_view = self._own_view  # there is nothing that would know better

    def __reduce__(self) -> tuple[Any, ...]:
        return (_open_pinned, (self.handle.address.url, self.name, self.number, self.digest))

    @property
    def view(self) -> LocalView:
        """What it holds."""
        return self._own_view

    @property
    def resolution(self) -> Resolution:
        """What the index would say.

        Raises:
            InvalidInputError: always.
        """
        raise _needs_index()


class _UnindexedView(LocalView):
    def __init__(self, manifest: LocalManifest, erased: Mapping[bytes, ErasedRow]) -> None:
        super().__init__(manifest)
        self._erased = erased

    def missing(self, row: EntryRow) -> VdsError:
        if row.digest in self._erased:
            return self._erased[row.digest].error(row.path)
        return CorruptionError(
            f"{row.path!r}: no blob of the container has object {Digest.from_raw(row.digest)}", hint="run: vds fsck"
        )


def _handle_of(blobs: BlobDriver) -> Handle:
    handle = Handle(Address(blobs.url, NO_INDEX, True), _refuse)
    handle._blobs = blobs  # which may have a credential that nothing else would find
    return handle


def _refuse(address: Address) -> Doors:
    raise _needs_index()


def _needs_index() -> InvalidInputError:
    return InvalidInputError(
        "this version was opened without the index, which is needed for that", hint="open the store with vds.connect"
    )


def _open_pinned(url: str, name: str, number: int, digest: Digest) -> Pinned:
    pinned = open_version(url, f"{name}@{number}")._pinned
    if pinned.digest != digest:
        raise FormatError(
            f"{version_uri(name, number)} is {pinned.digest} in this store, expected {digest}",
            hint="this is not the store the version came from",
        )
    return pinned
