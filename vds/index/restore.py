"""What undoing an expiry needs: the blobs of what was set aside, and whether all of it is still there."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.engine import Connection

_SET_ASIDE = "FROM expired_entry e LEFT JOIN object o ON o.store_id = e.store_id AND o.digest = e.digest"


def list_blobs_set_aside(connection: Connection, store_id: int, namespace_id: int) -> list[int]:
    """Return the blobs that hold what was set aside of a namespace, by id."""
    rows = connection.execute(
        text(
            f"SELECT DISTINCT o.blob_id {_SET_ASIDE} WHERE e.store_id = :s AND e.namespace_id = :n AND o.blob_id IS NOT NULL"
            " ORDER BY o.blob_id"
        ),
        {"s": store_id, "n": namespace_id},
    )
    return list(rows.scalars())


def find_unrestorable(connection: Connection, store_id: int, namespace_id: int) -> str | None:
    """Return an object that was set aside and has no live blob any more, unless it was erased; None when all are there."""
    digest = connection.execute(
        text(
            f"SELECT e.digest {_SET_ASIDE} LEFT JOIN blob b ON b.id = o.blob_id WHERE e.store_id = :s AND e.namespace_id = :n"
            " AND e.size_bytes > 0 AND (b.id IS NULL OR b.state <> 'live') AND NOT EXISTS (SELECT 1 FROM erased x"
            " WHERE x.store_id = e.store_id AND x.digest = e.digest) LIMIT 1"
        ),
        {"s": store_id, "n": namespace_id},
    ).scalar_one_or_none()
    return None if digest is None else f"b3:{bytes(digest).hex()}"
