"""Stores with an index of millions of entries, which the database makes by itself: rows straight into the tables.

The first version is a real one, of one file, and the rows are added to it. Its record in the container does not know of them, and
no bytes lie behind them: such a store is there to ask its index, and to commit to it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from sqlalchemy import text
from sqlalchemy.engine import Connection

from benchmarks.peers.vds_upload import NAMESPACE
from vds.index.schema import OPEN
from vds.store import Store

FILES_PER_DIRECTORY = 1_000
FILE_BYTES = 10_000
_OBJECTS_PER_BLOB = 1_000
_SLICE_ROWS = 1_000_000


def grown_path(number: int) -> str:
    """Return the path of the n-th row: paths sort as their numbers do."""
    return f"{number // FILES_PER_DIRECTORY:05}/{number:08}.bin"


def grow(store: Store, rows: int) -> None:
    """Make the first version of the namespace, with one file and `rows` entries more, each of an object of its own."""
    with store.namespace(NAMESPACE).transaction() as tx:
        tx.write_bytes("before", b"1")
    doors = store._handle.doors
    for first in range(0, rows, _SLICE_ROWS):
        doors.index.run(partial(_add_entries, first=first, end=min(first + _SLICE_ROWS, rows)))
    doors.index.run(lambda connection: _add_objects(connection, rows))
    doors.index.run(_count)


def scattered(rows: int, count: int, seed: int) -> Sequence[int]:
    """Return the numbers of `count` rows, without order and each once."""
    return random.Random(seed).sample(range(rows), count)


def _add_entries(connection: Connection, first: int, end: int) -> None:
    binds = {"first": first, "end": end, "per": FILES_PER_DIRECTORY, "bytes": FILE_BYTES, "open": OPEN}
    if connection.dialect.name == "sqlite":
        numbers = "WITH RECURSIVE n (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM n WHERE n + 1 < :end)"
        columns = "printf('%05d/%08d.bin', n / :per, n), 1, :open, randomblob(32)"
    else:
        numbers = "WITH n (n) AS (SELECT generate_series(CAST(:first AS BIGINT), :end - 1))"
        columns = "lpad((n / :per)::text, 5, '0') || '/' || lpad(n::text, 8, '0') || '.bin', 1, :open, sha256(int8send(n))"
    connection.execute(
        text(
            "INSERT INTO entry (store_id, namespace_id, path, first_version, end_version, digest, size_bytes, mode, modified_ns)"
            f" {numbers} SELECT s.id, s.ns, {columns}, :bytes, 420, n FROM n, (SELECT store_id AS id, id AS ns FROM namespace) s"
            " ORDER BY n"
        ),
        binds,
    )


def _add_objects(connection: Connection, rows: int) -> None:
    """Place every entry's object: a thousand of them in each of so many packs that are not there."""
    blobs = -(-rows // _OBJECTS_PER_BLOB)
    numbers = (
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :blobs)"
        if connection.dialect.name == "sqlite"
        else "WITH n (n) AS (SELECT generate_series(1, CAST(:blobs AS BIGINT)))"
    )
    last = int(connection.exec_driver_sql("SELECT MAX(id) FROM blob").scalar_one())
    connection.execute(
        text(
            f"INSERT INTO blob (store_id, key, state, size_bytes, etag, changed_us, is_checked) {numbers}"
            " SELECT s.id, 'packs/none/' || n, 'live', :bytes, '', 0, 1 FROM n, (SELECT id FROM store) s ORDER BY n"
        ),
        {"blobs": blobs, "bytes": _OBJECTS_PER_BLOB * FILE_BYTES},
    )
    first = int(connection.execute(text("SELECT MIN(id) FROM blob WHERE id > :last"), {"last": last}).scalar_one())
    connection.execute(  # in the order of the digests, or each row would change a page of its own
        text(
            "INSERT INTO object (store_id, digest, blob_id, offset_bytes, length_bytes) SELECT store_id, digest,"
            " :first + modified_ns / :each, (modified_ns % :each) * size_bytes, size_bytes FROM entry WHERE modified_ns < :rows"
            " AND path <> 'before' ORDER BY digest"
        ),
        {"first": first, "each": _OBJECTS_PER_BLOB, "rows": rows},
    )
    connection.execute(
        text("UPDATE version SET file_count = file_count + :rows, size_bytes = size_bytes + :bytes, added = added + :rows"),
        {"rows": rows, "bytes": rows * FILE_BYTES},
    )


def _count(connection: Connection) -> None:
    """Have PostgreSQL count the rows, as it does within a minute of so large a commit; SQLite never does."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("ANALYZE")
