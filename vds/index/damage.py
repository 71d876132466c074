"""Objects whose stored bytes were found not to be what they must be.

A row says so of one object, and in which blob it was looked at. It keeps the object from being counted on (`find_live`): whoever
uploads the content sends it again. The row goes when a new placement takes the damaged one's place, or when a later look finds
the object whole. What else such a look corrects in the index stands here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from vds.index.database import now_us
from vds.model.batch import batched

DETAIL_CHARS_MAX = 1000
_BATCH = 500


class DamageRow(NamedTuple):
    """One damaged object: where it was looked at, and what was wrong."""

    digest: bytes
    blob_id: int
    detail: str


def has_damage(connection: Connection, store_id: int) -> bool:
    """Return whether any object of the store is known to be damaged."""
    row = connection.execute(text("SELECT 1 FROM damage WHERE store_id = :s LIMIT 1"), {"s": store_id}).one_or_none()
    return row is not None


def find_damaged(connection: Connection, store_id: int, digests: Iterable[bytes]) -> set[bytes]:
    """Return which of these objects are known to be damaged; mostly none is in the whole store, which costs one look."""
    if not has_damage(connection, store_id):
        return set()
    found: set[bytes] = set()
    for batch in batched(digests, _BATCH):
        found.update(bytes(digest) for digest in connection.execute(_FIND, {"s": store_id, "digests": batch}).scalars())
    return found


_FIND = text("SELECT digest FROM damage WHERE store_id = :s AND digest IN :digests").bindparams(
    bindparam("digests", expanding=True)
)


def list_damage(connection: Connection, store_id: int, after: bytes = b"", *, limit: int = _BATCH) -> list[DamageRow]:
    """Return the next damaged objects after a digest, by digest; served by pk_damage."""
    rows = connection.execute(
        text("SELECT digest, blob_id, detail FROM damage WHERE store_id = :s AND digest > :after ORDER BY digest LIMIT :limit"),
        {"s": store_id, "after": after, "limit": limit},
    )
    return [DamageRow(bytes(row.digest), row.blob_id, row.detail) for row in rows]


def put_damage(connection: Connection, store_id: int, found: Sequence[DamageRow]) -> None:
    """Note damaged objects, but for those that are no longer where they were looked at: a good placement may have come since."""
    _hold_blobs(connection, {row.blob_id for row in found})
    now = now_us(connection)
    connection.execute(  # a new statement: it sees what the locks waited for
        text(
            "INSERT INTO damage (store_id, digest, blob_id, found_us, detail) SELECT o.store_id, o.digest, o.blob_id, :now,"
            " :detail FROM object o WHERE o.store_id = :s AND o.digest = :d AND o.blob_id = :b"
            " ON CONFLICT (store_id, digest) DO UPDATE SET blob_id = excluded.blob_id, detail = excluded.detail"
        ),
        [
            {"s": store_id, "d": row.digest, "b": row.blob_id, "now": now, "detail": row.detail[:DETAIL_CHARS_MAX]}
            for row in sorted(found)
        ],
    )


def _hold_blobs(connection: Connection, blob_ids: Iterable[int]) -> None:
    """Lock blobs against losing a placement, until the transaction ends; by id, as everybody does."""
    if connection.dialect.name != "sqlite":
        connection.execute(
            text("SELECT id FROM blob WHERE id IN :ids ORDER BY id FOR SHARE").bindparams(bindparam("ids", expanding=True)),
            {"ids": sorted(blob_ids)},
        ).all()


def drop_damage(connection: Connection, store_id: int, whole: Sequence[tuple[bytes, int]]) -> None:
    """Forget the damage of objects, given as (digest, blob id), that were found whole in these blobs."""
    connection.execute(
        text("DELETE FROM damage WHERE store_id = :s AND digest = :d AND blob_id = :b"),
        [{"s": store_id, "d": digest, "b": blob_id} for digest, blob_id in sorted(whole)],
    )


def drop_healed(connection: Connection, store_id: int, blob_id: int, digests: Iterable[bytes]) -> None:
    """Forget the damage of those objects that are placed in this blob, which was made a moment ago."""
    connection.execute(
        text(
            "DELETE FROM damage WHERE store_id = :s AND digest = :d AND EXISTS (SELECT 1 FROM object o"
            " WHERE o.store_id = :s AND o.digest = :d AND o.blob_id = :b)"
        ),
        [{"s": store_id, "d": digest, "b": blob_id} for digest in sorted(digests)],
    )


def drop_unplaced(connection: Connection, store_id: int) -> None:
    """Forget the damage of objects that the store no longer has anywhere: nobody can come upon them."""
    connection.execute(
        text(
            "DELETE FROM damage WHERE store_id = :s AND NOT EXISTS (SELECT 1 FROM object o"
            " WHERE o.store_id = damage.store_id AND o.digest = damage.digest)"
        ),
        {"s": store_id},
    )


def keep_etag(connection: Connection, blob_id: int, old: str, new: str) -> None:
    """Note the etag of a blob whose bytes were read and are what they must be: one that was copied or restored has a new one."""
    connection.execute(
        text("UPDATE blob SET etag = :new WHERE id = :id AND etag = :old"), {"id": blob_id, "old": old, "new": new}
    )


def drop_checks(connection: Connection, store_id: int, digests: Iterable[bytes]) -> None:
    """Forget the checks of objects' pieces: others are about to take their place."""
    for digest in sorted(digests):
        connection.execute(text("DELETE FROM object_check WHERE store_id = :s AND digest = :d"), {"s": store_id, "d": digest})


