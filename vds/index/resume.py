"""Large files by their fingerprints: those the store may have already, and interrupted uploads that a later one can continue.

A fingerprint (size and samples) is a hint and no proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from vds.index.database import now_us
from vds.index.schema import SMALL_BYTES_MAX
from vds.model.batch import batched

CANDIDATES_MAX = 16
"""How many pending blobs of one fingerprint are looked at: each costs its caller a request to the service."""


@dataclass(frozen=True, slots=True)
class ResumableRow:
    """A pending blob of the same fingerprint, and what tells whether its writer still works on it.

    Attributes:
        process: of the upload; empty when unknown.
        now_us: the database's clock, to hold `heartbeat_us` against.
    """

    blob_id: int
    key: str
    upload_id: int
    upload_state: str
    process: str
    heartbeat_us: int
    now_us: int


def find_resumable(connection: Connection, store_id: int, fingerprint: str) -> list[ResumableRow]:
    """Return pending blobs of this fingerprint, the newest first, at most sixteen; served by ix_blob_fingerprint.

    The fingerprint is a hint and no proof: whoever continues a blob holds what is there against the file's own bytes.
    """
    rows = connection.execute(
        text(
            "SELECT b.id, b.key, u.id AS upload_id, u.state, u.process, u.heartbeat_us FROM blob b"
            " JOIN upload u ON u.id = b.upload_id WHERE b.store_id = :s AND b.fingerprint = :f AND b.state = 'pending'"
            f" ORDER BY b.id DESC LIMIT {CANDIDATES_MAX}"
        ),
        {"s": store_id, "f": fingerprint},
    ).all()
    now = now_us(connection)
    return [ResumableRow(row.id, row.key, row.upload_id, row.state, row.process, row.heartbeat_us, now) for row in rows]


def take_over_blob(connection: Connection, blob_id: int, from_upload_id: int, to_upload_id: int) -> bool:
    """Make a pending blob another upload's to finish; False, and nothing changed, when it is no longer the first one's."""
    done = connection.execute(
        text("UPDATE blob SET upload_id = :new, changed_us = :now WHERE id = :id AND state = 'pending' AND upload_id = :old"),
        {"id": blob_id, "old": from_upload_id, "new": to_upload_id, "now": now_us(connection)},
    )
    return done.rowcount == 1


_KNOWN = text(
    "SELECT fingerprint FROM blob WHERE store_id = :s AND fingerprint IN :marks AND state IN ('live', 'condemned')"
).bindparams(bindparam("marks", expanding=True))
# Streams have no fingerprint, as their size is not known at first: for them the size alone must do.
_KNOWN_SIZES = text(
    "SELECT DISTINCT o.length_bytes FROM object o JOIN blob b ON b.id = o.blob_id"
    f" WHERE o.store_id = :s AND o.length_bytes > {SMALL_BYTES_MAX} AND o.length_bytes IN :sizes AND b.fingerprint IS NULL"
).bindparams(bindparam("sizes", expanding=True))


def find_known_files(connection: Connection, store_id: int, files: Sequence[tuple[int, str]]) -> set[str]:
    """Return the fingerprints of those files, given as (size, fingerprint), whose content the store may have.

    The store has none of the others; served by ix_blob_fingerprint and ix_object_length.
    """
    known: set[str] = set()
    for batch in batched(files, 500):
        marks = [fingerprint for _, fingerprint in batch]
        known.update(connection.execute(_KNOWN, {"s": store_id, "marks": marks}).scalars())
        sizes = {size_bytes for size_bytes, _ in batch}
        unmarked = set(connection.execute(_KNOWN_SIZES, {"s": store_id, "sizes": sorted(sizes)}).scalars())
        known.update(fingerprint for size_bytes, fingerprint in batch if size_bytes in unmarked)
    return known
