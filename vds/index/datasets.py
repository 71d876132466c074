"""Datasets: releases, and tags as the history of their moves.

A tag is its latest event. Events of a dataset are dense and hash-chained, and become visible in order, like versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.engine import Connection, Row

from vds.errors import ConflictError
from vds.index.database import now_us
from vds.index.moments import stamp_us
from vds.index.queue import VISIBLE_SQL, QueuedRecord, add_record
from vds.model.event import DatasetEvent, EventKind, Registered
from vds.model.moment import moment_of
from vds.model.path import EntryPath
from vds.model.version import EVENT_CONTEXT, NO_PARENT, record_digest

_VISIBLE = VISIBLE_SQL.format(owner="dataset", line="event")
_DATASET = f"SELECT id, store_id, name, head, head_digest, {_VISIBLE} AS visible, created_us FROM dataset"


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """What the index knows of one dataset; `visible` is the last event whose record is in the container."""

    id: int
    store_id: int
    name: str
    head: int
    head_digest: bytes
    visible: int


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """One release: a version of a namespace, or a path of it, under the dataset's name."""

    number: int
    namespace_id: int
    version: int
    path: str
    event: int
    created_us: int
    author: str
    description: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventRow:
    """One step of a dataset's history."""

    number: int
    kind: EventKind
    tag: str | None
    release: int | None
    previous: int | None
    author: str
    reason: str
    created_us: int
    digest: bytes
    parent: bytes


@dataclass(frozen=True, slots=True)
class NewRelease:
    """What is registered."""

    namespace_id: int
    namespace_uid: str
    namespace_name: str
    version: int
    version_digest: bytes
    path: str
    description: str
    labels: Mapping[str, str]


def find_dataset(connection: Connection, store_id: int, name: str) -> DatasetRow | None:
    """Return the dataset called `name`, blind to case, or None; served by uq_dataset_store_id_name_fold."""
    row = connection.execute(
        text(_DATASET + " WHERE store_id = :s AND name_fold = :fold"), {"s": store_id, "fold": name.casefold()}
    ).one_or_none()
    return _dataset(row) if row else None


def list_datasets(connection: Connection, store_id: int, prefix: str = "") -> Iterator[tuple[DatasetRow, int]]:
    """Yield datasets by name, each with how many releases it has; `prefix` is a whole name or leading segments of one."""
    rows = connection.execute(
        text(
            f"SELECT d.*, (SELECT COUNT(*) FROM release r WHERE r.store_id = d.store_id AND r.dataset_id = d.id"
            f" AND r.event <= d.visible) AS releases FROM ({_DATASET} WHERE store_id = :s"
            " AND (:p = '' OR name = :p OR (name >= :first AND name < :end))) d ORDER BY d.name"
        ),
        {"s": store_id, "p": prefix, "first": prefix + "/", "end": prefix + "0"},
    )
    for row in rows:
        yield _dataset(row), row.releases


def lock_dataset(connection: Connection, store_id: int, name: str) -> DatasetRow:
    """Return the dataset called `name`, made if it is new, locked until the transaction ends."""
    connection.execute(
        text(
            "INSERT INTO dataset (store_id, name, name_fold, head, head_digest, created_us)"
            " VALUES (:s, :name, :fold, 0, :digest, :now) ON CONFLICT (store_id, name_fold) DO NOTHING"
        ),
        {"s": store_id, "name": name, "fold": name.casefold(), "digest": NO_PARENT, "now": now_us(connection)},
    )
    if connection.dialect.name != "sqlite":
        connection.execute(
            text("SELECT id FROM dataset WHERE store_id = :s AND name_fold = :fold FOR UPDATE"),
            {"s": store_id, "fold": name.casefold()},
        )
    row = find_dataset(connection, store_id, name)  # a new statement: it sees what the lock waited for
    assert row is not None
    return row


def find_release(connection: Connection, dataset: DatasetRow, number: int, *, up_to: int) -> ReleaseRow | None:
    """Return the release of this number if event `up_to`, or an earlier one, made it."""
    row = connection.execute(
        text("SELECT * FROM release WHERE store_id = :s AND dataset_id = :d AND number = :r AND event <= :e"),
        {"s": dataset.store_id, "d": dataset.id, "r": number, "e": up_to},
    ).one_or_none()
    return _release(row) if row else None


