"""Make packs of what is left of packs that are mostly dead: copy, switch, condemn.

Order: the intent to make the new pack is a row before its first byte; its bytes are durable, and each object was held against its
digest, before one placement points there; the old pack is condemned in the transaction that takes its last placement out. A crash
anywhere leaves a pending pack that nobody refers to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vds.blobs.objects import PACK_PREFIX, Placement, fresh_ulid, pack_key, put_blob
from vds.blobs.packs import PACK_BYTES_MAX, PACK_MEMBERS_MAX, PACK_TARGET_BYTES, ROW_BYTES, PackBuilder
from vds.blobs.reads import Wanted, plan_reads, read_range
from vds.engine.doors import Doors
from vds.engine.resume import own_process
from vds.engine.session import TTL_HOURS
from vds.index.collect import BlobUse, Copied, UsedMember, list_used_members, switch_members
from vds.index.database import Connection
from vds.index.placements import add_pending_blob
from vds.index.staging import NewUpload, add_upload, end_upload
from vds.progress import Progress

REPACK_BELOW = 0.5
"""A pack is made anew when less than this share of it is used."""

NO_NAMESPACE = 0
_HOUR_US = 3600 * 1_000_000


@dataclass
class Repacked:
    """What was made anew: packs taken apart, packs made, and the bytes that were copied."""

    emptied: int = 0
    made: int = 0
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Old:
    blob: BlobUse
    members: Sequence[UsedMember]

    @property
    def used_bytes(self) -> int:
        return sum(member.length_bytes + ROW_BYTES for member in self.members)


def is_mostly_dead(use: BlobUse) -> bool:
    """Return whether a blob is a pack that would be much smaller if it were made anew."""
    new_bytes = use.used_bytes + (use.used_members + 1) * ROW_BYTES  # the trailer is as long as a row
    return use.key.startswith(PACK_PREFIX) and use.used_bytes > 0 and new_bytes < use.size_bytes * REPACK_BELOW


def repack(doors: Doors, packs: Sequence[BlobUse], *, author: str, progress: Progress) -> Repacked:
    """Copy what is used of these packs into new ones and condemn them; one that is taken into use meanwhile is left as it is.

    Raises:
        CorruptionError: an object in one is damaged; that pack, and those after it, were left as they are.
    """
    done = Repacked()
    if not packs:
        return done
    upload_id = _open_upload(doors, author)
    try:
        for group in _groups(_read_members(doors, packs)):
            _repack_group(doors, upload_id, group, done)
            progress.add(files=len(group))
    finally:
        doors.index.run(lambda connection: end_upload(connection, doors.store.id, upload_id, "aborted"))
    return done


def _open_upload(doors: Doors, author: str) -> int:
    """Open the upload that new packs belong to while they are made: should we die, it tells that they are nobody's."""
    new = NewUpload(
        token=fresh_ulid(),
        namespace_id=NO_NAMESPACE,
        base=0,
        expected_parent=None,
        author=author,
        message="",
        labels="{}",
        allow_shrink=False,
        commit_id=fresh_ulid(),
        ttl_us=int(TTL_HOURS * _HOUR_US),
        process=own_process(),
    )
    return doors.index.run(lambda connection: add_upload(connection, doors.store.id, new).id)


def _read_members(doors: Doors, packs: Sequence[BlobUse]) -> Iterator[_Old]:
    for pack in packs:
        with doors.index.read() as connection:
            yield _Old(pack, list_used_members(connection, doors.store.id, pack.blob_id))


def _groups(packs: Iterator[_Old]) -> Iterator[list[_Old]]:
    """Put packs together whose used members fill a pack of the usual size; none is split between two."""
    group: list[_Old] = []
    size_bytes = members = 0
    for pack in packs:
        if not pack.members:
            continue
        full = size_bytes + pack.used_bytes > PACK_TARGET_BYTES or members + len(pack.members) > PACK_MEMBERS_MAX
        if group and full:
            yield group
            group, size_bytes, members = [], 0, 0
        group.append(pack)
        size_bytes += pack.used_bytes
        members += len(pack.members)
    if group:
        yield group


def _repack_group(doors: Doors, upload_id: int, group: Sequence[_Old], done: Repacked) -> None:
    builder = PackBuilder(min(PACK_BYTES_MAX, max(PACK_TARGET_BYTES, 2 * sum(old.used_bytes for old in group))))
    copied: list[Copied] = []
    for old in group:
        wanted = [
            Wanted(member.digest, Placement(old.blob.key, member.offset_bytes, member.length_bytes)) for member in old.members
        ]
        for read in plan_reads(wanted):
            for digest, body in read_range(doors.blobs, read):  # each is held against its digest
                copied.append(Copied(digest, old.blob.blob_id, builder.append(digest, body)))
    key = pack_key(fresh_ulid())
    blob_id = doors.index.run(lambda connection: add_pending_blob(connection, doors.store.id, key, upload_id))
    body = builder.finish()
    etag = put_blob(doors.blobs, key, body)

    def work(connection: Connection) -> list[int]:
        return switch_members(connection, doors.store.id, (blob_id, upload_id), len(body), etag, copied)

    emptied = doors.index.run(work)
    done.emptied += len(emptied)
    done.made += bool(emptied)
    done.copied_bytes += len(body) if emptied else 0
