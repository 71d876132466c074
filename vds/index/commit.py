"""The one transaction that makes a version.

Its order is the safety of the store (lock order everywhere: upload, blobs by id, namespace head last):

1. lock the upload; it is committed already: return the version of this commit id (the answer to it was lost);
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
from typing import Any

from sqlalchemy.engine import Connection

from vds.errors import ConflictError, InvalidInputError
from vds.index.conflicts import PATHS_SHOWN_MAX, OnTouched, Rules, judge_touched
from vds.index.cursors import Answer, look_up_by_key, sent_together
from vds.index.database import now_us
from vds.index.entries import At
from vds.index.head import Head, lock_head
from vds.index.manifests import SentList, add_manifest
from vds.index.needs import BlobsGone, Need, hold_all, hold_needs
from vds.index.plan import Area, Counts, count_changes, mark_changed
from vds.index.queue import ADD_RECORD, QueuedRecord, queued_binds
from vds.index.schema import OPEN
from vds.index.sql import text
from vds.index.staging import mark_committed
from vds.index.stores import read_namespace
from vds.index.versions import VersionRow
from vds.model.moment import micros_of, moment_of
from vds.model.run import RUN_FIELD
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
    """The version that holds what was asked.

    Attributes:
        created: False when an earlier one did already.
        row: of the version that was made now; None when it was made before.
        record: which was queued for it.
    """

    number: int
    created: bool
    counts: Counts
    row: VersionRow | None = None
    record: QueuedRecord | None = None


@dataclass(frozen=True, slots=True)
class PlanAgain:
    """Someone got in first with something that alters the plan: make it again, against a newer base."""


NO_CHANGES = Counts(0, 0, 0, 0)

LOOKED_AT_MAX = 1000
"""Up to how many changes one request tells, with the head, that no other commit has to do with them."""

SHRINK_FILES_MIN = 100
"""Removing up to this many files never needs a confirmation."""


def commit_staged(connection: Connection, area: Area, planned: Planned, terms: CommitTerms) -> Committed | PlanAgain | BlobsGone:
    """Make the version, inside the caller's transaction. Anything but `Committed` must be rolled back by the caller.

    Raises:
        ConflictError: the operation does not allow what was committed since its base.
        InvalidInputError: more than half of the files would go, and that was not allowed.
    """
    look_up_by_key(connection)
    state, began_at = mark_committed(connection, terms.upload_id)
    if state == "committed":
        if (place := find_commit_place(connection, area.store_id, terms.commit_id)) is not None:
            return Committed(place.number, True, planned.counts)  # the answer to it was lost, or another holder was quicker
        return Committed(read_namespace(connection, area.namespace_id).head, False, NO_CHANGES)  # it changed nothing
    if state != "open":
        raise ConflictError(f"the transaction was {state} meanwhile", hint="vds tx begin NAMESPACE")
    if planned.needs is None:
        if gone := hold_all(connection, area):
            return gone
    elif not hold_needs(connection, planned.needs):
        return PlanAgain()
    looks = terms.on_touched != "exact" and planned.counts.total <= LOOKED_AT_MAX
    held = lock_head(connection, area, planned.base, began_at, looks=looks)
    head = held.namespace
    if terms.expected_parent is not None and head.head != terms.expected_parent:
        raise ConflictError(
            f"namespace {head.name!r} is at version {head.head}, expected {terms.expected_parent}",
            versions=range(terms.expected_parent + 1, head.head + 1)[:PATHS_SHOWN_MAX],
            hint=f"vds log {head.name}",
        )
    counts = planned.counts
    is_base_lost, is_start_lost = held.is_base_lost, held.is_start_lost
    if head.head > planned.base and not held.is_untouched:
        decision = judge_touched(connection, area, planned.base, head, Rules(terms.on_touched, terms.prefix))
        if decision == "again":
            return PlanAgain()
        if decision == "recount":
            mark_changed(connection, area, head.head)
            counts = count_changes(connection, area, head.head)
        # Asked once more, after what changed was looked at: what is set aside later than this was seen.
        is_base_lost, is_start_lost = (is_set_aside(connection, area, number) for number in (planned.base, began_at))
    if is_base_lost:
        return PlanAgain()
    if is_start_lost:
        raise ConflictError(
            f"version {began_at} of {head.name!r}, which this began from, has expired and was collected meanwhile",
            versions=[began_at],
            hint="do it again: it then begins from the latest version",
        )
    if counts.total == 0:
        return Committed(head.head, False, NO_CHANGES)
    _check_shrink(held, counts, terms)
    return _add_version(connection, area, held, planned, counts, terms)


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


def _check_shrink(head: Head, counts: Counts, terms: CommitTerms) -> None:
    if terms.allow_shrink or counts.removed <= SHRINK_FILES_MIN:
        return
    if counts.removed * 2 > head.file_count:
        raise InvalidInputError(
            f"this would remove {counts.removed} of the {head.file_count} files of namespace {head.namespace.name!r}",
            hint="if that is meant, pass allow_shrink=True (--allow-shrink)",
        )


def _add_version(
    connection: Connection, area: Area, held: Head, planned: Planned, counts: Counts, terms: CommitTerms
) -> Committed | PlanAgain:
    """Close and open the intervals of the changed paths, add the version, queue its record, and move the head.

    The rows of a part have one writer; should it not be so, the version would hold what its change list does not: where not as
    many intervals are closed and opened as were counted, all of it must be undone.
    """
    head = held.namespace
    number = head.head + 1
    if planned.sent is not None:
        _claim_change_list(connection, At(area.store_id, head.id, number), planned.sent)
    record = VersionRecord(
        store=terms.store_uid,
        namespace=head.uid,
        namespace_name=head.name,
        number=number,
        parent=head.head_digest,
        commit_id=terms.commit_id,
        # The database's time, but always later than the parent's: clocks go backwards, histories must not.
        created_at=moment_of(max(held.stamp_us, held.created_us + 1)),
        operation=terms.operation,
        author=terms.author,
        message=terms.message,
        labels=terms.labels,
        provenance=terms.provenance,
        changes=planned.changes,
        added=counts.added,
        modified=counts.modified,
        removed=counts.removed,
        file_count=held.file_count + counts.added - counts.removed,
        size_bytes=held.size_bytes + counts.size_delta_bytes,
    )
    body = record.encode()
    digest = record_digest(VERSION_CONTEXT, body)
    queued = QueuedRecord("version", head.id, number, journal_key(head.uid, number), body)
    binds = area.binds(head.head, v=number, d=digest)
    with sent_together(connection) as batch:
        closed = batch.add(_close_sql(connection), binds) if counts.modified + counts.removed else Answer()
        opened = batch.add(_OPEN_SQL.format(or_fail=_or_fail(connection)), binds)
        batch.add(_ADD_VERSION, {**binds, **_version_binds(record)})
        batch.add(ADD_RECORD, queued_binds(area.store_id, queued))
        batch.add("UPDATE namespace SET head = :v, head_digest = :d WHERE id = :n", binds)
    if (closed.rowcount, opened.rowcount) != (counts.modified + counts.removed, counts.added + counts.modified):
        return PlanAgain()
    return Committed(number, True, counts, VersionRow.of(record, digest, head.id), queued)


_OPEN_SQL = (
    "INSERT {or_fail} INTO entry"
    " (store_id, namespace_id, path, first_version, end_version, digest, size_bytes, mode, modified_ns)"
    f" SELECT :s, :n, path, :v, {OPEN}, digest, size_bytes, mode, modified_ns FROM staged"
    " WHERE store_id = :s AND part_id = :p AND changed = 1 AND kind = 1 ORDER BY path"
)


def _close_sql(connection: Connection) -> str:
    mine = f"store_id = :s AND namespace_id = :n AND end_version = {OPEN}"
    changed = "FROM staged s WHERE s.store_id = :s AND s.part_id = :p AND s.changed = 1"
    if connection.dialect.name == "sqlite":
        which = f"{mine} AND path IN (SELECT path {changed})"
    else:
        # Joined, PostgreSQL might walk through all entries to change one: it knows nothing yet of rows this young. So each is
        # looked up; the places of rows cannot move meanwhile, since only who holds the head changes them.
        which = f"ctid = ANY (ARRAY(SELECT (SELECT ctid FROM entry WHERE {mine} AND path = s.path) {changed}))"
    return f"UPDATE {_or_fail(connection)} entry SET end_version = :v WHERE {which}"


def _or_fail(connection: Connection) -> str:
    """Return what keeps SQLite from saving every page it changes: a failure undoes the whole commit, not the statement alone."""
    return "OR FAIL" if connection.dialect.name == "sqlite" else ""


def is_set_aside(connection: Connection, area: Area, number: int) -> bool:
    """Return whether it can no longer be told what changed since a version, as entries of it were set aside."""
    found = connection.execute(
        text("SELECT 1 FROM version WHERE store_id = :s AND namespace_id = :n AND number = :v AND set_aside_us IS NOT NULL"),
        area.binds(0, v=number),
    )
    return found.one_or_none() is not None


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


_ADD_VERSION = (
    "INSERT INTO version (store_id, namespace_id, number, digest, parent, commit_id, created_us, operation, author,"
    " message, labels, provenance, added, modified, removed, file_count, size_bytes, run) VALUES (:s, :n, :v, :d,"
    " :parent, :commit_id, :created, :operation, :author, :message, :labels, :provenance, :added, :modified, :removed,"
    " :files, :size, :run)"
)


def _version_binds(record: VersionRecord) -> dict[str, Any]:
    return {
        "parent": record.parent,
        "commit_id": record.commit_id,
        "created": micros_of(record.created_at),
        "operation": record.operation,
        "author": record.author,
        "message": record.message,
        "labels": json.dumps(dict(record.labels), sort_keys=True),
        "provenance": json.dumps(dict(record.provenance), sort_keys=True),
        "added": record.added,
        "modified": record.modified,
        "removed": record.removed,
        "files": record.file_count,
        "size": record.size_bytes,
        "run": record.provenance.get(RUN_FIELD),
    }
