"""A store's rows made anew beside the old ones, and put in their place in one step.

The new rows belong to a store row of their own, under a marked name. So the old ones serve readers until the last moment, a crash
leaves rows that nobody refers to, and two rebuilds cannot write into each other's. Old rows go afterwards, a few at a time:
versions before their entries, so that who reads on with the old rows finds the version gone and never takes a part for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Table, text
from sqlalchemy.engine import Connection

from vds.errors import ConflictError, CorruptionError
from vds.index.database import Database, now_us
from vds.index.datasets import list_datasets
from vds.index.gaps import list_gaps
from vds.index.queue import find_lowest
from vds.index.schema import REVISION, metadata
from vds.index.stores import find_store, list_namespaces
from vds.model.version import NO_PARENT

MARK = "~"
"""Separates a store's id from what marks its row as not the one that counts; no id has it."""

DROP_ROWS_SQLITE, DROP_ROWS_POSTGRES = 20_000, 100_000
"""How many old rows go in one transaction: on SQLite others wait meanwhile, some tenths of a second."""

_LAST = ("upload", "namespace", "dataset")


def find_fault(database: Database) -> str | None:
    """Return what is wrong with the file of a SQLite index, or None when it can be used, which one that is not there can."""
    if not database.path.exists():
        return None
    try:
        with database.read() as connection:
            said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
            if said != "ok":
                return said
            return _find_missing_table(connection)
    except CorruptionError as err:
        return err.message


def _find_missing_table(connection: Connection) -> str | None:
    tables = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
    if "alembic_version" not in tables:
        return None
    if connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none() != REVISION:
        return None  # to be upgraded, or newer
    missing = sorted(set(metadata.tables) - tables)
    return f"it has no table {missing[0]!r}" if missing else None


def move_aside(database: Database) -> Path:
    """Give the file of a damaged SQLite index another name, beside it, and return that; nothing is deleted."""
    database.close()
    path = database.path
    number = 1
    while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    # What belongs to the file first: beside a new file of the old name it would be taken for that one's.
    for end in ("-wal", "-shm", ""):
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.rename(target.with_name(target.name + end))
    return target


@dataclass(frozen=True, slots=True)
class Known:
    """What the index before knew to be in the container: where a line ends, the last record itself cannot say.

    Attributes:
        log_seq: the last record of the store's log.
        versions: namespace → (name, last version).
        events: dataset → last event.
    """

    log_seq: int = 0
    versions: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)


def read_known(connection: Connection, uid: str) -> Known:
    """Return what the old rows say was written, gaps that they remember among it; nothing where there are none."""
    store = find_store(connection, uid)
    if store is None:
        return Known()
    lowest = find_lowest(connection, store.id, "store", 0)
    versions = {row.id: (row.uid, row.name, row.visible) for row in list_namespaces(connection, store.id)}
    events = {row.id: (row.name, row.visible) for row, _ in list_datasets(connection, store.id)}
    for lost in list_gaps(connection, store.id):
        if lost.kind == "journal" and lost.owner_id in versions:
            own, name, last = versions[lost.owner_id]
            versions[lost.owner_id] = (own, name, max(last, lost.first_number))
        elif lost.kind == "events" and lost.owner_id in events:
            name, last = events[lost.owner_id]
            events[lost.owner_id] = (name, max(last, lost.first_number))
    return Known(
        store.log_seq if lowest is None else lowest - 1,
        {own: (name, last) for own, name, last in versions.values()},
        dict(events.values()),
    )


def begin_rebuild(connection: Connection, uid: str, incarnation: str) -> int:
    """Add the store's row for a rebuild and return its id; rebuilds that were begun before, and not finished, end here."""
    connection.execute(
        text("UPDATE store SET incarnation = '' WHERE substr(uid, 1, :n) = :mark"), {"n": len(uid) + 1, "mark": uid + MARK}
    )
    return int(
        connection.execute(
            text(
                "INSERT INTO store (uid, incarnation, log_seq, log_digest, created_us) VALUES (:uid, :inc, 0, :d, :now)"
                " RETURNING id"
            ),
            {"uid": f"{uid}{MARK}{incarnation}", "inc": incarnation, "d": NO_PARENT, "now": now_us(connection)},
        ).scalar_one()
    )


