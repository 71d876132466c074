"""The queue between the index and the container: records committed here that are not known to be written there yet.

There are three lines of records, each dense and hash-chained: `version` (one a namespace), `event` (one a dataset) and
`store` (one).
A number is visible once its record and all earlier ones of its line are written: that is, once it is below the lowest number
still queued. Nothing else stores visibility, so nothing can disagree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.engine import Connection

from vds.index.cursors import sent_together
from vds.index.sql import text

Line = Literal["version", "event", "store"]

VISIBLE_SQL = """COALESCE((SELECT MIN(q.number) - 1 FROM journal_queue q
    WHERE q.store_id = {owner}.store_id AND q.line = '{line}' AND q.owner_id = {owner}.id), {owner}.head)"""
"""The visible number of `owner`, in the same statement that reads its head: one statement sees one state."""


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A complete record waiting to be written to the container."""

    line: Line
    owner_id: int
    number: int
    key: str
    body: bytes


def add_record(connection: Connection, store_id: int, record: QueuedRecord) -> None:
    """Queue one record, in the transaction that commits what it describes."""
    connection.execute(text(ADD_RECORD), queued_binds(store_id, record))


ADD_RECORD = (
    "INSERT INTO journal_queue (store_id, line, owner_id, number, key, body)"
    " VALUES (:store_id, :line, :owner_id, :number, :key, :body)"
)


def queued_binds(store_id: int, record: QueuedRecord) -> dict[str, Any]:
    """Return the values of `ADD_RECORD`."""
    return {
        "store_id": store_id,
        "line": record.line,
        "owner_id": record.owner_id,
        "number": record.number,
        "key": record.key,
        "body": record.body,
    }


def remove_record(connection: Connection, store_id: int, record: QueuedRecord) -> int | None:
    """Take a record out once it is in the container, and return what `find_lowest` says then.

    Idempotent, since others may have flushed it too.
    """
    binds = {"s": store_id, "line": record.line, "o": record.owner_id, "n": record.number}
    with sent_together(connection) as batch:
        batch.add("DELETE FROM journal_queue WHERE store_id = :s AND line = :line AND owner_id = :o AND number = :n", binds)
        lowest = batch.add(_LOWEST, binds)
    [(number,)] = lowest.rows
    return None if number is None else int(number)


def list_records(
    connection: Connection,
    store_id: int,
    line: Line | None = None,
    owner_id: int | None = None,
    up_to: int | None = None,
    *,
    first: int = 0,
) -> Sequence[QueuedRecord]:
    """Return queued records by line, owner and number; `first` and `up_to` bound the number."""
    rows = connection.execute(
        text(
            "SELECT line, owner_id, number, key, body FROM journal_queue WHERE store_id = :s"
            " AND (:line = '' OR line = :line) AND (:o < 0 OR owner_id = :o) AND (:n < 0 OR number <= :n)"
            " AND number >= :first"
            " ORDER BY line, owner_id, number"
        ),
        {
            "s": store_id,
            "line": line or "",
            "o": -1 if owner_id is None else owner_id,
            "n": -1 if up_to is None else up_to,
            "first": first,
        },
    )
    return [QueuedRecord(row.line, row.owner_id, row.number, row.key, bytes(row.body)) for row in rows]


def list_places(connection: Connection, store_id: int) -> set[tuple[str, int, int]]:
    """Return line, owner and number of every queued version and event; the store's own records show nothing to readers."""
    rows = connection.execute(
        text("SELECT line, owner_id, number FROM journal_queue WHERE store_id = :s AND line <> 'store'"), {"s": store_id}
    )
    return {(row.line, row.owner_id, row.number) for row in rows}


def find_lowest(connection: Connection, store_id: int, line: Line, owner_id: int) -> int | None:
    """Return the lowest number of a line that is not known to be written, or None when all are."""
    lowest: int | None = connection.execute(text(_LOWEST), {"s": store_id, "line": line, "o": owner_id}).scalar_one()
    return lowest


_LOWEST = "SELECT MIN(number) FROM journal_queue WHERE store_id = :s AND line = :line AND owner_id = :o"
