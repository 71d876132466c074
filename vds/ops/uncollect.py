"""Undo of collection: what is only condemned is brought back, and expired versions whose entries are all there are read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from vds.engine.doors import Doors
from vds.engine.guards import check_collectable
from vds.engine.journal import AddedRecord, add_store_record, publish_store_record
from vds.index.collect import BATCH_BLOBS, list_revivable, lock_blobs
from vds.index.database import Connection
from vds.index.placements import revive_blobs
from vds.index.restore import find_unrestorable, list_blobs_set_aside
from vds.index.stores import read_namespace
from vds.index.uses import list_set_aside, put_back, take_turn
from vds.model.batch import batched
from vds.model.storelog import pack_numbers


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What was brought back.

    Attributes:
        revived: blobs that were condemned; `revived_bytes` are theirs.
        restored: namespace → the versions of it that are read again.
        lost: namespace → why its expired versions stay expired.
        dry_run: whether nothing was done.
    """

    revived: int
    revived_bytes: int
    restored: dict[str, list[int]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False


def uncollect(doors: Doors, *, author: str, dry_run: bool = False) -> UndoReport:
    """Bring back what collection only condemned, and the names that expired since their entries were last collected.

    Each namespace is one step: all of its expired versions that can be restored, or none.

    Raises:
        FormatError, CorruptionError: as `vds.engine.guards.check_collectable`; nothing was done.
    """
    check_collectable(doors, dry_run=dry_run)
    with doors.index.read() as connection:
        condemned = list_revivable(connection, doors.store.id)
        expired = list(list_set_aside(connection, doors.store.id))
        names = {owner: read_namespace(connection, owner).name for owner, _ in expired}
    restored: dict[str, list[int]] = {}
    lost: dict[str, str] = {}
    for owner, numbers in expired:
        if dry_run:
            restored[names[owner]] = numbers
            continue
        outcome = doors.index.run(partial(_restore, doors, owner, author))
        if isinstance(outcome, str):
            lost[names[owner]] = outcome
        elif outcome is not None:
            restored[names[owner]] = outcome[0]
            publish_store_record(doors, outcome[1])
    revived = [blob.blob_id for blob in condemned]
    if not dry_run:
        for batch in batched(revived, BATCH_BLOBS):
            doors.index.run(partial(revive_blobs, blob_ids=batch))
    return UndoReport(len(condemned), sum(blob.size_bytes for blob in condemned), restored, lost, dry_run)


def _restore(doors: Doors, owner: int, author: str, connection: Connection) -> tuple[list[int], AddedRecord] | str | None:
    """Restore the expired versions of a namespace, in the caller's transaction; a text says why that cannot be."""
    store_id = doors.store.id
    take_turn(connection, store_id)
    blob_ids = list_blobs_set_aside(connection, store_id, owner)
    for state in ("condemned", "live"):
        lock_blobs(connection, blob_ids, state)
    revive_blobs(connection, blob_ids)
    missing = find_unrestorable(connection, store_id, owner)
    if missing:
        return f"object {missing} of theirs is deleted already"
    numbers = dict(list_set_aside(connection, store_id)).get(owner, [])
    if not numbers:
        return None
    put_back(connection, store_id, owner)
    namespace = read_namespace(connection, owner)
    fields = {"namespace": namespace.uid, "numbers": pack_numbers(numbers), "author": author}
    return numbers, add_store_record(connection, doors.store, "versions-restored", fields)
