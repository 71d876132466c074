"""Rows of the index that contradict each other. In a sound index each of these finds nothing.

Each is one statement, which sees one state of the index, and walks through whole tables: rows come as they are found.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text
from sqlalchemy.engine import Connection

from vds.index.cursors import fetch_batches
from vds.index.schema import OPEN


def check_database(connection: Connection) -> list[str]:
    """Return what a SQLite file says is wrong with itself; PostgreSQL looks after its own pages."""
    if connection.dialect.name != "sqlite":
        return []
    return [str(found) for found in connection.exec_driver_sql("PRAGMA quick_check(100)").scalars() if found != "ok"]


def find_unplaced(connection: Connection, store_id: int, empty: bytes) -> Iterator[tuple[bytes, int, int, str]]:
    """Yield (digest, size, how many entries, state of its blob) of contents that are not where they could be read.

    Args:
        connection: to the index.
        store_id: of the store.
        empty: the digest of no bytes, which needs no place.
    """
    statement = (
        "SELECT e.digest, e.size_bytes, COUNT(*), MIN(COALESCE(b.state, '')) FROM entry e"
        " LEFT JOIN object o ON o.store_id = e.store_id AND o.digest = e.digest AND o.length_bytes = e.size_bytes"
        " LEFT JOIN blob b ON b.id = o.blob_id WHERE e.store_id = :s AND (CASE WHEN e.digest = :empty THEN e.size_bytes <> 0"
        " ELSE b.state IS NULL OR b.state NOT IN ('live', 'condemned') END)"
        " AND NOT EXISTS (SELECT 1 FROM erased x WHERE x.store_id = e.store_id AND x.digest = e.digest)"
        " GROUP BY e.digest, e.size_bytes"
    )
    for rows in fetch_batches(connection, statement, {"s": store_id, "empty": empty}):
        for digest, size_bytes, count, state in rows:
            yield bytes(digest), size_bytes, count, state


def find_misplaced(connection: Connection, store_id: int) -> Iterator[tuple[bytes, str, str, str]]:
    """Yield (digest, key, state, where it is said to be) of placements that cannot be, or are in blobs that are gone."""
    statement = (
        "SELECT o.digest, COALESCE(b.key, ''), COALESCE(b.state, ''), o.offset_bytes, o.length_bytes, b.size_bytes FROM object o"
        " LEFT JOIN blob b ON b.id = o.blob_id AND b.store_id = o.store_id WHERE o.store_id = :s AND (b.state IS NULL"
        " OR b.state NOT IN ('live', 'condemned') OR b.size_bytes IS NULL OR o.offset_bytes < 0 OR o.length_bytes <= 0"
        " OR o.offset_bytes + o.length_bytes > b.size_bytes"
        " OR (b.key >= 'objects/' AND b.key < 'objects0' AND o.length_bytes <> b.size_bytes))"
    )
    for rows in fetch_batches(connection, statement, {"s": store_id}):
        for digest, key, state, offset, length, size_bytes in rows:
            yield bytes(digest), key, state, f"{length} bytes at {offset} of a blob of {size_bytes} bytes"


def find_overlaps(connection: Connection, store_id: int) -> Iterator[tuple[int, str, int, int]]:
    """Yield (namespace id, path, first version, end) of entries that end after the next one of their path begins."""
    statement = (
        "SELECT namespace_id, path, first_version, end_version FROM (SELECT namespace_id, path, first_version, end_version,"
        " LEAD(first_version) OVER (PARTITION BY namespace_id, path ORDER BY first_version) AS next FROM entry"
        " WHERE store_id = :s) e WHERE e.next < e.end_version"
    )
    for rows in fetch_batches(connection, statement, {"s": store_id}):
        yield from rows


def sum_entries(connection: Connection, store_id: int, namespace_id: int) -> Iterator[tuple[int, int, int]]:
    """Yield (version, files more than before, bytes more than before) as the entries of a namespace say, by version."""
    mine = "FROM entry WHERE store_id = :s AND namespace_id = :n"
    # The sums keep both databases from walking an index in an order that would fetch each row by itself.
    statement = (
        f"SELECT v, SUM(n), SUM(size) FROM (SELECT first_version + 0 AS v, 1 AS n, size_bytes AS size {mine} UNION ALL"
        f" SELECT end_version + 0, -1, -size_bytes {mine} AND end_version + 0 < {OPEN}) t GROUP BY v ORDER BY v"
    )
    for rows in fetch_batches(connection, statement, {"s": store_id, "n": namespace_id}):
        for version, files, size_bytes in rows:
            yield version, int(files), int(size_bytes)


def list_totals(connection: Connection, store_id: int, namespace_id: int) -> list[tuple[int, int, int]]:
    """Return (number, files, bytes) of the versions of a namespace that have not expired, by number."""
    rows = connection.execute(
        text(
            "SELECT number, file_count, size_bytes FROM version WHERE store_id = :s AND namespace_id = :n"
            " AND expired_us IS NULL ORDER BY number"
        ),
        {"s": store_id, "n": namespace_id},
    )
    return [(row.number, row.file_count, row.size_bytes) for row in rows]


def find_lost_releases(connection: Connection, store_id: int) -> list[tuple[str, int, str]]:
    """Return (dataset, release, why) of releases whose version is not there; one that has expired was there."""
    rows = connection.execute(
        text(
            "SELECT d.name, r.number, n.name AS namespace, r.version FROM release r"
            " LEFT JOIN dataset d ON d.id = r.dataset_id LEFT JOIN namespace n ON n.id = r.namespace_id"
            " LEFT JOIN version v ON v.store_id = r.store_id AND v.namespace_id = r.namespace_id AND v.number = r.version"
            " WHERE r.store_id = :s AND v.number IS NULL ORDER BY d.name, r.number"
        ),
        {"s": store_id},
    )
    return [(str(row.name), row.number, f"{row.namespace}@{row.version} is not there") for row in rows]


def find_wrong_uses(connection: Connection, store_id: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (digest, uses that were counted, uses that there are) where the two differ."""
    # Added up and not joined: SQLite would hold each of the one against all of the other.
    statement = (
        "SELECT digest, SUM(uses), SUM(n) FROM (SELECT digest, uses, 0 AS n FROM object_use WHERE store_id = :s"
        " UNION ALL SELECT e.digest, 0, 1 FROM entry e JOIN counted k ON k.store_id = e.store_id"
        " AND k.namespace_id = e.namespace_id WHERE e.store_id = :s AND e.first_version <= k.number) t"
        " GROUP BY digest HAVING SUM(uses) <> SUM(n)"
    )
    for rows in fetch_batches(connection, statement, {"s": store_id}):
        for digest, counted, found in rows:
            yield bytes(digest), int(counted), int(found)


def find_needed(connection: Connection, store_id: int) -> Iterator[tuple[int, str, int, int]]:
    """Yield (namespace id, path, first version, a version that needs it) of entries that were wrongly set aside."""
    statement = (
        "SELECT namespace_id, path, first_version, needed FROM (SELECT x.namespace_id, x.path, x.first_version,"
        " (SELECT MIN(v.number) FROM version v WHERE v.store_id = x.store_id AND v.namespace_id = x.namespace_id"
        " AND v.number >= x.first_version AND v.number < x.end_version AND v.expired_us IS NULL) AS needed"
        " FROM expired_entry x WHERE x.store_id = :s) t WHERE needed IS NOT NULL"
    )
    for rows in fetch_batches(connection, statement, {"s": store_id}):
        yield from rows
