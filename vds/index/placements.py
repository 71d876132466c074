"""Where the bytes of an object are: the dedup lookup, and the states of blobs on their way in.

    pending → live → condemned → deleting → deleted, and condemned → live (revive)

Each arrow is one guarded UPDATE. A pending blob belongs to one upload. A placement changes only in a transaction that holds the
rows of both its old and its new blob, and counts the `moves` of the old one up: `vds.index.needs` relies on both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, bindparam, insert, literal_column
from sqlalchemy.engine import Connection

from vds.index.cursors import fetch_all, insert_values
from vds.index.damage import drop_healed, find_damaged
from vds.index.database import now_sql, now_us
from vds.index.schema import blob
from vds.index.sql import text
from vds.model.adoption import ADOPTED_PREFIX
from vds.model.batch import batched
from vds.model.checks import Checks
from vds.model.content import Member

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


_LOOKUP = text(
    "SELECT o.digest, b.id, b.key, b.state, o.offset_bytes, o.length_bytes FROM object o JOIN blob b ON b.id = o.blob_id"
    " WHERE o.store_id = :s AND o.digest IN :digests"
).bindparams(bindparam("digests", expanding=True))


# What lies in a blob that others may change at any time must not be counted on: its bytes are sent, and the placement moves.
_OURS = "substr(b.key, 1, 8) <> 'adopted/'"
_WHOLE = f"{_OURS} AND NOT EXISTS (SELECT 1 FROM damage d WHERE d.store_id = o.store_id AND d.digest = o.digest)"
_LIVE_SQLITE = (
    "SELECT o.digest FROM object o JOIN blob b ON b.id = o.blob_id WHERE o.store_id = ? AND b.state = 'live'"
    f" AND o.digest IN ({', '.join('?' * LOOKUP_BATCH)}) AND {_WHOLE}"
)
_LIVE_POSTGRES = (
    "SELECT o.digest FROM object o JOIN blob b ON b.id = o.blob_id WHERE o.store_id = %s AND b.state = 'live'"
    f" AND o.digest = ANY(%s::bytea[]) AND {_WHOLE}"
)


def find_placements(connection: Connection, store_id: int, digests: Iterable[bytes]) -> dict[bytes, PlacementRow]:
    """Return where each known object is, whatever its blob's state; 500 a query, served by pk_object."""
    found: dict[bytes, PlacementRow] = {}
    for batch in batched(digests, LOOKUP_BATCH):
        for row in connection.execute(_LOOKUP, {"s": store_id, "digests": batch}):
            found[bytes(row.digest)] = PlacementRow(row.id, row.key, row.state, row.offset_bytes, row.length_bytes)
    return found


def find_keys(connection: Connection, blob_ids: Sequence[int]) -> dict[int, str]:
    """Return the keys of these blobs; 500 a query, served by pk_blob."""
    found: dict[int, str] = {}
    for batch in batched(blob_ids, LOOKUP_BATCH):
        found.update((row.id, row.key) for row in connection.execute(_KEYS, {"ids": batch}))
    return found


