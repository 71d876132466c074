"""Reading versions: one by number, digest or moment, and the line of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection, Row

from vds.errors import InvalidInputError, NotFoundError
from vds.index.cursors import hold_together
from vds.index.database import now_sql
from vds.index.expiry import expired_error
from vds.index.plan import prefix_condition
from vds.index.schema import OPEN
from vds.index.sql import text
from vds.index.stores import NamespaceRow
from vds.model.moment import micros_of, moment_of
from vds.model.ref import Point, format_moment
from vds.model.version import NO_PARENT, VersionRecord


@dataclass(frozen=True, slots=True)
class VersionRow:
    """What the index knows of one version."""

    namespace_id: int
    number: int
    digest: bytes
    parent: bytes
    commit_id: str
    created_us: int
    operation: str
    author: str
    message: str
    labels: Mapping[str, str]
    provenance: Mapping[str, str]
    added: int
    modified: int
    removed: int
    file_count: int
    size_bytes: int
    content_digest: bytes | None
    expired_us: int | None = None

    @classmethod
    def of(cls, record: VersionRecord, digest: bytes, namespace_id: int = 0) -> VersionRow:
        """Return the row of a version whose record is at hand."""
        return cls(
            namespace_id=namespace_id,
            number=record.number,
            digest=digest,
            parent=record.parent,
            commit_id=record.commit_id,
            created_us=micros_of(record.created_at),
            operation=record.operation,
            author=record.author,
            message=record.message,
            labels=record.labels,
            provenance=record.provenance,
            added=record.added,
            modified=record.modified,
            removed=record.removed,
            file_count=record.file_count,
            size_bytes=record.size_bytes,
            content_digest=None,
        )

    @property
    def created_at(self) -> datetime:
        """When it was committed, by the database's clock."""
        return moment_of(self.created_us)


def empty_version(namespace: NamespaceRow) -> VersionRow:
    """Return version 0: the empty version that every namespace begins with, and that no row records."""
    return VersionRow(
        namespace.id, 0, NO_PARENT, NO_PARENT, "", namespace.created_us, "create", "", "", {}, {}, 0, 0, 0, 0, 0, None
    )


def get_version(connection: Connection, namespace: NamespaceRow, number: int) -> VersionRow:
    """Return one visible version.

    Raises:
        NotFoundError: there is none of that number (yet), or it has expired.
    """
    found = get_named(connection, namespace, number)
    if found.expired_us is not None:
        raise expired_error(namespace.name, number, found.expired_us)
    return found


def get_named(connection: Connection, namespace: NamespaceRow, number: int) -> VersionRow:
    """Return one visible version, also one that has expired: what a release shows is to be told for ever.

    Raises:
        NotFoundError: there is none of that number (yet).
    """
    if number == 0:
        return empty_version(namespace)
    row = None
    if number <= namespace.visible:
        row = connection.execute(
            text("SELECT * FROM version WHERE store_id = :s AND namespace_id = :n AND number = :v"),
            {"s": namespace.store_id, "n": namespace.id, "v": number},
        ).one_or_none()
    if row is None:
        raise NotFoundError(
            f"namespace {namespace.name!r} has no version {number}, its latest is {namespace.visible}",
            hint=f"vds log {namespace.name}",
        )
    return _version(row)


def find_point(connection: Connection, namespace: NamespaceRow, point: Point) -> VersionRow:
    """Return the visible version that a point means.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: a digest prefix fits several versions.
    """
    if point.number is not None:
        row = get_version(connection, namespace, point.number)
        if not point.back:
            return row
        number = row.number
    elif point.digest_prefix is not None:
        number = _number_of_digest(connection, namespace, point.digest_prefix)
    elif point.moment is not None:
        number = _number_at(connection, namespace, point.moment)
    else:
        number = namespace.visible
    if point.back > number:
        raise NotFoundError(
            f"there is no version {point.back} before version {number} of {namespace.name!r}", hint=f"vds log {namespace.name}"
        )
    return get_version(connection, namespace, number - point.back)


