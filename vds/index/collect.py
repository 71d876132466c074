"""The states that bytes leave by: condemned, deleting, deleted; each arrow is one guarded UPDATE.

    pending → live → condemned → deleting → deleted, condemned → live (undo, revive), pending → deleting (reap)

`condemn` locks blobs first and looks at what is used in statements of their own. It must be so: on PostgreSQL a sub-select is not
evaluated again after a lock wait, so one statement that does both would condemn what a commit took into use while it waited.
A blob that is locked here is wanted by no commit until the transaction ends, as commits hold the blobs they refer to, shared.
Collectors take turns, each transaction of theirs: see `take_turn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from vds.errors import CorruptionError
from vds.index.database import now_us
from vds.index.retired import list_needed_blobs
from vds.index.uses import count_all_uses, take_turn
from vds.model.batch import batched

BATCH_BLOBS = 200
SILENT_US = 24 * 3600 * 1_000_000
"""How long an upload may say nothing before it is taken for dead. For progress alone: what it lost, it is told."""


@dataclass(frozen=True, slots=True)
class BlobUse:
    """A blob, and how much of it is used.

    Attributes:
        size_bytes: 0 when it never arrived.
        used_bytes: of its members that some version needs; for a list that is needed, all.
        used_members: how many those are.
    """

    blob_id: int
    key: str
    size_bytes: int
    used_bytes: int
    etag: str | None = None
    used_members: int = 0


def _in(statement: str, name: str = "ids") -> Any:
    return text(statement).bindparams(bindparam(name, expanding=True))


def abort_silent_uploads(connection: Connection, store_id: int) -> int:
    """End the uploads that expired or have been silent for a day, and return how many; what they sent belongs to nobody then."""
    now = now_us(connection)
    return connection.execute(
        text(
            "UPDATE upload SET state = 'aborted' WHERE store_id = :s AND state = 'open'"
            " AND (expires_us < :now OR (process <> '' AND heartbeat_us < :silent))"
        ),
        {"s": store_id, "now": now, "silent": now - SILENT_US},
    ).rowcount


def list_processes(connection: Connection, store_id: int) -> list[tuple[int, str]]:
    """Return (id, process) of the open uploads that end with a process, by id."""
    rows = connection.execute(
        text("SELECT id, process FROM upload WHERE store_id = :s AND state = 'open' AND process <> '' ORDER BY id"),
        {"s": store_id},
    )
    return [(row.id, row.process) for row in rows]


def abort_uploads(connection: Connection, upload_ids: Sequence[int]) -> int:
    """End these uploads if they are open, and return how many were."""
    aborted = 0
    for batch in batched(upload_ids, BATCH_BLOBS):
        done = connection.execute(_in("UPDATE upload SET state = 'aborted' WHERE id IN :ids AND state = 'open'"), {"ids": batch})
        aborted += done.rowcount
    return aborted


_ABANDONED = (
    "FROM blob b LEFT JOIN upload u ON u.id = b.upload_id WHERE b.store_id = :s AND b.state = 'pending'"
    " AND (u.id IS NULL OR u.state <> 'open')"
)


def list_abandoned(connection: Connection, store_id: int, limit: int) -> list[tuple[int, str, int | None]]:
    """Return (id, key, upload) of pending blobs whose upload has ended, at most `limit`; served by ix_blob_state."""
    rows = connection.execute(
        text(f"SELECT b.id, b.key, b.upload_id {_ABANDONED} ORDER BY b.id LIMIT :limit"), {"s": store_id, "limit": limit}
    )
    return [(row.id, row.key, row.upload_id) for row in rows]


def reap(connection: Connection, abandoned: Sequence[tuple[int, str, int | None]]) -> list[tuple[int, str]]:
    """Move pending blobs to `deleting` and return those that were still their upload's: another may have taken one over."""
    now = now_us(connection)
    reaped = []
    for blob_id, key, upload_id in abandoned:
        owner = "upload_id IS NULL" if upload_id is None else "upload_id = :u"
        done = connection.execute(
            text(f"UPDATE blob SET state = 'deleting', changed_us = :now WHERE id = :id AND state = 'pending' AND {owner}"),
            {"now": now, "id": blob_id, "u": upload_id},
        )
        if done.rowcount:
            reaped.append((blob_id, key))
    return reaped


