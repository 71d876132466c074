"""What checks of a store ask of the index: its rows as the records they came from, its blobs, and who uses an object.

Whatever walks through all rows of a table yields them as they come, in one statement or in pages by key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from vds.index.cursors import fetch_batches
from vds.index.datasets import DatasetRow
from vds.index.schema import OPEN
from vds.index.stores import NamespaceRow
from vds.model.batch import batched
from vds.model.content import Member
from vds.model.event import DatasetEvent, Registered
from vds.model.manifest import ChangeRow
from vds.model.moment import moment_of
from vds.model.path import EntryPath
from vds.model.version import ChangeListRef, VersionRecord

PAGE_ROWS = 1000
_KEYS_BATCH = 500
_NO_CHANGES = ChangeListRef(b"", 0)

IN_USE = ("live", "condemned")
"""The states of blobs whose bytes must be there."""


class VersionFacts(NamedTuple):
    """A version as the index knows it.

    Attributes:
        record: what its record must say, but for its change list, which stands in no row.
    """

    number: int
    digest: bytes
    record: VersionRecord
    is_expired: bool
    content_digest: bytes | None


class EventFacts(NamedTuple):
    """An event of a dataset as the index knows it."""

    number: int
    digest: bytes
    record: DatasetEvent


class ManifestRow(NamedTuple):
    """Which blob holds a change list, or a checkpoint."""

    number: int
    kind: str
    key: str
    state: str
    digest: bytes
    row_count: int


class BlobRow(NamedTuple):
    """A blob as the index knows it.

    Attributes:
        upload_state: of the upload that makes it; None when there is none.
        holds: the digest of the one object of a blob that is no pack; None when nothing is placed in it.
    """

    id: int
    key: str
    state: str
    size_bytes: int | None
    etag: str | None
    upload_state: str | None
    holds: bytes | None


class UseRow(NamedTuple):
    """An entry, where its content matters."""

    digest: bytes
    namespace_id: int
    path: str
    first_version: int
    end_version: int


def read_version_page(connection: Connection, store_uid: str, namespace: NamespaceRow, after: int) -> list[VersionFacts]:
    """Return the next versions after a number, visible or not; served by pk_version."""
    rows = connection.execute(
        text("SELECT * FROM version WHERE store_id = :s AND namespace_id = :n AND number > :after ORDER BY number LIMIT :limit"),
        {"s": namespace.store_id, "n": namespace.id, "after": after, "limit": PAGE_ROWS},
    )
    return [_version_facts(row, store_uid, namespace) for row in rows]


def _version_facts(row: Any, store_uid: str, namespace: NamespaceRow) -> VersionFacts:
    record = VersionRecord(
        store=store_uid,
        namespace=namespace.uid,
        namespace_name=namespace.name,
        number=row.number,
        parent=bytes(row.parent),
        commit_id=row.commit_id,
        created_at=_moment(row.created_us),
        operation=row.operation,
        author=row.author,
        message=row.message,
        labels=_texts(row.labels),
        provenance=_texts(row.provenance),
        changes=_NO_CHANGES,
        added=row.added,
        modified=row.modified,
        removed=row.removed,
        file_count=row.file_count,
        size_bytes=row.size_bytes,
    )
    content = None if row.content_digest is None else bytes(row.content_digest)
    return VersionFacts(row.number, bytes(row.digest), record, row.expired_us is not None, content)


def read_event_page(connection: Connection, store_uid: str, dataset: DatasetRow, after: int) -> list[EventFacts]:
    """Return the next events after a number, visible or not; served by pk_tag_event and pk_release."""
    rows = connection.execute(
        text(
            "SELECT e.*, n.uid, n.name, r.version, v.digest AS version_digest, r.path, r.description, r.labels FROM tag_event e"
            " LEFT JOIN release r ON e.kind = 'register' AND r.store_id = e.store_id AND r.dataset_id = e.dataset_id"
            " AND r.number = e.release LEFT JOIN namespace n ON n.id = r.namespace_id"
            " LEFT JOIN version v ON v.store_id = e.store_id AND v.namespace_id = r.namespace_id AND v.number = r.version"
            " WHERE e.store_id = :s AND e.dataset_id = :d AND e.number > :after ORDER BY e.number LIMIT :limit"
        ),
        {"s": dataset.store_id, "d": dataset.id, "after": after, "limit": PAGE_ROWS},
    )
    return [_event_facts(row, store_uid, dataset) for row in rows]


def _event_facts(row: Any, store_uid: str, dataset: DatasetRow) -> EventFacts:
    registered = None
    if row.kind == "register" and row.version_digest is not None:
        registered = Registered(
            namespace=row.uid,
            namespace_name=row.name,
            version=row.version,
            version_digest=bytes(row.version_digest),
            path=EntryPath(row.path),
            description=row.description,
            labels=_texts(row.labels),
        )
    record = DatasetEvent(
        store=store_uid,
        dataset=dataset.name,
        number=row.number,
        parent=bytes(row.parent),
        kind=row.kind,
        tag=row.tag,
        release=row.release,
        previous=row.previous,
        author=row.author,
        reason=row.reason,
        created_at=_moment(row.created_us),
        registered=registered,
    )
    return EventFacts(row.number, bytes(row.digest), record)


def _moment(created_us: int) -> datetime:
    try:
        return moment_of(created_us)
    except OverflowError:
        return moment_of(0)  # which no record says


def _texts(raw: str) -> dict[str, str]:
    """Return an object of texts; what is none, in a row that is damaged, comes back as something that no record says."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"": raw}


