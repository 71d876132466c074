"""Check a store: its index against its container, its records against each other, its bytes against their digests.

What is found is reported, never raised; an error means that the question could not be answered. Whoever writes and reads the
store meanwhile is not held up, and causes no findings.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from blake3 import blake3

from vds.blobs.driver import Blob
from vds.blobs.records import Found
from vds.engine.doors import Doors
from vds.errors import InvalidInputError
from vds.files.fsckprogress import FsckProgress, progress_directory
from vds.index.gaps import LostRow
from vds.index.inspect import BlobRow, VersionFacts
from vds.index.stores import NamespaceRow
from vds.model.version import VersionRecord
from vds.ops.checkadopted import Present
from vds.ops.checkblobs import check_blobs
from vds.ops.checkbytes import look_at_damage, read_blobs
from vds.ops.checklines import check_events, check_journal, check_queue
from vds.ops.checklog import check_claims, check_formats, check_store_log
from vds.ops.checkreplay import NamespaceLists
from vds.ops.checktables import check_tables, list_lost
from vds.ops.damagenotes import DamageNotes
from vds.ops.damagetouch import name_touched
from vds.ops.findings import Examined, Inspection, Problem
from vds.progress import Progress

SAVE_EVERY_S = 10.0
"""How much of a long reading a kill costs at most."""

SHARDS_MAX = 10_000
_BYTE_KINDS = ("object-damaged", "list-damaged", "blob-mislabelled", "checks-differ")


@dataclass(frozen=True, slots=True)
class FsckTerms:
    """What to check.

    Attributes:
        structure: that index, records and listing agree.
        chain: every record and change list, and that they add up to the index's entries.
        sample: read the bytes of a random share of the blobs.
        shard: read those of the i-th of n parts, which are the same whenever they are asked for.
        full: read all bytes.
        seed: chooses the sample; a random one when empty.
        resume: go on where a killed check of all bytes, or of a shard, was on this machine.
        dry_run: write nothing, in the index or in the container.
    """

    structure: bool = True
    chain: bool = False
    sample: float | None = None
    shard: tuple[int, int] | None = None
    full: bool = False
    seed: str = ""
    resume: bool = True
    dry_run: bool = False

    def check(self) -> FsckTerms:
        """Return the terms if they make sense.

        Raises:
            InvalidInputError: a share that is none, a shard that is none, or nothing to check.
        """
        if self.sample is not None and not (math.isfinite(self.sample) and 0 < self.sample <= 1):
            raise InvalidInputError(f"sample {self.sample!r} is not a share of the blobs", hint="sample=0.01")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1] <= SHARDS_MAX:
            raise InvalidInputError(f"{self.shard!r} is not a shard", hint="shard=(3, 7) is the third of seven")
        if self.full and (self.sample is not None or self.shard is not None):
            raise InvalidInputError("full reads everything: sample and shard choose from it", hint="leave out one of them")
        if not (self.structure or self.chain or self.reads_bytes):
            raise InvalidInputError("nothing is to be checked", hint="structure=True, chain=True, sample=0.01 or full=True")
        return self

    @property
    def reads_bytes(self) -> bool:
        """Whether bytes of objects are read."""
        return self.full or self.sample is not None or self.shard is not None

    @property
    def resumable(self) -> str:
        """The name of a check that can go on after a kill; empty for one that cannot."""
        if self.sample is not None:
            return ""
        return "full" if self.full else f"shard-{self.shard[0]}-of-{self.shard[1]}" if self.shard is not None else ""


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What a check found.

    Attributes:
        ok: whether nothing is damaged, or all of it was mended. Garbage and notes are no damage.
        problems: what was found, damage first; at most ten thousand of a kind.
        counts: kind → how many there are, all counted.
        mended: kind → how many of them were mended.
        examined: how much was looked at.
        seed: what chose the sample; empty when there was none.
        resumed: whether it went on from where a killed one was.
    """

    ok: bool
    problems: tuple[Problem, ...]
    counts: Mapping[str, int]
    mended: Mapping[str, int]
    examined: Examined
    seed: str = ""
    resumed: bool = False


@dataclass
class _Choice:
    """Which blobs are read."""

    terms: FsckTerms
    seed: str = ""
    after: str = ""
    again: frozenset[str] = field(default_factory=frozenset)

    def takes(self, key: str) -> bool:
        if not self.terms.reads_bytes or (key <= self.after and key not in self.again):
            return False
        if self.terms.shard is not None and _number(key) % self.terms.shard[1] != self.terms.shard[0] - 1:
            return False
        return self.terms.sample is None or _number(self.seed + key) < self.terms.sample * 2**64

    def filter(self, there: Iterable[Present]) -> Iterator[tuple[BlobRow, Blob]]:
        """Yield the blobs to read. Of a sample that would be none, one is taken: "whole" must have been looked at."""
        spare: Present | None = None
        chosen = False
        for one in there:
            if one.is_cut or self.takes(one.row.key):
                chosen = True
                yield one.row, one.blob
            elif spare is None:
                spare = one
        if spare is not None and not chosen and self.terms.sample is not None:
            yield spare.row, spare.blob