def list_unchecked(connection: Connection, store_id: int, after: int) -> list[int]:
    """Return the next blobs to look at, by id; those of open uploads wait for their end. Served by ix_blob_unchecked."""
    rows = connection.execute(
        text(
            "SELECT b.id FROM blob b LEFT JOIN upload u ON u.id = b.upload_id WHERE b.store_id = :s AND b.is_checked = 0"
            f" AND b.state = 'live' AND b.id > :after AND (u.id IS NULL OR u.state <> 'open') ORDER BY b.id LIMIT {BATCH_BLOBS}"
        ),
        {"s": store_id, "after": after},
    )
    return list(rows.scalars())


def condemn(connection: Connection, store_id: int, blob_ids: Sequence[int]) -> tuple[list[BlobUse], list[BlobUse]]:
    """Condemn those of these live blobs that nobody uses, and return them and the others; the transaction is the caller's."""
    take_turn(connection, store_id)
    locked = lock_blobs(connection, blob_ids, "live")
    count_all_uses(connection, store_id)
    uses = measure_uses(connection, store_id, locked)
    dead = [use for use in uses if not use.used_bytes]
    kept = [use for use in uses if use.used_bytes]
    now = now_us(connection)
    for batch in batched([use.blob_id for use in dead], BATCH_BLOBS):
        connection.execute(
            _in("UPDATE blob SET state = 'condemned', changed_us = :now WHERE id IN :ids AND state = 'live'"),
            {"now": now, "ids": batch},
        )
    for batch in batched([use.blob_id for use in kept], BATCH_BLOBS):
        connection.execute(_in("UPDATE blob SET is_checked = 1 WHERE id IN :ids AND state = 'live'"), {"ids": batch})
    return dead, kept


def lock_blobs(connection: Connection, blob_ids: Sequence[int], state: str) -> list[int]:
    """Lock those of these blobs that are in a state, by id, until the transaction ends, and return them."""
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    statement = _in(f"SELECT id FROM blob WHERE id IN :ids AND state = :state ORDER BY id{lock}")
    return [
        blob_id
        for batch in batched(sorted(blob_ids), BATCH_BLOBS)
        for blob_id in connection.execute(statement, {"ids": batch, "state": state}).scalars()
    ]


def measure_uses(connection: Connection, store_id: int, blob_ids: Sequence[int]) -> list[BlobUse]:
    """Return how much of each blob is used, by what was counted; served by pk_blob, ix_object_blob and pk_object_use."""
    found = []
    for batch in batched(blob_ids, BATCH_BLOBS):
        needed = list_needed_blobs(connection, store_id, batch)
        for row in connection.execute(_USES, {"s": store_id, "ids": batch}):
            size_bytes = row.size_bytes or 0
            is_list = row.key.startswith(("changes/", "checkpoints/"))
            used_bytes = int(row.used or 0)
            if is_list:
                # A list that no row names was written before such rows were kept: nobody can say that it is not needed.
                used_bytes = max(1, size_bytes) if needed.get(row.id, True) else 0
            found.append(BlobUse(row.id, row.key, size_bytes, used_bytes, row.etag, row.members))
    return found


_USES = _in(
    "SELECT b.id, b.key, b.size_bytes, b.etag, SUM(CASE WHEN u.digest IS NULL THEN 0 ELSE o.length_bytes END) AS used,"
    " COUNT(u.digest) AS members FROM blob b LEFT JOIN object o ON o.store_id = :s AND o.blob_id = b.id"
    " LEFT JOIN object_use u ON u.store_id = o.store_id AND u.digest = o.digest"
    " WHERE b.id IN :ids GROUP BY b.id, b.key, b.size_bytes, b.etag ORDER BY b.id"
)


