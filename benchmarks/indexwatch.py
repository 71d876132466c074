"""What a database does to answer a question: whether it walks through a whole table, and how much it looks at.

SQLite is asked for the plan of each statement, and the steps of its machine are counted; PostgreSQL counts by itself how often it
walks through a table, and the rows it reads of each.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.pool import Pool

from vds.index.database import Database

WATCHED = ("entry", "object")
"""The tables that have a row for every file."""

STEPS = 1_000
"""SQLite says so each time it has done as many steps; looking up a row takes some tens."""

_SETTLE_S = 10.0
_QUESTIONS = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")

Seen = dict[str, Any]
"""`scans`: how often a watched table was walked through; `looked_at`: steps of SQLite's, or rows that PostgreSQL read."""


def watch(index: Callable[[], Database], question: Callable[[], object]) -> Seen:
    """Ask, and return what the index did meanwhile; nobody else may ask it anything. `index` says which it is then."""
    return _watch_sqlite(index().path.as_uri(), question) if index().is_sqlite else _watch_postgres(index, question)


def _watch_sqlite(uri: str, question: Callable[[], object]) -> Seen:
    said: list[str] = []
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += STEPS
        return 0  # go on

    def listen(raw: sqlite3.Connection, *_: object) -> None:
        raw.set_trace_callback(said.append)
        raw.set_progress_handler(step, STEPS)

    def leave(raw: sqlite3.Connection, *_: object) -> None:
        raw.set_trace_callback(None)
        raw.set_progress_handler(None, 0)

    listeners: dict[str, Any] = {"checkout": listen, "checkin": leave}
    for name, listener in listeners.items():
        event.listen(Pool, name, listener)
    try:
        question()
    finally:
        for name, listener in listeners.items():
            event.remove(Pool, name, listener)
    lines = [line for statement in dict.fromkeys(said) for line in _plan(uri, statement)]
    return {"looked_at": steps, "scans": sum(line.startswith("SCAN") for line in lines), "plan": sorted(set(lines))}


def _plan(uri: str, statement: str) -> list[str]:
    """Return the lines of a statement's plan that are about the watched tables, each with the table's own name."""
    if not statement.lstrip().upper().startswith(_QUESTIONS):
        return []
    named = re.findall(rf"\b({'|'.join(WATCHED)})\b(?: AS)?(?: ([a-z]\w*))?", statement)
    tables = {alias: table for table, alias in named} | {table: table for table in WATCHED}
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True)
    lines = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    connection.close()
    words = [re.match(r"(SCAN|SEARCH) (\w+)(.*)", line) for line in lines]
    return [f"{word[1]} {tables[word[2]]}{word[3]}" for word in words if word is not None and word[2] in tables]


def _watch_postgres(index: Callable[[], Database], question: Callable[[], object]) -> Seen:
    before = _counts(index())
    question()
    after = _counts(index())
    return {name: after[name] - before[name] for name in after}


def _counts(index: Database) -> dict[str, int]:
    """Return what was counted so far; a connection tells at its end what it has not told yet, so all are closed."""
    index.close()
    with psycopg.connect(os.environ["VDS_INDEX"], autocommit=True) as connection:
        deadline_s = time.monotonic() + _SETTLE_S
        while _one(connection, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vds'"):
            if time.monotonic() > deadline_s:
                raise TimeoutError("somebody else uses the index")
            time.sleep(0.01)
        names = list(WATCHED)
        scans, read = connection.execute(
            "SELECT sum(seq_scan)::bigint, sum(seq_tup_read)::bigint FROM pg_stat_user_tables WHERE relname = ANY(%s)", (names,)
        ).fetchone() or (0, 0)
        through = _one(connection, "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = ANY(%s)", names)
    return {"looked_at": int(read) + through, "scans": int(scans)}


def _one(connection: psycopg.Connection[Any], statement: str, *values: object) -> int:
    row = connection.execute(statement.encode(), values or None).fetchone()
    return int(row[0]) if row is not None else 0
