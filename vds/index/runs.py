"""Runs in the index: what began, what ended, what each read and wrote.

Whether a run that should be at work still is, is told from its heartbeat, by the database's clock; who runs it says it every few
seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy.engine import Connection, Row

from vds.index.cursors import hold_together
from vds.index.database import now_sql, now_us
from vds.index.sql import text
from vds.model.run import EndStatus, RunKind

SILENT_US = 60 * 1_000_000
"""After how long without a heartbeat a run counts as abandoned."""

PlaceKind = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A version that a run read or wrote, seen from a path."""

    name: str
    namespace_id: int
    namespace: str
    number: int
    path: str
    asked: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """What the index knows of one run.

    Attributes:
        status: as it was last recorded; `running` too when nobody runs it any more.
        is_silent: whether it should be at work and was not heard of for a minute.
        process: who runs it; empty once it has ended.
    """

    uid: str
    parent: str
    kind: RunKind
    name: str
    author: str
    status: Literal["running", "completed", "failed", "canceled"]
    started_us: int
    ended_us: int | None
    is_silent: bool
    process: str
    params: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    key_parts: Mapping[str, str] = field(default_factory=dict)
    reused: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a listing is to have; None for whatever it is.

    Attributes:
        parent: empty for those that belong to none.
    """

    name: str | None = None
    parent: str | None = None
    kind: str | None = None
    key: str | None = None
    status: str | None = None


def add_run(connection: Connection, store_id: int, row: RunRow) -> int:
    """Add a run and return when it began, by the database's clock; one that is there stays as it is."""
    started_us = row.started_us or now_us(connection)
    connection.execute(
        text(
            "INSERT INTO run (store_id, uid, parent, kind, name, author, status, started_us, heartbeat_us, ended_us, process,"
            " params, provenance, key, key_parts, reused, error) VALUES (:s, :uid, :parent, :kind, :name, :author, :status,"
            f" :started, {now_sql(connection)}, :ended, :process, :params, :provenance, :key, :parts, :reused, :error)"
            " ON CONFLICT DO NOTHING"
        ),
        {
            "s": store_id,
            "uid": row.uid,
            "parent": row.parent,
            "kind": row.kind,
            "name": row.name,
            "author": row.author,
            "status": row.status,
            "started": started_us,
            "ended": row.ended_us,
            "process": row.process,
            "params": json.dumps(dict(row.params), sort_keys=True),
            "provenance": json.dumps(dict(row.provenance), sort_keys=True),
            "key": row.key,
            "parts": json.dumps(dict(row.key_parts), sort_keys=True),
            "reused": row.reused,
            "error": row.error,
        },
    )
    return started_us


def beat_run(connection: Connection, store_id: int, uid: str) -> bool:
    """Say that a run is at work; False when it is over, or not known."""
    done = connection.execute(
        text(f"UPDATE run SET heartbeat_us = {now_sql(connection)} WHERE store_id = :s AND uid = :uid AND status = 'running'"),
        {"s": store_id, "uid": uid},
    )
    return bool(done.rowcount)


def end_run(
    connection: Connection, store_id: int, uid: str, status: EndStatus, ended_us: int, *, error: str, reused: str
) -> None:
    """Say how a run ended; the first end counts."""
    connection.execute(
        text(
            "UPDATE run SET status = :status, ended_us = :ended, process = '', error = :error, reused = :reused"
            " WHERE store_id = :s AND uid = :uid AND status = 'running'"
        ),
        {"s": store_id, "uid": uid, "status": status, "ended": ended_us, "error": error, "reused": reused},
    )


def add_place(connection: Connection, store_id: int, uid: str, kind: PlaceKind, place: PlaceRow) -> None:
    """Note what a run read or wrote; again is harmless."""
    binds = {
        "s": store_id,
        "uid": uid,
        "kind": kind,
        "name": place.name,
        "n": place.namespace_id,
        "v": place.number,
        "path": place.path,
        "asked": place.asked,
    }
    known = connection.execute(
        text(
            "SELECT 1 FROM run_place WHERE store_id = :s AND run = :uid AND kind = :kind AND name = :name"
            " AND namespace_id = :n AND number = :v AND path = :path LIMIT 1"
        ),
        binds,
    ).one_or_none()
    while known is None:  # two processes of one run may take the same number
        known = connection.execute(
            text(
                "INSERT INTO run_place (store_id, run, kind, seq, name, namespace_id, number, path, asked)"
                " SELECT :s, :uid, :kind, COALESCE(MAX(seq), 0) + 1, :name, :n, :v, :path, :asked FROM run_place"
                " WHERE store_id = :s AND run = :uid AND kind = :kind ON CONFLICT DO NOTHING RETURNING seq"
            ),
            binds,
        ).one_or_none()


