"""The last step of bytes: from condemned to gone.

Names first, bytes last: the rows go to `deleting`, with them what was placed there, and the keys are written to the store's log;
once that record is in the container, and not before, the blobs are deleted. A crash anywhere leaves `deleting` rows, and the next
run goes on with them. Keys are never used again, so a DELETE that comes late, or twice, finds nothing or the same blob.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from vds.blobs.objects import DIGEST_METADATA
from vds.blobs.packs import read_footer
from vds.engine.doors import Doors
from vds.engine.guards import check_same_story
from vds.engine.journal import AddedRecord, add_store_record, publish_store_record
from vds.errors import ConflictError, CorruptionError, FormatError, NotFoundError
from vds.index.collect import BlobUse, begin_deleting, list_deleting, mark_deleted, reap
from vds.index.database import Connection
from vds.index.guards import find_last_copies
from vds.model.batch import batched
from vds.model.digest import Digest
from vds.model.storelog import KEYS_MAX
from vds.pipeline import parallel_map
from vds.progress import Progress

KEYS_A_RECORD = min(1000, KEYS_MAX)
MARK_BATCH = 200


@dataclass
class Deleted:
    """What was deleted, and what was left for a reason."""

    keys: int = 0
    size_bytes: int = 0
    left: dict[str, str] = field(default_factory=dict)


def delete_condemned(doors: Doors, blobs: Sequence[BlobUse], *, why: str, author: str, progress: Progress) -> Deleted:
    """Delete condemned blobs for good, and return what became of them.

    What the container says is in each is held against what is used: the last copy of something never goes.

    Raises:
        CorruptionError: one holds something that is used and is nowhere else; of its batch nothing was deleted.
        RecordDivergedError: another index has taken this store over; nothing more was deleted.
    """
    done = Deleted()
    for batch in batched(blobs, KEYS_A_RECORD):
        contents = _read_contents(doors, batch, done)
        going = [blob for blob in batch if blob.blob_id in contents]

        def work(
            connection: Connection, going: list[BlobUse] = going, contents: dict[int, list[bytes]] = contents
        ) -> AddedRecord | None:
            begun = begin_deleting(connection, doors.store.id, [blob.blob_id for blob in going])
            for blob in begun:
                _check_no_last_copy(connection, doors, blob, contents[blob.blob_id])
            return _log_keys(connection, doors, [blob.key for blob in begun], sum(b.size_bytes for b in begun), why, author)

        added = doors.index.run(work)
        if added is not None:
            publish_store_record(doors, added)
        _finish(doors, done, progress)
    return done


def delete_abandoned(
    doors: Doors, abandoned: Sequence[tuple[int, str, int | None]], *, author: str, progress: Progress
) -> Deleted:
    """Delete what uploads that have ended began to send and nobody finished."""
    done = Deleted()
    for batch in batched(abandoned, KEYS_A_RECORD):

        def work(connection: Connection, batch: list[tuple[int, str, int | None]] = batch) -> AddedRecord | None:
            keys = [key for _, key in reap(connection, batch)]
            return _log_keys(connection, doors, keys, 0, "reap", author)

        added = doors.index.run(work)
        if added is not None:
            publish_store_record(doors, added)
        _finish(doors, done, progress)
    return done


def finish_deleting(doors: Doors, progress: Progress) -> Deleted:
    """Delete what an earlier run meant to delete and did not come to."""
    done = Deleted()
    _finish(doors, done, progress)
    return done


def _log_keys(
    connection: Connection, doors: Doors, keys: Sequence[str], size_bytes: int, why: str, author: str
) -> AddedRecord | None:
    if not keys:
        return None
    fields = {"keys": list(keys), "size_bytes": size_bytes, "why": why, "author": author}
    return add_store_record(connection, doors.store, "keys-deleting", fields)


def _read_contents(doors: Doors, blobs: Sequence[BlobUse], done: Deleted) -> dict[int, list[bytes]]:
    """Return, by blob, the digests that the container itself says it holds; one that cannot be read is left where it is."""

    def read(blob: BlobUse) -> tuple[BlobUse, list[bytes] | str]:
        try:
            return blob, find_contents(doors, blob)
        except (CorruptionError, FormatError) as err:
            return blob, err.message

    found: dict[int, list[bytes]] = {}
    with closing(parallel_map(read, blobs, ordered=False)) as reads:
        for blob, contents in reads:
            if isinstance(contents, str):
                done.left[blob.key] = contents
            else:
                found[blob.blob_id] = contents
    return found


def find_contents(doors: Doors, blob: BlobUse) -> list[bytes]:
    """Return the digests of the objects that a blob holds, by its key, its metadata or its footer; nothing when it is gone.

    Raises:
        CorruptionError: its footer, or its metadata, is damaged.
    """
    kind, _, rest = blob.key.partition("/")
    if kind == "packs":
        try:
            return [row.digest_raw for row in read_footer(doors.blobs, blob.key, blob.size_bytes)]
        except NotFoundError:
            return []
    if kind != "objects":
        return []
    if not rest.startswith("~~/"):
        return [Digest("b3:" + rest.partition("/")[2].partition(".")[0]).raw]
    found = doors.blobs.find_blob(blob.key)
    if found is None:
        return []
    try:
        return [Digest(found.metadata[DIGEST_METADATA]).raw]
    except (KeyError, ValueError) as err:
        raise CorruptionError(f"blob {blob.key!r} does not say what it holds", hint="run: vds fsck") from err


def _check_no_last_copy(connection: Connection, doors: Doors, blob: BlobUse, digests: list[bytes]) -> None:
    for batch in batched(digests, 500):
        lost = find_last_copies(connection, doors.store.id, blob.blob_id, batch)
        if lost:
            raise CorruptionError(
                f"blob {blob.key!r} holds object {Digest.from_raw(lost[0])}, which is used and has no other place",
                hint="run: vds fsck --structure, and vds index rebuild if the index is at fault",
            )


def _finish(doors: Doors, done: Deleted, progress: Progress) -> None:
    """Delete every blob that is `deleting`, once each such row's key is in the store's log in the container."""
    after = 0
    while True:
        with doors.index.read() as connection:
            blobs = list_deleting(connection, doors.store.id, after, KEYS_A_RECORD)
        if not blobs:
            return
        after = blobs[-1].blob_id
        # After the look, not before: one that another collector moved here a moment ago has its record in the queue yet. Should a
        # new index have taken that record's number, or this one have been put back meanwhile, nothing is deleted.
        check_same_story(doors, dry_run=False)
        gone: list[BlobUse] = []
        with closing(parallel_map(lambda blob: _delete(doors, blob), blobs, ordered=False)) as deletions:
            for blob, reason in deletions:
                if reason:
                    done.left[blob.key] = reason
                else:
                    gone.append(blob)
                    progress.add(files=1, bytes=blob.size_bytes)
        for batch in batched(gone, MARK_BATCH):
            doors.index.run(_marker([blob.blob_id for blob in batch]))
        done.keys += len(gone)
        done.size_bytes += sum(blob.size_bytes for blob in gone)


def _marker(blob_ids: list[int]) -> Callable[[Connection], None]:
    return lambda connection: mark_deleted(connection, blob_ids)


def _delete(doors: Doors, blob: BlobUse) -> tuple[BlobUse, str]:
    try:
        doors.blobs.delete_blob(blob.key, blob.etag)  # False when it is not there: somebody was quicker, or it never came
    except ConflictError as err:
        return blob, f"it is not the blob that was written: {err.message}"
    return blob, ""
