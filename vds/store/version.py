"""A version, read: pinned, immutable, safe in threads, forked and spawned workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeVar

from vds.engine.doors import Doors
from vds.engine.resolve import Resolution, resolve_point
from vds.engine.view import View
from vds.errors import DownloadError, InvalidInputError, NotFoundError, VdsError
from vds.index.entries import At, count_closed, read_changes_between
from vds.index.stores import NamespaceRow
from vds.index.versions import VersionRow, get_named
from vds.model.digest import Digest
from vds.model.entry import Change, Entry
from vds.model.path import directory_path, join, relative_to
from vds.model.patterns import PathFilter, Patterns, path_filter
from vds.model.ref import Point
from vds.model.run import RUN_FIELD
from vds.ops.checkout import CheckoutResult, checkout
from vds.ops.download import DownloadResult, download
from vds.ops.export import ExportResult, Origin, export
from vds.ops.placing import ObjectSource
from vds.ops.runs import find_users
from vds.ops.runs import get as get_run
from vds.ops.share import Shared, share
from vds.ops.verify import VerifyReport, verify
from vds.progress import open_progress
from vds.store.files import VersionFiles
from vds.store.handle import Handle
from vds.store.pinned import Pinned
from vds.store.runs import RunInfo, run_info, unknown_run

T = TypeVar("T")


@dataclass(frozen=True)
class Replaced:
    """Files that a later version replaced or removed.

    Attributes:
        version: that had written them.
        files: how many.
    """

    version: Version
    files: int


class Version(VersionFiles):
    """An immutable committed set of files: `team/raw@12`. Paths are relative to the directory it is seen from.

    It pickles as its pin (store address, namespace, number, digest) without secrets, and opens the store anew elsewhere. Before
    that the list of its files is written to this machine's cache, so that workers here read it without a database connection.
    """

    def __init__(self, handle: Handle, resolution: Resolution, path: str = "") -> None:
        digest = Digest.from_raw(resolution.version.digest)
        super().__init__(Pinned(handle, resolution.namespace.name, resolution.version.number, digest, resolution), path)

    @classmethod
    def of(cls, handle: Handle, namespace: NamespaceRow, row: VersionRow) -> Version:
        """Return the version that a row describes."""
        return cls(handle, Resolution(namespace, row, None, "", True))

    @classmethod
    def pinned(cls, handle: Handle, name: str, number: int, digest: str, path: str = "") -> Version:
        """Return the version of a pin; no call is made, and the store is held against the digest when it is first asked."""
        return cls._seen(Pinned(handle, name, number, Digest(digest)), path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Version._seen, (self._pinned, str(self._path)))

    @property
    def parent(self) -> Version | None:
        """The version before it, seen from the same directory; None for version 0."""
        if self.number == 0:
            return None
        return Version(self._handle, resolve_point(self._doors, self.namespace, Point(number=self.number - 1)), self._path)

    @property
    def produced_by(self) -> RunInfo | None:
        """The run that wrote it; None when it was written outside any."""
        row = self._row
        uid = row.provenance.get(RUN_FIELD, "")
        if not uid:
            return None
        try:
            return run_info(get_run(self._doors, uid))
        except NotFoundError:  # of another store, or its records were lost
            return unknown_run(uid, row.author, row.created_at, row.provenance)

    def used_by(self) -> list[RunInfo]:
        """Return the runs that have read it, or a part of it, oldest first."""
        found = {facts.row.uid: run_info(facts) for facts, _ in find_users(self._doors, self._resolved.namespace, self.number)}
        return list(found.values())

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

    def replaced(self) -> list[Replaced]:
        """Return what this version took the place of, or removed: how many files of which versions, the newest first.

        It costs the changes, not the files. The versions that had written them still hold them, those that expired excepted.
        """
        with self._doors.index.read() as connection:
            counts = count_closed(connection, self._at)
            rows = [get_named(connection, self._resolved.namespace, number) for number, _ in counts]
        versions = [Version.of(self._handle, self._resolved.namespace, row) for row in rows]
        return [Replaced(version, files) for version, (_, files) in zip(versions, counts, strict=True)]

    def download(
        self,
        dst: str | PathLike[str],
        path: str = "",
        *,
        allow_patterns: Patterns = None,
        ignore_patterns: Patterns = None,
        link: bool = False,
        show_progress: bool = True,
        dry_run: bool = False,
    ) -> DownloadResult:
        """Copy files into a directory; what is there and equal is kept, nothing is removed.

        What comes is kept in this machine's cache, unless it would fill more than half of it; what the cache has is not fetched.

        Args:
            dst: made if it is not there.
            path: a directory or a file; all by default.
            allow_patterns: see `vds.model.patterns`.
            ignore_patterns: likewise.
            link: make files of 1 MiB and more second names of those in the cache, where the disk cannot share their bytes
                otherwise: nothing is copied, and they are read-only.
            show_progress: show it on stderr.
            dry_run: only decide.

        Raises:
            DownloadError: some files could not be written; each file in the target is whole or absent.
            EntryNotFoundError: there is nothing at `path`.
            NoSpaceError: the disk has too little room; nothing was written.
        """
        view = self.at(path) if path else self
        with open_progress(show_progress, f"download {view.uri}") as progress:
            return view._placed(
                lambda source: download(
                    source,
                    view.entries(),
                    dst,
                    progress,
                    allow_patterns=allow_patterns,
                    ignore_patterns=ignore_patterns,
                    dry_run=dry_run,
                ),
                path_filter(allow_patterns, ignore_patterns),
                is_linked=link,
            )

    def checkout(
        self,
        dst: str | PathLike[str],
        path: str = "",
        *,
        force: bool = False,
        allow_patterns: Patterns = None,
        ignore_patterns: Patterns = None,
        link: bool = False,
        show_progress: bool = True,
        dry_run: bool = False,
    ) -> CheckoutResult:
        """Make a directory equal to this version, but for files vds never placed, which are listed.

        With patterns it becomes equal to the part that they select. Bytes come as for `download`.

        Args:
            dst: made if it is not there.
            path: a directory or a file; all by default.
            force: lose what was changed here since vds placed it, and what stands where a file is to go.
            allow_patterns: see `vds.model.patterns`.
            ignore_patterns: likewise.
            link: as for `download`.
            show_progress: show it on stderr.
            dry_run: only decide.

        Raises:
            ConflictError: a file was changed since vds placed it, and force was not given.
            DownloadError: some files could not be written.
        """
        view = self.at(path) if path else self
        with open_progress(show_progress, f"checkout {view.uri}") as progress:
            return view._placed(
                lambda source: checkout(
                    source,
                    view.entries(),
                    dst,
                    progress,
                    uri=view.uri,
                    digest=str(view.digest),
                    allow_patterns=allow_patterns,
                    ignore_patterns=ignore_patterns,
                    force=force,
                    dry_run=dry_run,
                ),
                path_filter(allow_patterns, ignore_patterns),
                is_linked=link,
            )

    def share(self, path: str | None = None, hours: float = 24) -> list[Shared]:
        """Return for each file at or below `path` a url with which whoever has it reads the file for a while, without an account.

        Each url reads one blob, over https, until it ends; before that it ends only with the key that signed it. With an account
        key it is signed here; a signed-in user signs with a user delegation key, one request for all. Nothing is written.

        Args:
            path: a file or a directory; None for everything.
            hours: how long the urls are good, from 1 to 168.

        Raises:
            UnshareableError: some files are under 1 MiB and stand in one blob with others, or are empty: `export` them.
            InvalidInputError: `hours` is out of bounds, or the store is in no storage account, or was opened with a SAS.
            AccessDeniedError: the signed-in user may not sign.
            EntryNotFoundError: there is nothing at `path`.
        """
        entries = list(self.entries(path or ""))
        if path and not entries:
            raise self._nothing_at(path)
        return share(self._objects, entries, hours)

    def export(
        self,
        url: str | PathLike[str],
        path: str = "",
        *,
        allow_patterns: Patterns = None,
        ignore_patterns: Patterns = None,
        overwrite: bool = False,
        credential: object = None,
        show_progress: bool = True,
        dry_run: bool = False,
    ) -> ExportResult:
        """Write the files back as plain blobs or files below `url`, for tools that know nothing of vds.

        The service copies large files by itself where the account is the same. When everything is there, `_VDS_EXPORT.json` is
        written beside it and says what it is. What is there with the same content is left as it is, so the same call goes on
        after whatever stopped it. Nothing is removed; the result names what was found besides.

        Args:
            url: a container or a prefix in one, or a directory, but no store.
            path: a file or a directory of this version; paths at `url` are relative to it.
            allow_patterns: see `vds.model.patterns`.
            ignore_patterns: likewise.
            overwrite: replace files of other content.
            credential: for an account that is not the store's; as `connect` takes it.
            show_progress: show it on stderr.
            dry_run: only decide.

        Raises:
            ConflictError: other content stands there, and overwrite was not given; nothing was written.
            ExportError: some files could not be exported; all others are there, and no marker.
            InvalidInputError: `url` is no such place, or a store.
            EntryNotFoundError: there is nothing at `path`.
            NoSpaceError: the disk has too little room; nothing was written.
        """
        view = self.at(path) if path else self
        origin = Origin(view.uri, view.namespace, view.number, view.path, view.digest, view.created_at)
        with open_progress(show_progress, f"export {view.uri}") as progress:
            return export(
                view._objects,
                origin,
                view.entries(),
                url,
                progress,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                overwrite=overwrite,
                dry_run=dry_run,
                credential=credential,
            )

    def verify(self, sample: float | None = None, *, show_progress: bool = False) -> VerifyReport:
        """Read the stored bytes of every file (or of a random share) and check them; damage is reported, not raised."""
        if sample is not None and not 0 < sample <= 1:
            raise InvalidInputError(f"sample {sample!r} is not between 0 and 1", hint="for example sample=0.01")
        with open_progress(show_progress, f"verify {self.uri}") as progress:
            return verify(self._doors, self._at, self._path, progress, sample=sample)

    @property
    def _objects(self) -> ObjectSource:
        """Where objects stand by what the index says now."""
        view = self._pinned.index_view
        return ObjectSource(self._handle.blobs, lambda entries: view.places(self._rows_of(entries)), missing=self._missing)

    def _missing(self, entry: Entry) -> VdsError:
        [row] = self._rows_of([entry])
        return self._pinned.index_view.missing(row)

    def _placed(self, place: Callable[[ObjectSource], T], wanted: PathFilter, *, is_linked: bool) -> T:
        """Do what brings files to this machine, through its cache, and keep the list of a whole version's files with them.

        The places come from that list where there is one. Should one be out of date, it is done again, which goes on where it
        stopped, with the places that the index says.
        """
        if not self._path:
            self._pinned.try_manifest()
        contents = self._pinned.reader.contents

        def source(view: View) -> ObjectSource:
            find = lambda entries: view.places(self._rows_of(entries))  # noqa: E731 - one line, used once
            return ObjectSource(
                contents.driver,
                find,
                contents.cache,
                contents.store_uid,
                keeps=contents.cache is not None,
                is_linked=is_linked,
                missing=self._missing,
            )

        view, index_view = self._pinned.view, self._pinned.index_view
        rows = lambda: (row for row in self._rows(self._path) if wanted.takes(relative_to(row.path, self._path)))  # noqa: E731
        with self._pinned.listing_missing(rows):
            if view is not index_view:
                with suppress(DownloadError):
                    return place(source(view))
            return place(source(index_view))

    @property
    def _handle(self) -> Handle:
        return self._pinned.handle

    @property
    def _doors(self) -> Doors:
        return self._pinned.doors

    @property
    def _resolved(self) -> Resolution:
        return self._pinned.resolution

    @property
    def _at(self) -> At:
        return self._pinned.at
