"""Where the bytes of an object are: the dedup lookup, and the states of blobs on their way in.

    pending → live → condemned → deleting → deleted, and condemned → live (revive)

Each arrow is one guarded UPDATE. A pending blob belongs to one upload. A placement changes only in a transaction that holds the
rows of both its old and its new blob.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from vds.index.database import now_us
from vds.model.batch import batched

LOOKUP_BATCH = 500


@dataclass(frozen=True, slots=True)
class PlacementRow:
    """Where one object is.

    Attributes:
        state: of the blob; only `live` and `condemned` bytes are certain to be there.
    """

    blob_id: int
    key: str
    state: str
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class Member:
    """One object inside a blob that is being finished."""

    digest: bytes
    offset_bytes: int
    length_bytes: int


_LOOKUP = text(
    "SELECT o.digest, b.id, b.key, b.state, o.offset_bytes, o.length_bytes FROM object o JOIN blob b ON b.id = o.blob_id"
    " WHERE o.store_id = :s AND o.digest IN :digests"
).bindparams(bindparam("digests", expanding=True))


def find_placements(connection: Connection, store_id: int, digests: Iterable[bytes]) -> dict[bytes, PlacementRow]:
    """Return where each known object is, whatever its blob's state; 500 a query, served by pk_object."""
    found: dict[bytes, PlacementRow] = {}
    for batch in batched(digests, LOOKUP_BATCH):
        for row in connection.execute(_LOOKUP, {"s": store_id, "digests": batch}):
            found[bytes(row.digest)] = PlacementRow(row.id, row.key, row.state, row.offset_bytes, row.length_bytes)
    return found


def add_pending_blob(connection: Connection, store_id: int, key: str, upload_id: int) -> int:
    """Write down the intent to make a blob, before its first byte leaves, and return its id."""
    return int(
        connection.execute(
            text(
                "INSERT INTO blob (store_id, key, state, upload_id, changed_us)"
                " VALUES (:s, :key, 'pending', :u, :now) RETURNING id"
            ),
            {"s": store_id, "key": key, "u": upload_id, "now": now_us(connection)},
        ).scalar_one()
    )


def finish_blob(
    connection: Connection, store_id: int, blob_id: int, upload_id: int, size_bytes: int, etag: str, members: Sequence[Member]
) -> bool:
    """Make a pending blob live and place its members, each unless a live placement of it exists.

    Returns False, and changes nothing, when the blob is no longer this upload's to finish. A blob none of whose members
    was placed is condemned at once: others had stored the same content meanwhile.
    """
    values = {"id": blob_id, "u": upload_id, "size": size_bytes, "etag": etag, "now": now_us(connection)}
    done = connection.execute(
        text(
            "UPDATE blob SET state = 'live', size_bytes = :size, etag = :etag, changed_us = :now"
            " WHERE id = :id AND state = 'pending' AND upload_id = :u"
        ),
        values,
    )
    if done.rowcount != 1:
        return False
    ordered = sorted(members, key=lambda member: member.digest)  # one order for all writers: no deadlock
    _place_new(connection, store_id, blob_id, ordered)
    taken = find_placements(connection, store_id, (member.digest for member in ordered))
    stale = [m for m in ordered if taken[m.digest].blob_id != blob_id and taken[m.digest].state != "live"]
    if stale:
        _replace_stale(connection, store_id, blob_id, stale, taken)
        taken = find_placements(connection, store_id, (member.digest for member in ordered))
    if not any(placement.blob_id == blob_id for placement in taken.values()):
        connection.execute(
            text("UPDATE blob SET state = 'condemned', changed_us = :now WHERE id = :id AND state = 'live'"),
            {"id": blob_id, "now": now_us(connection)},
        )
    return True


def _place_new(connection: Connection, store_id: int, blob_id: int, members: Sequence[Member]) -> None:
    if not members:
        return
    connection.execute(
        text(
            "INSERT INTO object (store_id, digest, blob_id, offset_bytes, length_bytes)"
            " VALUES (:s, :digest, :blob, :offset, :length) ON CONFLICT (store_id, digest) DO NOTHING"
        ),
        [
            {"s": store_id, "digest": m.digest, "blob": blob_id, "offset": m.offset_bytes, "length": m.length_bytes}
            for m in members
        ],
    )


def _replace_stale(
    connection: Connection, store_id: int, blob_id: int, stale: Sequence[Member], taken: Mapping[bytes, PlacementRow]
) -> None:
    """Move the placements of objects whose blob is going away to the new blob; both rows are held."""
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    old_ids = sorted({taken[member.digest].blob_id for member in stale})
    locked = connection.execute(
        text("SELECT id, state FROM blob WHERE id IN :ids ORDER BY id" + lock).bindparams(bindparam("ids", expanding=True)),
        {"ids": sorted([*old_ids, blob_id])},
    )
    going = {row.id for row in locked if row.state != "live"}
    rows = [
        {"s": store_id, "d": m.digest, "b": blob_id, "o": m.offset_bytes, "l": m.length_bytes, "old": taken[m.digest].blob_id}
        for m in stale
        if taken[m.digest].blob_id in going
    ]
    if rows:
        connection.execute(
            text(
                "UPDATE object SET blob_id = :b, offset_bytes = :o, length_bytes = :l"
                " WHERE store_id = :s AND digest = :d AND blob_id = :old"
            ),
            rows,
        )


def revive_blobs(connection: Connection, blob_ids: Sequence[int]) -> int:
    """Take condemned blobs back into use and return how many; those already `deleting` stay lost."""
    revived = 0
    for blob_id in sorted(blob_ids):
        done = connection.execute(
            text("UPDATE blob SET state = 'live', changed_us = :now WHERE id = :id AND state = 'condemned'"),
            {"id": blob_id, "now": now_us(connection)},
        )
        revived += done.rowcount
    return revived
