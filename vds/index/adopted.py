"""Adopted blobs in the index: rows of `blob` like others, whose keys begin with `adopted/` and whose bytes others may change.

Uploads do not count on what is placed in them (`vds.index.placements.find_live`): they send the bytes, and the placement moves to
a blob of our own. Only what is adopted counts on what was adopted before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from vds.index.damage import DamageRow, put_damage
from vds.index.database import now_us
from vds.index.placements import finish_blob
from vds.index.sql import text
from vds.model.batch import batched
from vds.model.checks import Checks
from vds.model.content import Member

_BATCH = 500


class NewAdopted(NamedTuple):
    """A plain blob that was read and is to be placed.

    Attributes:
        mark: what it is known by before it is read.
    """

    key: str
    mark: str
    etag: str
    digest: bytes
    size_bytes: int
    checks: Checks | None


_KNOWN = text(
    "SELECT b.fingerprint, o.digest, o.length_bytes FROM blob b JOIN object o ON o.store_id = b.store_id AND o.blob_id = b.id"
    " WHERE b.store_id = :s AND b.fingerprint IN :marks AND b.state = 'live' AND NOT EXISTS"
    " (SELECT 1 FROM damage d WHERE d.store_id = o.store_id AND d.digest = o.digest)"
).bindparams(bindparam("marks", expanding=True))


def find_known(connection: Connection, store_id: int, marks: Iterable[str]) -> dict[str, bytes]:
    """Return mark → digest of those plain blobs that were adopted as they are now; served by ix_blob_fingerprint."""
    found: dict[str, bytes] = {}
    for batch in batched(marks, _BATCH):
        for row in connection.execute(_KNOWN, {"s": store_id, "marks": batch}):
            found[row.fingerprint] = bytes(row.digest)
    return found


def has_adopted(connection: Connection, store_id: int) -> bool:
    """Return whether anything adopted is in use: mostly nothing is, and nobody need look further; served by uq_blob."""
    found = connection.execute(
        text("SELECT 1 FROM blob WHERE store_id = :s AND key >= 'adopted/' AND key < 'adopted0' AND state = 'live' LIMIT 1"),
        {"s": store_id},
    )
    return found.one_or_none() is not None


_ADOPTED = text(
    "SELECT o.digest FROM object o JOIN blob b ON b.id = o.blob_id WHERE o.store_id = :s AND o.digest IN :digests"
    " AND substr(b.key, 1, 8) = 'adopted/'"
).bindparams(bindparam("digests", expanding=True))


def find_adopted(connection: Connection, store_id: int, digests: Iterable[bytes]) -> set[bytes]:
    """Return which of these objects are placed in adopted blobs; 500 a query, served by pk_object."""
    found: set[bytes] = set()
    for batch in batched(digests, _BATCH):
        found.update(bytes(digest) for digest in connection.execute(_ADOPTED, {"s": store_id, "digests": batch}).scalars())
    return found


def add_adopted(
    connection: Connection, store_id: int, upload_id: int, blobs: Sequence[NewAdopted], broken: Sequence[DamageRow]
) -> None:
    """Add plain blobs whose record is in the container, and place what is in them, as `finish_blob` places it.

    Args:
        connection: of the caller's transaction.
        store_id: of the store.
        upload_id: whose they are until its commit.
        blobs: of distinct contents.
        broken: where some of these contents are placed, and are not what they must be: those placements are given up.
    """
    if broken:
        put_damage(connection, store_id, broken)
    now = now_us(connection)
    for one in sorted(blobs, key=lambda one: one.digest):  # one order for all writers: no deadlock
        blob_id = connection.execute(_ADD, {"s": store_id, "key": one.key, "u": upload_id, "mark": one.mark, "now": now})
        members = [Member(one.digest, 0, one.size_bytes)]
        ours = (blob_id.scalar_one(), upload_id)
        finish_blob(connection, store_id, *ours, one.size_bytes, one.etag, members, checks=one.checks)


_ADD = text(
    "INSERT INTO blob (store_id, key, state, upload_id, fingerprint, changed_us)"
    " VALUES (:s, :key, 'pending', :u, :mark, :now) RETURNING id"
)
