"""Read blobs and hold every object in them against its digest; packs whole, large objects piece by piece, in bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing

import xxhash
from blake3 import blake3

from vds.blobs.driver import Blob
from vds.blobs.objects import PACK_PREFIX, Placement
from vds.blobs.packs import PACK_BYTES_MAX, PackRow, parse_tail
from vds.blobs.reads import READ_BYTES_MAX, read_chunks
from vds.engine.doors import Doors
from vds.errors import CorruptionError, FormatError, NotFoundError
from vds.index.damage import DamageRow, drop_unplaced, list_damage
from vds.index.inspect import IN_USE, BlobRow, find_blobs, list_members
from vds.index.placements import PlacementRow, find_checks, find_placements
from vds.model.checkpoint import CHECKPOINT_PREFIX, parse_checkpoint_key
from vds.model.checks import Checks, fold, has_checks, leaf_checks, piece_bytes
from vds.model.content import Member
from vds.model.manifest import CHANGES_PREFIX, iter_changes
from vds.ops.damagenotes import BlobVerdict, DamageNotes
from vds.ops.findings import Inspection
from vds.pipeline import Limits, parallel_map

WORKERS = 8
HELD_BYTES_MAX = 256 * 1024 * 1024
"""What the blobs that are being read may hold at once."""

_LIMITS = Limits(2, 2 * READ_BYTES_MAX)
_LARGE_HELD_BYTES = 4 * READ_BYTES_MAX


def read_blobs(run: Inspection, chosen: Iterable[tuple[BlobRow, Blob]]) -> Generator[BlobVerdict, None, None]:
    """Read blobs in parallel and yield what each shows, in their order; `chosen` is drawn in the caller's thread."""
    doors = run.doors
    verdicts = parallel_map(
        lambda one: read_blob(doors, *one),
        chosen,
        workers=WORKERS,
        weigh=lambda one: min(one[1].size_bytes, PACK_BYTES_MAX if one[0].key.startswith(PACK_PREFIX) else _LARGE_HELD_BYTES),
        in_flight_bytes_max=HELD_BYTES_MAX,
    )
    with closing(verdicts):
        for verdict in verdicts:
            run.progress.add(files=1, bytes=verdict.size_bytes)
            yield verdict


def read_blob(doors: Doors, row: BlobRow, blob: Blob) -> BlobVerdict:
    """Read one blob and hold all that is placed in it against its digests.

    One that leaves use meanwhile is not judged.
    """
    if row.key.startswith((CHANGES_PREFIX, CHECKPOINT_PREFIX)):
        verdict = _read_list(doors, row, blob)
    elif row.key.startswith(PACK_PREFIX):
        verdict = _read_pack(doors, row, blob)
    else:
        verdict = _read_objects(doors, row, blob)
    if verdict.is_whole:
        return verdict
    with doors.index.read() as connection:
        now = find_blobs(connection, doors.store.id, [row.key]).get(row.key)
    if now is None or now.state not in IN_USE:
        return BlobVerdict(row, blob, is_gone=True)
    return verdict


def _read_list(doors: Doors, row: BlobRow, blob: Blob) -> BlobVerdict:
    parsed = parse_checkpoint_key(row.key)
    digest = parsed.digest if parsed is not None else bytes.fromhex(row.key.rpartition("/")[2].partition(".")[0])
    offsets = range(0, blob.size_bytes, READ_BYTES_MAX)
    pieces = (doors.blobs.read_range(row.key, at, min(READ_BYTES_MAX, blob.size_bytes - at)) for at in offsets)
    fault = ""
    try:
        for _ in iter_changes(pieces, digest):
            pass
    except (CorruptionError, NotFoundError) as err:
        fault = err.message
    return BlobVerdict(row, blob, blob.size_bytes, fault=fault)


def _members(doors: Doors, row: BlobRow) -> list[Member]:
    with doors.index.read() as connection:
        return list_members(connection, doors.store.id, row.id)


def _read_pack(doors: Doors, row: BlobRow, blob: Blob) -> BlobVerdict:
    members = _members(doors, row)
    try:
        data = memoryview(doors.blobs.read_range(row.key, 0, min(blob.size_bytes, PACK_BYTES_MAX)))
    except (NotFoundError, CorruptionError) as err:
        return BlobVerdict(row, blob, damaged={member.digest: err.message for member in members})
    whole: list[bytes] = []
    damaged: dict[bytes, str] = {}
    for member in members:
        body = data[member.offset_bytes : member.offset_bytes + member.length_bytes]
        found = blake3(body).digest()
        if found == member.digest:
            whole.append(member.digest)
        else:
            expected = f"b3:{member.digest.hex()}"
            what = f"object {expected} in blob {row.key!r} is corrupt"
            damaged[member.digest] = f"{what}: expected {expected}, read b3:{found.hex()}"
    fault = _check_footer(data, row.key, members, damaged)
    return BlobVerdict(row, blob, blob.size_bytes, whole=tuple(whole), damaged=damaged, fault=fault)


