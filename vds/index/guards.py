"""What collection asks before it deletes: where each line of records ends, what is damaged, and some blobs to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from vds.index.collect import BlobUse
from vds.index.queue import VISIBLE_SQL, Line


@dataclass(frozen=True, slots=True)
class LineEnd:
    """Where a line of records ends.

    Attributes:
        name: of the dataset; the id of the namespace, as it stands in keys.
        visible: the last number whose record is in the container.
        digest: of that record.
        head: the last number that was committed.
    """

    line: Line
    owner_id: int
    name: str
    visible: int
    digest: bytes
    head: int


def list_line_ends(connection: Connection, store_id: int) -> list[LineEnd]:
    """Return the end of every namespace's and dataset's line, and of the store's log."""
    ends: list[LineEnd] = []
    for line, sql in (("version", _NAMESPACES), ("event", _DATASETS), ("store", _STORE)):
        rows = connection.execute(text(sql), {"s": store_id})
        ends.extend(LineEnd(_LINES[line], row.id, row.name, row.visible, bytes(row.digest or b""), row.head) for row in rows)
    return ends


_LINES: dict[str, Line] = {"version": "version", "event": "event", "store": "store"}
_NAMESPACES = (
    f"SELECT o.id, o.uid AS name, o.visible, o.head, v.digest FROM (SELECT id, store_id, uid, head,"
    f" {VISIBLE_SQL.format(owner='namespace', line='version')} AS visible FROM namespace WHERE store_id = :s) o"
    " LEFT JOIN version v ON v.store_id = o.store_id AND v.namespace_id = o.id AND v.number = o.visible ORDER BY o.id"
)
_DATASETS = (
    f"SELECT o.id, o.name, o.visible, o.head, e.digest FROM (SELECT id, store_id, name, head,"
    f" {VISIBLE_SQL.format(owner='dataset', line='event')} AS visible FROM dataset WHERE store_id = :s) o"
    " LEFT JOIN tag_event e ON e.store_id = o.store_id AND e.dataset_id = o.id AND e.number = o.visible ORDER BY o.id"
)
# The digest of the log's last record is known alone: one that is still queued has no digest to compare with.
_STORE = (
    "SELECT 0 AS id, 'store' AS name, CASE WHEN EXISTS (SELECT 1 FROM journal_queue q WHERE q.store_id = s.id"
    " AND q.line = 'store') THEN 0 ELSE s.log_seq END AS visible, s.log_seq AS head, s.log_digest AS digest FROM store s"
    " WHERE s.id = :s"
)


def count_damage(connection: Connection, store_id: int) -> tuple[int, str]:
    """Return how many objects are known to be damaged, and the name of one."""
    count = connection.execute(text("SELECT COUNT(*) FROM damage WHERE store_id = :s"), {"s": store_id}).scalar_one()
    if not count:
        return 0, ""
    digest = connection.execute(
        text("SELECT digest FROM damage WHERE store_id = :s ORDER BY digest LIMIT 1"), {"s": store_id}
    ).scalar_one()
    return int(count), f"b3:{bytes(digest).hex()}"


def sample_live(connection: Connection, store_id: int, count: int, chance: Callable[[], float]) -> list[BlobUse]:
    """Return some live blobs, all when there are few: a few runs of neighbours, at places that `chance` chooses.

    Adopted ones are left out: one that its owner deleted when no version needed it any more would keep collection from its rows.
    """
    low, high = connection.execute(
        text("SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id), -1) FROM blob WHERE store_id = :s"), {"s": store_id}
    ).one()
    found: dict[int, BlobUse] = {}
    run = max(1, count // 20)
    starts = [low] if high - low < count else [low + int(chance() * (high - low)) for _ in range(20)]
    for start in starts:
        rows = connection.execute(_RUN, {"s": store_id, "start": start, "limit": count if start == low else run})
        found.update((row.id, BlobUse(row.id, row.key, row.size_bytes or 0, 0, row.etag)) for row in rows)
    return list(found.values())


_RUN = text(
    "SELECT id, key, size_bytes, etag FROM blob WHERE store_id = :s AND id >= :start AND state = 'live'"
    " AND substr(key, 1, 8) <> 'adopted/' ORDER BY id LIMIT :limit"
)


def is_live(connection: Connection, blob_id: int) -> bool:
    """Return whether a blob is in use now."""
    state = connection.execute(text("SELECT state FROM blob WHERE id = :id"), {"id": blob_id}).scalar_one_or_none()
    return state == "live"


def find_last_copies(connection: Connection, store_id: int, blob_id: int, digests: list[bytes]) -> list[bytes]:
    """Return those of these contents that are used, and placed in no other blob than the one that is to go."""
    lost = connection.execute(_LOST, {"s": store_id, "b": blob_id, "digests": digests})
    return [bytes(digest) for digest in lost.scalars()]


_LOST = text(
    "SELECT u.digest FROM object_use u LEFT JOIN object o ON o.store_id = u.store_id AND o.digest = u.digest"
    " LEFT JOIN blob b ON b.id = o.blob_id WHERE u.store_id = :s AND u.digest IN :digests"
    " AND (o.digest IS NULL OR o.blob_id = :b OR b.state NOT IN ('live', 'condemned'))"
    " AND NOT EXISTS (SELECT 1 FROM erased x WHERE x.store_id = u.store_id AND x.digest = u.digest)"
).bindparams(bindparam("digests", expanding=True))
