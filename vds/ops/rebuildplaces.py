"""Where the objects are: every blob that the container lists, and what it holds.

Blobs whose keys the store's log says are being deleted hold nothing any more. What is needed and lies only there is copied to a
fresh key first: a DELETE may still be on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import groupby

from vds.blobs.objects import OBJECT_PREFIX, PACK_PREFIX, Placement, fresh_ulid, object_key, pack_key, put_blob
from vds.blobs.outside import list_adoptions, placed_blobs
from vds.blobs.packs import PackBuilder
from vds.blobs.reads import Wanted, plan_reads, read_range
from vds.blobs.records import Gap, PlacedBlob, list_placements, read_placement
from vds.errors import BlobExistsError, ConflictError, CorruptionError, NotFoundError
from vds.index.database import Connection
from vds.index.rebuildrows import (
    GoingRow,
    ListedBlob,
    ObjectRow,
    add_listed_blobs,
    add_objects,
    drop_going,
    drop_unlisted,
    find_listed,
    list_deleting,
    list_going,
    move_objects,
)
from vds.index.schema import object_
from vds.index.sweep import count_rows
from vds.model.adoption import ADOPTED_PREFIX, adopted_key, is_record_key
from vds.model.batch import batched, grouped
from vds.model.checkpoint import CHECKPOINT_PREFIX, CheckpointKey, parse_checkpoint_key
from vds.model.content import Member
from vds.model.digest import Digest
from vds.model.manifest import CHANGES_PREFIX, changes_key
from vds.model.ulid import is_ulid
from vds.ops.rebuilding import Making

BLOBS_BATCH = 1000
MEMBERS_BATCH = 100_000
"""Of members that are sorted together: the larger, the fewer pages of the table are written twice."""


def place_blobs(making: Making, erased: set[bytes]) -> dict[str, list[CheckpointKey]]:
    """Add every listed blob and what it holds, and return the checkpoints of each namespace, by their versions.

    What was erased is placed nowhere, even where its bytes still are.

    Raises:
        FormatError: a newer vds wrote a pack.
    """
    making.progress.stage("listing blobs")
    checkpoints: dict[str, list[CheckpointKey]] = {}
    for key in _add_lists(making, CHECKPOINT_PREFIX):
        checkpoint = parse_checkpoint_key(key)
        assert checkpoint is not None, key
        checkpoints.setdefault(checkpoint.namespace, []).append(checkpoint)
    for _ in _add_lists(making, CHANGES_PREFIX):
        pass
    with closing(list_placements(making.blobs)) as found:
        _place(making, found, erased)
    _place_adopted(making, [blob.key for blob in making.blobs.list_blobs(ADOPTED_PREFIX)], erased)
    making.sink.run(lambda connection: drop_unlisted(connection, making.store_id))
    return checkpoints


def place_late(making: Making, erased: set[bytes]) -> None:
    """Add the blobs that were put after the listing, and what they hold.

    Whoever still writes by the old index puts them, and then a version's record, which is read after the listing.
    """
    making.progress.stage("listing blobs again")
    late: list[PlacedBlob | Gap] = []
    for prefix in (OBJECT_PREFIX, PACK_PREFIX):
        for batch in batched(making.blobs.list_blobs(prefix), BLOBS_BATCH):
            with making.sink.database.read() as connection:
                known = find_listed(connection, making.store_id, [blob.key for blob in batch])
            late.extend(read_placement(making.blobs, blob) for blob in batch if blob.key not in known)
    _place(making, (item for item in late if isinstance(item, PlacedBlob)), erased)
    records = [blob.key for blob in making.blobs.list_blobs(ADOPTED_PREFIX) if is_record_key(blob.key)]
    for keys in batched(records, BLOBS_BATCH):
        with making.sink.database.read() as connection:
            known = find_listed(connection, making.store_id, [adopted_key(key, 0) for key in keys])
        _place_adopted(making, [key for key in keys if adopted_key(key, 0) not in known], erased)


def _place_adopted(making: Making, keys: Sequence[str], erased: set[bytes]) -> None:
    """Add what was adopted, the newest first: what has a place in a blob of our own, or in a newer one, keeps it."""
    with closing(list_adoptions(making.blobs, keys)) as found:
        for item in found:
            if isinstance(item, Gap):
                making.report("blob", item)
            elif item[1].store != making.uid:
                making.report("blob", Gap(item[0], "damaged", f"it is of store {item[1].store!r}"))
            else:
                _add_placed(making, placed_blobs(*item), erased)


def _place(making: Making, found: Iterable[PlacedBlob | Gap], erased: set[bytes]) -> None:
    whole = _without_gaps(making, found)
    for group in grouped(whole, lambda blob: len(blob.members), count_max=BLOBS_BATCH, bytes_max=MEMBERS_BATCH):
        _add_placed(making, group, erased)


def _add_lists(making: Making, prefix: str) -> Iterator[str]:
    """Add the blobs that hold lists, and yield their keys."""
    for batch in batched(making.blobs.list_blobs(prefix), BLOBS_BATCH):
        listed = []
        for blob in batch:
            if _is_list_key(blob.key):
                listed.append(ListedBlob(blob.key, blob.size_bytes, blob.etag))
                yield blob.key
            else:
                making.report("blob", Gap(blob.key, "damaged", "it is not the key of a list"))
        _add_listed(making, listed)


def _is_list_key(key: str) -> bool:
    if parse_checkpoint_key(key) is not None:
        return True
    digits, _, generation = key.rpartition("/")[2].partition(".")
    try:
        return is_ulid(generation) and key == changes_key(Digest(f"b3:{digits}").raw, generation)
    except ValueError:
        return False


def _add_listed(making: Making, listed: Sequence[ListedBlob]) -> None:
    making.sink.run(lambda connection: add_listed_blobs(connection, making.store_id, listed))
    making.count("blobs", len(listed))


def _without_gaps(making: Making, found: Iterable[PlacedBlob | Gap]) -> Iterator[PlacedBlob]:
    """Yield the blobs that say what they hold. Of the others the index learns nothing, so that nobody takes them for unused."""
    for item in found:
        if isinstance(item, Gap):
            making.report("blob", item)
        else:
            yield item


def _add_placed(making: Making, group: Sequence[PlacedBlob], erased: set[bytes]) -> None:
    sink, store_id = making.sink, making.store_id
    listed = [ListedBlob(blob.key, blob.size_bytes, blob.etag) for blob in group]

    def work(connection: Connection) -> list[ObjectRow]:
        ids = add_listed_blobs(connection, store_id, listed)
        placed = {
            member.digest: (store_id, member.digest, blob_id, member.offset_bytes, member.length_bytes)
            for blob, blob_id in zip(group, ids, strict=True)
            if blob_id is not None
            for member in blob.members
        }
        for digest in erased.intersection(placed):
            del placed[digest]
        return sorted(placed.values(), key=lambda row: row[1])  # neighbours in the table lie on one page

    try:
        placed = sink.run(lambda connection: sink.database.insert_rows(connection, object_, work(connection)))
    except ConflictError:  # something is placed already: rare, and looking at each would take twice as long
        placed = sink.run(lambda connection: add_objects(connection, work(connection)))
    making.count("blobs", len(group))
    making.count("objects", placed)
    making.progress.add(files=placed)


def save_going(making: Making, erased: set[bytes]) -> None:
    """Copy what is needed and lies only in blobs that are being deleted, as far as it is still there.

    A crash leaves copies that the next rebuild finds like any other blob.
    """
    with making.sink.database.read() as connection:
        going = list_deleting(connection, making.store_id)
    if not going:
        return
    making.sink.run(count_rows)
    for blob_id, key in going:
        _place_for_now(making, blob_id, key, erased)
    with making.sink.database.read() as connection:
        needed = list(list_going(connection, making.store_id))  # as many as a collection that was cut off had wrongly let go
    making.progress.stage("copying", files=len(needed))
    for key, rows in groupby(needed, key=lambda row: row.key):
        _copy(making, key, list(rows))
    making.sink.run(lambda connection: drop_going(connection, making.store_id))


def _place_for_now(making: Making, blob_id: int, key: str, erased: set[bytes]) -> None:
    """Place what has no other place in a blob that is going, until it is known whether it is needed."""
    blob = making.blobs.find_blob(key) if key.startswith((OBJECT_PREFIX, PACK_PREFIX)) else None
    held = read_placement(making.blobs, blob) if blob is not None else None
    if isinstance(held, PlacedBlob):
        store_id = making.store_id
        rows = [
            (store_id, member.digest, blob_id, member.offset_bytes, member.length_bytes)
            for member in held.members
            if member.digest not in erased
        ]
        making.sink.run(lambda connection: add_objects(connection, rows))


def _copy(making: Making, key: str, rows: Sequence[GoingRow]) -> None:
    """Copy what can be read; the rest has no place then, and is reported so."""
    if key.startswith(PACK_PREFIX):
        _fill_packs(making, rows)
    else:
        with suppress(NotFoundError):  # the DELETE was quicker
            _copy_whole(making, rows[0])
    making.progress.add(files=len(rows))


def _copy_whole(making: Making, row: GoingRow) -> None:
    key = object_key(row.digest, fresh_ulid())
    try:
        etag = making.blobs.copy_blob(row.key, key)
    except BlobExistsError:  # our own first request: nobody else knows the key
        copy = making.blobs.find_blob(key)
        assert copy is not None, key
        etag = copy.etag
    _move(making, ListedBlob(key, row.length_bytes, etag), [Member(row.digest, 0, row.length_bytes)])


def _fill_packs(making: Making, rows: Sequence[GoingRow]) -> None:
    builder, members = PackBuilder(), list[Member]()
    for digest, body in _read_whole(making, rows):
        if not builder.fits(len(body)):
            _put_pack(making, builder, members)
            builder, members = PackBuilder(), []
        members.append(Member(digest, builder.append(digest, body), len(body)))
    if members:
        _put_pack(making, builder, members)


def _read_whole(making: Making, rows: Sequence[GoingRow]) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the members of a pack, each held against its digest; damaged ones are left out."""
    wanted = [Wanted(row.digest, Placement(row.key, row.offset_bytes, row.length_bytes)) for row in rows]
    for read in plan_reads(wanted):
        try:
            yield from read_range(making.blobs, read)
        except CorruptionError:  # one of them; each by itself says which
            for member in read.members:
                with suppress(CorruptionError):
                    yield from read_range(making.blobs, plan_reads([member])[0])


def _put_pack(making: Making, builder: PackBuilder, members: Sequence[Member]) -> None:
    key, body = pack_key(fresh_ulid()), builder.finish()
    etag = put_blob(making.blobs, key, body)
    _move(making, ListedBlob(key, len(body), etag), members)


def _move(making: Making, blob: ListedBlob, members: Sequence[Member]) -> None:
    def work(connection: Connection) -> None:
        (blob_id,) = add_listed_blobs(connection, making.store_id, [blob])
        assert blob_id is not None, "the key is fresh"
        move_objects(connection, making.store_id, blob_id, members)

    making.sink.run(work)
    making.count("blobs")
    making.count("objects", len(members))
    making.count("copied", len(members))