def _check_footer(data: memoryview, key: str, members: Iterable[Member], damaged: Iterable[bytes]) -> str:
    """Return in what the table of a pack is not what the index says of it, or nothing."""
    try:
        rows = {row.digest_raw: row for row in parse_tail(data, len(data), key)}
    except (CorruptionError, FormatError) as err:
        return err.message
    left_out = set(damaged)
    for member in members:
        row = rows.get(member.digest)
        if row is None or (row.offset_bytes, row.length_bytes) != (member.offset_bytes, member.length_bytes):
            return f"its table does not say that b3:{member.digest.hex()} is at byte {member.offset_bytes}"
        if member.digest not in left_out and not _fits(data, row):
            return f"its table has another check than the bytes of b3:{member.digest.hex()}"
    return ""


def _fits(data: memoryview, row: PackRow) -> bool:
    return xxhash.xxh3_64_intdigest(data[row.offset_bytes : row.offset_bytes + row.length_bytes]) == row.check


def _read_objects(doors: Doors, row: BlobRow, blob: Blob) -> BlobVerdict:
    whole: list[bytes] = []
    damaged: dict[bytes, str] = {}
    missing: dict[bytes, Checks] = {}
    wrong: dict[bytes, Checks] = {}
    for member in _members(doors, row):  # one, in a sound index
        leaves: list[bytes] = []
        try:
            placement = Placement(row.key, member.offset_bytes, member.length_bytes)
            for piece in read_chunks(doors.blobs, placement, member.digest, limits=_LIMITS):
                leaves.append(leaf_checks(piece))
        except CorruptionError as err:
            damaged[member.digest] = err.message
            continue
        whole.append(member.digest)
        if has_checks(member.length_bytes):
            _compare_checks(doors, member, b"".join(leaves), missing, wrong)
    return BlobVerdict(
        row, blob, blob.size_bytes, whole=tuple(whole), damaged=damaged, missing_checks=missing, wrong_checks=wrong
    )


def _compare_checks(
    doors: Doors, member: Member, leaves: bytes, missing: dict[bytes, Checks], wrong: dict[bytes, Checks]
) -> None:
    with doors.index.read() as connection:
        kept = find_checks(connection, doors.store.id, [member.digest]).get(member.digest)
    # Cut as they were kept, if they can be: what pieces there are may have been chosen otherwise once.
    piece = kept.piece_bytes if kept is not None and _is_piece(kept.piece_bytes) else piece_bytes(member.length_bytes)
    right = Checks(piece, fold(leaves, piece))
    if kept is None:
        missing[member.digest] = right
    elif kept != right:
        wrong[member.digest] = right


def _is_piece(size_bytes: int) -> bool:
    return size_bytes > 0 and READ_BYTES_MAX % size_bytes == 0


def look_at_damage(run: Inspection, notes: DamageNotes) -> None:
    """Read the objects again that are known to be damaged: some may be whole by now, as after an undelete."""
    doors = run.doors
    if run.writes:
        doors.index.run(lambda connection: drop_unplaced(connection, doors.store.id))
    after = b""
    while True:
        with doors.index.read() as connection:
            rows = list_damage(connection, doors.store.id, after)
            places = find_placements(connection, doors.store.id, [row.digest for row in rows])
        if not rows:
            notes.flush()
            return
        after = rows[-1].digest
        wanted = [(row, places[row.digest]) for row in rows if row.digest in places]
        with closing(parallel_map(lambda one: (*one, _read_one(doors, *one)), wanted)) as looks:
            for row, place, fault in looks:
                if fault:
                    notes.add_damaged(row.digest, place.blob_id, place.key, fault)
                else:
                    notes.add_whole(row.digest, row.blob_id)  # where it was noted, which may be another blob than now


def _read_one(doors: Doors, row: DamageRow, place: PlacementRow) -> str:
    placement = Placement(place.key, place.offset_bytes, place.length_bytes)
    try:
        for _ in read_chunks(doors.blobs, placement, row.digest, limits=_LIMITS):
            pass
    except CorruptionError as err:
        return err.message
    return ""
