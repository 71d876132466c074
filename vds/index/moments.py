"""When a version or an event was recorded, and which transactions that took such a time are not over yet.

A time is read before the transaction that records it commits, so what happened at 12:00:00 may show a little later. Whoever wants
to know when all of it shows needs two things: nothing may be recorded at an earlier time from now on, and what took an earlier
time must have ended. SQLite has one writer at a time, so holding its place is both. On PostgreSQL a transaction that takes a time
marks itself first, with an advisory lock that is shared with all others and that nobody waits for: `list_stamping` reads who
holds it.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection

from vds.errors import AccessDeniedError
from vds.index.database import now_us
from vds.index.sql import text

_STAMPING = "CAST('store'::regclass AS oid)"
"""The class of the advisory locks that mark who takes a time: the table; their object is the store's row in it.

Such locks belong to the whole database, and a store in another schema may have the same row: it is not to be waited for.
"""


def stamp_us(connection: Connection, store_id: int) -> int:
    """Return the database's clock for what this transaction records, which `list_stamping` shows from now until it ends."""
    if connection.dialect.name == "sqlite":
        return now_us(connection)
    return int(connection.execute(text(stamp_sql(":store")), {"store": store_id}).scalar_one())


def stamp_sql(store: str) -> str:
    """Return the statement that does so on PostgreSQL; `store` names the value that is the store's id."""
    # One statement, so that a commit asks no more often; materialized, so that the mark is there before the clock is read.
    return (
        f"WITH marked AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(CAST({_STAMPING} AS int), {store}))"
        " SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) FROM marked"
    )


def list_stamping(connection: Connection, store_id: int) -> set[str]:
    """Return the transactions that have taken a time and are not over; what those recorded that are over can be read.

    Empty on SQLite, where who reads the clock in a write transaction knows that there is no other.
    """
    if connection.dialect.name == "sqlite":
        return set()
    return set(
        connection.execute(
            text(
                "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                f" AND classid = {_STAMPING} AND objid = CAST(:store AS oid)"
            ),
            {"store": store_id},
        ).scalars()
    )


def newest_us(connection: Connection, store_id: int) -> int:
    """Return the time of the newest version or event, visible or not; 0 when there is none. One row a namespace is looked up."""
    return int(
        connection.execute(
            text(
                "SELECT COALESCE(MAX(created_us), 0) FROM ("
                "SELECT v.created_us FROM namespace n JOIN version v ON v.store_id = n.store_id AND v.namespace_id = n.id"
                " AND v.number = n.head WHERE n.store_id = :s"
                " UNION ALL SELECT e.created_us FROM dataset d JOIN tag_event e ON e.store_id = d.store_id"
                " AND e.dataset_id = d.id AND e.number = d.head WHERE d.store_id = :s) AS ends"
            ),
            {"s": store_id},
        ).scalar_one()
    )


def check_primary(connection: Connection) -> None:
    """Check that this is the database that takes the writes: a copy of it does not see who is writing.

    Raises:
        AccessDeniedError: it is a standby.
    """
    if connection.dialect.name != "sqlite" and connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one():
        raise AccessDeniedError("the index is a read-only copy of its database", hint="connect to the primary")
