"""Collection: bytes that no version needs are condemned, and deleted when their grace is over. Safe by states, not by time.

    set aside what only expired versions held → count uses → condemn → repack → (grace) → deleting → deleted

What it costs follows what changed since the last time: new versions are counted, expired ones set aside, and of the blobs those
that came or lost something are looked at. Any number of collectors and writers may run at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from vds.engine.checkpoint import shorten_history
from vds.engine.doors import Doors
from vds.engine.guards import check_collectable
from vds.engine.resume import is_gone
from vds.errors import InvalidInputError
from vds.index.collect import (
    BlobUse,
    abort_silent_uploads,
    abort_uploads,
    condemn,
    list_abandoned,
    list_condemned,
    list_processes,
    list_unchecked,
    measure_store,
    measure_uses,
)
from vds.index.database import Connection, now_us
from vds.index.erasure import displace, list_erased_placed
from vds.index.reach import find_partly_used
from vds.index.retired import find_oldest_left, mark_unneeded_lists
from vds.index.schema import OPEN
from vds.index.uses import (
    Gap,
    collect_entries,
    find_oldest_base,
    list_expired_uncollected,
    list_kept_numbers,
    list_uncounted,
    plan_gaps,
    set_aside,
    take_turn,
)
from vds.model.batch import batched
from vds.ops.counting import count_everything
from vds.ops.deleting import Deleted, delete_abandoned, delete_condemned, finish_deleting
from vds.ops.repacking import Repacked, is_mostly_dead, repack
from vds.progress import Progress

GRACE_HOURS = 24.0
MAX_SHARE = 0.5
GAPS_A_TRANSACTION = 100
_HOUR_US = 3600 * 1_000_000
_LIST_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class CollectTerms:
    """How to collect.

    Attributes:
        grace_hours: how long what is condemned can be brought back with undo.
        max_share: of the store's bytes, how much one run may condemn and delete.
        repacks: whether packs that are mostly dead are made anew.
    """

    grace_hours: float = GRACE_HOURS
    max_share: float = MAX_SHARE
    repacks: bool = True
    author: str = ""

    def check(self) -> CollectTerms:
        """Return the terms if they make sense.

        Raises:
            InvalidInputError: the grace is negative or endless, or the share is none.
        """
        if not 0 <= self.grace_hours <= 24 * 3650:
            raise InvalidInputError(f"grace_hours {self.grace_hours!r} is not between 0 and ten years", hint="grace_hours=24")
        if not 0 < self.max_share <= 1:
            raise InvalidInputError(f"max_share {self.max_share!r} is not a share of the store", hint="max_share=0.5")
        return self


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What collection did, or would do.

    Attributes:
        aborted_uploads: uploads that had expired or fallen silent, and were ended.
        entries_set_aside: entries that only expired versions held.
        condemned: blobs that nobody uses, found by this run; their bytes are `condemned_bytes`.
        repacked: packs that were mostly dead and were made anew.
        deleted: blobs that are gone for good; `deleted_bytes` are theirs.
        waiting: blobs whose grace is not over, and their bytes.
        store_bytes: what the store held before.
        left: key → why a blob that was to be deleted was left.
        keys: of what was condemned and deleted; the first thousand of each.
        refusal: of a dry run: why a run with these terms would be refused.
        dry_run: whether nothing was done.
    """

    aborted_uploads: int = 0
    entries_set_aside: int = 0
    condemned: int = 0
    condemned_bytes: int = 0
    repacked: int = 0
    repacked_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    abandoned: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    store_bytes: int = 0
    left: dict[str, str] = field(default_factory=dict)
    condemned_keys: list[str] = field(default_factory=list)
    deleted_keys: list[str] = field(default_factory=list)
    refusal: str = ""
    dry_run: bool = False


KEYS_SHOWN_MAX = 1000


