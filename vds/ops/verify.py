"""Read a version's bytes again and hold them against their digests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from vds.blobs.objects import Placement
from vds.blobs.reads import Wanted, plan_reads, read_chunks, read_range
from vds.engine.doors import Doors
from vds.engine.view import missing_error
from vds.errors import CorruptionError
from vds.index.entries import At, EntryRow, read_entries
from vds.index.erasure import find_erased
from vds.index.placements import find_placements
from vds.model.batch import batched
from vds.model.digest import EMPTY_RAW
from vds.progress import Progress

LARGE_BYTES_MIN = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        files: how many entries were checked.
        bytes: how many bytes were read.
        failures: path → what is wrong with it.
    """

    files: int
    bytes: int
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every entry that was checked is whole."""
        return not self.failures


def verify(doors: Doors, at: At, path: str, progress: Progress, *, sample: float | None = None) -> VerifyReport:
    """Check every entry at or below `path`, or a random share of them; each object is read once a batch.

    Damage is reported, not raised.
    """
    files = size_bytes = 0
    failures: dict[str, str] = {}
    with doors.index.read() as connection:
        for batch in batched(_sampled(read_entries(connection, at, path), sample), 1000):
            placements = find_placements(connection, doors.store.id, {row.digest for row in batch})
            erased = find_erased(connection, doors.store.id, {row.digest for row in batch} - placements.keys())
            wanted: dict[bytes, Placement] = {}
            faults: dict[bytes, str] = {}
            for row in batch:
                if row.digest == EMPTY_RAW:
                    continue
                found = placements.get(row.digest)
                if found is None or found.length_bytes != row.size_bytes:
                    faults[row.digest] = str(erased[row.digest].error() if row.digest in erased else missing_error(row))
                else:
                    wanted[row.digest] = Placement(found.key, found.offset_bytes, found.length_bytes)
            faults.update(_check_objects(doors, wanted))
            failures.update({row.path: faults[row.digest] for row in batch if row.digest in faults})
            files += len(batch)
            size_bytes += sum(placement.length_bytes for placement in wanted.values())
            progress.add(files=len(batch), bytes=sum(row.size_bytes for row in batch))
    return VerifyReport(files, size_bytes, failures)


def _sampled(rows: Iterator[EntryRow], sample: float | None) -> Iterator[EntryRow]:
    """Yield a random share of the rows, another one each time, and never nothing: "whole" must have been looked at."""
    chance = random.SystemRandom()
    spare: EntryRow | None = None
    chosen = False
    for row in rows:
        if sample is None or chance.random() < sample:
            chosen = True
            yield row
        elif spare is None:
            spare = row
    if not chosen and spare is not None:
        yield spare


def _check_objects(doors: Doors, wanted: dict[bytes, Placement]) -> dict[bytes, str]:
    """Return what is wrong with each damaged object."""
    faults: dict[bytes, str] = {}
    small = {digest: place for digest, place in wanted.items() if place.length_bytes < LARGE_BYTES_MIN}
    for read in plan_reads(Wanted(digest, place) for digest, place in small.items()):
        try:
            read_range(doors.blobs, read)
        except CorruptionError:
            for member in read.members:  # one of them; each by itself says which
                faults.update(_check_object(doors, member.digest_raw, member.placement))
    for digest, place in wanted.items():
        if digest not in small:
            faults.update(_check_object(doors, digest, place))
    return faults


def _check_object(doors: Doors, digest: bytes, placement: Placement) -> dict[bytes, str]:
    try:
        for _ in read_chunks(doors.blobs, placement, digest):
            pass
    except CorruptionError as err:
        return {digest: str(err)}
    return {}
