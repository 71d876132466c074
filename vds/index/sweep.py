"""The rows that an ended upload leaves behind: they mean nothing any more, so they go a few at a time and outside its commit."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from vds.index.cursors import look_up_by_key
from vds.index.plan import Area
from vds.index.sql import text

SWEEP_ROWS_MAX = 5000
"""How many staged rows one transaction deletes from a SQLite index: some milliseconds, in which no other writer gets in."""

FEW_ROWS_MAX = 100

COUNTED_TABLES = ("entry", "object", "staged")
"""Of which a large commit changes so much that PostgreSQL would plan badly."""


def sweep_rows(connection: Connection, store_id: int) -> bool:
    """Delete rows of one ended upload and return whether there may be more; any upload's, whoever's it was.

    Open uploads are left alone. A part goes once its last rows are gone.
    """
    # Two who sweep take different parts: they would only wait for each other.
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE OF p SKIP LOCKED"
    parts = connection.execute(
        text(
            "SELECT p.id FROM part p JOIN upload u ON u.id = p.upload_id WHERE p.store_id = :s AND u.state <> 'open'"
            f" ORDER BY p.id LIMIT 2{lock}"
        ),
        {"s": store_id},
    )
    part_ids = parts.scalars().all()
    if not part_ids:
        return False
    look_up_by_key(connection)
    ids = {"s": store_id, "p": part_ids[0]}
    if (end := _find_end(connection, ids)) is not None:
        connection.execute(text("DELETE FROM staged WHERE store_id = :s AND part_id = :p AND path < :end"), {**ids, "end": end})
        return True
    connection.execute(text("DELETE FROM staged WHERE store_id = :s AND part_id = :p"), ids)
    connection.execute(text("DELETE FROM part WHERE id = :p"), ids)
    return len(part_ids) > 1


def sweep_few(connection: Connection, area: Area, upload_id: int) -> bool:
    """Delete the rows of an ended upload if they are few and all in one part, and return whether they are gone."""
    rows = "store_id = :s AND part_id = :p"
    is_few = f"(SELECT COUNT(*) FROM (SELECT 1 FROM staged WHERE {rows} LIMIT {FEW_ROWS_MAX + 1}) t) <= {FEW_ROWS_MAX}"
    is_alone = "NOT EXISTS (SELECT 1 FROM part o WHERE o.store_id = :s AND o.upload_id = :u AND o.id <> :p)"
    # The part first, as whoever sweeps does: two who delete the same rows in two orders would wait for each other.
    done = connection.execute(text(f"DELETE FROM part WHERE id = :p AND {is_few} AND {is_alone}"), area.binds(0, u=upload_id))
    if done.rowcount != 1:
        # Gone with its rows, by the sweep of another one, or of several parts.
        return connection.execute(text("SELECT 1 FROM part WHERE id = :p"), area.binds(0)).one_or_none() is None
    connection.execute(text(f"DELETE FROM staged WHERE {rows}"), area.binds(0))
    return True


def count_rows(connection: Connection) -> None:
    """Have PostgreSQL count what a large commit brought, so that it plans well before its next own count, a minute later.

    It skips what the role may not maintain, with a warning that nobody sees: then its own count must do.
    """
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(f"ANALYZE {', '.join(COUNTED_TABLES)}")


def _find_end(connection: Connection, ids: dict[str, int]) -> str | None:
    """Return the first path that is left for later; None takes all, as on PostgreSQL, where deleting rows holds nobody up."""
    if connection.dialect.name != "sqlite":
        return None
    return connection.execute(
        text(f"SELECT path FROM staged WHERE store_id = :s AND part_id = :p ORDER BY path LIMIT 1 OFFSET {SWEEP_ROWS_MAX}"), ids
    ).scalar_one_or_none()
