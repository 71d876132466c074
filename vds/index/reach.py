"""What would go, found by looking at every entry: for plans and doubts. Nothing is written, no count is believed.

It costs a walk through all entries, where collection itself costs what changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.engine import Connection

from vds.index.collect import BlobUse
from vds.index.schema import OPEN
from vds.index.uses import Gap

_IN_GAP = "e.namespace_id = g.namespace_id AND e.end_version > g.low AND e.end_version <= g.high AND e.first_version > g.low"


def _gaps_sql(gaps: Sequence[Gap]) -> str:
    """Return a table of gaps, for WITH; numbers of ours, so that they may stand in the text."""
    rows = ", ".join(f"({gap.namespace_id}, {gap.low}, {gap.high})" for gap in gaps) or "(0, 0, 0)"
    return f"gap (namespace_id, low, high) AS (VALUES {rows})"


def measure_exclusive(connection: Connection, store_id: int, gaps: Sequence[Gap]) -> tuple[int, int]:
    """Return how many objects, and how many bytes, only the entries in these gaps keep."""
    row = connection.execute(
        text(
            f"WITH {_gaps_sql(gaps)}, dead AS (SELECT e.digest, COUNT(*) AS n, MAX(e.size_bytes) AS size_bytes FROM gap g"
            f" JOIN entry e ON e.store_id = :s AND {_IN_GAP} GROUP BY e.digest),"
            " alive AS (SELECT e.digest, COUNT(*) AS n FROM dead d JOIN entry e ON e.store_id = :s AND e.digest = d.digest"
            " GROUP BY e.digest)"
            " SELECT COUNT(*) AS objects, COALESCE(SUM(d.size_bytes), 0) AS size_bytes FROM dead d"
            " JOIN alive a ON a.digest = d.digest AND a.n = d.n WHERE d.size_bytes > 0"
        ),
        {"s": store_id},
    ).one()
    return int(row.objects), int(row.size_bytes)


def find_partly_used(connection: Connection, store_id: int, gaps: Sequence[Gap]) -> list[BlobUse]:
    """Return the live blobs of objects that are not used whole, as if the entries in these gaps were gone, by id.

    Those of open uploads are left out.
    """
    rows = connection.execute(
        text(
            f"WITH {_gaps_sql(gaps)}, used AS (SELECT DISTINCT e.digest FROM entry e WHERE e.store_id = :s AND"
            f" (e.end_version = {OPEN} OR NOT EXISTS (SELECT 1 FROM gap g WHERE {_IN_GAP}))),"
            " placed AS (SELECT o.blob_id, SUM(CASE WHEN u.digest IS NULL THEN 0 ELSE o.length_bytes END) AS used_bytes,"
            " COUNT(u.digest) AS members"
            " FROM object o LEFT JOIN used u ON u.digest = o.digest WHERE o.store_id = :s GROUP BY o.blob_id)"
            " SELECT b.id, b.key, b.size_bytes, b.etag, COALESCE(p.used_bytes, 0) AS used_bytes,"
            " COALESCE(p.members, 0) AS members FROM blob b"
            " LEFT JOIN placed p ON p.blob_id = b.id LEFT JOIN upload up ON up.id = b.upload_id"
            " WHERE b.store_id = :s AND b.state = 'live' AND (up.id IS NULL OR up.state <> 'open')"
            " AND COALESCE(p.used_bytes, 0) < b.size_bytes ORDER BY b.id"
        ),
        {"s": store_id},
    )
    return [
        BlobUse(row.id, row.key, row.size_bytes, int(row.used_bytes), row.etag, row.members)
        for row in rows
        if not row.key.startswith(("changes/", "checkpoints/"))
    ]
