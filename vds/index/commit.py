"""The one transaction that makes a version.

Its order is the safety of the store (lock order everywhere: upload, blobs by id, namespace head last):

1. this commit id is there already: return its version (the answer to it was lost);
2. lock the blobs the changes newly refer to, by id, shared, each still `live`;
3. nothing was taken out of them since they were listed (`vds.index.needs`): else all starts over;
4. lock the namespace head;
5. hold what was committed since the base against what this operation allows, as long as that can be told;
6. close and open intervals, as many as were planned, add the version, queue its record, move the head.

The staged rows stay: they mean nothing once the upload is committed, and `vds.index.sweep` takes them away afterwards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy.engine import Connection

from vds.errors import ConflictError, InvalidInputError
from vds.index.conflicts import PATHS_SHOWN_MAX, OnTouched, Rules, judge_touched
from vds.index.cursors import look_up_by_key
from vds.index.database import now_us
from vds.index.entries import At
from vds.index.manifests import SentList, add_manifest
from vds.index.moments import stamp_us
from vds.index.needs import BlobsGone, Need, hold_all, hold_needs
from vds.index.plan import Area, Counts, count_changes, mark_changed
from vds.index.queue import QueuedRecord, add_record
from vds.index.schema import OPEN
from vds.index.sql import text
from vds.index.staging import lock_upload, mark_committed
from vds.index.stores import NamespaceRow, lock_namespace
from vds.model.moment import micros_of, moment_of
from vds.model.version import VERSION_CONTEXT, ChangeListRef, VersionRecord, journal_key, record_digest


@dataclass(frozen=True, slots=True)
class CommitTerms:
    """What a commit asks for, apart from its rows.

    Attributes:
        prefix: for `exact`, where the result must equal the source: anything changed there since the base matters.
        expected_parent: the only version this may follow, or None.
        allow_shrink: permit the removal of more than half of the files.
    """

    upload_id: int
    store_uid: str
    commit_id: str
    operation: str
    author: str
    message: str
    labels: dict[str, str]
    provenance: dict[str, str]
    on_touched: OnTouched
    prefix: str | None = None
    expected_parent: int | None = None
    allow_shrink: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan against `base`, and the change list that was written for it.

    Attributes:
        needs: the blobs its rows refer to, as `list_needs` returned them; None lists them in the commit, at its expense.
        sent: the blob of the change list; None when it stands in the record.
    """

    base: int
    counts: Counts
    changes: ChangeListRef
    needs: tuple[Need, ...] | None = None
    sent: SentList | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The version that holds what was asked; `created` is False when an earlier one did already."""

    number: int
    created: bool
    counts: Counts


@dataclass(frozen=True, slots=True)
class PlanAgain:
    """Someone got in first with something that alters the plan: make it again, against a newer base."""


NO_CHANGES = Counts(0, 0, 0, 0)

SHRINK_FILES_MIN = 100
"""Removing up to this many files never needs a confirmation."""


def commit_staged(connection: Connection, area: Area, planned: Planned, terms: CommitTerms) -> Committed | PlanAgain | BlobsGone:
    """Make the version, inside the caller's transaction. Anything but `Committed` must be rolled back by the caller.

    Raises:
        ConflictError: the operation does not allow what was committed since its base.
        InvalidInputError: more than half of the files would go, and that was not allowed.
    """
    if (place := find_commit_place(connection, area.store_id, terms.commit_id)) is not None:
        return Committed(place.number, True, planned.counts)
    look_up_by_key(connection)
    state, began_at = lock_upload(connection, terms.upload_id)
    if state == "committed":
        if (place := find_commit_place(connection, area.store_id, terms.commit_id)) is not None:
            return Committed(place.number, True, planned.counts)  # by another holder, while this one waited for the lock
        return Committed(lock_namespace(connection, area.namespace_id).head, False, NO_CHANGES)  # it changed nothing
    if state != "open":
        raise ConflictError(f"the transaction was {state} meanwhile", hint="vds tx begin NAMESPACE")
    if planned.needs is None:
        if gone := hold_all(connection, area):
            return gone
    elif not hold_needs(connection, planned.needs):
        return PlanAgain()
    mark_committed(connection, terms.upload_id)  # or undone with all else; here nobody waits for it
    head = lock_namespace(connection, area.namespace_id)
    if terms.expected_parent is not None and head.head != terms.expected_parent:
        raise ConflictError(
            f"namespace {head.name!r} is at version {head.head}, expected {terms.expected_parent}",
            versions=range(terms.expected_parent + 1, head.head + 1)[:PATHS_SHOWN_MAX],
            hint=f"vds log {head.name}",
        )
    counts = planned.counts
    if head.head > planned.base:
        decision = judge_touched(connection, area, planned.base, head, Rules(terms.on_touched, terms.prefix))
        if decision == "again":
            return PlanAgain()
        if decision == "recount":
            mark_changed(connection, area, head.head)
            counts = count_changes(connection, area, head.head)
    lost = _find_lost_entries(connection, area, planned.base, began_at)
    if planned.base in lost:
        return PlanAgain()
    if began_at in lost:
        raise ConflictError(
            f"version {began_at} of {head.name!r}, which this began from, has expired and was collected meanwhile",
            versions=[began_at],
            hint="do it again: it then begins from the latest version",
        )
    if counts.total == 0:
        return Committed(head.head, False, NO_CHANGES)
    _check_shrink(connection, area, head, counts, terms)
    if not _move_intervals(connection, area, head, counts):
        return PlanAgain()
    _add_records(connection, area, head, planned, counts, terms)
    return Committed(head.head + 1, True, counts)


@dataclass(frozen=True, slots=True)
class CommitPlace:
    """The version that a commit made."""

    namespace_id: int
    number: int


def find_commit_place(connection: Connection, store_id: int, commit_id: str) -> CommitPlace | None:
    """Return the version this commit made, visible or not, or None. Served by uq_version_store_id_commit_id."""
    row = connection.execute(
        text("SELECT namespace_id, number FROM version WHERE store_id = :s AND commit_id = :c"), {"s": store_id, "c": commit_id}
    ).one_or_none()
    return CommitPlace(row.namespace_id, row.number) if row else None


def _find_lost_entries(connection: Connection, area: Area, base: int, began_at: int) -> set[int]:
    """Return of which of these versions it can no longer be told what changed since, as entries of them were set aside.

    To be asked after what changed was looked at: what is set aside later than this was seen.
    """
    found = connection.execute(
        text(
            "SELECT number FROM version WHERE store_id = :s AND namespace_id = :n AND number IN (:base, :began_at)"
            " AND set_aside_us IS NOT NULL"
        ),
        area.binds(base, began_at=began_at),
    )
    return set(found.scalars())


def _check_shrink(connection: Connection, area: Area, head: NamespaceRow, counts: Counts, terms: CommitTerms) -> None:
    if terms.allow_shrink or counts.removed <= SHRINK_FILES_MIN:
        return
    file_count = _parent(connection, area, head.head).file_count
    if counts.removed * 2 > file_count:
        raise InvalidInputError(
            f"this would remove {counts.removed} of the {file_count} files of namespace {head.name!r}",
            hint="if that is meant, pass allow_shrink=True (--allow-shrink)",
        )


class _Parent(NamedTuple):
    """What a version takes over from the one before it."""

    file_count: int
    size_bytes: int
    created_us: int


def _parent(connection: Connection, area: Area, number: int) -> _Parent:
    row = connection.execute(
        text("SELECT file_count, size_bytes, created_us FROM version WHERE store_id = :s AND namespace_id = :n AND number = :v"),
        area.binds(0, v=number),
    ).one_or_none()
    return _Parent(*row) if row else _Parent(0, 0, 0)


def _move_intervals(connection: Connection, area: Area, head: NamespaceRow, counts: Counts) -> bool:
    """Close and open the intervals of the changed paths; False when that is not what was counted, and must be undone.

    The rows of a part have one writer; should it not be so, the version would hold what its change list does not.
    """
    binds = area.binds(head.head, v=head.head + 1)
    closed = _close_intervals(connection, binds) if counts.modified + counts.removed else 0
    opened = connection.execute(
        text(
            f"INSERT {_or_fail(connection)} INTO entry"
            " (store_id, namespace_id, path, first_version, end_version, digest, size_bytes, mode, modified_ns)"
            f" SELECT :s, :n, path, :v, {OPEN}, digest, size_bytes, mode, modified_ns FROM staged"
            " WHERE store_id = :s AND part_id = :p AND changed = 1 AND kind = 1 ORDER BY path"
        ),
        binds,
    ).rowcount
    return closed == counts.modified + counts.removed and opened == counts.added + counts.modified


def _close_intervals(connection: Connection, binds: dict[str, object]) -> int:
    mine = f"store_id = :s AND namespace_id = :n AND end_version = {OPEN}"
    changed = "FROM staged s WHERE s.store_id = :s AND s.part_id = :p AND s.changed = 1"
    if connection.dialect.name == "sqlite":
        which = f"{mine} AND path IN (SELECT path {changed})"
    else:
        # Joined, PostgreSQL might walk through all entries to change one: it knows nothing yet of rows this young. So each is
        # looked up; the places of rows cannot move meanwhile, since only who holds the head changes them.
        which = f"ctid = ANY (ARRAY(SELECT (SELECT ctid FROM entry WHERE {mine} AND path = s.path) {changed}))"
    return connection.execute(text(f"UPDATE {_or_fail(connection)} entry SET end_version = :v WHERE {which}"), binds).rowcount


def _or_fail(connection: Connection) -> str:
    """Return what keeps SQLite from saving every page it changes: a failure undoes the whole commit, not the statement alone."""
    return "OR FAIL" if connection.dialect.name == "sqlite" else ""


def _add_records(
    connection: Connection, area: Area, head: NamespaceRow, planned: Planned, counts: Counts, terms: CommitTerms
) -> None:
    number = head.head + 1
    if planned.sent is not None:
        _claim_change_list(connection, At(area.store_id, head.id, number), planned.sent)
    parent = _parent(connection, area, head.head)
    record = VersionRecord(
        store=terms.store_uid,
        namespace=head.uid,
        namespace_name=head.name,
        number=number,
        parent=head.head_digest,
        commit_id=terms.commit_id,
        # The database's time, but always later than the parent's: clocks go backwards, histories must not.
        created_at=moment_of(max(stamp_us(connection, area.store_id), parent.created_us + 1)),
        operation=terms.operation,
        author=terms.author,
        message=terms.message,
        labels=terms.labels,
        provenance=terms.provenance,
        changes=planned.changes,
        added=counts.added,
        modified=counts.modified,
        removed=counts.removed,
        file_count=parent.file_count + counts.added - counts.removed,
        size_bytes=parent.size_bytes + counts.size_delta_bytes,
    )
    body = record.encode()
    digest = record_digest(VERSION_CONTEXT, body)
    add_version(connection, area, record, digest)
    add_record(connection, area.store_id, QueuedRecord("version", head.id, number, journal_key(head.uid, number), body))
    connection.execute(text("UPDATE namespace SET head = :v, head_digest = :d WHERE id = :n"), area.binds(0, v=number, d=digest))


def _claim_change_list(connection: Connection, at: At, sent: SentList) -> None:
    """Make the change list's blob live, and note whose it is: from here on it is referred to."""
    done = connection.execute(
        text(
            "UPDATE blob SET state = 'live', size_bytes = :size, etag = :etag, changed_us = :now"
            " WHERE id = :id AND state = 'pending'"
        ),
        {"id": sent.blob_id, "size": sent.size_bytes, "etag": sent.etag, "now": now_us(connection)},
    )
    if done.rowcount != 1:
        raise ConflictError("the change list of this commit was collected meanwhile", hint="commit again")
    add_manifest(connection, at, "changes", sent)


def add_version(connection: Connection, area: Area, record: VersionRecord, digest: bytes) -> None:
    """Add the row of a version."""
    connection.execute(
        text(
            "INSERT INTO version (store_id, namespace_id, number, digest, parent, commit_id, created_us, operation, author,"
            " message, labels, provenance, added, modified, removed, file_count, size_bytes) VALUES (:s, :n, :number, :digest,"
            " :parent, :commit_id, :created, :operation, :author, :message, :labels, :provenance, :added, :modified, :removed,"
            " :files, :size)"
        ),
        area.binds(
            0,
            number=record.number,
            digest=digest,
            parent=record.parent,
            commit_id=record.commit_id,
            created=micros_of(record.created_at),
            operation=record.operation,
            author=record.author,
            message=record.message,
            labels=json.dumps(dict(record.labels), sort_keys=True),
            provenance=json.dumps(dict(record.provenance), sort_keys=True),
            added=record.added,
            modified=record.modified,
            removed=record.removed,
            files=record.file_count,
            size=record.size_bytes,
        ),
    )
