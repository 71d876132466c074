"""Destroy one content for ever, in every version that holds it: personal data, for example. It cannot be undone.

The versions stay, and so do their digests; only the bytes go, wherever the container has them: also where the index knows of no
copy, such as the dead part of a pack. Reads of it say who erased it, when and why, and nobody can upload it again. Plain blobs
that were adopted with it are not vds's to delete: they are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from vds.blobs.outside import home_of, list_adoptions
from vds.blobs.plain import container_url
from vds.blobs.records import Gap, PlacedBlob, list_placements
from vds.engine.doors import Doors
from vds.engine.guards import check_same_story
from vds.engine.journal import AddedRecord, add_store_record, publish_store_record
from vds.errors import CorruptionError, InvalidInputError, NotFoundError
from vds.index.collect import BlobUse, condemn, measure_uses
from vds.index.database import Connection
from vds.index.erasure import (
    ErasedPlace,
    ErasedRow,
    add_erased,
    adopt_orphan,
    displace,
    find_blobs,
    find_erased,
    list_places_of,
)
from vds.model.digest import EMPTY_RAW, Digest
from vds.model.version import check_message
from vds.ops.counting import count_everything
from vds.ops.deleting import delete_condemned
from vds.ops.repacking import repack
from vds.progress import Progress

TRIES_MAX = 20
"""How often a pack is made anew while others take what is in it into use."""


@dataclass(frozen=True, slots=True)
class EraseReport:
    """What was erased.

    Attributes:
        size_bytes: of the content.
        places: the files that had it; their versions stay.
        deleted_keys: blobs that held it and are gone.
        outside: plain blobs, by name and container, that were adopted with this content. They are not vds's to delete: as far as
            they still hold it, it is there for whoever may read them.
        dry_run: whether nothing was done.
    """

    digest: Digest
    size_bytes: int
    places: list[ErasedPlace]
    deleted_keys: list[str]
    dry_run: bool
    outside: list[str] = field(default_factory=list)


def erase(doors: Doors, digest: Digest, *, author: str, reason: str, progress: Progress, dry_run: bool = True) -> EraseReport:
    """Erase a content; again goes on where an earlier call was interrupted.

    It looks through the whole container: every listing and every pack's footer.

    Raises:
        InvalidInputError: no reason is given, or it is the content of an empty file.
        NotFoundError: the store never had it.
        CorruptionError: a pack's footer is damaged: nobody can say whether it holds the content. All others are done.
        FormatError: the index is older than its store.
    """
    if digest.raw == EMPTY_RAW:
        raise InvalidInputError("the content of an empty file has no bytes to erase")
    if not check_message(reason).strip() and not dry_run:
        raise InvalidInputError("an erasure needs a reason: whoever reads the file is told", hint="--reason 'request 4711'")
    check_same_story(doors, dry_run=dry_run)
    progress.stage("looking for copies")
    copies, unreadable = _find_copies(doors, digest.raw, progress)
    outside = _find_outside(doors, digest.raw)
    with doors.index.read() as connection:
        places = list_places_of(connection, doors.store.id, digest.raw)
        is_known = bool(places or copies or outside or find_erased(connection, doors.store.id, [digest.raw]))
    if not is_known:
        raise NotFoundError(f"this store never had object {digest}", hint="vds ls -l shows digests")
    sizes = [member.length_bytes for blob in copies for member in blob.members if member.digest == digest.raw]
    size_bytes = max([*sizes, *outside.values()], default=0)
    if dry_run:
        return EraseReport(digest, size_bytes, places, [blob.key for blob in copies], True, list(outside))
    added = doors.index.run(lambda connection: _record(connection, doors, digest, author, reason))
    if added is not None:
        publish_store_record(doors, added)
    progress.stage("deleting")
    deleted = [blob.key for blob in copies if _destroy(doors, blob, author, progress)]
    if unreadable:
        raise CorruptionError(
            f"nobody can say whether {unreadable[0].key!r} holds object {digest}: {unreadable[0].detail}",
            hint="all other copies are gone; run vds fsck, then erase again",
        )
    return EraseReport(digest, size_bytes, places, deleted, False, list(outside))


def _find_copies(doors: Doors, digest_raw: bytes, progress: Progress) -> tuple[list[PlacedBlob], list[Gap]]:
    copies: list[PlacedBlob] = []
    unreadable: list[Gap] = []
    for blob in list_placements(doors.blobs):
        if isinstance(blob, PlacedBlob):
            progress.add(files=1)
            if any(member.digest == digest_raw for member in blob.members):
                copies.append(blob)
        elif blob.kind != "missing":
            unreadable.append(blob)
    return copies, unreadable


def _find_outside(doors: Doors, digest_raw: bytes) -> dict[str, int]:
    """Return the plain blobs that were adopted with this content, wherever they are now, and its length.

    Raises:
        CorruptionError: a record is damaged: nobody can say what was adopted.
    """
    home = container_url(home_of(doors.blobs))
    found: dict[str, int] = {}
    with closing(list_adoptions(doors.blobs)) as records:
        for item in records:
            if isinstance(item, Gap):
                raise CorruptionError(f"nobody can say what {item.key!r} tells of: {item.detail}", hint="run: vds fsck")
            container = item[1].container or home
            found.update((f"{one.name!r} in {container!r}", one.size_bytes) for one in item[1].blobs if one.digest == digest_raw)
    return found


def _record(connection: Connection, doors: Doors, digest: Digest, author: str, reason: str) -> AddedRecord | None:
    """Write the erasure down and take the content out of the index; None when it was written down before."""
    displace(connection, doors.store.id, digest.raw)
    if find_erased(connection, doors.store.id, [digest.raw]):
        return None
    added = add_store_record(
        connection, doors.store, "object-erased", {"digest": str(digest), "author": author, "reason": reason}
    )
    add_erased(connection, doors.store.id, ErasedRow(digest.raw, added.created_us, author, reason))
    return added


def _destroy(doors: Doors, copy: PlacedBlob, author: str, progress: Progress) -> bool:
    """Delete a blob that holds the content; what else is used of it is copied first."""
    store_id = doors.store.id
    for _ in range(TRIES_MAX):
        with doors.index.read() as connection:
            blob_id, state = find_blobs(connection, store_id, [copy.key]).get(copy.key, (0, "unknown"))
        if state == "unknown":
            blob_id = doors.index.run(lambda connection: adopt_orphan(connection, store_id, copy.key, copy.size_bytes, copy.etag))
            state = "condemned"
        if state == "live":
            count_everything(doors)
            uses = _measure(doors, blob_id)
            if any(use.used_bytes for use in uses):
                repack(doors, uses, author=author, progress=progress)
            else:
                doors.index.run(partial(condemn, store_id=store_id, blob_ids=[blob_id]))
            continue
        if state == "condemned":
            blob = BlobUse(blob_id, copy.key, copy.size_bytes, 0, copy.etag)
            return copy.key not in delete_condemned(doors, [blob], why="erase", author=author, progress=progress).left
        return state in ("deleting", "deleted")
    raise NotFoundError(f"blob {copy.key!r} was taken into use again and again", hint="erase again when the store is less busy")


def _measure(doors: Doors, blob_id: int) -> Sequence[BlobUse]:
    with doors.index.read() as connection:
        return measure_uses(connection, doors.store.id, [blob_id])