def hold_rebuild(connection: Connection, store_id: int, incarnation: str) -> None:
    """Keep a rebuild's row until the transaction ends; called first in each of them.

    Raises:
        ConflictError: another rebuild began after this one.
    """
    share = "" if connection.dialect.name == "sqlite" else " FOR SHARE"
    found = connection.execute(
        text(f"SELECT incarnation FROM store WHERE id = :id{share}"), {"id": store_id}
    ).scalar_one_or_none()
    if found != incarnation:
        raise superseded_error()


def superseded_error() -> ConflictError:
    """Return the error of a rebuild that another one has overtaken."""
    return ConflictError("another rebuild of this store was begun after this one", hint="let that one finish: it reads the same")


def switch(connection: Connection, store_id: int, uid: str, incarnation: str, log_seq: int, log_digest: bytes) -> None:
    """Put the new rows in the place of the old ones; writers that are still at work on those end here.

    Raises:
        ConflictError: another rebuild began after this one; nothing is changed.
    """
    old = connection.execute(text("SELECT id, incarnation FROM store WHERE uid = :uid"), {"uid": uid}).one_or_none()
    if old is not None:
        connection.execute(  # the first of all locks: whoever commits at this moment is waited for
            text("UPDATE upload SET state = 'aborted' WHERE store_id = :s AND state = 'open'"), {"s": old.id}
        )
    hold_rebuild(connection, store_id, incarnation)
    if old is not None:
        connection.execute(
            text("UPDATE store SET uid = :marked WHERE id = :id"), {"id": old.id, "marked": f"{uid}{MARK}{old.incarnation}"}
        )
    connection.execute(
        text("UPDATE store SET uid = :uid, log_seq = :seq, log_digest = :digest WHERE id = :id"),
        {"uid": uid, "seq": log_seq, "digest": log_digest, "id": store_id},
    )


def list_replaced(connection: Connection, uid: str) -> list[int]:
    """Return the store rows that are not the one that counts, by id: those replaced, and those never finished."""
    rows = connection.execute(
        text("SELECT id FROM store WHERE substr(uid, 1, :n) = :mark ORDER BY id"), {"n": len(uid) + 1, "mark": uid + MARK}
    )
    return list(rows.scalars())


def drop_rows(database: Database, store_id: int) -> None:
    """Delete all rows of a replaced store, its own last; a crash leaves rows for the next time."""
    tables = [metadata.tables["version"]]
    tables += [table for table in metadata.sorted_tables if table.name not in ("version", "store", *_LAST)]
    tables += [metadata.tables[name] for name in _LAST]
    for table in tables:
        while database.run(lambda connection, table=table: _drop_some(connection, table, store_id)):  # type: ignore[misc]
            pass
    database.run(lambda connection: connection.execute(text("DELETE FROM store WHERE id = :id"), {"id": store_id}))


def _drop_some(connection: Connection, table: Table, store_id: int) -> bool:
    """Delete some rows of one table, in the order of its key, and return whether there are more."""
    limit = DROP_ROWS_SQLITE if connection.dialect.name == "sqlite" else DROP_ROWS_POSTGRES
    names = [column.name for column in table.primary_key.columns if column.name != "store_id"]
    columns, binds = ", ".join(names), {"s": store_id}
    end = connection.execute(
        text(f"SELECT {columns} FROM {table.name} WHERE store_id = :s ORDER BY {columns} LIMIT 1 OFFSET {limit}"), binds
    ).one_or_none()
    if end is None:
        connection.execute(text(f"DELETE FROM {table.name} WHERE store_id = :s"), binds)
        return False
    ends: dict[str, Any] = {f"e{place}": value for place, value in enumerate(end)}
    marks = ", ".join(f":{name}" for name in ends)
    connection.execute(text(f"DELETE FROM {table.name} WHERE store_id = :s AND ({columns}) < ({marks})"), {**binds, **ends})
    return True
