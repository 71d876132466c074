"""Stores and namespaces in the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from vds.errors import FormatError
from vds.index.database import Database, now_us
from vds.index.queue import VISIBLE_SQL
from vds.index.schema import REVISION
from vds.index.sql import text
from vds.model.version import NO_PARENT

_VISIBLE = VISIBLE_SQL.format(owner="namespace", line="version")
NAMESPACE_SQL = (
    "namespace.id, namespace.store_id, namespace.uid, namespace.name, namespace.head, namespace.head_digest,"
    f" {_VISIBLE} AS visible, namespace.created_us"
)
"""The columns of which `namespace_of` makes a row."""
_NAMESPACE = f"SELECT {NAMESPACE_SQL} FROM namespace"


@dataclass(frozen=True, slots=True)
class StoreRow:
    """What the index knows of one store."""

    id: int
    uid: str
    incarnation: str
    log_seq: int
    log_digest: bytes


@dataclass(frozen=True, slots=True)
class NamespaceRow:
    """What the index knows of one namespace.

    Attributes:
        head: the last committed version.
        visible: the last version whose record, and all earlier ones, are in the container.
    """

    id: int
    store_id: int
    uid: str
    name: str
    head: int
    head_digest: bytes
    visible: int
    created_us: int


def check_revision(database: Database) -> None:
    """Check that the index has the tables of this program.

    Raises:
        FormatError: it is older, newer, or not an index yet; the hint is the command to run.
    """
    try:
        with database.read() as connection:
            found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    except FormatError as err:
        raise FormatError(f"the index at {database.address} has no tables yet", hint="vds index upgrade") from err
    if found == REVISION:
        return
    if found is not None and found > REVISION:
        raise FormatError(
            f"the index at {database.address} is at revision {found}, newer than this program's {REVISION}",
            hint="pip install --upgrade vds",
        )
    raise FormatError(
        f"the index at {database.address} is at revision {found}, this program needs {REVISION}", hint="vds index upgrade"
    )


def find_store(connection: Connection, uid: str) -> StoreRow | None:
    """Return the store with this id, or None when the index does not serve it."""
    row = connection.execute(
        text("SELECT id, uid, incarnation, log_seq, log_digest FROM store WHERE uid = :uid"), {"uid": uid}
    ).one_or_none()
    return StoreRow(row.id, row.uid, row.incarnation, row.log_seq, bytes(row.log_digest)) if row else None


def find_store_log(connection: Connection, uid: str) -> tuple[StoreRow | None, int | None]:
    """Return the store with this id, and the lowest number of its log that is queued, as of one moment."""
    row = connection.execute(
        text(
            "SELECT id, uid, incarnation, log_seq, log_digest, (SELECT MIN(q.number) FROM journal_queue q"
            " WHERE q.store_id = store.id AND q.line = 'store' AND q.owner_id = 0) AS lowest FROM store WHERE uid = :uid"
        ),
        {"uid": uid},
    ).one_or_none()
    if row is None:
        return None, None
    return StoreRow(row.id, row.uid, row.incarnation, row.log_seq, bytes(row.log_digest)), row.lowest


def put_store(connection: Connection, uid: str, incarnation: str) -> StoreRow:
    """Add a store if it is not there, and return it; the incarnation of one already there stays."""
    connection.execute(
        text(
            "INSERT INTO store (uid, incarnation, log_seq, log_digest, created_us) VALUES (:uid, :inc, 0, :d, :now)"
            " ON CONFLICT (uid) DO NOTHING"
        ),
        {"uid": uid, "inc": incarnation, "d": NO_PARENT, "now": now_us(connection)},
    )
    row = find_store(connection, uid)
    assert row is not None
    return row


def lock_store(connection: Connection, store_id: int) -> StoreRow:
    """Return the store's row, locked until the transaction ends: one writer at a time appends to the store's log."""
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    row = connection.execute(
        text("SELECT id, uid, incarnation, log_seq, log_digest FROM store WHERE id = :id" + lock), {"id": store_id}
    ).one()
    return StoreRow(row.id, row.uid, row.incarnation, row.log_seq, bytes(row.log_digest))


def advance_store_log(connection: Connection, store_id: int, seq: int, digest: bytes) -> None:
    """Record that the store's log now ends at `seq`; the row is locked."""
    connection.execute(
        text("UPDATE store SET log_seq = :seq, log_digest = :digest WHERE id = :id"),
        {"seq": seq, "digest": digest, "id": store_id},
    )


def find_namespace(connection: Connection, store_id: int, name: str) -> NamespaceRow | None:
    """Return the namespace called `name`, blind to case, or None. Served by uq_namespace_store_id_name_fold."""
    row = connection.execute(
        text(_NAMESPACE + " WHERE store_id = :s AND name_fold = :fold"),
        {"s": store_id, "fold": name.casefold()},
    ).one_or_none()
    return namespace_of(row) if row else None


def read_namespace(connection: Connection, namespace_id: int) -> NamespaceRow:
    """Return the namespace with this id, as it is now.

    Raises:
        FormatError: the index had it, and has it no more: it was put back to an earlier state while it was in use.
    """
    row = connection.execute(text(_NAMESPACE + " WHERE id = :id"), {"id": namespace_id}).one_or_none()
    if row is None:
        raise FormatError(
            f"this index is older than its store: it knew namespace {namespace_id} and does not now", hint="vds index rebuild"
        )
    return namespace_of(row)


def list_namespaces(connection: Connection, store_id: int, prefix: str = "") -> Iterator[NamespaceRow]:
    """Yield namespaces by name; `prefix` is a whole name or whole leading segments of one."""
    rows = connection.execute(
        text(_NAMESPACE + " WHERE store_id = :s AND (:p = '' OR name = :p OR (name >= :first AND name < :end)) ORDER BY name"),
        {"s": store_id, "p": prefix, "first": prefix + "/", "end": prefix + "0"},
    )
    for row in rows:
        yield namespace_of(row)


def list_recent_namespaces(connection: Connection, store_id: int, limit: int) -> list[NamespaceRow]:
    """Return the namespaces that were written to last, at most `limit`; served by pk_upload, read from its end."""
    rows = connection.execute(
        text(
            "SELECT namespace_id FROM upload WHERE store_id = :s AND state = 'committed' AND namespace_id > 0"
            " ORDER BY id DESC LIMIT 50"
        ),
        {"s": store_id},
    )
    recent = list(dict.fromkeys(rows.scalars()))[:limit]
    return [read_namespace(connection, namespace_id) for namespace_id in recent]


def add_namespace(connection: Connection, store_id: int, uid: str, name: str, created_us: int) -> NamespaceRow:
    """Add a namespace at version 0, its empty version.

    Raises:
        ConflictError: the name is taken.
    """
    connection.execute(
        text(
            "INSERT INTO namespace (store_id, uid, name, name_fold, head, head_digest, created_us)"
            " VALUES (:s, :uid, :name, :fold, 0, :digest, :now)"
        ),
        {"s": store_id, "uid": uid, "name": name, "fold": name.casefold(), "digest": NO_PARENT, "now": created_us},
    )
    row = find_namespace(connection, store_id, name)
    assert row is not None
    return row


def namespace_of(row: Sequence[Any]) -> NamespaceRow:
    """Return what the columns of `NAMESPACE_SQL` say."""
    namespace_id, store_id, uid, name, head, head_digest, visible, created_us = row
    return NamespaceRow(namespace_id, store_id, uid, name, head, bytes(head_digest), visible, created_us)
