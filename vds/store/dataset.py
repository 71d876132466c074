"""A dataset: the global name that consumers read, its releases, its tags and their history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from vds.engine.resolve import Resolution, get_dataset, resolve
from vds.errors import InvalidInputError
from vds.index.database import Connection
from vds.index.datasets import DatasetRow, ReleaseRow, find_release, list_releases, list_tags
from vds.index.stores import NamespaceRow, read_namespace
from vds.index.versions import VersionRow, get_named
from vds.model.digest import Digest
from vds.model.event import EventKind
from vds.model.moment import moment_of
from vds.model.path import EntryPath, join
from vds.model.ref import LATEST, SCHEME, DatasetRef, parse_int, parse_name, parse_release, parse_tag
from vds.ops import dataset as ops
from vds.store.handle import Handle
from vds.store.source import find_source
from vds.store.version import Version


@dataclass(frozen=True)
class Release:
    """The n-th registration of a version under a dataset: `customers:3`. Immutable.

    Attributes:
        version: what it shows, seen from the path that was registered.
    """

    dataset: str
    number: int
    version: Version
    created_at: datetime
    author: str
    description: str
    labels: Mapping[str, str]

    @property
    def path(self) -> EntryPath:
        """The directory of the version that was registered; empty for all of it."""
        return self.version.path

    @property
    def expired_at(self) -> datetime | None:
        """When the version it shows was expired, by its name: its files are read no more. None: they are."""
        expired_us = self.version._row.expired_us
        return None if expired_us is None else moment_of(expired_us)

    @property
    def uri(self) -> str:
        """`vds://DATASET:NUMBER/`."""
        return f"{SCHEME}{self.dataset}:{self.number}/"


@dataclass(frozen=True, slots=True)
class TagEvent:
    """One step of a dataset's history.

    Attributes:
        seq: its number in the dataset, from 1.
        kind: `register`, `tag` or `untag`.
        release: what it made or showed; None after untag.
        previous: the release the tag showed before.
        digest: of its record; each record carries the digest of the one before.
        parent: that earlier digest.
    """

    seq: int
    kind: EventKind
    tag: str | None
    release: int | None
    previous: int | None
    author: str
    reason: str
    created_at: datetime
    digest: Digest
    parent: Digest


class Dataset:
    """A registered, global name. A lazy handle: making one calls nothing, and its first registration makes it."""

    def __init__(self, handle: Handle, name: str) -> None:
        self._handle = handle
        self.name = parse_name(name, "dataset")

    def __repr__(self) -> str:
        return f"<Dataset {self.name}>"

    def register(
        self,
        source: Version | str,
        path: str = "",
        *,
        tags: Sequence[str] = (),
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Release:
        """Register a version (or a directory of it) and return its release; the same version and path again: the same one.

        The release and its tags become visible in one step.

        Raises:
            NotFoundError: there is no such version or path.
            InvalidInputError: a tag cannot be one, or the version is the empty one.
        """
        version = find_source(self._handle, source)
        version = version.at(path) if path else version
        target = Resolution(version._resolved.namespace, version._resolved.version, None, version.path, True)
        row = ops.register(
            self._handle.doors,
            self.name,
            target,
            tags=tags,
            description=description,
            labels=labels,
            author=self._handle.intent().author,
        )
        return self._shown(row, target.namespace, target.version)

    def tag(
        self,
        tag: str,
        target: int | Release | Version | str,
        *,
        reason: str = "",
        expected: int | Literal["absent"] | None = None,
    ) -> Release:
        """Point a tag at a release: a number, a Release, or a version or ref, which is registered if it is not yet.

        Args:
            tag: one word, neither `latest` nor a number.
            target: what it is to show.
            reason: for the history.
            expected: the release it must show now, or "absent", else ConflictError: a compare-and-swap.

        Raises:
            ConflictError: the tag is not where `expected` says.
            NotFoundError: there is no such release or version.
        """
        parse_tag(tag)
        release = self._find_target(target)
        author = self._handle.intent().author
        ops.tag(self._handle.doors, self.name, tag, release.number, author=author, reason=reason, expected=expected)
        return release

    def untag(self, tag: str, *, reason: str = "", expected: int | None = None) -> None:
        """Take a tag away; what it showed stays in the history.

        Raises:
            NotFoundError: there is no such tag.
            ConflictError: it does not show `expected`.
        """
        author = self._handle.intent().author
        ops.tag(self._handle.doors, self.name, tag, None, author=author, reason=reason, expected=expected)

    def tags(self) -> dict[str, Release]:
        """Return each tag and the release it shows, by tag; the version of a release may have expired.

        Raises:
            NotFoundError: there is no such dataset.
        """
        with self._handle.doors.index.read() as connection:
            dataset = self._row(connection)
            numbers = list_tags(connection, dataset)
            rows = {n: find_release(connection, dataset, n, up_to=dataset.visible) for n in set(numbers.values())}
        found = {number: self._release(row) for number, row in rows.items() if row is not None}
        return {tag: found[number] for tag, number in numbers.items()}

    def releases(self) -> list[Release]:
        """Return all releases, newest first; the version of one may have expired.

        Raises:
            NotFoundError: there is no such dataset.
        """
        with self._handle.doors.index.read() as connection:
            rows = list_releases(connection, self._row(connection))
        return [self._release(row) for row in rows]

    def release(self, target: int | str = LATEST) -> Release:
        """Return one release, by number, tag or "latest"; the version of it may have expired, except of the latest.

        Raises:
            NotFoundError: there is none.
        """
        return self._resolved(parse_release(self.name, target))

    def history(self, tag: str | None = None) -> list[TagEvent]:
        """Return every registration and tag move (of one tag), newest first.

        Raises:
            NotFoundError: there is no such dataset.
        """
        return [
            TagEvent(
                row.number,
                row.kind,
                row.tag,
                row.release,
                row.previous,
                row.author,
                row.reason,
                moment_of(row.created_us),
                Digest.from_raw(row.digest),
                Digest.from_raw(row.parent),
            )
            for row in ops.history(self._handle.doors, self.name, tag)
        ]

    def get(self, target: int | str) -> Version:
        """Return the version of a release or tag: 3, "v3", "latest", "prod", "prod@2026-03-01T12:00Z".

        Raises:
            NotFoundError: there is none.
        """
        return self._version(parse_release(self.name, target))

    def latest(self) -> Version:
        """Return the version of the newest release.

        Raises:
            NotFoundError: there is no such dataset.
        """
        return self._version(DatasetRef(self.name))

    def _version(self, ref: DatasetRef) -> Version:
        resolution = resolve(self._handle.doors, ref)
        return Version(self._handle, resolution, resolution.path)

    def _find_target(self, target: int | Release | Version | str) -> Release:
        if isinstance(target, Release):
            if target.dataset.casefold() != self.name.casefold():
                raise InvalidInputError(f"{target.uri} is not a release of {self.name!r}")
            target = target.number
        if isinstance(target, int) or (isinstance(target, str) and (parse_int(target) is not None or target == LATEST)):
            return self._resolved(parse_release(self.name, target))
        return self.register(target)

    def _resolved(self, ref: DatasetRef) -> Release:
        resolution = resolve(self._handle.doors, ref)
        assert resolution.release is not None
        return self._release(resolution.release)

    def _row(self, connection: Connection) -> DatasetRow:
        return get_dataset(connection, self._handle.doors, self.name)

    def _release(self, row: ReleaseRow) -> Release:
        with self._handle.doors.index.read() as connection:
            namespace = read_namespace(connection, row.namespace_id)
            version = get_named(connection, namespace, row.version)
        return self._shown(row, namespace, version)

    def _shown(self, row: ReleaseRow, namespace: NamespaceRow, version: VersionRow) -> Release:
        view = Version(self._handle, Resolution(namespace, version, row, row.path, True), join(row.path, ""))
        return Release(self.name, row.number, view, moment_of(row.created_us), row.author, row.description, row.labels)