@dataclass(frozen=True, slots=True)
class UsedMember:
    """An object of a blob that some version needs."""

    digest: bytes
    offset_bytes: int
    length_bytes: int


def list_used_members(connection: Connection, store_id: int, blob_id: int) -> list[UsedMember]:
    """Return the objects placed in a blob that are used, by what was counted, by offset."""
    rows = connection.execute(
        text(
            "SELECT o.digest, o.offset_bytes, o.length_bytes FROM object o JOIN object_use u ON u.store_id = o.store_id"
            " AND u.digest = o.digest WHERE o.store_id = :s AND o.blob_id = :b ORDER BY o.offset_bytes"
        ),
        {"s": store_id, "b": blob_id},
    )
    return [UsedMember(bytes(row.digest), row.offset_bytes, row.length_bytes) for row in rows]


@dataclass(frozen=True, slots=True)
class Copied:
    """An object that was copied out of one blob into another."""

    digest: bytes
    old_blob_id: int
    offset_bytes: int


def switch_members(
    connection: Connection, store_id: int, new: tuple[int, int], size_bytes: int, etag: str, copied: Sequence[Copied]
) -> list[int]:
    """Make a pack live and move the placements of what was copied into it; return the old blobs, now condemned.

    An old blob of which something is used that was not copied stays as it is. The pack is condemned when nothing moved into it.

    Args:
        connection: of the caller's transaction.
        store_id: of the store.
        new: the pack's blob, and the upload it belongs to.
        size_bytes: of the pack, as its etag is.
        etag: as the service gave it.
        copied: what is in it, by its offset there.
    """
    take_turn(connection, store_id)
    blob_id, upload_id = new
    old_ids = sorted({one.old_blob_id for one in copied})
    pending = set(lock_blobs(connection, [blob_id], "pending"))
    locked = set(lock_blobs(connection, old_ids, "live"))
    count_all_uses(connection, store_id)
    now = now_us(connection)
    done = connection.execute(
        text(
            "UPDATE blob SET state = 'live', size_bytes = :size, etag = :etag, changed_us = :now"
            " WHERE id = :id AND state = 'pending' AND upload_id = :u"
        ),
        {"size": size_bytes, "etag": etag, "now": now, "id": blob_id, "u": upload_id},
    )
    if not pending or done.rowcount != 1:
        return []
    emptied = []
    for old_id in old_ids:
        rows = [one for one in copied if one.old_blob_id == old_id]
        used = {member.digest for member in list_used_members(connection, store_id, old_id)}
        if old_id not in locked or not used <= {one.digest for one in rows}:
            continue
        connection.execute(
            text("UPDATE object SET blob_id = :b, offset_bytes = :o WHERE store_id = :s AND digest = :d AND blob_id = :old"),
            [{"b": blob_id, "o": one.offset_bytes, "s": store_id, "d": one.digest, "old": old_id} for one in rows],
        )
        emptied.append(old_id)
    for old_id in emptied:
        connection.execute(
            text("UPDATE blob SET state = 'condemned', moves = moves + 1, changed_us = :now WHERE id = :id"),
            {"now": now, "id": old_id},
        )
    if not emptied:
        connection.execute(text("UPDATE blob SET state = 'condemned' WHERE id = :id"), {"id": blob_id})
    return emptied


def list_condemned(connection: Connection, store_id: int, before_us: int, limit: int) -> list[BlobUse]:
    """Return blobs that were condemned up to a moment, the oldest first, at most `limit`; served by ix_blob_state."""
    rows = connection.execute(
        text(
            "SELECT id, key, size_bytes, etag FROM blob WHERE store_id = :s AND state = 'condemned' AND changed_us <= :t"
            " ORDER BY changed_us, id LIMIT :limit"
        ),
        {"s": store_id, "t": before_us, "limit": limit},
    )
    return [BlobUse(row.id, row.key, row.size_bytes or 0, 0, row.etag) for row in rows]


