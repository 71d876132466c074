"""A version, read: pinned, immutable, safe in threads, forked and spawned workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from os import PathLike
from typing import IO, Any

from vds.engine.doors import Doors
from vds.engine.resolve import Resolution, resolve_point
from vds.errors import EntryNotFoundError, FormatError, InvalidInputError
from vds.index.entries import At, EntryRow, find_entries, is_anything_at, measure, read_changes_between, read_page
from vds.index.stores import NamespaceRow
from vds.index.versions import VersionRow, keep_content_digest
from vds.model.digest import Digest
from vds.model.entry import Change, Entry
from vds.model.manifest import ContentHasher
from vds.model.path import EntryPath, directory_path, entry_path, join, relative_to
from vds.model.patterns import Patterns
from vds.model.ref import Point, version_uri
from vds.ops.checkout import CheckoutResult, checkout
from vds.ops.download import DownloadResult, download
from vds.ops.placing import ObjectSource
from vds.ops.read import find_places, open_file, read_slice
from vds.ops.verify import VerifyReport, verify
from vds.progress import open_progress
from vds.store.handle import Handle


class Version:
    """An immutable committed set of files: `team/raw@12`. Paths are relative to the directory it is seen from.

    It pickles as its pin (store address, namespace, number, digest) without secrets, and opens the store anew elsewhere.
    """

    def __init__(self, handle: Handle, resolution: Resolution, path: str = "") -> None:
        self._handle = handle
        self._name = resolution.namespace.name
        self._number = resolution.version.number
        self._digest = Digest.from_raw(resolution.version.digest)
        self._path = EntryPath(path)
        self._resolution: Resolution | None = resolution
        self._lock = threading.Lock()

    @classmethod
    def of(cls, handle: Handle, namespace: NamespaceRow, row: VersionRow) -> Version:
        """Return the version that a row describes."""
        return cls(handle, Resolution(namespace, row, None, "", True))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickle, (self._handle, self._name, self._number, str(self._digest), str(self._path)))

    def __repr__(self) -> str:
        return f"<Version {self.uri} {self._digest[:15]}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self._pin == other._pin

    def __hash__(self) -> int:
        return hash(self._pin)

    @property
    def _pin(self) -> tuple[str, str, int, str, str]:
        return (self._handle.address.url, self._name, self._number, str(self._digest), str(self._path))

    @property
    def namespace(self) -> str:
        """The name of its namespace."""
        return self._name

    @property
    def number(self) -> int:
        """Its number, from 1; 0 is the empty version of every namespace."""
        return self._number

    @property
    def digest(self) -> Digest:
        """The digest of its history: two versions with equal digests have equal pasts."""
        return self._digest

    @property
    def path(self) -> EntryPath:
        """The directory (or file) it is seen from; empty for the root."""
        return self._path

    @property
    def uri(self) -> str:
        """`vds://NAMESPACE@NUMBER/PATH`."""
        return version_uri(self._name, self._number, self._path)

    @property
    def created_at(self) -> datetime:
        """When it was committed, in UTC, by the database's clock."""
        return self._row.created_at

    @property
    def author(self) -> str:
        """Who wrote it."""
        return self._row.author

    @property
    def message(self) -> str:
        """What its writer said."""
        return self._row.message

    @property
    def operation(self) -> str:
        """What made it: upload, mirror, copy, transaction, rollback or revert."""
        return self._row.operation

    @property
    def labels(self) -> Mapping[str, str]:
        """What its writer labelled it with."""
        return dict(self._row.labels)

    @property
    def provenance(self) -> Mapping[str, str]:
        """Where it came from: host, pid, command, git commit, job variables."""
        return dict(self._row.provenance)

    @property
    def commit_id(self) -> str:
        """The id under which `store.outcome` finds it."""
        return self._row.commit_id

    @property
    def parent(self) -> Version | None:
        """The version before it, seen from the same directory; None for version 0."""
        if self._number == 0:
            return None
        return Version(self._handle, resolve_point(self._doors, self._name, Point(number=self._number - 1)), self._path)

    @property
    def file_count(self) -> int:
        """How many files it has, below the directory it is seen from."""
        return self._measure()[0] if self._path else self._row.file_count

    @property
    def size_bytes(self) -> int:
        """The sum of their sizes."""
        return self._measure()[1] if self._path else self._row.size_bytes

    @property
    def content_digest(self) -> Digest:
        """Equal exactly when paths, bytes and modes are; computed on demand, and kept for a whole version."""
        row = self._row
        if row.content_digest is not None and not self._path:
            return Digest.from_raw(row.content_digest)
        hasher = ContentHasher()
        for entry in self._rows(self._path):
            hasher.add(relative_to(entry.path, self._path), entry.digest, entry.mode)
        digest = hasher.digest()
        doors = self._doors
        if not self._path and self._number and not doors.read_only:
            doors.index.run(lambda connection: keep_content_digest(connection, doors.store.id, row, digest))
        return Digest.from_raw(digest)

    def at(self, path: str) -> Version:
        """Return the same version seen from a directory (or a file).

        Raises:
            EntryNotFoundError: there is nothing at `path`.
        """
        place = join(self._path, directory_path(path))
        if place:
            with self._doors.index.read() as connection:
                found = is_anything_at(connection, self._at, place)
            if not found:
                raise self._nothing_at(path)
        return Version(self._handle, self._resolved, place)

    def entries(self, path: str = "") -> Iterator[Entry]:
        """Yield the files at or below `path`, by path; lazy, and empty when there is nothing."""
        return (self._entry(row) for row in self._rows(join(self._path, directory_path(path))))

    def entry(self, path: str) -> Entry:
        """Return one file.

        Raises:
            EntryNotFoundError: there is no file at `path`.
        """
        return self._entry(self._get_row(path))

    def exists(self, path: str) -> bool:
        """Return whether `path` is a file or a directory here."""
        place = directory_path(path)
        with self._doors.index.read() as connection:
            return is_anything_at(connection, self._at, join(self._path, place)) or bool(
                find_entries(connection, self._at, self._itself(place))
            )

    def open(self, path: str, mode: str = "rb") -> IO[bytes]:
        """Open one file for reading: binary, seekable, checked against its digest before the first byte is handed out.

        Raises:
            EntryNotFoundError: there is no file at `path`.
            CorruptionError: its stored bytes are not what they must be.
        """
        if mode != "rb":
            raise InvalidInputError(f"mode {mode!r} is not 'rb': a version is read-only", hint="for text: io.TextIOWrapper(f)")
        return open_file(self._doors, self._get_row(path))

    def read_bytes(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return the bytes of one file, or `size` of them from `offset`; the whole object is checked in any case.

        Raises:
            EntryNotFoundError: there is no file at `path`.
            CorruptionError: its stored bytes are not what they must be.
        """
        if offset < 0 or (size is not None and size < 0):
            raise InvalidInputError(f"offset {offset} and size {size} must not be negative")
        return read_slice(self._doors, self._get_row(path), offset, size)

    def read_text(self, path: str, encoding: str = "utf-8") -> str:
        """Return one file as text."""
        return self.read_bytes(path).decode(encoding)

    def diff(self, base: Version | None = None, path: str = "") -> list[Change]:
        """Return what changed from `base` (by default the parent) to this version, below `path`, by path."""
        earlier = base if base is not None else self.parent
        if earlier is None:
            return []
        place = join(self._path, directory_path(path))
        if earlier._path != self._path:
            raise InvalidInputError(f"{earlier.uri} and {self.uri} are seen from different directories")
        with self._doors.index.read() as connection:
            return [
                Change(relative_to(found, self._path), self._maybe(before), self._maybe(after))
                for found, before, after in read_changes_between(connection, earlier._at, self._at, place)
            ]

    def download(
        self,
        dst: str | PathLike[str],
        path: str = "",
        *,
        allow_patterns: Patterns = None,
        ignore_patterns: Patterns = None,
        show_progress: bool = True,
        dry_run: bool = False,
    ) -> DownloadResult:
        """Copy files into a directory; what is there and equal is kept, nothing is removed.

        Raises:
            DownloadError: some files could not be written; each file in the target is whole or absent.
            EntryNotFoundError: there is nothing at `path`.
            NoSpaceError: the disk has too little room; nothing was written.
        """
        view = self.at(path) if path else self
        with open_progress(show_progress, f"download {view.uri}") as progress:
            return download(
                self._objects,
                view.entries(),
                dst,
                progress,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                dry_run=dry_run,
            )

    def checkout(
        self,
        dst: str | PathLike[str],
        path: str = "",
        *,
        force: bool = False,
        show_progress: bool = True,
        dry_run: bool = False,
    ) -> CheckoutResult:
        """Make a directory equal to this version, but for files vds never placed, which are listed.

        Raises:
            ConflictError: a file was changed since vds placed it, and force was not given.
            DownloadError: some files could not be written.
        """
        view = self.at(path) if path else self
        with open_progress(show_progress, f"checkout {view.uri}") as progress:
            return checkout(
                self._objects,
                view.entries(),
                dst,
                progress,
                uri=view.uri,
                force=force,
                dry_run=dry_run,
            )

    def verify(self, sample: float | None = None, *, show_progress: bool = False) -> VerifyReport:
        """Read the stored bytes of every file (or of a random share) and check them; damage is reported, not raised."""
        if sample is not None and not 0 < sample <= 1:
            raise InvalidInputError(f"sample {sample!r} is not between 0 and 1", hint="for example sample=0.01")
        with open_progress(show_progress, f"verify {self.uri}") as progress:
            return verify(self._doors, self._at, self._path, progress, sample=sample)

    @property
    def _objects(self) -> ObjectSource:
        return ObjectSource(self._doors.blobs, partial(find_places, self._doors))

    @property
    def _doors(self) -> Doors:
        return self._handle.doors

    @property
    def _resolved(self) -> Resolution:
        with self._lock:
            if self._resolution is None:
                found = resolve_point(self._doors, self._name, Point(number=self._number))
                if Digest.from_raw(found.version.digest) != self._digest:
                    raise FormatError(
                        f"{self.uri} is {Digest.from_raw(found.version.digest)} in this store, expected {self._digest}",
                        hint="this is not the store the version came from",
                    )
                self._resolution = found
            return self._resolution

    @property
    def _row(self) -> VersionRow:
        return self._resolved.version

    @property
    def _at(self) -> At:
        resolved = self._resolved
        return At(self._doors.store.id, resolved.namespace.id, self._number)

    def _measure(self) -> tuple[int, int]:
        with self._doors.index.read() as connection:
            return measure(connection, self._at, self._path)

    def _rows(self, place: str) -> Iterator[EntryRow]:
        after = ""
        while True:
            with self._doors.index.read() as connection:
                page = read_page(connection, self._at, place, after)
            if not page:
                return
            yield from page
            after = page[-1].path

    def _get_row(self, path: str) -> EntryRow:
        place = self._path if not path and self._path else join(self._path, entry_path(path))
        with self._doors.index.read() as connection:
            rows = find_entries(connection, self._at, [place, *self._itself(path)])
        row = rows.get(place) or next(iter(rows.values()), None)
        if row is None:
            raise self._nothing_at(path)
        return row

    def _itself(self, path: str) -> list[str]:
        """Return the path this is seen from, if `path` can name it: a file is listed under its last segment."""
        return [self._path] if path and self._path.rpartition("/")[2] == path else []

    def _nothing_at(self, path: str) -> EntryNotFoundError:
        return EntryNotFoundError(f"there is no file {path!r} in {self.uri}", hint=f"vds ls {self._name}@{self._number}")

    def _entry(self, row: EntryRow) -> Entry:
        return Entry(relative_to(row.path, self._path), Digest.from_raw(row.digest), row.size_bytes, row.mode, row.modified_ns)

    def _maybe(self, row: EntryRow | None) -> Entry | None:
        return None if row is None else self._entry(row)


def _unpickle(handle: Handle, name: str, number: int, digest: str, path: str) -> Version:
    version = Version.__new__(Version)
    version._handle, version._name, version._number = handle, name, number
    version._digest, version._path = Digest(digest), EntryPath(path)
    version._resolution, version._lock = None, threading.Lock()
    return version