def collect(doors: Doors, terms: CollectTerms, progress: Progress, *, dry_run: bool = True) -> CollectReport:
    """Collect once, and return what was done.

    Raises:
        InvalidInputError: more than the allowed share of the store would go; nothing was condemned or deleted. A dry run says
            so in its report.
        FormatError, CorruptionError: as `vds.engine.guards.check_collectable`; nothing was done.
        RecordDivergedError: another index has taken this store over; nothing more was deleted.
    """
    terms.check()
    progress.stage("checking")
    check_collectable(doors, dry_run=dry_run)
    if dry_run:
        return _foresee(doors, terms)
    finished = finish_deleting(doors, progress)
    aborted = _abort_dead(doors)
    progress.stage("counting")
    count_everything(doors)
    moved = _set_aside(doors)
    with doors.index.read() as connection:
        store_bytes = measure_store(connection, doors.store.id).size_bytes
    _check_share(terms, store_bytes, [*_list_dead(doors), *_list_due(doors, terms)])
    progress.stage("condemning")
    again = _displace_erased(doors)
    dead, mostly = _condemn(doors, progress)
    mostly += [use for use in _measure(doors, again) if use.used_bytes and use not in mostly]
    repacked = repack(doors, mostly, author=terms.author, progress=progress) if terms.repacks else Repacked()
    progress.stage("deleting")
    before_us = _grace_end_us(doors, terms)
    shorter = doors.index.run(
        lambda connection: collect_entries(connection, doors.store.id, before_us)
    )  # names first, bytes last
    due = _list_due(doors, terms)
    deleted = delete_condemned(doors, due, why="gc", author=terms.author, progress=progress)
    abandoned = _delete_abandoned(doors, terms, progress)
    _shorten_histories(doors, shorter)
    left = {**finished.left, **deleted.left, **abandoned.left}
    waiting = _list_waiting(doors)
    return CollectReport(
        aborted_uploads=aborted,
        entries_set_aside=moved,
        condemned=len(dead),
        condemned_bytes=_sum(dead),
        repacked=repacked.emptied,
        repacked_bytes=repacked.copied_bytes,
        deleted=finished.keys + deleted.keys,
        deleted_bytes=finished.size_bytes + deleted.size_bytes,
        abandoned=abandoned.keys,
        waiting=len(waiting),
        waiting_bytes=_sum(waiting),
        store_bytes=store_bytes,
        left=left,
        condemned_keys=_keys(dead),
        deleted_keys=[key for key in _keys(due) if key not in left],
    )


def _abort_dead(doors: Doors) -> int:
    """End the uploads of writers that are gone: of dead processes of this machine, and those that expired or fell silent."""
    with doors.index.read() as connection:
        dead = [upload_id for upload_id, process in list_processes(connection, doors.store.id) if is_gone(process)]
    gone = doors.index.run(partial(abort_uploads, upload_ids=dead)) if dead else 0
    return gone + doors.index.run(lambda connection: abort_silent_uploads(connection, doors.store.id))


def _displace_erased(doors: Doors) -> list[int]:
    """Take what was erased, and came back with an upload that was just finishing, out of the index; return its blobs."""
    with doors.index.read() as connection:
        digests = list_erased_placed(connection, doors.store.id)
    found = [doors.index.run(partial(displace, store_id=doors.store.id, digest=digest)) for digest in digests]
    return sorted({blob_id for blob_id in found if blob_id is not None})


def _measure(doors: Doors, blob_ids: Sequence[int]) -> list[BlobUse]:
    with doors.index.read() as connection:
        return measure_uses(connection, doors.store.id, blob_ids) if blob_ids else []


def _shorten_histories(doors: Doors, namespace_ids: Sequence[int]) -> None:
    """Where the oldest versions went: keep a rebuild from replaying them, and have their change lists looked at."""
    for namespace_id in namespace_ids:
        with doors.index.read() as connection:
            oldest = find_oldest_left(connection, doors.store.id, namespace_id)
        if oldest > 1:
            shorten_history(doors, namespace_id, oldest)
        doors.index.run(partial(mark_unneeded_lists, store_id=doors.store.id, namespace_id=namespace_id))


def _sum(blobs: Sequence[BlobUse]) -> int:
    return sum(blob.size_bytes for blob in blobs)


def _keys(blobs: Sequence[BlobUse]) -> list[str]:
    return [blob.key for blob in blobs[:KEYS_SHOWN_MAX]]


def _foresee(doors: Doors, terms: CollectTerms) -> CollectReport:
    """Return what a run would do, by a look at every entry: an answer of its own, not a rehearsal of the counting."""
    with doors.index.read() as connection:
        gaps = [gap for found, _ in _plan_set_aside(connection, doors.store.id, counted=False) for gap in found]
        partly = find_partly_used(connection, doors.store.id, gaps)
        store_bytes = measure_store(connection, doors.store.id).size_bytes
        abandoned = list_abandoned(connection, doors.store.id, _LIST_MAX)
    dead = [blob for blob in partly if not blob.used_bytes]
    mostly = [blob for blob in partly if terms.repacks and is_mostly_dead(blob)]
    due, waiting = _list_due(doors, terms), _list_waiting(doors)
    refusal = ""
    try:
        _check_share(terms, store_bytes, [*dead, *due])
    except InvalidInputError as err:
        refusal = err.message
    return CollectReport(
        condemned=len(dead),
        condemned_bytes=_sum(dead),
        repacked=len(mostly),
        repacked_bytes=sum(blob.used_bytes for blob in mostly),
        deleted=len(due),
        deleted_bytes=_sum(due),
        abandoned=len(abandoned),
        waiting=len(waiting) - len(due),
        waiting_bytes=_sum(waiting) - _sum(due),
        store_bytes=store_bytes,
        condemned_keys=_keys(dead),
        deleted_keys=_keys(due),
        refusal=refusal,
        dry_run=True,
    )


