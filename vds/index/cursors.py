"""Statements straight on the driver, for the few that see every file of an upload: a row object each would be most of their cost.

Errors come out as SQLAlchemy's own, so that `vds.index.translate` sees one kind.
"""

from __future__ import annotations

import itertools
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vds.model.batch import batched

BATCH_ROWS = 4096
STATEMENT_ROWS = 100

_NAMED = re.compile(r"(?<!:):([a-z_]+)")
_numbers = itertools.count(1)
_IDLE = 0
"""What the driver says of a connection that is in no transaction."""


def fetch_batches(
    connection: Connection, statement: str, values: Mapping[str, Any], *, rows_max: int | None = None
) -> Iterator[list[Any]]:
    """Yield the rows of a SELECT as plain tuples, a few thousand at a time; none of the lists is empty.

    The statement names its values `:name`. PostgreSQL keeps the rows behind a cursor of the server's, so memory does not grow.

    Args:
        rows_max: how many there are at most, where that is known: few of them come in one answer, and not in five.
    """
    if rows_max is not None and rows_max <= BATCH_ROWS:
        if rows := fetch_all(connection, statement, values):
            yield rows
        return
    hold_together(connection)
    with driver(connection) as raw, closing(_open_cursor(connection, raw)) as cursor:
        cursor.execute(driver_statement(connection, statement), values)
        rows = cursor.fetchmany(BATCH_ROWS)
        while rows:
            yield rows
            rows = cursor.fetchmany(BATCH_ROWS) if len(rows) == BATCH_ROWS else []


def fetch_all(connection: Connection, statement: str, values: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
    """Return the rows of a statement that returns few, as plain tuples; a sequence of values is for the driver's own marks."""
    with driver(connection) as raw, closing(raw.cursor()) as cursor:
        text = driver_statement(connection, statement) if isinstance(values, Mapping) else statement
        cursor.execute(text, values)
        rows: list[Any] = cursor.fetchall()
        return rows


def insert_values(connection: Connection, into: str, rows: Iterable[Sequence[Any]], then: str = "") -> int:
    """Insert tuples into SQLite, a hundred in one statement, and return how many were inserted.

    The driver gives the interpreter away and takes it back at every statement: beside a thread that hashes files, a row that is a
    statement of its own costs 6 to 8 us, and one among a hundred 2. With no such thread it is 1.7 to 2.0 against 1.0 to 1.4.

    Args:
        into: up to the word VALUES.
        then: what follows the values.
    """
    inserted = 0
    with driver(connection) as raw:
        for batch in batched(rows, STATEMENT_ROWS):
            marks = f"({', '.join('?' * len(batch[0]))})"
            statement = f"{into} VALUES {', '.join([marks] * len(batch))} {then}"
            inserted += raw.execute(statement, list(itertools.chain.from_iterable(batch))).rowcount
    return inserted


def look_up_by_key(connection: Connection) -> None:
    """Have the rest of this transaction find rows by their keys alone.

    Rows are staged and committed within seconds, long before PostgreSQL counts them: for want of numbers it would read all
    entries to find the ten that change. Looked up in the order of their keys, a million cost no more than a hash of them. SQLite
    has no other way to join.
    """
    if connection.dialect.name == "sqlite" or _is_set(connection):
        return
    with sent_together(connection) as batch:  # the beginning of a transaction too
        hold_together(connection)
        batch.add(_BY_KEY, {})


_BY_KEY = (
    "SELECT set_config(name, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin',"
    " 'enable_bitmapscan', 'enable_sort']) AS name"
)


def _is_set(connection: Connection) -> bool:
    """Return whether this was asked before in this transaction; from now on it was."""
    transaction = connection.get_transaction()
    last = connection.info.get("vds_by_key")
    connection.info["vds_by_key"] = weakref.ref(transaction) if transaction is not None else None
    return transaction is not None and last is not None and last() is transaction


@dataclass
class Answer:
    """What a statement of a batch came to, once the batch is over.

    Attributes:
        rows: what it returned, as plain tuples.
        rowcount: how many rows it changed.
    """

    rows: list[Any] = field(default_factory=list)
    rowcount: int = 0

    def take(self, cursor: Any) -> None:
        """Read the cursor of the statement to its end."""
        self.rowcount = cursor.rowcount
        if cursor.description is not None:
            self.rows = cursor.fetchall()


class Batch:
    """Statements that are sent without waiting for the answers between them."""

    def __init__(self, connection: Connection, raw: Any, cursors: ExitStack) -> None:
        self._connection = connection
        self._raw = raw
        self._cursors = cursors
        self._sent: list[tuple[Answer, Any]] = []

    def add(self, statement: str, values: Mapping[str, Any]) -> Answer:
        """Send a statement, whose values are named `:name`; more values than it names are fine."""
        answer, cursor = Answer(), self._cursors.enter_context(closing(self._raw.cursor()))
        cursor.execute(driver_statement(self._connection, statement), values)
        self._sent.append((answer, cursor))
        return answer

    def finish(self) -> None:
        """Read the answers."""
        for answer, cursor in self._sent:
            answer.take(cursor)


@contextmanager
def sent_together(connection: Connection) -> Iterator[Batch]:
    """Give a batch whose statements PostgreSQL is sent at once: who waits for locks that are held then waits for no network.

    They are carried out in their order, and after the first that fails none is; its error is raised at the end.
    """
    with driver(connection) as raw, ExitStack() as cursors:
        batch = Batch(connection, raw, cursors)
        if connection.dialect.name == "sqlite":
            yield batch
        else:
            with raw.pipeline():
                yield batch
        batch.finish()


def hold_together(connection: Connection) -> None:
    """Make one transaction of what follows on a connection for reading, where each statement of PostgreSQL's is one by itself.

    A setting for a transaction, and a cursor of the server's, last no longer than that.
    """
    if connection.dialect.name == "sqlite":
        return
    with driver(connection) as raw:
        if raw.autocommit and raw.info.transaction_status == _IDLE:
            raw.execute("BEGIN")


@contextmanager
def driver(connection: Connection) -> Iterator[Any]:
    """Give the driver's own connection inside the transaction that `connection` is in; its errors become SQLAlchemy's."""
    dialect = connection.dialect
    foreign: type[Exception] = dialect.loaded_dbapi.Error
    raw = connection.connection.driver_connection
    try:
        yield raw
    except foreign as err:
        is_lost = dialect.is_disconnect(err, connection.connection, None)  # type: ignore[arg-type]
        raise sa.exc.DBAPIError.instance(None, None, err, foreign, connection_invalidated=is_lost, dialect=dialect) from err


def driver_statement(connection: Connection, statement: str) -> str:
    """Return the statement with its values named as the driver wants them; SQLite takes `:name` as it is."""
    return statement if connection.dialect.name == "sqlite" else _driver_statement(statement)


@lru_cache(256)
def _driver_statement(statement: str) -> str:
    return _NAMED.sub(r"%(\1)s", statement)


def _open_cursor(connection: Connection, raw: Any) -> Any:
    return raw.cursor() if connection.dialect.name == "sqlite" else raw.cursor(name=f"vds_{next(_numbers)}")
