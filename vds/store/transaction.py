"""Transactions: several changes that become one version, written by one process or by many."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType

from vds.engine.commit import commit, looking_back
from vds.engine.resolve import resolve_committed, resolve_point
from vds.engine.session import TTL_HOURS, Freshness, Intent, Session, drop, open_session
from vds.errors import ConflictError, UnavailableError
from vds.index.commit import find_commit_place
from vds.index.staging import get_upload, main_part
from vds.index.stores import read_namespace
from vds.model.moment import moment_of
from vds.model.path import entry_path
from vds.model.ref import Point
from vds.ops import transaction as ops
from vds.store.handle import Handle
from vds.store.results import UploadResult
from vds.store.version import Version
from vds.store.writer import Writer

TOKEN_PREFIX = "vdstx1-"  # noqa: S105 - names a format; a token holds no secret


@dataclass(frozen=True, slots=True)
class PartInfo:
    """A finished part of a transaction."""

    name: str
    files: int
    bytes: int
    created_at: datetime


class Part(Writer):
    """A named share of a transaction, all or nothing; leaving its `with` cleanly makes it count."""

    def __init__(self, handle: Handle, opened: Session, name: str) -> None:
        super().__init__(handle, opened)
        self.name = name

    def _settle(self) -> None:
        self._finish_bytes()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None:
                ops.abandon_part(self._doors, self._opened.part_id)
                return
            self._finish_bytes()
            ops.end_part(self._doors, self._opened.upload, self._opened.part_id, self.name)
        finally:
            self._close_sender()


class Transaction(Writer):
    """Several changes as one version. As a context manager it commits on a clean exit and drops everything on an exception."""

    def __init__(self, handle: Handle, opened: Session, intent: Intent) -> None:
        super().__init__(handle, opened)
        self._intent = intent
        self._is_shared = False
        self.result: UploadResult | None = None

    @classmethod
    def begin(cls, handle: Handle, namespace: str, intent: Intent, ttl_hours: float = TTL_HOURS) -> Transaction:
        """Open a transaction on a namespace."""
        opened = open_session(handle.doors, namespace, intent, ttl_hours=ttl_hours)
        opened.freshness.check()
        return cls(handle, opened, intent)

    @classmethod
    def joined(cls, handle: Handle, token: str) -> Transaction:
        """Join a transaction that another process began; of a committed one, `commit` returns the version it made.

        Raises:
            NotFoundError: there is no such transaction in the store.
            ConflictError: it was aborted.
        """
        doors = handle.doors
        doors.check_writable()

        with doors.index.read() as connection:
            upload = get_upload(connection, doors.store.id, token)
            if upload.state == "aborted":
                raise ConflictError("the transaction was aborted already", hint="vds tx begin NAMESPACE")
            namespace = read_namespace(connection, upload.namespace_id)
            is_open = upload.state == "open"
            part_id = main_part(connection, doors.store.id, upload.id) if is_open else 0
            place = find_commit_place(connection, doors.store.id, upload.commit_id)
        intent = replace(
            handle.intent(),
            message=upload.message,
            labels=json.loads(upload.labels),
            expected_parent=upload.expected_parent,
            allow_shrink=upload.allow_shrink,
            author=upload.author,
        )
        joined = cls(handle, Session(namespace, False, upload, part_id, Freshness(handle.doors, namespace)), intent)
        joined._is_shared = True
        if not is_open:  # whoever lost the answer to its commit may ask again
            number = place.number if place else namespace.visible
            version = Version(handle, resolve_point(doors, namespace.name, Point(number=number)))
            joined.result = UploadResult(version=version, created=place is not None)
        return joined

    @property
    def token(self) -> str:
        """What lets any process join: it names the store and the transaction, and holds no secret."""
        with self._lock:
            self._is_shared = True
            self._finish_bytes()
        return self.token_of(self._handle, self._opened.upload.token)

    @staticmethod
    def token_of(handle: Handle, upload: str) -> str:
        """Return the token of an upload of this store."""
        raw = {"url": handle.address.url, "index": handle.address.index, "upload": upload}
        return TOKEN_PREFIX + base64.urlsafe_b64encode(json.dumps(raw, sort_keys=True).encode()).decode()

    @property
    def namespace(self) -> str:
        """The name of the namespace it writes to."""
        return self._opened.namespace.name

    @property
    def version(self) -> Version:
        """The version it made.

        Raises:
            ConflictError: it is not committed.
        """
        if self.result is None:
            raise ConflictError("the transaction is not committed yet", hint="tx.commit()")
        return self.result.version

    def move(self, source: str, target: str) -> None:
        """Stage the renaming of a file or directory; if others change it before the commit, that is a conflict."""
        with self._lock:
            ops.move(self._doors, self._opened, entry_path(source), entry_path(target))

    def delete(self, path: str, missing_ok: bool = False) -> int:
        """Stage the removal of a file, or of a directory with all below it; returns how many files that is.

        Raises:
            EntryNotFoundError: there is nothing at `path`.
        """
        with self._lock:
            return ops.delete(self._doors, self._opened, entry_path(path), missing_ok=missing_ok)

    def part(self, name: str) -> Part:
        """Open a share of this transaction, for one worker; the same name again replaces it once it is finished."""
        part_id = ops.begin_part(self._doors, self._opened.upload, name)
        return Part(self._handle, replace(self._opened, part_id=part_id), name)

    def parts(self) -> Sequence[PartInfo]:
        """Return the finished parts, by name."""
        rows = ops.parts(self._doors, self._opened.upload)
        return [PartInfo(row.name, row.file_count, row.size_bytes, moment_of(row.created_us)) for row in rows]

    def commit(
        self, expected_parts: int | None = None, *, message: str | None = None, labels: Mapping[str, str] | None = None
    ) -> UploadResult:
        """Make the version out of everything staged and every finished part; again returns the same result.

        Raises:
            ConflictError: two parts differ over a path, there are not as many parts as expected, or others committed what
                this transaction does not allow. The transaction stays open.
        """
        with self._lock:
            if self.result is not None:
                return self.result
            started = time.monotonic()
            doors = self._doors
            self._finish_bytes()
            intent = self._intent
            if message is not None or labels is not None:
                intent = replace(
                    intent,
                    message=intent.message if message is None else message,
                    labels=intent.labels if labels is None else labels,
                ).check()
            gathered = ops.gather(doors, self._opened, expected_parts)
            plan = ops.TransactionPlan(gathered.area, gathered.upload.base)
            committed = commit(doors, plan.request(doors, gathered, intent))
            self._close_sender()
            with looking_back(committed, self._opened.upload.commit_id):
                version = Version(self._handle, resolve_committed(doors, self._opened.namespace, committed))
            self.result = UploadResult(
                version=version,
                created=committed.created,
                created_namespace=self._opened.created_namespace,
                uploaded=committed.counts.added + committed.counts.modified,
                modified=committed.counts.modified,
                removed=committed.counts.removed,
                bytes_read=self._result.bytes_read,
                bytes_sent=self._result.bytes_sent,
                bytes_new=self._result.bytes_new,
                bytes_saved=self._result.bytes_saved,
                objects_new=self._result.objects_new,
                seconds=time.monotonic() - started,
            )
            return self.result

    def abort(self) -> None:
        """Drop everything that is staged; harmless after a commit."""
        with self._lock:
            self._close_sender()
            drop(self._doors, self._opened.upload)

    def _settle(self) -> None:
        if self._is_shared:
            self._finish_bytes()  # whoever commits must find the bytes in place

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            if self.result is None:
                with suppress(UnavailableError):  # the first error says more; what stays behind expires
                    self.abort()