def _number(text: str) -> int:
    return int.from_bytes(blake3(text.encode()).digest()[:8], "big")


def fsck(
    doors: Doors,
    terms: FsckTerms,
    progress: Progress,
    *,
    mend: Callable[[Inspection], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FsckReport:
    """Check a store.

    Args:
        doors: the store; opened for reading, nothing is noted in its index.
        terms: what to check.
        progress: is told of records, blobs and bytes.
        mend: repairs what was found, before the report is made.
        clock: seconds that never go back.

    Raises:
        InvalidInputError: the terms make no sense.
        ConflictError: another check of the same kind runs on this machine.
        UnavailableError: container or index do not answer.
    """
    terms.check()
    run = Inspection(doors, progress, writes=not (doors.read_only or terms.dry_run))
    notes = DamageNotes(run)
    choice = _Choice(terms, (terms.seed or secrets.token_hex(4)) if terms.sample is not None else "")
    progress.stage("known damage")
    look_at_damage(run, notes)
    lost = list_lost(run)
    if terms.structure or terms.chain:
        _check_records(run, lost, reads_lists=terms.chain)
    if terms.structure:
        progress.stage("tables")
        check_tables(run)
    resumed = _check_container(run, notes, choice, clock) if terms.structure or terms.reads_bytes else False
    notes.flush()
    name_touched(run)
    if mend is not None:
        mend(run)
    found = run.findings
    return FsckReport(
        found.is_well, tuple(found.problems()), dict(found.counts), dict(found.mended), run.examined, choice.seed, resumed
    )


def _check_records(run: Inspection, lost: Iterable[LostRow], *, reads_lists: bool) -> None:
    run.progress.stage("records")
    check_formats(run)
    check_store_log(run)
    check_claims(run)
    lists: NamespaceLists | None = None
    current = 0

    def on_version(namespace: NamespaceRow, facts: VersionFacts, found: Found[VersionRecord] | None) -> None:
        nonlocal lists, current
        if lists is None or current != namespace.id:
            if lists is not None:
                lists.finish()
            lists, current = NamespaceLists(run, namespace, lost, reads=reads_lists), namespace.id
        lists.take(facts, found)

    check_journal(run, on_version)
    if lists is not None:
        lists.finish()
    check_events(run)
    check_queue(run)


def _check_container(run: Inspection, notes: DamageNotes, choice: _Choice, clock: Callable[[], float]) -> bool:
    """Hold the listing against the index, read what is chosen, and return whether this went on from an earlier run."""
    terms, doors = choice.terms, run.doors
    keeps = terms.resume and terms.resumable
    run.progress.stage("bytes" if terms.reads_bytes else "blobs")
    with FsckProgress(progress_directory() if keeps else None, doors.store.uid, terms.resumable or "none") as kept:
        resumed = bool(keeps) and _go_on(run, kept, choice)
        at, saved_s = choice.after, clock()
        with closing(read_blobs(run, choice.filter(check_blobs(run, notes)))) as verdicts:
            for verdict in verdicts:
                notes.take(verdict)
                at = max(at, verdict.row.key)
                if clock() - saved_s >= SAVE_EVERY_S:
                    # The index first: what is not in the file is only read again.
                    notes.flush()
                    _save(run, kept, at)
                    saved_s = clock()
        notes.flush()
        kept.remove()
    return resumed


def _go_on(run: Inspection, kept: FsckProgress, choice: _Choice) -> bool:
    """Begin where an earlier run was; what it found damaged is read again, as it may be whole by now."""
    state = kept.load()
    try:
        if state is None or state["incarnation"] != run.doors.store.incarnation:
            return False
        after, again = str(state["after"]), frozenset(map(str, state["again"]))
        objects, size_bytes = int(state["objects"]), int(state["size_bytes"])
    except (KeyError, TypeError, ValueError):
        return False
    choice.after, choice.again = after, again
    run.examined.objects += objects
    run.examined.size_bytes += size_bytes
    return True


def _save(run: Inspection, kept: FsckProgress, at: str) -> None:
    kept.save(
        {
            "incarnation": run.doors.store.incarnation,
            "after": at,
            "again": sorted({problem.key for problem in run.findings.of(*_BYTE_KINDS) if problem.key}),
            "objects": run.examined.objects,
            "size_bytes": run.examined.size_bytes,
        }
    )