def list_manifests(connection: Connection, store_id: int, namespace_id: int, first: int, last: int) -> list[ManifestRow]:
    """Return the change lists and checkpoints of these versions that have blobs; served by pk_manifest and pk_blob."""
    rows = connection.execute(
        text(
            "SELECT m.number, m.kind, COALESCE(b.key, '') AS key, COALESCE(b.state, 'deleted') AS state, m.digest, m.row_count"
            " FROM manifest m LEFT JOIN blob b ON b.id = m.blob_id WHERE m.store_id = :s AND m.namespace_id = :n"
            " AND m.number >= :first AND m.number <= :last ORDER BY m.number, m.kind"
        ),
        {"s": store_id, "n": namespace_id, "first": first, "last": last},
    )
    return [ManifestRow(row.number, row.kind, row.key, row.state, bytes(row.digest), row.row_count) for row in rows]


def find_base_checkpoint(connection: Connection, store_id: int, namespace_id: int) -> ManifestRow | None:
    """Return the checkpoint with which a replay of all versions that are left begins; None: with the first version.

    What is left is what collection has not taken: see `vds.index.retired`.
    """
    number = connection.execute(
        text(
            "SELECT MAX(m.number) FROM manifest m JOIN blob b ON b.id = m.blob_id WHERE m.store_id = :s AND m.namespace_id = :n"
            " AND m.kind = 'checkpoint' AND b.state = 'live' AND m.number <= (SELECT MIN(v.number) FROM version v"
            " WHERE v.store_id = :s AND v.namespace_id = :n AND v.collected_us IS NULL)"
        ),
        {"s": store_id, "n": namespace_id},
    ).scalar_one_or_none()
    if number is None:
        return None
    return next(row for row in list_manifests(connection, store_id, namespace_id, number, number) if row.kind == "checkpoint")


def list_expired(connection: Connection, store_id: int, namespace_id: int) -> list[int]:
    """Return the numbers of a namespace's expired versions, ascending."""
    rows = connection.execute(
        text("SELECT number FROM version WHERE store_id = :s AND namespace_id = :n AND expired_us IS NOT NULL ORDER BY number"),
        {"s": store_id, "n": namespace_id},
    )
    return list(rows.scalars())


def list_erased(connection: Connection, store_id: int) -> set[bytes]:
    """Return the digests of the objects that were erased: few, as each was asked for by somebody."""
    rows = connection.execute(text("SELECT digest FROM erased WHERE store_id = :s"), {"s": store_id})
    return {bytes(digest) for digest in rows.scalars()}


_BLOB = "b.id, b.key, b.state, b.size_bytes, b.etag, u.state AS upload_state"


def read_blob_page(connection: Connection, store_id: int, prefix: str, after: str) -> list[BlobRow]:
    """Return the next blobs below a prefix that ends in `/`, by key; served by uq_blob_store_id_key and ix_object_blob."""
    # Of packs it would be thousands each.
    holds = "(SELECT o.digest FROM object o WHERE o.store_id = b.store_id AND o.blob_id = b.id LIMIT 1)"
    rows = connection.execute(
        text(
            f"SELECT {_BLOB}, {holds if prefix == 'objects/' else 'NULL'} AS holds FROM blob b"
            " LEFT JOIN upload u ON u.id = b.upload_id WHERE b.store_id = :s AND b.key > :after AND b.key < :end"
            " ORDER BY b.key LIMIT :limit"
        ),
        {"s": store_id, "after": max(after, prefix), "end": prefix[:-1] + "0", "limit": PAGE_ROWS},
    )
    return list(map(_blob_row, rows))


def find_blobs(connection: Connection, store_id: int, keys: Iterable[str]) -> dict[str, BlobRow]:
    """Return what the index knows of these keys; served by uq_blob_store_id_key."""
    statement = text(
        f"SELECT {_BLOB}, NULL AS holds FROM blob b LEFT JOIN upload u ON u.id = b.upload_id"
        " WHERE b.store_id = :s AND b.key IN :keys"
    ).bindparams(bindparam("keys", expanding=True))
    found: dict[str, BlobRow] = {}
    for batch in batched(keys, _KEYS_BATCH):
        for row in connection.execute(statement, {"s": store_id, "keys": batch}):
            found[row.key] = _blob_row(row)
    return found


def _blob_row(row: Any) -> BlobRow:
    holds = None if row.holds is None else bytes(row.holds)
    return BlobRow(row.id, row.key, row.state, row.size_bytes, row.etag, row.upload_state, holds)


