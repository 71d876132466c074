"""Make a version of what is staged: plan, write the change list, commit, publish.

Bytes before names: the objects are in the container before this begins, the change list before the commit, the journal record
before the acknowledgement. Planning and writing happen outside every lock; when someone else commits first in a way that alters
the plan, it is made again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from vds.blobs.objects import fresh_ulid
from vds.engine.checkpoint import keep_tail_short
from vds.engine.doors import Doors
from vds.engine.journal import check_still_ours, publish
from vds.engine.listspool import ListSpool
from vds.errors import ConflictError, OutcomeUnknownError, UnavailableError, VdsError
from vds.index.commit import Committed, CommitTerms, PlanAgain, Planned, commit_staged, find_commit_place
from vds.index.database import Connection
from vds.index.gaps import check_line_whole
from vds.index.manifests import SentList
from vds.index.needs import BlobsGone, list_needs
from vds.index.placements import add_pending_blob, revive_blobs
from vds.index.plan import Area, Counts, count_changes, find_clashes, read_changes
from vds.index.stores import read_namespace
from vds.index.sweep import count_rows, sweep_few, sweep_rows
from vds.model.manifest import ChangeListEncoder, changes_key
from vds.model.version import INLINE_CHANGES_BYTES_MAX, ChangeListRef
from vds.pipeline import Lane

ROUNDS_MAX = 200
"""How often a plan is made again. Each round means that someone else's commit went through, so the store as a whole moves on."""

ANSWER_TRIES = 6
"""How often the same commit is asked for again after its answer was lost: about 12 s, longer than a database takes to fail over
to a warm standby on the same network."""

SWEEPS_MAX = 1000
"""How many times a commit sweeps: five million rows. Whatever is left then, the next one takes."""


SWEEP_EVERY = 16
"""Of so many versions one looks for the rows that others left; its own each takes away."""

COUNT_CHANGES_MIN = 50_000
"""From how many changes on the tables are counted anew, which takes some tenths of a second."""


