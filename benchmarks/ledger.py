"""Whether a store holds what its writers were told: each acknowledged version once, with its paths, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from vds.model.manifest import decode_change_list
from vds.model.version import NO_PARENT, VERSION_CONTEXT, VersionRecord, journal_key, record_digest
from vds.store import Store

Acknowledged = tuple[int, dict[str, bytes]]
"""The number of a version, and the digest of each path that its writer gave it."""

Rows = dict[int, dict[str, bytes]]
"""Of each version, the digest of each path that begins in it."""


def hold_against_store(store: Store, name: str, acknowledged: Sequence[Acknowledged], *, before: int) -> dict[str, Any]:
    """Return how many acknowledged versions are lost, and what is there that nobody was told of.

    The journal in the container and the rows of the index are looked at, each by itself.

    Args:
        store: opened after the last acknowledgement.
        name: of the namespace.
        acknowledged: what its writers were told.
        before: how many versions it had before.
    """
    journal, index = _read_journal(store, name), _read_index(store, name)
    numbers = [number for number, _ in acknowledged]
    lost = sum(1 for number, files in acknowledged if journal.get(number) != files or index.get(number) != files)
    lost += len(numbers) - len(set(numbers))  # two writers were told the same
    return {
        "lost": lost,
        "untold": len(set(journal) | set(index)) - len(set(numbers)) - before,
        "gaps": sum(1 for number in range(1, max(journal, default=0) + 1) if number not in journal or number not in index),
    }


def _read_journal(store: Store, name: str) -> Rows:
    """Read the records in the container to the first that is not there.

    Raises:
        ValueError: one does not follow from the one before.
    """
    doors = store._handle.doors
    with doors.index.read() as connection:
        uid = connection.execute(text("SELECT uid FROM namespace WHERE name = :name"), {"name": name}).scalar_one()
    found: Rows = {}
    parent = NO_PARENT
    while doors.blobs.find_blob(key := journal_key(uid, len(found) + 1)) is not None:
        body = doors.blobs.read_range(key)
        record = VersionRecord.decode(body, key)
        if record.parent != parent or record.number != len(found) + 1 or record.changes.inline is None:
            raise ValueError(f"{key!r} does not follow from the record before it")
        rows = decode_change_list(record.changes.inline, record.changes.digest)
        found[record.number] = {row.path: row.digest for row in rows if row.digest is not None}
        parent = record_digest(VERSION_CONTEXT, body)
    return found


def _read_index(store: Store, name: str) -> Rows:
    found: Rows = {version.number: {} for version in store.namespace(name).log()}
    statement = text(
        "SELECT e.first_version, e.path, e.digest FROM entry e JOIN namespace n ON n.store_id = e.store_id"
        " AND n.id = e.namespace_id WHERE n.name = :name"
    )
    with store._handle.doors.index.read() as connection:
        for number, path, digest in connection.execute(statement, {"name": name}):
            found[number][path] = bytes(digest)  # a row of a version that does not show is an error of its own
    return found
