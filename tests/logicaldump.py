"""What a store says, apart from where its bytes lie: for holding one index against another that serves the same container.

Everything comes from the index: what this machine's cache keeps of a version is left alone. Surrogate ids and placements are
left out; two dumps are equal exactly when nobody who asks the two indexes can tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

from sqlalchemy import text

import vds
from vds.errors import NotFoundError, VdsError
from vds.index.database import Connection
from vds.index.datasets import ReleaseRow, find_dataset, list_releases
from vds.index.entries import At, read_entries
from vds.index.stores import NamespaceRow, list_namespaces
from vds.store import Dataset, Namespace

Dump = dict[str, Any]


def dump_store(store: vds.Store) -> Dump:
    """Return all that a store says, with the entries of every version that has not expired, and what changed between them."""
    doors = store._handle.doors
    with doors.index.read() as connection:
        namespaces = list(list_namespaces(connection, doors.store.id))
        return {
            "id": store.id,
            "namespaces": {row.name: _dump_namespace(store, connection, row) for row in namespaces},
            "datasets": {info.name: _dump_dataset(store, connection, info.name) for info in store.datasets()},
            "runs": [asdict(info) for info in store.runs()],
            "erased": _rows(connection, doors.store.id, "SELECT digest, erased_us, author, reason FROM erased"),
            "lists": _rows(
                connection,
                doors.store.id,
                "SELECT n.uid, m.number, m.kind, m.digest, m.row_count FROM manifest m JOIN namespace n ON n.id = m.namespace_id"
                " JOIN blob b ON b.id = m.blob_id AND b.state = 'live'",
                "m.",
            ),
            "gaps": _rows(connection, doors.store.id, "SELECT key, kind, first_number, last_number FROM gap"),
        }


def _rows(connection: Connection, store_id: int, select: str, prefix: str = "") -> list[list[Any]]:
    rows = connection.execute(text(f"{select} WHERE {prefix}store_id = :s"), {"s": store_id})
    return sorted([_plain(value) for value in row] for row in rows)


def _plain(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else value


def _dump_namespace(store: vds.Store, connection: Connection, row: NamespaceRow) -> Dump:
    namespace = store.namespace(row.name)
    versions: dict[int, Any] = {number: _dump_version(store, connection, row, number) for number in range(row.visible + 1)}
    return {
        "uid": row.uid,
        "created_us": row.created_us,
        "head": row.head,
        "head_digest": row.head_digest.hex(),
        "visible": row.visible,
        "versions": versions,
        "log": [version.number for version in namespace.log()],
        "changes": dict(_dump_changes(namespace, [number for number, version in versions.items() if "digest" in version])),
    }


def _dump_version(store: vds.Store, connection: Connection, row: NamespaceRow, number: int) -> Dump:
    try:
        version = store.namespace(row.name).get(number)
    except NotFoundError as err:
        return {"error": err.message}
    facts: Dump = {
        "number": version.number,
        "digest": version.digest,
        "created_at": version.created_at,
        "commit_id": version.commit_id,
        "operation": version.operation,
        "author": version.author,
        "message": version.message,
        "labels": version.labels,
        "provenance": version.provenance,
        "file_count": version.file_count,
        "size_bytes": version.size_bytes,
        "parent": version._row.parent.hex(),
        "counts": (version._row.added, version._row.modified, version._row.removed),
        "uri": version.uri,
    }
    try:
        rows = list(read_entries(connection, At(row.store_id, row.id, number)))
        facts["entries"] = {entry.path: (entry.digest.hex(), *entry[2:]) for entry in rows}
        facts["content_digest"] = version.content_digest
    except VdsError as err:
        facts["entries"] = f"{err.kind}: {err.message}"
    return facts


def _dump_changes(namespace: Namespace, numbers: list[int]) -> Iterator[tuple[str, Any]]:
    for before, after in pairwise(numbers):
        try:
            changes: Any = [(change.path, change.kind, change.before, change.after) for change in namespace.diff(before, after)]
        except VdsError as err:
            changes = f"{err.kind}: {err.message}"
        yield f"{before}..{after}", changes


def _dump_dataset(store: vds.Store, connection: Connection, name: str) -> Dump:
    dataset = store.dataset(name)
    row = find_dataset(connection, store._handle.doors.store.id, name)
    assert row is not None
    releases = list_releases(connection, row)
    events = dataset.history()
    return {
        "head": (row.head, row.head_digest.hex(), row.visible),
        "events": events,
        "releases": [(_name(connection, release.namespace_id), _without_ids(release)) for release in releases],
        "shows": {release.number: _shown(dataset, release.number) for release in releases},
        "tags": {tag: _shown(dataset, tag) for tag in sorted({event.tag for event in events if event.tag is not None})},
    }


def _name(connection: Connection, namespace_id: int) -> str:
    return str(connection.execute(text("SELECT name FROM namespace WHERE id = :n"), {"n": namespace_id}).scalar_one())


def _without_ids(release: ReleaseRow) -> ReleaseRow:
    return replace(release, namespace_id=0)


def _shown(dataset: Dataset, target: int | str) -> str:
    try:
        return dataset.get(target).uri
    except NotFoundError as err:
        return err.message


def dump_intervals(store: vds.Store) -> list[list[Any]]:
    """Return the intervals of entries as they stand: what two indexes may differ in, and best do not."""
    doors = store._handle.doors
    with doors.index.read() as connection:
        return _rows(
            connection,
            doors.store.id,
            "SELECT n.uid, e.path, e.first_version, e.end_version, e.digest, e.size_bytes, e.mode, e.modified_ns FROM entry e"
            " JOIN namespace n ON n.id = e.namespace_id",
            "e.",
        )
