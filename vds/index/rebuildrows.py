"""The rows of a rebuild, table by table, but for the entries: see `vds.index.replay`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from vds.index.cursors import STATEMENT_ROWS, driver, fetch_batches, insert_values
from vds.index.database import now_us
from vds.model.batch import batched
from vds.model.content import Member
from vds.model.version import NO_PARENT

KEYS_BATCH = 500


def add_namespaces(connection: Connection, store_id: int, rows: Sequence[tuple[str, str, int]]) -> dict[str, int]:
    """Add namespaces, given as (id in the container, name, created_us), without versions, and return their ids here."""
    connection.execute(
        text(
            "INSERT INTO namespace (store_id, uid, name, name_fold, head, head_digest, created_us)"
            " VALUES (:s, :uid, :name, :fold, 0, :digest, :now)"
        ),
        [
            {"s": store_id, "uid": uid, "name": name, "fold": name.casefold(), "digest": NO_PARENT, "now": created_us}
            for uid, name, created_us in rows
        ],
    )
    statement = text("SELECT uid, id FROM namespace WHERE store_id = :s AND uid IN :uids").bindparams(
        bindparam("uids", expanding=True)
    )
    return {row.uid: row.id for row in connection.execute(statement, {"s": store_id, "uids": [uid for uid, _, _ in rows]})}


def find_namespaces(connection: Connection, store_id: int) -> dict[str, int]:
    """Return id in the container → id here of every namespace."""
    return {
        row.uid: row.id for row in connection.execute(text("SELECT uid, id FROM namespace WHERE store_id = :s"), {"s": store_id})
    }


def set_heads(connection: Connection, table: str, heads: Iterable[tuple[int, int, bytes]]) -> None:
    """Say where lines end, given as (id of the namespace or dataset, head, its digest)."""
    rows = [{"id": owner_id, "head": head, "digest": digest} for owner_id, head, digest in heads]
    if rows:
        connection.execute(text(f"UPDATE {table} SET head = :head, head_digest = :digest WHERE id = :id"), rows)


def add_dataset(connection: Connection, store_id: int, name: str, created_us: int) -> int:
    """Add a dataset without events and return its id."""
    return int(
        connection.execute(
            text(
                "INSERT INTO dataset (store_id, name, name_fold, head, head_digest, created_us)"
                " VALUES (:s, :name, :fold, 0, :digest, :now) RETURNING id"
            ),
            {"s": store_id, "name": name, "fold": name.casefold(), "digest": NO_PARENT, "now": created_us},
        ).scalar_one()
    )


def find_version_digest(connection: Connection, store_id: int, namespace_id: int, number: int) -> bytes | None:
    """Return the digest of a version, or None when it is not there."""
    found = connection.execute(
        text("SELECT digest FROM version WHERE store_id = :s AND namespace_id = :n AND number = :v"),
        {"s": store_id, "n": namespace_id, "v": number},
    ).scalar_one_or_none()
    return None if found is None else bytes(found)


class ListedBlob(NamedTuple):
    """One blob that a listing has named."""

    key: str
    size_bytes: int
    etag: str


def add_deleting_blobs(connection: Connection, store_id: int, keys: Iterable[str]) -> None:
    """Note that blobs are being deleted, whether they are still there or not; again is harmless."""
    now = now_us(connection)
    for batch in batched(keys, KEYS_BATCH):
        connection.execute(
            text(
                "INSERT INTO blob (store_id, key, state, changed_us) VALUES (:s, :key, 'deleting', :now) ON CONFLICT DO NOTHING"
            ),
            [{"s": store_id, "key": key, "now": now} for key in batch],
        )


def add_listed_blobs(connection: Connection, store_id: int, blobs: Sequence[ListedBlob]) -> list[int | None]:
    """Add blobs that are there, live, and return their ids in the order of `blobs`; None for one that is being deleted."""
    now = now_us(connection)
    found: dict[str, int | None] = {}
    for batch in batched(blobs, STATEMENT_ROWS):
        found.update(_upsert(connection, store_id, batch, now))
    return [found[blob.key] for blob in blobs]


_UPSERT = "INSERT INTO blob (store_id, key, state, size_bytes, etag, changed_us)"
_KEEP_STATE = (
    "ON CONFLICT (store_id, key) DO UPDATE SET size_bytes = excluded.size_bytes, etag = excluded.etag RETURNING id, key, state"
)


def _upsert(connection: Connection, store_id: int, blobs: Sequence[ListedBlob], now: int) -> dict[str, int | None]:
    with driver(connection) as raw:
        if connection.dialect.name == "sqlite":
            values = [value for blob in blobs for value in (store_id, blob.key, "live", blob.size_bytes, blob.etag, now)]
            marks = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(blobs))
            rows = raw.execute(f"{_UPSERT} VALUES {marks} {_KEEP_STATE}", values).fetchall()
        else:
            columns = ([blob.key for blob in blobs], [blob.size_bytes for blob in blobs], [blob.etag for blob in blobs])
            select = (
                "SELECT %s::int, k, 'live', s, e, %s::bigint FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS x (k, s, e)"
            )
            rows = raw.execute(f"{_UPSERT} {select} {_KEEP_STATE}", (store_id, now, *columns)).fetchall()
    return {key: blob_id if state == "live" else None for blob_id, key, state in rows}


def find_listed(connection: Connection, store_id: int, keys: Sequence[str]) -> set[str]:
    """Return those of these keys that are known, whatever becomes of their blobs."""
    found: set[str] = set()
    for batch in batched(keys, KEYS_BATCH):
        found.update(connection.execute(_KNOWN_KEYS, {"s": store_id, "keys": batch}).scalars())
    return found


_KNOWN_KEYS = text("SELECT key FROM blob WHERE store_id = :s AND key IN :keys").bindparams(bindparam("keys", expanding=True))


def drop_unlisted(connection: Connection, store_id: int) -> None:
    """Forget the blobs that were being deleted and are gone."""
    connection.execute(
        text("DELETE FROM blob WHERE store_id = :s AND state = 'deleting' AND size_bytes IS NULL"), {"s": store_id}
    )


def list_deleting(connection: Connection, store_id: int) -> list[tuple[int, str]]:
    """Return (id, key) of the blobs that are being deleted and are still there, by key."""
    rows = connection.execute(
        text("SELECT id, key FROM blob WHERE store_id = :s AND state = 'deleting' ORDER BY key"), {"s": store_id}
    )
    return [(row.id, row.key) for row in rows]


class GoingRow(NamedTuple):
    """An object that is needed and lies in a blob that is being deleted."""

    digest: bytes
    key: str
    offset_bytes: int
    length_bytes: int


def list_going(connection: Connection, store_id: int) -> Iterator[GoingRow]:
    """Yield the objects that entries need and that lie in blobs which are being deleted, by place; it looks at every entry."""
    for rows in fetch_batches(connection, _GOING, {"s": store_id}):
        yield from map(GoingRow._make, rows)


_GOING = (
    "SELECT DISTINCT o.digest, b.key, o.offset_bytes, o.length_bytes FROM blob b JOIN object o ON o.store_id = b.store_id"
    " AND o.blob_id = b.id JOIN entry e ON e.store_id = o.store_id AND e.digest = o.digest AND e.size_bytes = o.length_bytes"
    " WHERE b.store_id = :s AND b.state = 'deleting' ORDER BY b.key, o.offset_bytes"
)


def move_objects(connection: Connection, store_id: int, blob_id: int, members: Iterable[Member]) -> None:
    """Place objects, which have a place, in another blob."""
    connection.execute(
        text("UPDATE object SET blob_id = :b, offset_bytes = :o WHERE store_id = :s AND digest = :d"),
        [{"s": store_id, "b": blob_id, "d": member.digest, "o": member.offset_bytes} for member in members],
    )


def drop_going(connection: Connection, store_id: int) -> None:
    """Forget what is placed in blobs that are being deleted."""
    connection.execute(
        text(
            "DELETE FROM object WHERE store_id = :s AND blob_id IN"
            " (SELECT id FROM blob WHERE store_id = :s AND state = 'deleting')"
        ),
        {"s": store_id},
    )


ObjectRow = tuple[int, bytes, int, int, int]
"""store_id, digest, blob_id, offset_bytes, length_bytes"""


def add_objects(connection: Connection, rows: Sequence[ObjectRow]) -> int:
    """Place objects, each unless it has a place already, and return how many were placed."""
    into = "INSERT INTO object (store_id, digest, blob_id, offset_bytes, length_bytes)"
    if connection.dialect.name == "sqlite":
        return insert_values(connection, into, rows, "ON CONFLICT DO NOTHING")
    statement = (
        f"{into} SELECT * FROM unnest(%s::int[], %s::bytea[], %s::bigint[], %s::bigint[], %s::bigint[]) ON CONFLICT DO NOTHING"
    )
    with driver(connection) as raw:
        return int(raw.execute(statement, [list(column) for column in zip(*rows, strict=True)]).rowcount) if rows else 0


def add_erased(connection: Connection, store_id: int, digest: bytes, erased_us: int, author: str, reason: str) -> None:
    """Note that an object was erased."""
    connection.execute(
        text(
            "INSERT INTO erased (store_id, digest, erased_us, author, reason) VALUES (:s, :d, :t, :author, :reason)"
            " ON CONFLICT DO NOTHING"
        ),
        {"s": store_id, "d": digest, "t": erased_us, "author": author, "reason": reason},
    )


class ListRow(NamedTuple):
    """Which blob holds a list of a version."""

    namespace_id: int
    number: int
    kind: str
    key: str
    digest: bytes
    row_count: int


def add_manifests(connection: Connection, store_id: int, rows: Sequence[ListRow]) -> None:
    """Note which blobs hold the lists of versions; those whose blob is gone or going are left out."""
    for batch in batched(rows, KEYS_BATCH):
        found = connection.execute(_LIVE_KEYS, {"s": store_id, "keys": [row.key for row in batch]})
        ids = {row.key: row.id for row in found}
        values = [
            {"s": store_id, "n": row.namespace_id, "v": row.number, "kind": row.kind, "b": ids[row.key]}
            | {"d": row.digest, "rows": row.row_count}
            for row in batch
            if row.key in ids
        ]
        if values:
            connection.execute(_ADD_MANIFEST, values)


_LIVE_KEYS = text("SELECT id, key FROM blob WHERE store_id = :s AND state = 'live' AND key IN :keys").bindparams(
    bindparam("keys", expanding=True)
)
_ADD_MANIFEST = text(
    "INSERT INTO manifest (store_id, namespace_id, number, kind, blob_id, digest, row_count)"
    " VALUES (:s, :n, :v, :kind, :b, :d, :rows) ON CONFLICT DO NOTHING"
)


class Unplaced(NamedTuple):
    """An entry whose object is nowhere, in the versions from the first up to, and without, the end."""

    namespace_id: int
    path: str
    first_version: int
    end_version: int
    digest: bytes
    size_bytes: int


def list_unplaced(connection: Connection, store_id: int) -> Iterator[Unplaced]:
    """Yield the entries whose objects have no place, and were not erased, by namespace and object; it looks at every entry."""
    for rows in fetch_batches(connection, _UNPLACED, {"s": store_id}):
        yield from map(Unplaced._make, rows)


# Of another length it cannot be the object: as if there were none.
_UNPLACED = (
    "SELECT e.namespace_id, e.path, e.first_version, e.end_version, e.digest, e.size_bytes FROM entry e"
    " LEFT JOIN object o ON o.store_id = e.store_id AND o.digest = e.digest AND o.length_bytes = e.size_bytes"
    " WHERE e.store_id = :s AND e.size_bytes > 0 AND o.digest IS NULL AND NOT EXISTS (SELECT 1 FROM erased x"
    " WHERE x.store_id = e.store_id AND x.digest = e.digest) ORDER BY e.namespace_id, e.digest, e.size_bytes"
)