def _plan_set_aside(connection: Connection, store_id: int, *, counted: bool = True) -> Iterator[tuple[list[Gap], list[int]]]:
    """Yield, by namespace, the gaps that expired versions leave, and those versions; what an open upload began from is left."""
    ends = {owner: low for owner, low, _ in list_uncounted(connection, store_id)} if counted else {}
    for namespace_id, numbers in list_expired_uncollected(connection, store_id).items():
        end = min(find_oldest_base(connection, store_id, namespace_id), ends.get(namespace_id, OPEN))
        kept = list_kept_numbers(connection, store_id, namespace_id)
        gaps = [gap for gap in plan_gaps(namespace_id, kept, numbers) if gap.high <= end]
        if gaps:
            yield gaps, numbers


def _set_aside(doors: Doors) -> int:
    """Set aside what only expired versions held, and return how many entries that is."""
    moved = 0
    with doors.index.read() as connection:
        planned = list(_plan_set_aside(connection, doors.store.id))
    for gaps, _ in planned:
        for some in batched(gaps, GAPS_A_TRANSACTION):
            moved += doors.index.run(partial(_set_aside_some, doors.store.id, some))
    return moved


def _set_aside_some(store_id: int, gaps: list[Gap], connection: Connection) -> int:
    """Set aside some gaps of a namespace, unless an undo or an upload came between; in the caller's transaction."""
    take_turn(connection, store_id)  # before a look at what is to be done
    now = {gap: numbers for found, numbers in _plan_set_aside(connection, store_id) for gap in found}
    still = [gap for gap in gaps if gap in now]
    if not still:
        return 0
    numbers = [number for number in now[still[0]] if any(gap.low < number < gap.high for gap in still)]
    return set_aside(connection, store_id, still, numbers)


def _list_dead(doors: Doors) -> list[BlobUse]:
    """Return the unchecked blobs that nobody uses, as far as one can tell without holding them."""
    dead: list[BlobUse] = []
    for uses in _unchecked(doors):
        dead.extend(use for use in uses if not use.used_bytes)
    return dead


def _unchecked(doors: Doors) -> Iterator[list[BlobUse]]:
    after = 0
    while True:
        with doors.index.read() as connection:
            blob_ids = list_unchecked(connection, doors.store.id, after)
            uses = measure_uses(connection, doors.store.id, blob_ids)
        if not blob_ids:
            return
        after = blob_ids[-1]
        yield uses


def _condemn(doors: Doors, progress: Progress) -> tuple[list[BlobUse], list[BlobUse]]:
    """Condemn every unchecked blob that nobody uses, and return them, and the packs that are mostly dead."""
    dead: list[BlobUse] = []
    mostly: list[BlobUse] = []
    for uses in _unchecked(doors):
        gone, kept = doors.index.run(partial(condemn, store_id=doors.store.id, blob_ids=[use.blob_id for use in uses]))
        dead.extend(gone)
        mostly.extend(use for use in kept if is_mostly_dead(use))
        progress.add(files=len(uses), bytes=_sum(gone))
    return dead, mostly


def _check_share(terms: CollectTerms, store_bytes: int, going: Sequence[BlobUse]) -> None:
    share = _sum(going) / store_bytes if store_bytes else 0.0
    if share > terms.max_share:
        enough = min(1.0, math.ceil(share * 100) / 100)
        raise InvalidInputError(
            f"{share:.0%} of the store's {store_bytes} bytes would go, the limit is {terms.max_share:.0%}",
            hint=f"look at what vds gc says, and if that is meant: vds gc --yes --max-share {enough}",
        )


def _grace_end_us(doors: Doors, terms: CollectTerms) -> int:
    """Return the moment up to which what was set aside or condemned has had its grace, by the database's clock."""
    with doors.index.read() as connection:
        return now_us(connection) - int(terms.grace_hours * _HOUR_US)


def _list_due(doors: Doors, terms: CollectTerms) -> list[BlobUse]:
    before_us = _grace_end_us(doors, terms)
    with doors.index.read() as connection:
        return list_condemned(connection, doors.store.id, before_us, _LIST_MAX)


def _list_waiting(doors: Doors) -> list[BlobUse]:
    with doors.index.read() as connection:
        return list_condemned(connection, doors.store.id, OPEN, _LIST_MAX)


def _delete_abandoned(doors: Doors, terms: CollectTerms, progress: Progress) -> Deleted:
    with doors.index.read() as connection:
        abandoned = list_abandoned(connection, doors.store.id, _LIST_MAX)
    return delete_abandoned(doors, abandoned, author=terms.author, progress=progress)
