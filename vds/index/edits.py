"""What a transaction does to its own staged rows: write, delete, move, each as the transaction itself sees its files."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from vds.index.plan import Area, check_placed_paths, prefix_condition
from vds.index.sql import text
from vds.index.staging import StagedRow

# The sum keeps both databases from ix_entry_first: see `vds.index.plan`.
_LIVE = "e.store_id = :s AND e.namespace_id = :n AND e.first_version + 0 <= :base AND e.end_version > :base"


def put_row(connection: Connection, row: StagedRow) -> None:
    """Stage one path, in place of what the part held for it."""
    store_id, part_id, path, kind, changed, was_read, digest, size_bytes, mode, modified_ns = row
    connection.execute(
        text(
            "INSERT INTO staged (store_id, part_id, path, kind, changed, was_read, digest, size_bytes, mode, modified_ns)"
            " VALUES (:s, :p, :path, :kind, :changed, :was_read, :digest, :size, :mode, :time)"
            " ON CONFLICT (store_id, part_id, path) DO UPDATE SET kind = excluded.kind, changed = excluded.changed,"
            " digest = excluded.digest, size_bytes = excluded.size_bytes, mode = excluded.mode,"
            " modified_ns = excluded.modified_ns"
        ),
        {
            "s": store_id,
            "p": part_id,
            "path": path,
            "kind": kind,
            "changed": changed,
            "was_read": was_read,
            "digest": digest,
            "size": size_bytes,
            "mode": mode,
            "time": modified_ns,
        },
    )


def remove_paths(connection: Connection, area: Area, base: int, path: str, *, was_read: bool = False) -> int:
    """Stage the removal of `path` and all below it, and return how many files that is in the transaction's eyes."""
    under, binds = prefix_condition("e.path", path)
    staged_under, _ = prefix_condition("path", path)
    values = area.binds(base, read=int(was_read), **binds)
    only_staged = connection.execute(
        text(
            f"SELECT COUNT(*) FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1 AND {staged_under}"
            f" AND NOT EXISTS (SELECT 1 FROM entry e WHERE {_LIVE} AND e.path = staged.path)"
        ),
        values,
    ).scalar_one()
    in_base = connection.execute(
        text(
            f"SELECT COUNT(*) FROM entry e WHERE {_LIVE} AND {under} AND NOT EXISTS (SELECT 1 FROM staged r"
            " WHERE r.store_id = :s AND r.part_id = :p AND r.path = e.path AND r.kind = 2)"
        ),
        values,
    ).scalar_one()
    connection.execute(  # what was read stays read: it is in the base, so its row becomes the removal
        text(
            "UPDATE staged SET kind = 2, changed = 1, digest = NULL, size_bytes = 0, mode = 0, modified_ns = 0"
            f" WHERE store_id = :s AND part_id = :p AND kind = 1 AND was_read = 1 AND {staged_under}"
        ),
        values,
    )
    connection.execute(text(f"DELETE FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1 AND {staged_under}"), values)
    connection.execute(
        text(
            f"INSERT INTO staged SELECT e.store_id, :p, e.path, 2, 1, :read, NULL, 0, 0, 0 FROM entry e WHERE {_LIVE} AND {under}"
            " ON CONFLICT (store_id, part_id, path) DO UPDATE SET was_read = excluded.was_read WHERE excluded.was_read = 1"
        ),
        values,
    )
    return int(only_staged) + int(in_base)


def copy_own_paths(connection: Connection, area: Area, base: int, source: str, target: str, into_part: int) -> int:
    """Stage in another part what this transaction sees at or below `source`, placed at `target`; returns how many files."""
    under, binds = prefix_condition("v.path", source)
    placed = f"CAST(:target AS TEXT) || substr(v.path, {len(source) + 1})"
    count = connection.execute(
        text(
            f"INSERT INTO staged SELECT :s, :into, {placed}, 1, 1, 0, v.digest, v.size_bytes, v.mode, v.modified_ns FROM ("
            " SELECT path, digest, size_bytes, mode, modified_ns FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1"
            f" UNION ALL SELECT e.path, e.digest, e.size_bytes, e.mode, e.modified_ns FROM entry e WHERE {_LIVE}"
            " AND NOT EXISTS (SELECT 1 FROM staged t WHERE t.store_id = :s AND t.part_id = :p AND t.path = e.path)"
            f") v WHERE {under}"
        ),
        area.binds(base, target=target, into=into_part, **binds),
    ).rowcount
    check_placed_paths(connection, Area(area.store_id, area.namespace_id, into_part))
    return count
