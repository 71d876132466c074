"""Which blobs hold the change lists and checkpoints of versions, and how far back a replay would have to begin.

The row of a change list comes with its version, in one transaction; that of a checkpoint together with its blob's becoming live.
A change list that stands in its record has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import text
from sqlalchemy.engine import Connection

from vds.index.cursors import fetch_batches, look_up_by_key
from vds.index.database import now_us
from vds.index.entries import At
from vds.index.staging import end_upload
from vds.model.manifest import ChangeRow

ManifestKind = Literal["changes", "checkpoint"]

VERSION_ROWS = 200
"""What reading one more record costs a replay, in rows of change lists."""

# The sum keeps both databases from ix_entry_first, which would have to be sorted: see `vds.index.plan`.
_ROWS = (
    "SELECT path, digest, size_bytes, mode, modified_ns FROM entry WHERE store_id = :s AND namespace_id = :n"
    " AND first_version + 0 <= :v AND end_version > :v ORDER BY path"
)


@dataclass(frozen=True, slots=True)
class SentList:
    """A list that was put into a blob, which is pending.

    Attributes:
        digest: of its rows.
        row_count: how many those are.
        size_bytes: of the blob.
    """

    blob_id: int
    digest: bytes
    row_count: int
    size_bytes: int
    etag: str


def read_manifest_rows(connection: Connection, at: At) -> Iterator[ChangeRow]:
    """Yield all entries of a version by path, as a checkpoint has them; served by pk_entry.

    One statement, so that they are of one moment: what collection takes away meanwhile is there whole, or missing.
    """
    look_up_by_key(connection)
    for rows in fetch_batches(connection, _ROWS, at.binds()):
        yield from map(ChangeRow._make, rows)


def add_manifest(connection: Connection, at: At, kind: ManifestKind, sent: SentList) -> bool:
    """Note which blob holds a list of a version; False, and nothing is changed, when there is one of that kind already."""
    done = connection.execute(
        text(
            "INSERT INTO manifest (store_id, namespace_id, number, kind, blob_id, digest, row_count)"
            " VALUES (:s, :n, :v, :kind, :blob, :digest, :rows) ON CONFLICT DO NOTHING"
        ),
        at.binds(kind=kind, blob=sent.blob_id, digest=sent.digest, rows=sent.row_count),
    )
    return done.rowcount == 1


def finish_checkpoint(connection: Connection, at: At, upload_id: int, sent: SentList) -> bool:
    """Make the blob of a checkpoint live and note it, and end the upload that wrote it.

    Returns False when it does not count, since another writer was first or this one was taken for dead. Its blob stays pending
    then, of an upload that has ended: collection takes it.
    """
    own = {"id": sent.blob_id, "u": upload_id, "size": sent.size_bytes, "etag": sent.etag, "now": now_us(connection)}
    held = connection.execute(  # its row first: blobs are locked before whatever refers to them
        text("UPDATE blob SET size_bytes = :size, etag = :etag WHERE id = :id AND state = 'pending' AND upload_id = :u"), own
    )
    is_ours = held.rowcount == 1 and add_manifest(connection, at, "checkpoint", sent)
    if is_ours:
        connection.execute(
            text("UPDATE blob SET state = 'live', changed_us = :now WHERE id = :id AND state = 'pending' AND upload_id = :u"), own
        )
    end_upload(connection, at.store_id, upload_id, "committed" if is_ours else "aborted")
    return is_ours


def has_checkpoint(connection: Connection, at: At) -> bool:
    """Return whether there is a checkpoint of this very version; served by pk_manifest."""
    return (
        connection.execute(
            text("SELECT 1 FROM manifest WHERE store_id = :s AND namespace_id = :n AND number = :v AND kind = 'checkpoint'"),
            at.binds(),
        ).one_or_none()
        is not None
    )


@dataclass(frozen=True, slots=True)
class Tail:
    """What a replay of a version would begin with.

    Attributes:
        checkpoint: the newest at or before it; 0 for none.
        file_count: of the version.
    """

    checkpoint: int
    file_count: int


def find_tail(connection: Connection, at: At) -> Tail:
    """Return where the replay of a version that is there would begin; one statement, served by pk_manifest and pk_version."""
    row = connection.execute(
        text(
            "SELECT file_count, (SELECT m.number FROM manifest m WHERE m.store_id = :s AND m.namespace_id = :n"
            " AND m.number <= :v AND m.kind = 'checkpoint' ORDER BY m.number DESC LIMIT 1) AS checkpoint"
            " FROM version WHERE store_id = :s AND namespace_id = :n AND number = :v"
        ),
        at.binds(),
    ).one()
    return Tail(row.checkpoint or 0, row.file_count)


def measure_tail(connection: Connection, at: At, checkpoint: int) -> int:
    """Return what replaying a version from a checkpoint costs: the rows that changed since, and so many for each version.

    A version that changed all of its files begins it anew, as the first one does (`vds.model.checkpoint.holds_everything`). It
    looks at each version since the checkpoint; served by pk_version.
    """
    return int(
        connection.execute(
            text(
                f"SELECT COALESCE(SUM(added + modified + removed + {VERSION_ROWS}), 0) FROM version"
                " WHERE store_id = :s AND namespace_id = :n AND number <= :v AND number > ("
                "SELECT COALESCE(MAX(number), :c) FROM version WHERE store_id = :s AND namespace_id = :n"
                " AND number > :c AND number <= :v AND added + modified = file_count)"
            ),
            at.binds(c=checkpoint),
        ).scalar_one()
    )