def _number_of_digest(connection: Connection, namespace: NamespaceRow, prefix: str) -> int:
    low, high = bytes.fromhex(prefix.ljust(64, "0")), bytes.fromhex(prefix.ljust(64, "f"))
    numbers = list(
        connection.execute(
            text(
                "SELECT number FROM version WHERE store_id = :s"
                " AND namespace_id = :n AND digest >= :low AND digest <= :high AND number <= :visible LIMIT 2"
            ),
            {"s": namespace.store_id, "n": namespace.id, "low": low, "high": high, "visible": namespace.visible},
        ).scalars()
    )
    if len(numbers) > 1:
        raise InvalidInputError(f"b3:{prefix} fits several versions of {namespace.name!r}", hint="give more digits")
    if not numbers:
        raise NotFoundError(f"namespace {namespace.name!r} has no version b3:{prefix}", hint=f"vds log {namespace.name}")
    return int(numbers[0])


def _number_at(connection: Connection, namespace: NamespaceRow, moment: datetime) -> int:
    """Return the newest visible version not younger than `moment`; served by ix_version_created."""
    if micros_of(moment) < namespace.created_us:
        raise NotFoundError(
            f"namespace {namespace.name!r} did not exist at {format_moment(moment)}", hint=f"vds log {namespace.name}"
        )
    number = connection.execute(
        text(
            "SELECT MAX(number) FROM version WHERE store_id = :s"
            " AND namespace_id = :n AND created_us <= :t AND number <= :visible"
        ),
        {"s": namespace.store_id, "n": namespace.id, "t": micros_of(moment), "visible": namespace.visible},
    ).scalar_one_or_none()
    return int(number or 0)


def list_versions(
    connection: Connection, namespace: NamespaceRow, *, path: str = "", limit: int | None = None
) -> Iterator[VersionRow]:
    """Yield visible versions, newest first, without 0 and expired ones; with `path`, those that changed something there."""
    condition = ""
    binds: dict[str, str] = {}
    if path:
        under, binds = prefix_condition("e.path", path)
        condition = (
            " AND EXISTS (SELECT 1 FROM entry e WHERE e.store_id = v.store_id AND e.namespace_id = v.namespace_id"
            f" AND {under} AND (e.first_version = v.number OR (e.end_version = v.number AND e.end_version < {OPEN})))"
        )
    hold_together(connection)
    rows = connection.execution_options(stream_results=True, yield_per=200).execute(
        text(
            "SELECT v.* FROM version v WHERE v.store_id = :s AND v.namespace_id = :n"
            f" AND v.number <= :visible AND v.expired_us IS NULL{condition} ORDER BY v.number DESC"
            + ("" if limit is None else " LIMIT :limit")
        ),
        {"s": namespace.store_id, "n": namespace.id, "visible": namespace.visible, "limit": limit, **binds},
    )
    for row in rows:
        yield _version(row)


def queued_for_us(connection: Connection, namespace: NamespaceRow) -> int:
    """Return for how long the lowest version whose record is queued has been committed; 0 when none is queued."""
    waits_us: int | None = connection.execute(
        text(
            f"SELECT {now_sql(connection)} - v.created_us FROM version v WHERE v.store_id = :s AND v.namespace_id = :n"
            " AND v.number = (SELECT MIN(q.number) FROM journal_queue q WHERE q.store_id = :s AND q.line = 'version'"
            " AND q.owner_id = :n)"
        ),
        {"s": namespace.store_id, "n": namespace.id},
    ).scalar_one_or_none()
    return waits_us or 0


def keep_content_digest(connection: Connection, store_id: int, row: VersionRow, digest: bytes) -> None:
    """Keep a content digest that was computed; the same one whoever computes it."""
    connection.execute(
        text("UPDATE version SET content_digest = :d WHERE store_id = :s AND namespace_id = :n AND number = :v"),
        {"d": digest, "s": store_id, "n": row.namespace_id, "v": row.number},
    )


def _version(row: Row[Any]) -> VersionRow:
    return VersionRow(
        namespace_id=row.namespace_id,
        number=row.number,
        digest=bytes(row.digest),
        parent=bytes(row.parent),
        commit_id=row.commit_id,
        created_us=row.created_us,
        operation=row.operation,
        author=row.author,
        message=row.message,
        labels=json.loads(row.labels),
        provenance=json.loads(row.provenance),
        added=row.added,
        modified=row.modified,
        removed=row.removed,
        file_count=row.file_count,
        size_bytes=row.size_bytes,
        content_digest=bytes(row.content_digest) if row.content_digest is not None else None,
        expired_us=row.expired_us,
    )
