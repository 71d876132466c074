"""Hold the listing of the container against the index's blobs: what is missing, what is another, what nobody knows.

Both come sorted by key and are merged as they stream. The index moves on while the container is listed, so whatever does not fit
is looked at a second time, by itself: its row, the blob, and its row again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from vds.blobs.driver import Blob
from vds.blobs.objects import DIGEST_METADATA, OBJECT_PREFIX, PACK_PREFIX, is_stream_key, object_key, pack_key
from vds.index.inspect import IN_USE, BlobRow, count_pending, find_blobs, list_members, read_blob_page
from vds.model.checkpoint import CHECKPOINT_PREFIX, parse_checkpoint_key
from vds.model.content import Member
from vds.model.manifest import CHANGES_PREFIX, changes_key
from vds.model.ulid import is_ulid
from vds.ops.checkadopted import Present, check_adopted
from vds.ops.damagenotes import DamageNotes
from vds.ops.findings import Inspection
from vds.pipeline import parallel_map

PREFIXES = (CHANGES_PREFIX, CHECKPOINT_PREFIX, OBJECT_PREFIX, PACK_PREFIX)
"""In the order of keys: all four together are sorted."""

DOUBTS_AT_ONCE = 500


def check_blobs(run: Inspection, notes: DamageNotes) -> Iterator[Present]:
    """Check that every blob in use is there as it was made, find those that nobody knows, and yield the former.

    They come by key, but for packs of another size, which come a little later.

    Args:
        run: is told of every problem.
        notes: is told of the objects in blobs that are gone.
    """
    yield from check_adopted(run, notes)  # their keys come first
    for prefix in PREFIXES:
        doubts: list[str] = []
        for row, blob in _merge(run, prefix):
            run.examined.blobs += 1
            if _is_doubtful(row, blob):
                doubts.append(blob.key if blob is not None else row.key if row is not None else "")
            elif row is not None and blob is not None and row.state in IN_USE:
                _check_label(run, row, blob)
            if len(doubts) == DOUBTS_AT_ONCE:
                yield from _look_again(run, notes, doubts)
                doubts = []
            if row is not None and blob is not None and row.state in IN_USE and row.size_bytes in (None, blob.size_bytes):
                yield Present(row, blob)
        yield from _look_again(run, notes, doubts)
    with run.doors.index.read() as connection:
        pending = count_pending(connection, run.doors.store.id)
    for state, count in pending:
        run.findings.add("blob-pending", detail=f"{count} blobs of uploads that are {state}")


def _merge(run: Inspection, prefix: str) -> Iterator[tuple[BlobRow | None, Blob | None]]:
    """Yield what index and container have of each key; one of the two may be None."""
    rows = _rows(run, prefix)
    row = next(rows, None)
    for number, blob in enumerate(run.doors.blobs.list_blobs(prefix), 1):
        if number % 1000 == 0:
            run.progress.add(files=1000)
        while row is not None and row.key < blob.key:
            yield row, None
            row = next(rows, None)
        if row is None or row.key != blob.key:
            yield None, blob
            continue
        yield row, blob
        row = next(rows, None)
    while row is not None:
        yield row, None
        row = next(rows, None)


def _rows(run: Inspection, prefix: str) -> Iterator[BlobRow]:
    after = ""
    while True:
        with run.doors.index.read() as connection:
            page = read_blob_page(connection, run.doors.store.id, prefix, after)
        if not page:
            return
        yield from page
        after = page[-1].key


def _is_doubtful(row: BlobRow | None, blob: Blob | None) -> bool:
    if row is None or blob is None:
        return row is None or row.state in IN_USE
    if row.state in IN_USE:
        return row.size_bytes not in (None, blob.size_bytes) or row.etag not in (None, blob.etag)
    return row.state in ("deleting", "deleted")


def _check_label(run: Inspection, row: BlobRow, blob: Blob) -> None:
    """Check that a blob of one object says which: a rebuild has nothing else to go by."""
    if row.holds is None:
        return
    says = (
        blob.metadata.get(DIGEST_METADATA) if is_stream_key(blob.key) else f"b3:{blob.key.rpartition('/')[2].partition('.')[0]}"
    )
    if says != f"b3:{row.holds.hex()}":
        run.findings.add("blob-mislabelled", blob.key, f"it says {says or 'nothing'}, the index says b3:{row.holds.hex()}")


def _look_again(run: Inspection, notes: DamageNotes, keys: list[str]) -> Iterator[Present]:
    if not keys:
        return
    doors = run.doors
    with doors.index.read() as connection:
        before = find_blobs(connection, doors.store.id, keys)
    with closing(parallel_map(lambda key: (key, doors.blobs.find_blob(key)), keys)) as found:
        blobs = dict(found)
    with doors.index.read() as connection:
        after = find_blobs(connection, doors.store.id, keys)
    for key in keys:
        row, blob = after.get(key), blobs[key]
        if row is not None and row != before.get(key):
            continue  # it moved on meanwhile: there is nothing wrong with it
        if row is None:
            if blob is not None and key not in before:
                run.findings.add("blob-orphan" if is_own_key(key) else "key-foreign", key, f"{blob.size_bytes} bytes")
        elif row.state in IN_USE:
            yield from _check_in_use(run, notes, row, blob)
        elif blob is not None and row.state in ("deleting", "deleted"):
            run.findings.add("blob-undeleted", key, f"it is {row.state} in the index")


def _check_in_use(run: Inspection, notes: DamageNotes, row: BlobRow, blob: Blob | None) -> Iterator[Present]:
    if row.state == "condemned" and not _members(run, row):
        return  # nothing of it is of use to anybody: whatever it is like, collection takes it
    if blob is None:
        run.findings.add("blob-missing", row.key, f"{row.size_bytes} bytes, {row.state}")
        _note_members(run, notes, row, 0, "blob {!r} is gone")
    elif row.size_bytes not in (None, blob.size_bytes):
        run.findings.add("blob-differs", row.key, f"it has {blob.size_bytes} bytes, and was made with {row.size_bytes}")
        if row.key.startswith(PACK_PREFIX):
            yield Present(row, blob, is_cut=True)
        else:
            _note_members(run, notes, row, blob.size_bytes, f"blob {{!r}} has {blob.size_bytes} bytes")
    elif row.etag not in (None, blob.etag):
        run.findings.add("blob-replaced", row.key, f"its etag is {blob.etag}, and was {row.etag}")


def _members(run: Inspection, row: BlobRow) -> list[Member]:
    with run.doors.index.read() as connection:
        return list_members(connection, run.doors.store.id, row.id)


def _note_members(run: Inspection, notes: DamageNotes, row: BlobRow, size_bytes: int, why: str) -> None:
    """Note the objects that do not lie within so many bytes of their blob."""
    for member in _members(run, row):
        if member.offset_bytes + member.length_bytes > size_bytes or not row.key.startswith(PACK_PREFIX):
            notes.add_damaged(member.digest, row.id, row.key, why.format(row.key))


def is_own_key(key: str) -> bool:
    """Return whether a key is of the kind that vds makes for objects, packs and lists."""
    directory, _, name = key.rpartition("/")
    stem, _, generation = name.rpartition(".")
    if directory == "objects/~~":
        return is_ulid(name)
    if key.startswith(PACK_PREFIX):
        return generation == "pack" and is_ulid(stem) and key == pack_key(stem)
    if key.startswith(CHECKPOINT_PREFIX):
        return parse_checkpoint_key(key) is not None
    try:
        digest = bytes.fromhex(stem)
    except ValueError:
        return False
    make = object_key if key.startswith(OBJECT_PREFIX) else changes_key
    return len(digest) == 32 and is_ulid(generation) and key == make(digest, generation)
