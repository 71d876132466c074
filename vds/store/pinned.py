"""One version, pinned: what all of its views share, and whether it is asked of the index or of this machine.

A local manifest is made when many files will be read: for a stream, a whole download, before a version goes to another process,
and after as many single lookups as it is worth. From then on this machine needs no database to read the version.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakSet

from vds.engine.contents import Contents
from vds.engine.doors import Doors
from vds.engine.resolve import Resolution, resolve_point
from vds.engine.versionreader import VersionReader
from vds.engine.view import IndexView, LocalView, View
from vds.errors import FormatError, UnavailableError, VdsError
from vds.files.localmanifest import LocalManifest, find_manifest, write_manifest
from vds.index.entries import At, read_placed_entries
from vds.index.placements import find_checks, find_keys
from vds.index.versions import VersionRow, keep_content_digest
from vds.model.digest import Digest
from vds.model.entry import EntryRow
from vds.model.ref import Point, version_uri
from vds.store.handle import Handle

LOOKUPS_MIN = 64
ROWS_A_LOOKUP = 250
"""Asking the index for one file costs about as much as writing 250 rows of a manifest."""
_NAMED_MAX = 10

_log = logging.getLogger(__name__)


class OfflineError(UnavailableError):
    """The store does not answer, and this machine's cache has not all that was asked for. Nothing wrong was handed out.

    Attributes:
        paths: of every file that is missing here.
    """

    kind = "offline"

    def __init__(self, message: str, *, paths: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.paths = tuple(paths)


class Pinned:
    """A version of a namespace; thread-safe, and made without a call."""

    def __init__(self, handle: Handle, name: str, number: int, digest: Digest, resolution: Resolution | None = None) -> None:
        self.handle = handle
        self.name = name
        self.number = number
        self.digest = digest
        self._resolution = resolution
        self._manifest: LocalManifest | None = None
        self._has_looked = False
        self._lookups = 0
        self._lock = threading.RLock()
        self.index_view: View = IndexView(lambda: self.doors, lambda: self.at)
        _alive.add(self)

    def forget_parent(self) -> None:
        """Take a new lock in a forked child: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._resolution is not None:
            self._prepare_others()
        return (Pinned, (self.handle, self.name, self.number, self.digest))

    @property
    def doors(self) -> Doors:
        """The open store."""
        return self.handle.doors

    @property
    def resolution(self) -> Resolution:
        """What the index says of the version.

        Raises:
            FormatError: the store has another version of this number.
        """
        with self._lock:
            if self._resolution is None:
                found = resolve_point(self.doors, self.name, Point(number=self.number))
                own = Digest.from_raw(found.version.digest)
                if own != self.digest:
                    raise FormatError(
                        f"{version_uri(self.name, self.number)} is {own} in this store, expected {self.digest}",
                        hint="this is not the store the version came from",
                    )
                self._resolution = found
            return self._resolution

    @property
    def row(self) -> VersionRow:
        """What is known of the version."""
        manifest = self.manifest if self._resolution is None else None
        return self.resolution.version if manifest is None else _row_of(manifest.facts["version"])

    @property
    def at(self) -> At:
        """The version, as the index asks for it."""
        return At(self.doors.store.id, self.resolution.namespace.id, self.number)

    @property
    def manifest(self) -> LocalManifest | None:
        """The list of its files on this machine; None when there is none (yet)."""
        with self._lock:
            if not self._has_looked:
                self._has_looked = True
                cache = self.handle.cache
                path = cache.find_manifest(self.digest.raw) if cache is not None and self.number else None
                self._manifest = find_manifest(path) if path is not None else None
            return self._manifest

    @property
    def view(self) -> View:
        """What it holds."""
        manifest = self.manifest
        return self.index_view if manifest is None else LocalView(manifest)

    @property
    def reader(self) -> VersionReader:
        """What reads its files."""
        manifest = self.manifest
        store_uid = self.doors.store.uid if manifest is None else str(manifest.facts["store"])
        return VersionReader(self.view, Contents(self.handle.blobs, self.handle.cache, store_uid), self.index_view)

    def find(self, paths: Iterable[str]) -> dict[str, EntryRow]:
        """Return the files with exactly these paths; those that are not there are left out."""
        if self.manifest is None and self.number:
            self._lookups += 1
            if self._lookups > max(LOOKUPS_MIN, self.row.file_count // ROWS_A_LOOKUP):
                self._lookups = 0
                self.try_manifest()
        return self.view.find(paths)

    def keep_content_digest(self, digest: bytes) -> None:
        """Write down the content digest of the whole version; only by who may write, and has the index open for it already."""
        if self._resolution is not None and self.number and not self.handle.address.read_only:
            doors, row = self.doors, self._resolution.version
            doors.index.run(lambda connection: keep_content_digest(connection, doors.store.id, row, digest))

    @contextmanager
    def listing_missing(self, rows: Callable[[], Iterable[EntryRow]]) -> Iterator[None]:
        """Where the store does not answer, say which of these files this machine would have needed it for.

        Raises:
            OfflineError: in place of an UnavailableError, where the files of the version are known here.
        """
        try:
            yield
        except UnavailableError as err:
            if isinstance(err, OfflineError) or self._manifest is None:
                raise
            paths = self.reader.missing(rows())
            shown = ", ".join(repr(path) for path in paths[:_NAMED_MAX])
            more = f" and {len(paths) - _NAMED_MAX} more" if len(paths) > _NAMED_MAX else ""
            count = "1 file" if len(paths) == 1 else f"{len(paths)} files"
            raise OfflineError(
                f"this machine's cache lacks {count} of {version_uri(self.name, self.number)}, and the store does not answer: "
                f"{shown}{more} ({err.message})",
                paths=paths,
                hint="try again when the store can be reached",
            ) from err

    def need_manifest(self) -> LocalManifest:
        """Return the list of its files on this machine, made now if there is none."""
        with self._lock:
            manifest = self.manifest or self._make_manifest()
            if manifest is None:  # no cache, or it takes nothing: a file that goes with this process
                with tempfile.TemporaryDirectory(prefix="vds-") as directory:
                    path = Path(directory) / "manifest"
                    with path.open("wb") as file:
                        self._write(file)
                    manifest = LocalManifest(path)
            self._manifest = manifest
            return manifest

    def try_manifest(self) -> None:
        """Make the list if there is none and the cache takes it; where it does not, the index goes on being asked."""
        if not self.number or self.manifest is not None or self.handle.cache is None:
            return
        with self._lock:
            try:
                self._manifest = self.manifest or self._make_manifest()
            except (VdsError, OSError) as err:
                _log.info("%s: no local manifest: %s", version_uri(self.name, self.number), err)

    def _make_manifest(self) -> LocalManifest | None:
        cache = self.handle.cache
        path = cache.put_manifest(self.digest.raw, self._write) if cache is not None and self.number else None
        return find_manifest(path) if path is not None else None

    def _prepare_others(self) -> None:
        # Workers on this machine then read without a connection each. What is in memory no other process can read at all.
        if not self.handle.address.url.startswith("memory:"):
            self.try_manifest()

    def _write(self, file: BinaryIO) -> None:
        doors, at = self.doors, self.at
        facts = {
            "store": doors.store.uid,
            "url": self.handle.address.url,
            "namespace": self.name,
            "version": facts_of(self.resolution.version),
        }
        with doors.index.read() as connection, doors.index.read() as other:
            write_manifest(
                file,
                read_placed_entries(connection, at),
                partial(find_keys, other),
                partial(find_checks, other, doors.store.id),
                facts,
            )


_alive: WeakSet[Pinned] = WeakSet()


def _after_fork_in_child() -> None:
    for pinned in list(_alive):
        pinned.forget_parent()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def facts_of(row: VersionRow) -> dict[str, Any]:
    """Return what is known of a version, as its local manifest keeps it."""
    content_digest = None if row.content_digest is None else row.content_digest.hex()
    raw = {"digest": row.digest.hex(), "parent": row.parent.hex(), "content_digest": content_digest}
    plain = {name: getattr(row, name) for name in _PLAIN}
    return {**plain, **raw, "labels": dict(row.labels), "provenance": dict(row.provenance)}


def _row_of(facts: dict[str, Any]) -> VersionRow:
    content_digest = facts["content_digest"]
    return VersionRow(
        namespace_id=0,
        digest=bytes.fromhex(facts["digest"]),
        parent=bytes.fromhex(facts["parent"]),
        content_digest=None if content_digest is None else bytes.fromhex(content_digest),
        labels=facts["labels"],
        provenance=facts["provenance"],
        **{name: facts[name] for name in _PLAIN},
    )


_PLAIN = (
    *("number", "commit_id", "created_us", "operation", "author", "message"),
    *("added", "modified", "removed", "file_count", "size_bytes"),
)