def find_same_release(connection: Connection, dataset: DatasetRow, new: NewRelease) -> ReleaseRow | None:
    """Return the release that this version and path already has, committed but perhaps not visible yet, or None."""
    row = connection.execute(
        text(
            "SELECT * FROM release WHERE store_id = :s AND dataset_id = :d AND namespace_id = :n AND version = :v AND path = :p"
        ),
        {"s": dataset.store_id, "d": dataset.id, "n": new.namespace_id, "v": new.version, "p": new.path},
    ).one_or_none()
    return _release(row) if row else None


def list_releases(connection: Connection, dataset: DatasetRow) -> list[ReleaseRow]:
    """Return the visible releases, newest first."""
    rows = connection.execute(
        text("SELECT * FROM release WHERE store_id = :s AND dataset_id = :d AND event <= :e ORDER BY number DESC"),
        {"s": dataset.store_id, "d": dataset.id, "e": dataset.visible},
    )
    return [_release(row) for row in rows]


def find_tag(connection: Connection, dataset: DatasetRow, tag: str, *, up_to: int, moment_us: int | None = None) -> int | None:
    """Return the release a tag shows after event `up_to` (and at the moment), or None; served by ix_tag_event_tag."""
    row = connection.execute(
        text(
            "SELECT release FROM tag_event WHERE store_id = :s AND dataset_id = :d AND tag = :tag AND number <= :e"
            " AND kind IN ('tag', 'untag') AND (:t < 0 OR created_us <= :t) ORDER BY number DESC LIMIT 1"
        ),
        {"s": dataset.store_id, "d": dataset.id, "tag": tag, "e": up_to, "t": -1 if moment_us is None else moment_us},
    ).one_or_none()
    return row.release if row else None


def list_tags(connection: Connection, dataset: DatasetRow, *, up_to: int | None = None) -> dict[str, int]:
    """Return each tag and the number of the release it shows after event `up_to` (else the last visible one), by name."""
    rows = connection.execute(
        text(
            "SELECT e.tag, e.release FROM tag_event e WHERE e.store_id = :s AND e.dataset_id = :d AND e.kind = 'tag'"
            " AND e.number = (SELECT MAX(l.number) FROM tag_event l WHERE l.store_id = e.store_id"
            " AND l.dataset_id = e.dataset_id AND l.tag = e.tag AND l.number <= :visible) ORDER BY e.tag"
        ),
        {"s": dataset.store_id, "d": dataset.id, "visible": dataset.visible if up_to is None else up_to},
    )
    return {row.tag: row.release for row in rows}


def list_events(connection: Connection, dataset: DatasetRow, tag: str | None = None) -> list[EventRow]:
    """Return the visible events, newest first; with `tag`, those of that tag."""
    rows = connection.execute(
        text(
            "SELECT * FROM tag_event WHERE store_id = :s AND dataset_id = :d AND number <= :e"
            " AND (:tag = '' OR tag = :tag) ORDER BY number DESC"
        ),
        {"s": dataset.store_id, "d": dataset.id, "e": dataset.visible, "tag": tag or ""},
    )
    return [
        EventRow(
            row.number,
            row.kind,
            row.tag,
            row.release,
            row.previous,
            row.author,
            row.reason,
            row.created_us,
            bytes(row.digest),
            bytes(row.parent),
        )
        for row in rows
    ]


def tags_showing(
    connection: Connection, store_id: int, namespace_id: int, first_version: int, end_version: int
) -> list[tuple[str, str, ReleaseRow]]:
    """Return (dataset, tag, release) for each tag that shows a version in [`first_version`, `end_version`) of a namespace."""
    found = []
    for dataset, _ in list(list_datasets(connection, store_id)):
        for tag, number in list_tags(connection, dataset).items():
            release = find_release(connection, dataset, number, up_to=dataset.visible)
            if release and release.namespace_id == namespace_id and first_version <= release.version < end_version:
                found.append((dataset.name, tag, release))
    return found


