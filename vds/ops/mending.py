"""Mend what a check found: records and lists, and objects from good copies of them.

Nothing is overwritten. An object goes to a fresh key, and its placement with it. A record or a list that is missing is written
again under its own key; one that is there and damaged stays, unless it may be replaced: then it is deleted first, with the good
one in hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from blake3 import blake3

from vds.blobs.objects import OBJECT_PREFIX, PACK_PREFIX, fresh_ulid
from vds.blobs.packs import MEMBER_BYTES_END
from vds.engine.journal import check_store_fresh
from vds.engine.outbox import Outbox
from vds.engine.resume import own_process
from vds.errors import CorruptionError
from vds.index.damage import DamageRow, condemn_empty, find_damaged, forget_unused, put_damage
from vds.index.database import Connection
from vds.index.inspect import find_blobs, find_sizes, list_members
from vds.index.placements import find_placements
from vds.index.staging import NewUpload, add_upload, end_upload
from vds.ops.findings import Inspection
from vds.ops.goodcopies import ContainerCopies, GoodCopies, GoodObject, WantedObject
from vds.ops.mendrecords import mend_lists, mend_records
from vds.progress import SilentProgress

_TTL_US = 24 * 3600 * 1_000_000
_OBJECTS = ("object-damaged", "object-unplaced")
_BLOBS = ("blob-missing", "blob-differs", "blob-replaced", "blob-mislabelled")


@dataclass(frozen=True, slots=True)
class MendTerms:
    """How to mend.

    Attributes:
        copies: where good bytes can be had, besides the index.
        replaces: whether damaged records and lists, whose keys are fixed, may be deleted to make room for good ones.
    """

    copies: GoodCopies
    replaces: bool = False


def mend(run: Inspection, terms: MendTerms) -> None:
    """Mend what can be; what was, is noted with its problem. A run that writes nothing says what could be.

    Raises:
        AccessDeniedError: the store was opened for reading, or a right is missing.
        FormatError: the index is older than its store.
    """
    if run.writes:
        check_store_fresh(run.doors)
    run.progress.stage("mending")
    mend_records(run, terms.copies, replaces=terms.replaces)
    mend_lists(run, terms.copies, replaces=terms.replaces)
    _mend_objects(run, terms.copies)
    _move_out(run)
    _forget_useless(run)
    _let_go(run)


def _mend_objects(run: Inspection, copies: GoodCopies) -> None:
    wanted = _list_wanted(run)
    if not wanted:
        return
    good = copies.find_objects(wanted)
    sent = [(one.wanted.digest, one.where) for one in good] if not run.writes else _send_all(run, good)
    for digest, where in sent:
        for kind in _OBJECTS:
            if (problem := run.findings.find(kind, digest=digest)) is not None:
                run.mend(problem, f"copied from {where}")


def _move_out(run: Inspection) -> None:
    """Copy what is whole out of packs and blobs that do not say what they hold, to fresh keys: a rebuild would not find it."""
    if not run.writes:
        return
    doors = run.doors
    moved: dict[str, list[DamageRow]] = {}
    with doors.index.read() as connection:
        for problem in run.findings.of("blob-mislabelled"):
            row = find_blobs(connection, doors.store.id, [problem.key]).get(problem.key)
            if row is not None and not problem.repaired:
                members = list_members(connection, doors.store.id, row.id)
                known = find_damaged(connection, doors.store.id, [member.digest for member in members])
                left = [member.digest for member in members if member.digest not in known]
                moved[problem.key] = [DamageRow(digest, row.id, "its blob does not say that it holds it") for digest in left]
    for rows in moved.values():
        if rows:
            # Noted as damaged, so that the new placement takes the old one's place. After a crash here the next check finds
            # them whole, and forgets that.
            doors.index.run(partial(put_damage, store_id=doors.store.id, found=rows))
            _send_all(run, ContainerCopies(doors.blobs).find_objects(_wanted(run, [row.digest for row in rows])))


def _list_wanted(run: Inspection) -> dict[bytes, WantedObject]:
    return _wanted(run, [digest for kind in _OBJECTS for digest in run.findings.digests_of(kind)])


def _wanted(run: Inspection, digests: Sequence[bytes]) -> dict[bytes, WantedObject]:
    if not digests:
        return {}
    with run.doors.index.read() as connection:
        places = find_placements(connection, run.doors.store.id, digests)
        sizes = find_sizes(connection, run.doors.store.id, [digest for digest in digests if digest not in places])
    sizes.update((digest, place.length_bytes) for digest, place in places.items())
    return {digest: WantedObject(digest, sizes[digest], places.get(digest)) for digest in digests if sizes.get(digest)}


def _send_all(run: Inspection, good: Iterator[GoodObject]) -> list[tuple[bytes, str]]:
    """Send objects to fresh keys, place them there, and return the digest of each and where it came from."""
    doors = run.doors
    upload_id = doors.index.run(lambda connection: _open_upload(connection, doors.store.id))
    sent: list[tuple[bytes, str]] = []
    try:
        with closing(Outbox(doors, upload_id, SilentProgress(), lambda: None)) as outbox:
            for one in good:
                if _send(outbox, one.wanted, one.open()):
                    sent.append((one.wanted.digest, one.where))
                    run.progress.add(files=1, bytes=one.wanted.size_bytes)
            outbox.finish()
    finally:
        doors.index.run(lambda connection: end_upload(connection, doors.store.id, upload_id, "aborted"))
    return sent


def _open_upload(connection: Connection, store_id: int) -> int:
    """Open an upload of no namespace, which nothing is staged in: blobs on their way need one."""
    new = NewUpload(
        token=fresh_ulid(),
        namespace_id=0,
        base=0,
        expected_parent=None,
        author="",
        message="vds fsck",
        labels="{}",
        allow_shrink=False,
        commit_id=fresh_ulid(),
        ttl_us=_TTL_US,
        process=own_process(),
    )
    return add_upload(connection, store_id, new).id


def _send(outbox: Outbox, wanted: WantedObject, pieces: Iterator[bytes]) -> bool:
    """Send an object's bytes; False, and nothing of it is used, when they are not what was wanted after all."""
    try:
        if wanted.size_bytes < MEMBER_BYTES_END:
            body = b"".join(pieces)
            if blake3(body).digest() != wanted.digest:
                return False
            outbox.count_new(wanted.digest, len(body))
            outbox.append(wanted.digest, body)
            return True
        stream, hasher = outbox.open_stream(), blake3()
        try:
            for piece in pieces:
                hasher.update(piece)
                stream.write(piece)
            if hasher.digest() == wanted.digest:
                stream.finish()
        finally:
            stream.drop()
        return hasher.digest() == wanted.digest
    except CorruptionError:
        return False


def _forget_useless(run: Inspection) -> None:
    """Forget damaged objects that nobody needs: they would keep collection from running for ever."""
    store_id = run.doors.store.id
    for problem in run.findings.of("object-damaged"):
        if problem.repaired or problem.touches or not run.writes:
            continue
        digest = bytes.fromhex(problem.digest.removeprefix("b3:"))
        if run.doors.index.run(partial(forget_unused, store_id=store_id, digest=digest)):
            run.mend(problem, "forgotten: no version needs it")


def _let_go(run: Inspection) -> None:
    """Condemn the damaged blobs in which nothing is placed any more, so that collection takes what is left of them."""
    for problem in run.findings.of(*_BLOBS):
        if problem.repaired or not problem.key.startswith((OBJECT_PREFIX, PACK_PREFIX)) or not run.writes:
            continue
        if run.doors.index.run(partial(condemn_empty, store_id=run.doors.store.id, key=problem.key)):
            run.mend(problem, "let go: all that was in it is elsewhere")
