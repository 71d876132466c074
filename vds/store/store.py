"""A store: one container and one index, opened together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

from vds.engine.journal import flush_line
from vds.engine.resolve import resolve
from vds.index.commit import find_commit_place
from vds.index.datasets import list_datasets
from vds.index.staging import list_open_uploads
from vds.index.stores import list_namespaces, read_namespace
from vds.model.digest import Digest
from vds.model.moment import moment_of
from vds.model.path import EntryPath
from vds.model.ref import Point, parse_ref_path
from vds.ops.doctor import Report, examine
from vds.ops.now import now
from vds.store.dataset import Dataset
from vds.store.handle import Handle
from vds.store.namespace import Namespace, NamespaceInfo
from vds.store.source import find_version
from vds.store.transaction import Transaction
from vds.store.version import Version


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a ref means now.

    Attributes:
        requested: the ref as it was typed.
        release: the release's number, when the ref named a dataset.
        path: where in the version it points.
        pinned: whether it will mean the same for ever, or for as long as VDS_AS_OF stays as it is.
    """

    requested: str
    namespace: str
    number: int
    digest: Digest
    release: int | None
    path: EntryPath
    pinned: bool


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A dataset in a listing."""

    name: str
    releases: int


@dataclass(frozen=True, slots=True)
class TransactionInfo:
    """An open transaction in a listing."""

    token: str
    namespace: str
    created_at: datetime
    expires_at: datetime
    author: str
    message: str
    parts: int


class Store:
    """An open store. Thread-safe; it pickles as its address, without secrets, and survives fork."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __repr__(self) -> str:
        return f"<Store {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self._handle,))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address of its container, without any secret."""
        return self._handle.address.url

    @property
    def index(self) -> str:
        """The address of its index, without any secret; `embedded` for SQLite on this machine."""
        return self._handle.address.index

    @property
    def id(self) -> str:
        """Its id, made once and kept in the container."""
        return self._handle.doors.store.uid

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading."""
        return self._handle.address.read_only

    def close(self) -> None:
        """Let go of connections. Using the store again opens them again."""
        self._handle.close()

    def namespace(self, name: str) -> Namespace:
        """Return a namespace; lazy: no call is made, and it need not exist before its first write."""
        return Namespace(self._handle, name)

    def dataset(self, name: str) -> Dataset:
        """Return a dataset; lazy: no call is made, and it need not exist before its first registration."""
        return Dataset(self._handle, name)

    def get(self, ref: str) -> Version:
        """Return the version that a ref names, seen from the ref's path.

        Raises:
            InvalidInputError: the ref does not parse.
            NotFoundError: there is no such version.
        """
        return find_version(self._handle, ref)

    def resolve(self, ref: str) -> Resolved:
        """Return what a ref means now, and whether it will always mean that.

        Raises:
            InvalidInputError: the ref does not parse.
            NotFoundError: there is no such version.
        """
        parsed, path = parse_ref_path(ref)
        found = resolve(self._handle.doors, parsed, path)
        return Resolved(
            requested=ref,
            namespace=found.namespace.name,
            number=found.version.number,
            digest=Digest.from_raw(found.version.digest),
            release=found.release.number if found.release is not None else None,
            path=EntryPath(found.path),
            pinned=found.is_pinned,
        )

    def now(self) -> datetime:
        """Return the present moment of this store, in UTC: what VDS_AS_OF takes, so that all steps of a run see the same data.

        Everything acknowledged before the call is part of it, and whatever shows later has a later time: each ref that can move
        has one answer as of this moment, whoever asks and when. It holds up no writer.

        Raises:
            UnavailableError: a commit under way, or the record of one, took longer than 10 s, or the database's clock was set
                back: it stands behind what was recorded. One that is set back after this returned breaks the promise.
            AccessDeniedError: the index is a standby of its database, or an embedded one that may not be written.
        """
        return now(self._handle.doors)

    def namespaces(self, prefix: str = "") -> list[NamespaceInfo]:
        """Return the namespaces called `prefix` or `prefix/…` that have a version, by name."""
        doors = self._handle.doors
        with doors.index.read() as connection:
            rows = list(list_namespaces(connection, doors.store.id, prefix.rstrip("/")))
        # A name that was claimed by a write which then failed is not there yet.
        return [NamespaceInfo(row.name, row.visible, moment_of(row.created_us)) for row in rows if row.visible]

    def datasets(self, prefix: str = "") -> list[DatasetInfo]:
        """Return the datasets called `prefix` or `prefix/…`, by name."""
        doors = self._handle.doors
        with doors.index.read() as connection:
            rows = list(list_datasets(connection, doors.store.id, prefix.rstrip("/")))
        return [DatasetInfo(row.name, releases) for row, releases in rows if row.visible]

    def transactions(self) -> list[TransactionInfo]:
        """Return the open transactions, oldest first."""
        return list(self._transactions())

    def outcome(self, commit_id: str) -> Version | None:
        """Return the version that a commit made, or None when it made none: what to ask after an OutcomeUnknownError.

        None is final only once the process that committed has ended or given up.
        """
        doors = self._handle.doors
        if not doors.read_only:
            flush_line(doors)
        with doors.index.read() as connection:
            place = find_commit_place(connection, doors.store.id, commit_id)
            namespace = read_namespace(connection, place.namespace_id) if place else None
        if place is None or namespace is None or place.number > namespace.visible:
            return None
        return self.namespace(namespace.name)._version(Point(number=place.number))

    def doctor(self, write_test: bool = False) -> Report:
        """Check that everything this store needs works, and say what to do about what does not."""
        return examine(self._handle.doors, write_test=write_test)

    def _transactions(self) -> Iterator[TransactionInfo]:
        doors = self._handle.doors
        with doors.index.read() as connection:
            rows = list(list_open_uploads(connection, doors.store.id))
        for upload, namespace, parts in rows:
            yield TransactionInfo(
                token=Transaction.token_of(self._handle, upload.token),
                namespace=namespace,
                created_at=moment_of(upload.created_us),
                expires_at=moment_of(upload.expires_us),
                author=upload.author,
                message=upload.message,
                parts=parts,
            )
