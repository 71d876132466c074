"""Which change lists and checkpoints a rebuild of the index would still need, and which nobody needs any more.

A rebuild begins from the newest checkpoint at or before the oldest version that is left, and applies the change lists after it.
So the lists and checkpoints before that one may go.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

_OLDEST = (
    "(SELECT MIN(v.number) FROM version v WHERE v.store_id = m.store_id AND v.namespace_id = m.namespace_id"
    " AND v.collected_us IS NULL)"
)
_START = (
    "COALESCE((SELECT MAX(c.number) FROM manifest c JOIN blob b ON b.id = c.blob_id WHERE c.store_id = m.store_id"
    f" AND c.namespace_id = m.namespace_id AND c.kind = 'checkpoint' AND b.state = 'live' AND c.number <= {_OLDEST}), 0)"
)
# The change list of that version stays: it alone says which of its files the version itself changed.
_IS_NEEDED = f"CASE WHEN m.number < {_START} THEN 0 ELSE 1 END"


def list_needed_blobs(connection: Connection, store_id: int, blob_ids: Sequence[int]) -> dict[int, bool]:
    """Return, for those of these blobs that hold a list, whether it is needed; served by ix_manifest_blob."""
    rows = connection.execute(
        text(f"SELECT m.blob_id, {_IS_NEEDED} AS needed FROM manifest m WHERE m.store_id = :s AND m.blob_id IN :ids").bindparams(
            bindparam("ids", expanding=True)
        ),
        {"s": store_id, "ids": list(blob_ids)},
    )
    return {row.blob_id: bool(row.needed) for row in rows}


def mark_unneeded_lists(connection: Connection, store_id: int, namespace_id: int) -> int:
    """Have collection look at the lists of a namespace that are needed no more; return how many blobs those are."""
    return connection.execute(
        text(
            "UPDATE blob SET is_checked = 0 WHERE state = 'live' AND id IN (SELECT m.blob_id FROM manifest m"
            f" WHERE m.store_id = :s AND m.namespace_id = :n AND {_IS_NEEDED} = 0)"
        ),
        {"s": store_id, "n": namespace_id},
    ).rowcount


def find_oldest_left(connection: Connection, store_id: int, namespace_id: int) -> int:
    """Return the oldest version of a namespace that is not collected, 0 when it has none."""
    found = connection.execute(
        text("SELECT MIN(number) FROM version WHERE store_id = :s AND namespace_id = :n AND collected_us IS NULL"),
        {"s": store_id, "n": namespace_id},
    ).scalar_one_or_none()
    return int(found or 0)