def list_members(connection: Connection, store_id: int, blob_id: int) -> list[Member]:
    """Return the objects that are placed in a blob, by offset; served by ix_object_blob."""
    rows = connection.execute(
        text(
            "SELECT digest, offset_bytes, length_bytes FROM object WHERE store_id = :s AND blob_id = :b"
            " ORDER BY offset_bytes, digest"
        ),
        {"s": store_id, "b": blob_id},
    )
    return [Member(bytes(row.digest), row.offset_bytes, row.length_bytes) for row in rows]


def count_pending(connection: Connection, store_id: int) -> list[tuple[str, int]]:
    """Return (state of the upload, how many blobs of such uploads are pending); served by ix_blob_state."""
    rows = connection.execute(
        text(
            "SELECT COALESCE(u.state, 'unknown') AS state, COUNT(*) AS n FROM blob b LEFT JOIN upload u ON u.id = b.upload_id"
            " WHERE b.store_id = :s AND b.state = 'pending' GROUP BY COALESCE(u.state, 'unknown') ORDER BY 1"
        ),
        {"s": store_id},
    )
    return [(row.state, row.n) for row in rows]


def find_uses(connection: Connection, store_id: int, digests: Sequence[bytes]) -> Iterator[UseRow]:
    """Yield the entries that have one of these contents, by namespace, path and version; one walk through all entries."""
    if not digests:
        return
    listed = {f"d{_letters(number)}": digest for number, digest in enumerate(digests)}
    statement = (
        "SELECT digest, namespace_id, path, first_version, end_version FROM entry WHERE store_id = :s"
        f" AND digest IN ({', '.join(f':{name}' for name in listed)}) ORDER BY namespace_id, path, first_version"
    )
    for rows in fetch_batches(connection, statement, {"s": store_id, **listed}):
        yield from (UseRow(bytes(digest), *rest) for digest, *rest in rows)


def _letters(number: int) -> str:
    """Return a number in letters: the names of values have no digits."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def read_list_rows(connection: Connection, store_id: int, namespace_id: int, version: int) -> Iterator[ChangeRow]:
    """Yield what a version's entries say that it changed, as its change list would, by path."""
    statement = (
        "SELECT path, digest, size_bytes, mode, modified_ns FROM entry WHERE store_id = :s AND namespace_id = :n"
        " AND first_version = :v UNION ALL SELECT path, NULL, 0, 0, 0 FROM entry g WHERE g.store_id = :s"
        f" AND g.namespace_id = :n AND g.end_version = :v AND g.end_version < {OPEN} AND NOT EXISTS (SELECT 1 FROM entry a"
        " WHERE a.store_id = :s AND a.namespace_id = :n AND a.path = g.path AND a.first_version = :v) ORDER BY path"
    )
    for rows in fetch_batches(connection, statement, {"s": store_id, "n": namespace_id, "v": version}):
        for path, digest, size_bytes, mode, modified_ns in rows:
            yield ChangeRow(path, None if digest is None else bytes(digest), size_bytes, mode, modified_ns)


class ReleasePlace(NamedTuple):
    """A release, and what it shows."""

    namespace_id: int
    version: int
    path: str
    dataset_id: int
    dataset: str
    number: int


def list_release_places(connection: Connection, store_id: int) -> list[ReleasePlace]:
    """Return every release, by namespace and version."""
    rows = connection.execute(
        text(
            "SELECT r.namespace_id, r.version, r.path, d.id, d.name, r.number FROM release r"
            " JOIN dataset d ON d.id = r.dataset_id WHERE r.store_id = :s ORDER BY r.namespace_id, r.version, d.name, r.number"
        ),
        {"s": store_id},
    )
    return [ReleasePlace(*row) for row in rows]


class ListOwner(NamedTuple):
    """Whose change list or checkpoint a blob is."""

    blob_id: int
    namespace_id: int
    number: int
    kind: str
    digest: bytes
    row_count: int


def find_list_owner(connection: Connection, store_id: int, key: str) -> ListOwner | None:
    """Return whose list is under this key, or None when no row says; served by uq_blob_store_id_key and ix_manifest_blob."""
    row = connection.execute(
        text(
            "SELECT m.blob_id, m.namespace_id, m.number, m.kind, m.digest, m.row_count FROM blob b"
            " JOIN manifest m ON m.store_id = b.store_id AND m.blob_id = b.id WHERE b.store_id = :s AND b.key = :key"
        ),
        {"s": store_id, "key": key},
    ).one_or_none()
    return None if row is None else ListOwner(row[0], row[1], row[2], row[3], bytes(row[4]), row[5])


def find_sizes(connection: Connection, store_id: int, digests: Iterable[bytes]) -> dict[bytes, int]:
    """Return the sizes that entries give these contents; one walk through all entries for five hundred of them."""
    statement = text("SELECT DISTINCT digest, size_bytes FROM entry WHERE store_id = :s AND digest IN :digests").bindparams(
        bindparam("digests", expanding=True)
    )
    found: dict[bytes, int] = {}
    for batch in batched(digests, _KEYS_BATCH):
        found.update(
            (bytes(row.digest), row.size_bytes) for row in connection.execute(statement, {"s": store_id, "digests": batch})
        )
    return found
