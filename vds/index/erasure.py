"""Contents that were destroyed on purpose, for ever: who did it, when and why; and taking their bytes out of the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from vds.errors import ErasedError
from vds.index.database import now_us
from vds.index.schema import OPEN
from vds.index.sql import text
from vds.model.batch import batched
from vds.model.digest import Digest
from vds.model.moment import moment_of
from vds.model.ref import format_moment


@dataclass(frozen=True, slots=True)
class ErasedRow:
    """What is known of an erased content."""

    digest: bytes
    erased_us: int
    author: str
    reason: str

    def error(self, path: str = "") -> ErasedError:
        """Return the error for who asks for it; `path` is the file it was asked for by."""
        what = f"{path!r}: object {Digest.from_raw(self.digest)}" if path else f"object {Digest.from_raw(self.digest)}"
        when = format_moment(moment_of(self.erased_us))
        return ErasedError(
            f"{what} was erased by {self.author} on {when}: {self.reason}",
            hint="it is gone for good; leave the file out, for example with --ignore",
        )


_FIND = text("SELECT digest, erased_us, author, reason FROM erased WHERE store_id = :s AND digest IN :digests").bindparams(
    bindparam("digests", expanding=True)
)


def find_erased(connection: Connection, store_id: int, digests: Iterable[bytes]) -> dict[bytes, ErasedRow]:
    """Return those of these contents that were erased; 500 a query, served by pk_erased."""
    found: dict[bytes, ErasedRow] = {}
    for batch in batched(digests, 500):
        for row in connection.execute(_FIND, {"s": store_id, "digests": batch}):
            digest = bytes(row.digest)
            found[digest] = ErasedRow(digest, row.erased_us, row.author, row.reason)
    return found


def has_erased(connection: Connection, store_id: int) -> bool:
    """Return whether anything was ever erased: mostly nothing was, and nobody need look further."""
    row = connection.execute(text("SELECT 1 FROM erased WHERE store_id = :s LIMIT 1"), {"s": store_id})
    return row.one_or_none() is not None


@dataclass(frozen=True, slots=True)
class ErasedPlace:
    """A file that has the content, in the versions from `first` to `last`."""

    namespace: str
    path: str
    first: int
    last: int


def list_places_of(connection: Connection, store_id: int, digest: bytes) -> list[ErasedPlace]:
    """Return every file that has a content, expired versions included; a walk through all entries."""
    rows = connection.execute(
        text(
            "SELECT n.name, n.head, e.path, e.first_version, e.end_version FROM (SELECT namespace_id, path, first_version,"
            " end_version FROM entry WHERE store_id = :s AND digest = :d UNION ALL SELECT namespace_id, path, first_version,"
            " end_version FROM expired_entry WHERE store_id = :s AND digest = :d) e JOIN namespace n ON n.id = e.namespace_id"
            " ORDER BY n.name, e.path, e.first_version"
        ),
        {"s": store_id, "d": digest},
    )
    return [
        ErasedPlace(row.name, row.path, row.first_version, row.head if row.end_version == OPEN else row.end_version - 1)
        for row in rows
    ]


def add_erased(connection: Connection, store_id: int, row: ErasedRow) -> None:
    """Say that a content is erased; an earlier word stands."""
    connection.execute(
        text(
            "INSERT INTO erased (store_id, digest, erased_us, author, reason) VALUES (:s, :d, :t, :author, :reason)"
            " ON CONFLICT DO NOTHING"
        ),
        {"s": store_id, "d": row.digest, "t": row.erased_us, "author": row.author, "reason": row.reason},
    )


def displace(connection: Connection, store_id: int, digest: bytes) -> int | None:
    """Forget where a content is placed, and return the blob, which is looked at anew; None when it has no place."""
    binds = {"s": store_id, "d": digest}
    place = text("SELECT blob_id FROM object WHERE store_id = :s AND digest = :d")
    blob_id = connection.execute(place, binds).scalar_one_or_none()
    if blob_id is None:
        return None
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    connection.execute(text(f"SELECT id FROM blob WHERE id = :id{lock}"), {"id": blob_id})
    done = connection.execute(
        text("DELETE FROM object WHERE store_id = :s AND digest = :d AND blob_id = :id"), {**binds, "id": blob_id}
    )
    if done.rowcount == 0:
        return displace(connection, store_id, digest)  # it was moved while we waited
    for table in ("object_check", "damage"):
        connection.execute(text(f"DELETE FROM {table} WHERE store_id = :s AND digest = :d"), binds)
    # Whoever counts on what this blob holds must see that it lost something.
    connection.execute(text("UPDATE blob SET moves = moves + 1, is_checked = 0 WHERE id = :id"), {"id": blob_id})
    return int(blob_id)


def list_erased_placed(connection: Connection, store_id: int) -> list[bytes]:
    """Return the erased contents that have a place again: an upload was finishing them while they were erased."""
    rows = connection.execute(
        text(
            "SELECT x.digest FROM erased x JOIN object o ON o.store_id = x.store_id AND o.digest = x.digest WHERE x.store_id = :s"
        ),
        {"s": store_id},
    )
    return [bytes(digest) for digest in rows.scalars()]


def find_blobs(connection: Connection, store_id: int, keys: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return the id and the state of the blobs with these keys; served by uq_blob_store_id_key."""
    found: dict[str, tuple[int, str]] = {}
    statement = text("SELECT id, key, state FROM blob WHERE store_id = :s AND key IN :keys").bindparams(
        bindparam("keys", expanding=True)
    )
    for batch in batched(keys, 500):
        for row in connection.execute(statement, {"s": store_id, "keys": batch}):
            found[row.key] = (row.id, row.state)
    return found


def adopt_orphan(connection: Connection, store_id: int, key: str, size_bytes: int, etag: str) -> int:
    """Add a row for a blob that no row names, condemned at once: it is to go."""
    return int(
        connection.execute(
            text(
                "INSERT INTO blob (store_id, key, state, size_bytes, etag, changed_us)"
                " VALUES (:s, :key, 'condemned', :size, :etag, :now) RETURNING id"
            ),
            {"s": store_id, "key": key, "size": size_bytes, "etag": etag, "now": now_us(connection)},
        ).scalar_one()
    )