def begin_deleting(connection: Connection, store_id: int, blob_ids: Sequence[int]) -> list[BlobUse]:
    """Move condemned blobs to `deleting`, forget what was placed there, and return them; nobody revives them any more.

    Raises:
        CorruptionError: something in one of them is used; nothing is changed.
    """
    take_turn(connection, store_id)
    locked = lock_blobs(connection, blob_ids, "condemned")
    count_all_uses(connection, store_id)
    uses = measure_uses(connection, store_id, locked)
    for use in uses:
        if use.used_bytes:
            raise CorruptionError(f"blob {use.key!r} was condemned and is used", hint="run: vds fsck --structure")
    now = now_us(connection)
    for batch in batched(locked, BATCH_BLOBS):
        forget_members(connection, store_id, batch)
        connection.execute(
            _in("UPDATE blob SET state = 'deleting', changed_us = :now WHERE id IN :ids AND state = 'condemned'"),
            {"now": now, "ids": batch},
        )
    return uses


def forget_members(connection: Connection, store_id: int, blob_ids: Sequence[int]) -> None:
    """Forget what is placed in blobs that go, and whatever is kept about it."""
    binds = {"s": store_id, "ids": list(blob_ids)}
    placed = "(SELECT digest FROM object WHERE store_id = :s AND blob_id IN :ids)"
    for table in ("object_check", "damage"):
        connection.execute(_in(f"DELETE FROM {table} WHERE store_id = :s AND digest IN {placed}"), binds)
    for table in ("object", "manifest"):
        connection.execute(_in(f"DELETE FROM {table} WHERE store_id = :s AND blob_id IN :ids"), binds)


def list_deleting(connection: Connection, store_id: int, after: int, limit: int) -> list[BlobUse]:
    """Return blobs that are being deleted, by id after `after`, at most `limit`; served by ix_blob_state."""
    rows = connection.execute(
        text(
            "SELECT id, key, size_bytes, etag FROM blob WHERE store_id = :s AND state = 'deleting' AND id > :after"
            " ORDER BY id LIMIT :limit"
        ),
        {"s": store_id, "after": after, "limit": limit},
    )
    return [BlobUse(row.id, row.key, row.size_bytes or 0, 0, row.etag) for row in rows]


def mark_deleted(connection: Connection, blob_ids: Sequence[int]) -> None:
    """Say that blobs are gone from the container; idempotent."""
    now = now_us(connection)
    for batch in batched(blob_ids, BATCH_BLOBS):
        connection.execute(
            _in("UPDATE blob SET state = 'deleted', changed_us = :now WHERE id IN :ids AND state = 'deleting'"),
            {"now": now, "ids": batch},
        )


def list_revivable(connection: Connection, store_id: int) -> list[BlobUse]:
    """Return every condemned blob, by id."""
    rows = connection.execute(
        text("SELECT id, key, size_bytes, etag FROM blob WHERE store_id = :s AND state = 'condemned' ORDER BY id"),
        {"s": store_id},
    )
    return [BlobUse(row.id, row.key, row.size_bytes or 0, 0, row.etag) for row in rows]


@dataclass(frozen=True, slots=True)
class Totals:
    """Blobs of a store, and their bytes, that hold something: live and condemned ones."""

    blobs: int
    size_bytes: int


def measure_store(connection: Connection, store_id: int) -> Totals:
    """Return how much the store holds, by its rows."""
    row = connection.execute(
        text(
            "SELECT COUNT(*) AS n, COALESCE(SUM(size_bytes), 0) AS b FROM blob"
            " WHERE store_id = :s AND state IN ('live', 'condemned')"
        ),
        {"s": store_id},
    ).one()
    return Totals(int(row.n), int(row.b))