def keep_blob(connection: Connection, blob_id: int, size_bytes: int, etag: str) -> None:
    """Note what a blob is like that was written anew under its own key."""
    connection.execute(
        text("UPDATE blob SET size_bytes = :size, etag = :etag WHERE id = :id"), {"id": blob_id, "size": size_bytes, "etag": etag}
    )


def condemn_empty(connection: Connection, store_id: int, key: str) -> bool:
    """Condemn a live blob of objects in which nothing is placed any more; False when something is placed in it.

    Its row is locked before what is placed in it is looked at: nothing ever comes into a blob that was live before.
    """
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    blob_id = connection.execute(
        text(f"SELECT id FROM blob WHERE store_id = :s AND key = :key{lock}"), {"s": store_id, "key": key}
    ).scalar_one_or_none()
    ids = {"s": store_id, "id": blob_id}
    placed = connection.execute(text("SELECT 1 FROM object WHERE store_id = :s AND blob_id = :id LIMIT 1"), ids).one_or_none()
    if placed is not None:
        return False
    connection.execute(
        text("UPDATE blob SET state = 'condemned', changed_us = :now WHERE id = :id AND state = 'live'"),
        {"id": blob_id, "now": now_us(connection)},
    )
    return True


def forget_unused(connection: Connection, store_id: int, digest: bytes) -> bool:
    """Forget where a damaged object is that no version, expired or not, and no upload needs; False when one does.

    Whoever counted on it sees that its blob lost something (`vds.index.needs`), and sends it again.
    """
    ids = {"s": store_id, "d": digest}
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE OF b"
    blob_id = connection.execute(
        text(f"SELECT b.id FROM object o JOIN blob b ON b.id = o.blob_id WHERE o.store_id = :s AND o.digest = :d{lock}"), ids
    ).scalar_one_or_none()
    if blob_id is None:
        return False
    used = connection.execute(  # a new statement: it sees the commits that the lock waited for
        text(
            " UNION ALL ".join(
                f"SELECT * FROM (SELECT 1 FROM {table} WHERE store_id = :s AND digest = :d LIMIT 1) {table}_use"
                for table in ("entry", "expired_entry", "staged")
            )
        ),
        ids,
    ).first()
    if used is not None:
        return False
    for table in ("object", "object_check", "damage"):
        connection.execute(text(f"DELETE FROM {table} WHERE store_id = :s AND digest = :d"), ids)
    connection.execute(text("UPDATE blob SET moves = moves + 1, is_checked = 0 WHERE id = :b"), {"b": blob_id})
    return True