def list_places(connection: Connection, store_id: int, uid: str, kind: PlaceKind) -> list[PlaceRow]:
    """Return what a run read or wrote, in the order it was said; served by pk_run_place."""
    rows = connection.execute(
        text(
            "SELECT p.name, p.namespace_id, n.name AS namespace, p.number, p.path, p.asked FROM run_place p"
            " JOIN namespace n ON n.id = p.namespace_id WHERE p.store_id = :s AND p.run = :uid AND p.kind = :kind ORDER BY p.seq"
        ),
        {"s": store_id, "uid": uid, "kind": kind},
    )
    return [PlaceRow(*row) for row in rows]


def find_run(connection: Connection, store_id: int, uid: str) -> RunRow | None:
    """Return a run, or None; served by pk_run."""
    row = connection.execute(
        text(f"SELECT {_columns(connection)} FROM run WHERE store_id = :s AND uid = :uid"), {"s": store_id, "uid": uid}
    ).one_or_none()
    return _run(row) if row else None


def list_runs(connection: Connection, store_id: int, wanted: RunFilter, limit: int | None = None) -> Iterator[RunRow]:
    """Yield runs, newest first; served by pk_run, ix_run_name, ix_run_parent or ix_run_key."""
    chosen = {name: value for name in ("name", "parent", "kind", "key", "status") if (value := getattr(wanted, name)) is not None}
    conditions = "".join(f" AND {name} = :{name}" for name in chosen)
    if "key" in chosen:
        conditions += " AND key <> ''"  # which is what its index covers
    hold_together(connection)
    rows = connection.execution_options(stream_results=True, yield_per=200).execute(
        text(
            f"SELECT {_columns(connection)} FROM run WHERE store_id = :s{conditions} ORDER BY uid DESC"
            + ("" if limit is None else " LIMIT :limit")
        ),
        {"s": store_id, "limit": limit, **chosen},
    )
    for row in rows:
        yield _run(row)


def list_users(connection: Connection, store_id: int, namespace_id: int, number: int) -> list[tuple[RunRow, PlaceRow]]:
    """Return the runs that read a version, oldest first, each with what it read of it; served by ix_run_place_version."""
    rows = connection.execute(
        text(
            f"SELECT {_columns(connection)}, p.name AS place, p.number, p.path, p.asked, n.name AS namespace"
            " FROM run_place p JOIN run ON run.store_id = p.store_id AND run.uid = p.run"
            " JOIN namespace n ON n.id = p.namespace_id"
            " WHERE p.store_id = :s AND p.namespace_id = :n AND p.number = :v AND p.kind = 'input' ORDER BY run.uid, p.seq"
        ),
        {"s": store_id, "n": namespace_id, "v": number},
    )
    return [(_run(row), PlaceRow(row.place, namespace_id, row.namespace, row.number, row.path, row.asked)) for row in rows]


def list_family(connection: Connection, store_id: int, uid: str) -> list[str]:
    """Return a run and all that belong to it, steps of steps too; served by ix_run_parent."""
    found = [uid]
    for parent in found:  # which grows meanwhile
        found += connection.execute(
            text("SELECT uid FROM run WHERE store_id = :s AND parent = :parent ORDER BY uid"), {"s": store_id, "parent": parent}
        ).scalars()
    return found


def list_written(connection: Connection, store_id: int, uid: str) -> list[tuple[int, str, int]]:
    """Return (id, name, number) of each version that a run wrote, by namespace and number; served by ix_version_run."""
    rows = connection.execute(
        text(
            "SELECT v.namespace_id, n.name, v.number FROM version v JOIN namespace n ON n.id = v.namespace_id"
            " WHERE v.store_id = :s AND v.run = :uid ORDER BY n.name, v.number"
        ),
        {"s": store_id, "uid": uid},
    )
    return [(row.namespace_id, row.name, row.number) for row in rows]


_COLUMNS = (
    "run.uid, run.parent, run.kind, run.name, run.author, run.status, run.started_us, run.ended_us, run.process, run.params,"
    " run.provenance, run.key, run.key_parts, run.reused, run.error"
)


def _columns(connection: Connection) -> str:
    return f"{_COLUMNS}, {now_sql(connection)} - run.heartbeat_us AS silent_us"


def _run(row: Row[Any]) -> RunRow:
    return RunRow(
        uid=row.uid,
        parent=row.parent,
        kind=row.kind,
        name=row.name,
        author=row.author,
        status=row.status,
        started_us=row.started_us,
        ended_us=row.ended_us,
        is_silent=row.status == "running" and row.silent_us > SILENT_US,
        process=row.process,
        params=json.loads(row.params),
        provenance=json.loads(row.provenance),
        key=row.key,
        key_parts=json.loads(row.key_parts),
        reused=row.reused,
        error=row.error,
    )


def add_rebuilt(connection: Connection, store_id: int, row: RunRow, places: Sequence[tuple[PlaceKind, PlaceRow]]) -> None:
    """Add a run as its record has it; its heartbeat is of now."""
    add_run(connection, store_id, row)
    for kind, place in places:
        add_place(connection, store_id, row.uid, kind, place)
