"""A writer's session: where its rows are staged, until its commit or its end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from vds.blobs.objects import fresh_ulid
from vds.engine.commit import CommitRequest
from vds.engine.doors import Doors
from vds.engine.journal import AddedRecord, check_namespace_fresh, check_store_fresh, flush_overdue, publish
from vds.engine.namespaces import ensure_namespace
from vds.engine.resume import own_process
from vds.errors import InvalidInputError, OutcomeUnknownError, UnavailableError, VdsError
from vds.index.commit import CommitTerms
from vds.index.conflicts import OnTouched
from vds.index.database import Connection
from vds.index.plan import Area
from vds.index.staging import NewUpload, UploadRow, add_part, add_upload, end_upload, get_upload
from vds.index.stores import NamespaceRow
from vds.model.version import check_labels, check_message

TTL_HOURS = 24.0
_HOUR_US = 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Intent:
    """What the caller says about a write, whatever its kind.

    Attributes:
        author: who writes.
        provenance: from where, with what.
    """

    message: str = ""
    labels: Mapping[str, str] | None = None
    expected_parent: int | None = None
    allow_shrink: bool = False
    author: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> Intent:
        """Return the intent if it may be recorded.

        Raises:
            InvalidInputError: the message or the labels are too long or not text; expected_parent is not a version number.
        """
        check_message(self.message)
        check_labels(self.labels)
        parent = self.expected_parent
        if parent is not None and (isinstance(parent, bool) or not isinstance(parent, int) or parent < 0):
            raise InvalidInputError(f"expected_parent {parent!r} is not a version number", hint="for example expected_parent=12")
        return self


class Freshness:
    """What is due before a session's first write to the container, and need not hold up its beginning.

    The index is held against the container, once: who finds everything unchanged writes nothing, and makes no request at all. The
    record of a namespace that is new goes out.
    """

    def __init__(self, doors: Doors, namespace: NamespaceRow, made: AddedRecord | None = None) -> None:
        self._doors = doors
        self._namespace = namespace
        self._made = made
        self._lock = threading.Lock()
        self._is_known = False

    def check(self) -> None:
        """Do it, from any thread; again is harmless.

        Raises:
            FormatError: the index is older than the container, or was replaced.
        """
        with self._lock:
            if not self._is_known:
                check_store_fresh(self._doors)
                check_namespace_fresh(self._doors, self._namespace, is_ours=True)
                self._is_known = True
        self.publish()

    def publish(self) -> None:
        """Write the record of the namespace's making, if that is due."""
        with self._lock:
            if self._made is not None:
                queued = self._made.queued
                publish(self._doors, queued.line, queued.owner_id, queued.number)
                self._made = None


@dataclass(frozen=True, slots=True)
class Session:
    """An open session and its main part; `created_namespace` says that the namespace had no version before it."""

    namespace: NamespaceRow
    created_namespace: bool
    upload: UploadRow
    part_id: int
    freshness: Freshness

    @property
    def area(self) -> Area:
        """Where its rows are."""
        return Area(self.namespace.store_id, self.namespace.id, self.part_id)


def open_session(
    doors: Doors, namespace_name: str, intent: Intent, *, ttl_hours: float = TTL_HOURS, process: str = ""
) -> Session:
    """Open a session on a namespace, which is made if it is new.

    Args:
        doors: the store.
        namespace_name: where to write.
        intent: what the caller says about it.
        ttl_hours: when it expires.
        process: whose end is the session's end; empty for one that others may join.

    Raises:
        AccessDeniedError: the store was opened for reading.
        InvalidInputError: the intent cannot be recorded.
    """
    doors.check_writable()
    intent.check()
    if not 0 < ttl_hours <= 24 * 365:
        raise InvalidInputError(f"ttl_hours {ttl_hours!r} is not between 0 and 8760")
    namespace, made = ensure_namespace(doors, namespace_name)
    flush_overdue(doors, namespace)

    def work(connection: Connection) -> tuple[UploadRow, int]:
        new = NewUpload(
            token=fresh_ulid(),
            namespace_id=namespace.id,
            base=namespace.head,
            expected_parent=intent.expected_parent,
            author=intent.author,
            message=intent.message,
            labels=json.dumps(check_labels(intent.labels), sort_keys=True),
            allow_shrink=intent.allow_shrink,
            commit_id=fresh_ulid(),
            ttl_us=int(ttl_hours * _HOUR_US),
            process=process,
        )
        upload = add_upload(connection, doors.store.id, new)
        return upload, add_part(connection, doors.store.id, upload.id, "")

    upload, part_id = doors.index.run(work)
    return Session(namespace, namespace.head == 0, upload, part_id, Freshness(doors, namespace, made))


@contextmanager
def session(doors: Doors, namespace_name: str, intent: Intent) -> Iterator[Session]:
    """Open a session for one call; whatever is staged and not committed at its end is dropped."""
    opened = open_session(doors, namespace_name, intent, process=own_process())
    try:
        yield opened
    except BaseException:
        with suppress(UnavailableError, OutcomeUnknownError):  # the first error says more; what stays behind expires
            drop(doors, opened.upload)
            opened.freshness.publish()
        raise
    with suppress(VdsError):  # what was to be done is done, and must not be taken for undone; what stays behind expires
        drop(doors, opened.upload)
    opened.freshness.publish()


def drop(doors: Doors, upload: UploadRow) -> bool:
    """Forget what a session staged; False, and harmless, when it was committed or dropped before."""
    with doors.index.read() as connection:
        if get_upload(connection, doors.store.id, upload.token).state != "open":
            return False  # its end forgot the rows too: no need to wait for the right to write
    return doors.index.run(lambda connection: end_upload(connection, doors.store.id, upload.id, "aborted"))


def request(
    doors: Doors,
    opened: Session,
    intent: Intent,
    operation: str,
    *,
    on_touched: OnTouched,
    plan: Callable[[Connection, int], None],
    prefix: str | None = None,
) -> CommitRequest:
    """Return what to commit: the session's rows, under the intent's terms."""
    terms = CommitTerms(
        upload_id=opened.upload.id,
        store_uid=doors.store.uid,
        commit_id=opened.upload.commit_id,
        operation=operation,
        author=intent.author,
        message=intent.message,
        labels=check_labels(intent.labels),
        provenance=dict(intent.provenance),
        on_touched=on_touched,
        prefix=prefix,
        expected_parent=intent.expected_parent,
        allow_shrink=intent.allow_shrink,
    )
    return CommitRequest(opened.area, terms, plan, opened.freshness.check)