class ObjectsGoneError(UnavailableError):
    """Objects this upload counted on were collected before its commit. Nothing was committed; sending them again helps."""

    kind = "objects-gone"


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What to commit.

    Attributes:
        area: the staged part and the namespace.
        terms: what the operation allows.
        plan: flags (or stages) the rows against a base version; called again for each newer base.
        check_fresh: refuses an index that is older than its store; called before anything is written for the commit.
        finish_bytes: returns once every object is durable and placed; called after the change list was written, which may go
            out beside the last of them.
    """

    area: Area
    terms: CommitTerms
    plan: Callable[[Connection, int], None]
    check_fresh: Callable[[], None]
    finish_bytes: Callable[[], None] = lambda: None


def commit(doors: Doors, request: CommitRequest) -> Committed:
    """Make the version and return once it is visible.

    Raises:
        ConflictError: others committed what this operation does not allow; nothing was committed.
        InvalidInputError: more than half of the files would go.
        ObjectsGoneError: an object was collected meanwhile.
        OutcomeUnknownError: the answer of the database was lost, or the record could not be published.
        UnavailableError: nothing was committed.
    """
    for _ in range(ROUNDS_MAX):
        base = request.terms.expected_parent
        if base is None:
            with doors.index.read() as connection:
                base = read_namespace(connection, request.area.namespace_id).head
        planned = plan(doors, request, base)
        outcome = _commit_once(doors, request, planned)
        if isinstance(outcome, Committed):
            _acknowledge(doors, request, outcome)
            with Lane[None](doors.blobs.pace) as lane:
                if outcome.created:  # beside the sweeping, as it is one answer of the container to wait for
                    lane.submit(partial(_check_still_ours, doors, request, outcome.number))
                _sweep(doors, request, outcome)
                lane.finish()
            if outcome.created:
                keep_tail_short(doors, request.area.namespace_id, outcome.number, outcome.counts.total)
            return outcome
        if isinstance(outcome, BlobsGone):
            _revive(doors, outcome)
    raise UnavailableError(
        f"others committed to the same paths {ROUNDS_MAX} times while this commit was being made",
        hint="try again when the namespace is less busy",
    )


def plan(doors: Doors, request: CommitRequest, base: int) -> Planned:
    """Work out what the commit changes against `base` and write its change list.

    Raises:
        ConflictError: a path would be a file and a directory at once.
    """
    counts = foresee(doors, request, base)
    if counts.total == 0:
        request.finish_bytes()
        return Planned(base, counts, ChangeListRef(ChangeListEncoder().digest, 0, inline=b""))
    request.check_fresh()
    changes, sent = _write_changes(doors, request.area, request.terms.upload_id, counts.total)
    request.finish_bytes()  # objects before the version that names them
    with doors.index.read() as connection:
        needs = list_needs(connection, request.area)
    return Planned(base, counts, changes, needs, sent)


def foresee(doors: Doors, request: CommitRequest, base: int) -> Counts:
    """Work out what the commit changes against `base`; nothing is written to the container.

    Raises:
        ConflictError: a path would be a file and a directory at once.
        CorruptionError: nothing seems to change, but what is in the base is not known.
    """
    area = request.area
    doors.index.run(lambda connection: request.plan(connection, base))
    with doors.index.read() as connection:  # nobody else writes these rows, and the base stays as it is
        counts = count_changes(connection, area, base)
        clashes = find_clashes(connection, area, base, counts.total) if counts.added else []
        if counts.total == 0:  # else whoever goes on asks before anything is written
            check_line_whole(connection, read_namespace(connection, area.namespace_id))
    if clashes:
        raise ConflictError(
            f"{clashes[0]!r} would be a file and a directory at once",
            paths=clashes,
            hint="upload to another place with target_path, or remove one of the two first",
        )
    return counts


def _write_changes(doors: Doors, area: Area, upload_id: int, count: int) -> tuple[ChangeListRef, SentList | None]:
    """Encode the flagged rows, and put them into a blob when they are too many for the record.

    Raises:
        NoSpaceError: a long list waits in a temporary file, and its disk cannot take it.
    """
    with ListSpool() as spool:
        with doors.index.read() as connection:
            spool.fill(read_changes(connection, area, count))
        if spool.size_bytes <= INLINE_CHANGES_BYTES_MAX:
            return ChangeListRef(spool.digest, spool.count, inline=spool.read()), None
        key = changes_key(spool.digest, fresh_ulid())
        blob_id = doors.index.run(lambda connection: add_pending_blob(connection, doors.store.id, key, upload_id))
        return ChangeListRef(spool.digest, spool.count, key=key), spool.put(doors.blobs, key, blob_id)


class _RolledBackError(Exception):
    """Carries an outcome out of a transaction that must not be committed."""

    def __init__(self, outcome: PlanAgain | BlobsGone) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


def _commit_once(doors: Doors, request: CommitRequest, planned: Planned) -> Committed | PlanAgain | BlobsGone:
    def work(connection: Connection) -> Committed:
        outcome = commit_staged(connection, request.area, planned, request.terms)
        if not isinstance(outcome, Committed):
            raise _RolledBackError(outcome)
        return outcome

    for attempt in range(ANSWER_TRIES):
        try:
            return doors.index.run(work, commit_id=request.terms.commit_id)
        except _RolledBackError as err:
            return err.outcome
        except OutcomeUnknownError:
            # The commit id makes asking again safe: if the first one went through, this one returns its version.
            if attempt + 1 == ANSWER_TRIES:
                raise
        except UnavailableError as err:
            if attempt == 0:
                raise  # never got as far as its COMMIT
            if attempt + 1 == ANSWER_TRIES:
                _raise_unknown(request, err)
        time.sleep(0.2 * 2**attempt * random.uniform(0.7, 1.3))  # noqa: S311 - jitter
    raise AssertionError("unreachable: the last attempt returns or raises")


@contextmanager
def looking_back(committed: Committed, commit_id: str) -> Iterator[None]:
    """Have an error of what only looks at a new version say that it is made: taken for undone, it would be made again.

    Raises:
        OutcomeUnknownError: in place of any other of our errors.
    """
    try:
        yield
    except OutcomeUnknownError:
        raise
    except VdsError as err:
        if not committed.created:
            raise
        raise OutcomeUnknownError(
            f"version {committed.number} is made, but could not be looked at: {err}",
            commit_id=commit_id,
            hint="ask store.outcome(commit_id)",
        ) from err


def _check_still_ours(doors: Doors, request: CommitRequest, number: int) -> None:
    try:
        check_still_ours(doors, f"version {number}", request.terms.commit_id)
        with doors.index.read() as connection:
            place = find_commit_place(connection, doors.store.id, request.terms.commit_id)
        if place is None or place.number != number:
            raise OutcomeUnknownError(
                f"version {number} is written, but the index knows it no more: it was put back to an earlier state meanwhile",
                commit_id=request.terms.commit_id,
                hint="vds index rebuild",
            )
    except OutcomeUnknownError:
        raise
    except VdsError as err:
        raise OutcomeUnknownError(
            f"version {number} is written, but the container did not say whether this index still serves the store: {err}",
            commit_id=request.terms.commit_id,
            hint="ask store.outcome(commit_id)",
        ) from err


def _raise_unknown(request: CommitRequest, err: UnavailableError) -> NoReturn:
    raise OutcomeUnknownError(
        f"the index went away while committing: {err}",
        commit_id=request.terms.commit_id,
        hint="ask store.outcome(commit_id) before trying again",
    ) from err


def _revive(doors: Doors, gone: BlobsGone) -> None:
    doors.index.run(lambda connection: revive_blobs(connection, gone.condemned))
    if gone.missing:
        raise ObjectsGoneError(f"{len(gone.missing)} objects were collected before the commit", hint="upload again")


def _sweep(doors: Doors, request: CommitRequest, committed: Committed) -> None:
    """Delete what this commit staged, and what others left; a crash before it leaves rows that a later commit takes."""
    with suppress(VdsError):  # the version is there, and not one row of these matters to it
        is_done = doors.index.run(lambda connection: sweep_few(connection, request.area, request.terms.upload_id))
        if is_done and committed.number % SWEEP_EVERY:
            return
        for _ in range(SWEEPS_MAX):
            if not doors.index.run(lambda connection: sweep_rows(connection, doors.store.id)):
                break
        if committed.counts.total >= COUNT_CHANGES_MIN:
            doors.index.run(count_rows)


def _acknowledge(doors: Doors, request: CommitRequest, committed: Committed) -> None:
    if committed.number == 0:
        return
    try:
        publish(doors, "version", request.area.namespace_id, committed.number, made=committed.record)
    except OutcomeUnknownError as err:
        err.commit_id = request.terms.commit_id
        raise
    except VdsError as err:  # of whatever kind: the record is queued, and will show once someone can write it
        raise OutcomeUnknownError(
            f"version {committed.number} is committed, but its journal record could not be written: {err}",
            commit_id=request.terms.commit_id,
            hint="it becomes visible when a writer next opens the store; ask store.outcome(commit_id)",
        ) from err