_KEYS = text("SELECT id, key FROM blob WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))


def find_live(connection: Connection, store_id: int, digests: Iterable[bytes]) -> set[bytes]:
    """Return which of these objects need not be sent: those with a live blob of our own, not damaged; served by pk_object."""
    found: set[bytes] = set()
    statement = _LIVE_SQLITE if connection.dialect.name == "sqlite" else _LIVE_POSTGRES
    for batch in batched(digests, LOOKUP_BATCH):
        if connection.dialect.name == "sqlite":
            # One text for every call, so that it is prepared once; the last value again is harmless.
            values: list[Any] = [store_id, *batch, *batch[-1:] * (LOOKUP_BATCH - len(batch))]
        else:
            values = [store_id, batch]
        found.update(row[0] for row in fetch_all(connection, statement, values))
    return found


def add_pending_blobs(
    connection: Connection, store_id: int, keys: Sequence[str], upload_id: int, *, fingerprint: str | None = None
) -> list[int]:
    """Write down the intents to make these blobs, before their first bytes leave, and return their ids in the order of `keys`.

    Args:
        fingerprint: what a later upload finds them by, should this one not finish; see `vds.index.resume`.
    """
    if not keys:
        return []
    same = {"store_id": store_id, "state": "pending", "upload_id": upload_id, "fingerprint": fingerprint}
    now: ColumnElement[int] = literal_column(now_sql(connection))
    statement = insert(blob).values(changed_us=now).returning(blob.c.id, sort_by_parameter_order=True)
    return list(connection.execute(statement, [{**same, "key": key} for key in keys]).scalars())


def drop_pending_blobs(connection: Connection, upload_id: int, blob_ids: Sequence[int]) -> None:
    """Forget intents of which no byte ever left; a blob that is no longer pending, or another's, is left alone."""
    connection.execute(
        text("DELETE FROM blob WHERE id = :id AND state = 'pending' AND upload_id = :u"),
        [{"id": blob_id, "u": upload_id} for blob_id in blob_ids],
    )


def add_pending_blob(connection: Connection, store_id: int, key: str, upload_id: int) -> int:
    """Write down the intent to make a blob, before its first byte leaves, and return its id."""
    return int(
        connection.execute(
            text(
                "INSERT INTO blob (store_id, key, state, upload_id, changed_us)"
                f" VALUES (:s, :key, 'pending', :u, {now_sql(connection)}) RETURNING id"
            ),
            {"s": store_id, "key": key, "u": upload_id},
        ).scalar_one()
    )


def finish_blob(
    connection: Connection,
    store_id: int,
    blob_id: int,
    upload_id: int,
    size_bytes: int,
    etag: str,
    members: Sequence[Member],
    *,
    checks: Checks | None = None,
) -> bool:
    """Make a pending blob live and place its members, each unless a live placement of it exists that is not known as damaged.

    A placement in an adopted blob does not count either, unless this one is adopted too. The checks are of its one member: they
    are the content's, whatever becomes of the placement.

    Returns False, and changes nothing, when the blob is no longer this upload's to finish. A blob none of whose members
    was placed is condemned at once: others had stored the same content meanwhile.
    """
    values = {"id": blob_id, "u": upload_id, "size": size_bytes, "etag": etag}
    done = connection.execute(
        text(
            f"UPDATE blob SET state = 'live', size_bytes = :size, etag = :etag, changed_us = {now_sql(connection)}"
            " WHERE id = :id AND state = 'pending' AND upload_id = :u"
        ),
        values,
    )
    if done.rowcount != 1:
        return False
    if checks is not None:
        put_checks(connection, store_id, members[0].digest, checks)
    ordered = sorted(members)  # by digest, one order for all writers: no deadlock
    damaged = find_damaged(connection, store_id, (member.digest for member in ordered))
    is_new = bool(members) and _place_new(connection, store_id, blob_id, ordered) == len(members)
    taken = {} if is_new else find_placements(connection, store_id, (member.digest for member in ordered))
    stale = [m for m in ordered if m.digest in taken and taken[m.digest].blob_id != blob_id]
    replaced = damaged | _find_outside(connection, blob_id, {m.digest: taken[m.digest] for m in stale})
    stale = [m for m in stale if taken[m.digest].state != "live" or m.digest in replaced]
    if stale:
        _replace_stale(connection, store_id, blob_id, stale, taken, replaced)
        taken = find_placements(connection, store_id, (member.digest for member in ordered))
    if damaged:
        drop_healed(connection, store_id, blob_id, damaged)
    _drop_erased(connection, store_id, blob_id)
    if is_new:
        return True
    if not any(placement.blob_id == blob_id for placement in taken.values()):
        connection.execute(
            text("UPDATE blob SET state = 'condemned', changed_us = :now WHERE id = :id AND state = 'live'"),
            {"id": blob_id, "now": now_us(connection)},
        )
    return True


def _find_outside(connection: Connection, blob_id: int, taken: Mapping[bytes, PlacementRow]) -> set[bytes]:
    """Return which of these objects are placed in an adopted blob, unless the one that has just arrived is adopted itself."""
    outside = {digest for digest, place in taken.items() if place.key.startswith(ADOPTED_PREFIX)}
    if outside and find_keys(connection, [blob_id])[blob_id].startswith(ADOPTED_PREFIX):
        return set()
    return outside


def _drop_erased(connection: Connection, store_id: int, blob_id: int) -> None:
    """Take what was erased meanwhile out of a blob that has just arrived: nobody may count on it."""
    connection.execute(
        text(
            "DELETE FROM object WHERE store_id = :s AND blob_id = :b AND digest IN"
            " (SELECT x.digest FROM erased x WHERE x.store_id = :s)"
        ),
        {"s": store_id, "b": blob_id},
    )


def put_checks(connection: Connection, store_id: int, digest: bytes, checks: Checks) -> None:
    """Keep the checks of an object's pieces; idempotent, as a content has only one table of them."""
    connection.execute(
        text(
            "INSERT INTO object_check (store_id, digest, piece_bytes, checks) VALUES (:s, :d, :piece, :checks)"
            " ON CONFLICT DO NOTHING"
        ),
        {"s": store_id, "d": digest, "piece": checks.piece_bytes, "checks": checks.raw},
    )


def find_checks(connection: Connection, store_id: int, digests: Iterable[bytes]) -> dict[bytes, Checks]:
    """Return the checks of those objects that have them; 500 a query, served by pk_object_check."""
    found: dict[bytes, Checks] = {}
    for batch in batched(digests, LOOKUP_BATCH):
        for row in connection.execute(_CHECKS, {"s": store_id, "digests": batch}):
            found[bytes(row.digest)] = Checks(row.piece_bytes, bytes(row.checks))
    return found


_CHECKS = text("SELECT digest, piece_bytes, checks FROM object_check WHERE store_id = :s AND digest IN :digests").bindparams(
    bindparam("digests", expanding=True)
)


def _place_new(connection: Connection, store_id: int, blob_id: int, members: Sequence[Member]) -> int:
    """Place the objects that have no placement yet, and return how many those were."""
    if connection.dialect.name == "sqlite":
        rows = [(store_id, digest, blob_id, offset, length) for digest, offset, length in members]
        return insert_values(connection, _PLACE, rows, "ON CONFLICT DO NOTHING")
    columns = ([one.digest for one in members], [one.offset_bytes for one in members], [one.length_bytes for one in members])
    return connection.exec_driver_sql(_PLACE_POSTGRES, (store_id, blob_id, *columns)).rowcount


_PLACE = "INSERT INTO object (store_id, digest, blob_id, offset_bytes, length_bytes)"
_PLACE_POSTGRES = (
    f"{_PLACE} SELECT %s, m.digest, %s, m.start, m.length FROM unnest(%s::bytea[], %s::bigint[], %s::bigint[])"
    " AS m (digest, start, length) ON CONFLICT DO NOTHING"
)


def _replace_stale(
    connection: Connection,
    store_id: int,
    blob_id: int,
    stale: Sequence[Member],
    taken: Mapping[bytes, PlacementRow],
    replaced: Collection[bytes],
) -> None:
    """Move the placements of objects that are damaged or adopted, or whose blob is going, to the new blob; both rows are held."""
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    old_ids = sorted({taken[member.digest].blob_id for member in stale})
    locked = connection.execute(
        text("SELECT id, state FROM blob WHERE id IN :ids ORDER BY id" + lock).bindparams(bindparam("ids", expanding=True)),
        {"ids": sorted([*old_ids, blob_id])},
    )
    going = {row.id for row in locked if row.state != "live"}
    rows: list[dict[str, Any]] = [
        {"s": store_id, "d": m.digest, "b": blob_id, "o": m.offset_bytes, "l": m.length_bytes, "old": taken[m.digest].blob_id}
        for m in stale
        if taken[m.digest].blob_id in going or m.digest in replaced
    ]
    if rows:
        connection.execute(  # a commit that counts on what these blobs hold must see that they lost something, collection too
            text("UPDATE blob SET moves = moves + 1, is_checked = 0 WHERE id IN :ids").bindparams(
                bindparam("ids", expanding=True)
            ),
            {"ids": sorted({row["old"] for row in rows})},
        )
        connection.execute(
            text(
                "UPDATE object SET blob_id = :b, offset_bytes = :o, length_bytes = :l"
                " WHERE store_id = :s AND digest = :d AND blob_id = :old"
            ),
            rows,
        )
        for blob_id in sorted({row["old"] for row in rows} - going):
            # A damaged blob that nothing is left in would keep collection from believing the container.
            connection.execute(
                text(
                    "UPDATE blob SET state = 'condemned', changed_us = :now WHERE id = :id AND state = 'live' AND NOT EXISTS"
                    " (SELECT 1 FROM object o WHERE o.store_id = :s AND o.blob_id = :id)"
                ),
                {"now": now_us(connection), "id": blob_id, "s": store_id},
            )


def revive_blobs(connection: Connection, blob_ids: Sequence[int]) -> int:
    """Take condemned blobs back into use and return how many; those already `deleting` stay lost."""
    revived = 0
    for blob_id in sorted(blob_ids):
        done = connection.execute(
            text("UPDATE blob SET state = 'live', is_checked = 0, changed_us = :now WHERE id = :id AND state = 'condemned'"),
            {"id": blob_id, "now": now_us(connection)},
        )
        revived += done.rowcount
    return revived
