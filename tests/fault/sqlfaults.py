"""Faults at will in the index: the n-th statement of any connection goes wrong, under whatever asks for it.

It sits below SQLAlchemy, at the driver's own connections, so that statements which vds gives straight to them are seen too. A
statement is whatever is executed, BEGIN and COMMIT included, a COPY, the next rows of a server's cursor, and the making of a
connection; a ROLLBACK always succeeds, as it does when the server undoes what a lost connection had begun, and so do BEGIN and
COMMIT of a reading transaction in SQLite, which touch no file.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

import vds.index.database

T = TypeVar("T")

# Itself, and not what another one of these, still in use, has put in its place.
_open_postgres = vds.index.database._open_postgres

Kind = Literal["refused", "lost", "locked", "full"]
"""What goes wrong with a statement:

- refused: an input or output error, or the connection breaks before the statement arrives;
- lost: the statement takes effect and its answer is lost, for SQLite by an error of the disk after the last write;
- locked: SQLite's "database is locked", or PostgreSQL's choice of this transaction to end a deadlock;
- full: no space.
"""
KINDS: tuple[Kind, ...] = ("refused", "lost", "locked", "full")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: the `number`-th since `begin_log`, and the `nth` of its text."""

    number: int
    text: str
    nth: int = 1

    @property
    def place(self) -> tuple[str, int]:
        """What tells it from all others, also where threads run side by side."""
        return self.text, self.nth

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What can go wrong: only of a COMMIT does it matter whether it took effect, all else is undone."""
        return KINDS if self.text == "COMMIT" else ("refused", "locked", "full")


@dataclass
class SqlFaults:
    """Decides which statement goes wrong, and how.

    Attributes:
        plan: decides; None for nothing.
        log: every statement since `begin_log`, in order.
        fired: how many of them went wrong.
    """

    plan: Callable[[Statement], Kind | None] | None = None
    log: list[Statement] = field(default_factory=list)
    fired: int = 0
    _alike: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin_log(self) -> None:
        """Count statements from here on."""
        self.log.clear()
        self._alike.clear()
        self.fired = 0

    def inject(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have this decide over every connection that is made from now on."""
        monkeypatch.setattr(vds.index.database, "sqlite3", _Sqlite3(self))

        def open_postgres(url: URL, *args: Any, **options: Any) -> Engine:
            engine = _open_postgres(url, *args, **options)

            @event.listens_for(engine, "do_connect")
            def connect(dialect: Any, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> _PostgresConnection:
                made = self.around("CONNECT", lambda: _PostgresConnection.connect(*arguments, **parameters), _postgres_error)
                made.faults = self
                return made

            return engine

        monkeypatch.setattr(vds.index.database, "_open_postgres", open_postgres)

    def around(self, text: str, effect: Callable[[], T], error: Callable[[Kind], Exception]) -> T:
        """Execute one statement, or let it go wrong with what `error` makes."""
        with self._lock:
            self._alike[text] += 1
            statement = Statement(len(self.log) + 1, text, self._alike[text])
            self.log.append(statement)
            kind = self.plan(statement) if self.plan is not None else None
            self.fired += kind is not None
        if kind == "lost":
            effect()
        if kind is not None:
            raise error(kind)
        return effect()


def statement_at(place: tuple[str, int], kind: Kind) -> Callable[[Statement], Kind | None]:
    """Return the plan by which one statement goes wrong."""
    return lambda statement: kind if statement.place == place else None


class _Sqlite3:
    """Stands for the module `sqlite3`, but makes connections that go wrong."""

    def __init__(self, faults: SqlFaults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, *args: Any, **options: Any) -> sqlite3.Connection:
        def make() -> sqlite3.Connection:
            return sqlite3.connect(*args, factory=_SqliteConnection, **options)

        made = self._faults.around("CONNECT", make, _sqlite_error)
        assert isinstance(made, _SqliteConnection)
        made.faults = self._faults
        return made


class _SqliteCursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = ()) -> _SqliteCursor:
        assert isinstance(self.connection, _SqliteConnection)
        if sql.startswith("BEGIN"):
            self.connection.is_writing = sql == "BEGIN IMMEDIATE"
            if not self.connection.is_writing:
                return super().execute(sql, parameters)
        return self._around(sql, lambda: super(_SqliteCursor, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Any) -> _SqliteCursor:
        return self._around(sql, lambda: super(_SqliteCursor, self).executemany(sql, parameters))

    def _around(self, sql: str, effect: Callable[[], _SqliteCursor]) -> _SqliteCursor:
        assert isinstance(self.connection, _SqliteConnection)
        return self.connection.faults.around(sql, effect, _sqlite_error)


class _SqliteConnection(sqlite3.Connection):
    faults: SqlFaults
    is_writing = False

    def cursor(self, factory: Any = _SqliteCursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        return self.cursor().execute(sql, parameters)  # by itself it would make one that knows of no faults

    def executemany(self, sql: str, parameters: Any) -> Any:
        return self.cursor().executemany(sql, parameters)

    def commit(self) -> None:
        if self.in_transaction and self.is_writing:
            self.faults.around("COMMIT", super().commit, self._commit_error)
        else:
            super().commit()

    def _commit_error(self, kind: Kind) -> Exception:
        if kind != "locked":
            self.rollback()  # as SQLite does by itself: only one that is busy keeps its transaction, for COMMIT to be tried again
        return _sqlite_error(kind)


def _sqlite_error(kind: Kind) -> Exception:
    if kind == "locked":
        return sqlite3.OperationalError("database is locked")
    return sqlite3.OperationalError("database or disk is full" if kind == "full" else "disk I/O error")


class _PostgresCursor(psycopg.Cursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> _PostgresCursor:
        return self._around(_text_of(query), lambda: super(_PostgresCursor, self).execute(query, params, **options))

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        self._around(_text_of(query), lambda: super(_PostgresCursor, self).executemany(query, params_seq, **options))

    def copy(self, statement: Any, params: Any = None, **options: Any) -> Any:
        return self._around(_text_of(statement), lambda: super(_PostgresCursor, self).copy(statement, params, **options))

    def _around(self, text: str, effect: Callable[[], T]) -> T:
        return _around(self.connection, text, effect)


class _PostgresServerCursor(psycopg.ServerCursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> _PostgresServerCursor:
        effect = lambda: super(_PostgresServerCursor, self).execute(query, params, **options)  # noqa: E731 - as above
        return _around(self.connection, _text_of(query), effect)

    def fetchmany(self, size: int = 0) -> list[Any]:
        return _around(self.connection, "FETCH", lambda: super(_PostgresServerCursor, self).fetchmany(size))


class _PostgresConnection(psycopg.Connection[Any]):
    faults: SqlFaults | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursor_factory = _PostgresCursor
        self.server_cursor_factory = _PostgresServerCursor

    def commit(self) -> None:
        if self.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            _around(self, "COMMIT", super().commit)


def _around(connection: psycopg.Connection[Any], text: str, effect: Callable[[], T]) -> T:
    assert isinstance(connection, _PostgresConnection)
    if connection.faults is None:
        return effect()  # it is being made

    def error(kind: Kind) -> Exception:
        made = _postgres_error(kind)
        if kind in ("refused", "lost"):
            connection.close()
        return made

    return connection.faults.around(text, effect, error)


def _postgres_error(kind: Kind) -> Exception:
    if kind == "locked":
        return psycopg.errors.DeadlockDetected("deadlock detected")
    if kind == "full":
        return psycopg.errors.DiskFull("could not extend file: No space left on device")
    return psycopg.OperationalError("server closed the connection unexpectedly")


def _text_of(query: Any) -> str:
    return query.decode() if isinstance(query, bytes) else str(query)
