"""The blobs a commit refers to: listed before it, held in it.

Whether each object is where it was takes a look at every one of them, far too long for the locked step. So it is done before, and
the locked step proves that nothing moved since: a placement leaves a blob only in a transaction that holds the blob's row and
counts its `moves` up, and only a blob that is not `live` is ever emptied. A blob that is live with the same count holds what it
held; the share lock keeps it so until the end of the commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from vds.index.cursors import fetch_all
from vds.index.plan import Area
from vds.index.sql import text
from vds.model.batch import batched

LOCK_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Need:
    """One blob, and how often placements had been taken out of it when it was listed."""

    blob_id: int
    moves: int


@dataclass(frozen=True, slots=True)
class BlobsGone:
    """Objects that the changes refer to are not where they were: condemned blobs can be revived, the rest sent again."""

    condemned: tuple[int, ...]
    missing: tuple[bytes, ...]


def list_needs(connection: Connection, area: Area) -> tuple[Need, ...] | None:
    """Return the blobs the flagged rows refer to, by id; None when an object has none that is live.

    One statement, so that a placement and the count of its blob are of one moment. Served by pk_staged, pk_object and pk_blob.
    """
    rows = fetch_all(connection, _NEEDS, area.binds(0))
    if any(state != "live" for _, _, state in rows):
        return None
    return tuple(sorted((Need(blob_id, moves) for blob_id, moves, _ in rows), key=lambda need: need.blob_id))


# What was erased has no bytes to need: a copy of such a file, or a rollback to it, is as unreadable as the file is.
_NOT_ERASED = "s.digest NOT IN (SELECT x.digest FROM erased x WHERE x.store_id = :s)"

# A subquery a row and no join: PostgreSQL would rather hash all objects of the store, also for one row.
_NEEDS = (
    "SELECT d.blob_id, b.moves, b.state FROM (SELECT DISTINCT (SELECT o.blob_id FROM object o"
    " WHERE o.store_id = :s AND o.digest = s.digest) AS blob_id FROM staged s"
    f" WHERE s.store_id = :s AND s.part_id = :p AND s.kind = 1 AND s.changed = 1 AND s.size_bytes > 0 AND {_NOT_ERASED}) d"
    " LEFT JOIN blob b ON b.id = d.blob_id"
)


def hold_needs(connection: Connection, needs: tuple[Need, ...]) -> bool:
    """Lock the listed blobs, shared and by id; False unless each is live and nothing was taken out of it since."""
    held: set[Need] = set()
    for batch in batched((need.blob_id for need in needs), LOCK_BATCH):
        held.update(_lock_live(connection, batch))
    return held.issuperset(needs)


def _lock_live(connection: Connection, blob_ids: list[int]) -> Iterator[Need]:
    share = "" if connection.dialect.name == "sqlite" else " FOR SHARE"
    statement = text(f"SELECT id, moves FROM blob WHERE id IN :ids AND state = 'live' ORDER BY id{share}")
    for row in connection.execute(statement.bindparams(bindparam("ids", expanding=True)), {"ids": blob_ids}):
        yield Need(row.id, row.moves)


def hold_all(connection: Connection, area: Area) -> BlobsGone | None:
    """List and lock every blob the changes newly refer to; None when all are live and hold all that is needed.

    For what was not listed before, or could not be: it looks at each object twice while the locks are held.
    """
    wanted = list(connection.execute(text(_BLOBS_OF_CHANGES), area.binds(0)).scalars())
    locked = {need.blob_id for batch in batched(wanted, LOCK_BATCH) for need in _lock_live(connection, batch)}
    # A new statement, so that it sees what the locks waited for: a placement may have moved to another blob meanwhile.
    held = connection.execute(text(_BLOBS_OF_CHANGES), area.binds(0)).scalars().all()
    outside = [blob_id for blob_id in held if blob_id not in locked]
    missing = connection.execute(
        text(
            "SELECT DISTINCT s.digest FROM staged s LEFT JOIN object o ON o.store_id = s.store_id AND o.digest = s.digest"
            " LEFT JOIN blob b ON b.id = o.blob_id WHERE s.store_id = :s AND s.part_id = :p AND s.kind = 1 AND s.changed = 1"
            f" AND s.size_bytes > 0 AND {_NOT_ERASED} AND (o.digest IS NULL OR b.state IN ('deleting', 'deleted'))"
        ),
        area.binds(0),
    )
    lost = tuple(bytes(digest) for digest in missing.scalars())
    return BlobsGone(tuple(outside), lost) if outside or lost else None


_BLOBS_OF_CHANGES = (
    "SELECT DISTINCT o.blob_id FROM staged s JOIN object o ON o.store_id = s.store_id AND o.digest = s.digest"
    " WHERE s.store_id = :s AND s.part_id = :p AND s.kind = 1 AND s.changed = 1 AND s.size_bytes > 0 ORDER BY o.blob_id"
)