def add_release(connection: Connection, dataset: DatasetRow, store_uid: str, new: NewRelease, author: str) -> DatasetRow:
    """Register a version under the locked dataset, as its next release, and return the dataset after it."""
    number = 1 + int(
        connection.execute(
            text("SELECT COALESCE(MAX(number), 0) FROM release WHERE store_id = :s AND dataset_id = :d"),
            {"s": dataset.store_id, "d": dataset.id},
        ).scalar_one()
    )
    registered = Registered(
        namespace=new.namespace_uid,
        namespace_name=new.namespace_name,
        version=new.version,
        version_digest=new.version_digest,
        path=EntryPath(new.path),
        description=new.description,
        labels=new.labels,
    )
    event = _add_event(connection, dataset, store_uid, _Event("register", None, number, None, author, ""), registered)
    connection.execute(
        text(
            "INSERT INTO release (store_id, dataset_id, number, namespace_id, version, path, event, created_us, author,"
            " description, labels) VALUES (:s, :d, :r, :n, :v, :path, :e, :now, :author, :description, :labels)"
        ),
        {
            "s": dataset.store_id,
            "d": dataset.id,
            "r": number,
            "n": new.namespace_id,
            "v": new.version,
            "path": new.path,
            "e": event.head,
            "now": event.created_us,
            "author": author,
            "description": new.description,
            "labels": json.dumps(dict(new.labels), sort_keys=True),
        },
    )
    return event.after


def move_tag(
    connection: Connection,
    dataset: DatasetRow,
    store_uid: str,
    tag: str,
    release: int | None,
    *,
    author: str,
    reason: str,
    expected: int | Literal["absent"] | None,
) -> DatasetRow:
    """Point a tag of the locked dataset at a release, or (None) take it away; nothing is recorded when it stays.

    Raises:
        ConflictError: the tag is not where `expected` says.
    """
    current = find_tag(connection, dataset, tag, up_to=dataset.head)
    if expected is not None and current != (None if expected == "absent" else expected):
        raise ConflictError(
            f"tag {dataset.name}:{tag} shows {'nothing' if current is None else f'release {current}'}, expected"
            f" {'nothing' if expected == 'absent' else f'release {expected}'}",
            hint=f"vds log {dataset.name}:",
        )
    if current == release:
        return dataset
    kind: EventKind = "untag" if release is None else "tag"
    return _add_event(connection, dataset, store_uid, _Event(kind, tag, release, current, author, reason)).after


@dataclass(frozen=True, slots=True)
class _Event:
    kind: EventKind
    tag: str | None
    release: int | None
    previous: int | None
    author: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Added:
    head: int
    created_us: int
    after: DatasetRow


def _add_event(
    connection: Connection, dataset: DatasetRow, store_uid: str, event: _Event, registered: Registered | None = None
) -> _Added:
    number = dataset.head + 1
    earlier = connection.execute(
        text("SELECT created_us FROM tag_event WHERE store_id = :s AND dataset_id = :d AND number = :e"),
        {"s": dataset.store_id, "d": dataset.id, "e": dataset.head},
    ).scalar_one_or_none()
    created_us = max(stamp_us(connection, dataset.store_id), (earlier or 0) + 1)
    record = DatasetEvent(
        store=store_uid,
        dataset=dataset.name,
        number=number,
        parent=dataset.head_digest,
        kind=event.kind,
        tag=event.tag,
        release=event.release,
        previous=event.previous,
        author=event.author,
        reason=event.reason,
        created_at=moment_of(created_us),
        registered=registered,
    )
    body = record.encode()
    digest = record_digest(EVENT_CONTEXT, body)
    binds = {"s": dataset.store_id, "d": dataset.id, "e": number, "digest": digest}
    connection.execute(
        text(
            "INSERT INTO tag_event (store_id, dataset_id, number, kind, tag, release, previous, author, reason, created_us,"
            " digest, parent) VALUES (:s, :d, :e, :kind, :tag, :release, :previous, :author, :reason, :now, :digest, :parent)"
        ),
        {
            **binds,
            "kind": event.kind,
            "tag": event.tag,
            "release": event.release,
            "previous": event.previous,
            "author": event.author,
            "reason": event.reason,
            "now": created_us,
            "parent": dataset.head_digest,
        },
    )
    add_record(connection, dataset.store_id, QueuedRecord("event", dataset.id, number, record.key, body))
    connection.execute(text("UPDATE dataset SET head = :e, head_digest = :digest WHERE store_id = :s AND id = :d"), binds)
    after = DatasetRow(dataset.id, dataset.store_id, dataset.name, number, digest, dataset.visible)
    return _Added(number, created_us, after)


def _dataset(row: Row[Any]) -> DatasetRow:
    return DatasetRow(row.id, row.store_id, row.name, row.head, bytes(row.head_digest), row.visible)


def _release(row: Row[Any]) -> ReleaseRow:
    return ReleaseRow(
        row.number,
        row.namespace_id,
        row.version,
        row.path,
        row.event,
        row.created_us,
        row.author,
        row.description,
        json.loads(row.labels),
    )
