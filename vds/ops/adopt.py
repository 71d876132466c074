"""Take plain blobs, which others wrote, into a version by reference: no byte is moved, copied or renamed.

    listing → known by url, name and etag?  yes: its digest
                                            no: read once, hashed, its pieces checked; every read carries the etag
            → content placed?  in a blob of our own, or in an adopted one that is as it was: a row
                               else: a record below adopted/ → the placement → a row
            → commit, as any upload

The record is there before rows refer to it: a crash leaves records that nobody refers to, which are harmless.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from blake3 import blake3

from vds.blobs.objects import fresh_ulid, put_record
from vds.blobs.outside import RoutedDriver
from vds.blobs.plaindriver import PlainBlob, PlainChangedError
from vds.blobs.reads import READ_BYTES_MAX
from vds.engine.commit import CommitRequest
from vds.engine.doors import Doors
from vds.engine.outbox import Tally
from vds.engine.resume import HEARTBEAT_S
from vds.engine.session import Intent, Session, request
from vds.errors import ConflictError, CorruptionError
from vds.index.adopted import NewAdopted, add_adopted, find_known
from vds.index.damage import DamageRow, find_damaged
from vds.index.database import Connection
from vds.index.erasure import find_erased
from vds.index.placements import PlacementRow, find_placements
from vds.index.plan import Area, Left, find_left, mark_changed
from vds.index.schema import staged
from vds.index.staging import WRITTEN, StagedRow, heartbeat
from vds.model.adoption import (
    ADOPTED_PREFIX,
    ROWS_BYTES_MAX,
    ROWS_MAX,
    AdoptedBlob,
    AdoptionRecord,
    adopted_key,
    mark_of,
    record_key,
)
from vds.model.batch import batched, grouped
from vds.model.checks import Checks, fold, has_checks, leaf_checks, piece_bytes
from vds.model.digest import EMPTY_RAW
from vds.model.entry import MODE_FILE
from vds.model.path import EntryPath
from vds.ops.adoptsource import AdoptSource, Surveyed, check_failures, is_folder
from vds.pipeline import TRANSFER_WORKERS, parallel_map
from vds.progress import Progress

GROUP_BYTES = 1024 * 1024 * 1024
"""After so many bytes were read, what was learnt of them is kept: who does it again after a crash does not read them again."""
LOOKUP_BLOBS = 500
VERIFIED_MAX = 100_000
_AHEAD_BYTES = TRANSFER_WORKERS * READ_BYTES_MAX


class _Item(NamedTuple):
    """A blob on its way: with its digest when it is known without reading."""

    blob: PlainBlob
    path: EntryPath
    digest: bytes | None = None


class _Read(NamedTuple):
    item: _Item
    digest: bytes
    checks: Checks | None = None
    failure: str = ""


class Adopter:
    """Adopts the blobs of one source; used by one thread.

    Args:
        doors: the store.
        opened: the session that what is placed belongs to; None for a dry run without one.
        source: which blobs.
        progress: is told of files and bytes.
        is_dry: read and look up, but place nothing.
    """

    def __init__(
        self, doors: Doors, opened: Session | None, source: AdoptSource, progress: Progress, *, is_dry: bool = False
    ) -> None:
        assert opened or is_dry
        self.tally = Tally()
        self._doors = doors
        self._opened = opened
        self._source = source
        self._progress = progress
        self._is_dry = is_dry
        self._failures: dict[str, str] = {}
        self._verified: set[bytes] = set()
        self._beat_s = time.monotonic()

    def stage(self, found: Surveyed) -> int:
        """Place what is new, stage a row for each blob where there is a session, and return how many blobs there were.

        Raises:
            UploadError: some blobs could not be read; each that was met is named. Nothing is visible.
        """
        count = 0
        reads = parallel_map(
            self._read,
            self._items(found),
            weigh=lambda item: min(item.blob.size_bytes, READ_BYTES_MAX) if item.digest is None else 0,
            in_flight_bytes_max=_AHEAD_BYTES,
            ordered=False,
            on_wait=self._beat,
        )
        with closing(reads):
            for group in grouped(reads, _weigh_read, count_max=ROWS_MAX, bytes_max=GROUP_BYTES):
                whole = [read for read in group if not read.failure]
                self._failures.update((read.item.blob.name, read.failure) for read in group if read.failure)
                self._refuse_erased(whole)
                if not self._failures:
                    self._place(whole)
                    self._stage(whole)
                count += len(whole)
                self._beat()
        check_failures(self._failures)
        return count

    def _items(self, found: Surveyed) -> Iterator[_Item]:
        blobs = (blob for blob in self._source.list() if not is_folder(blob) and not self._is_marker(blob, found))
        for batch in batched(blobs, LOOKUP_BLOBS):
            marks = {blob.name: self._mark(blob) for blob in batch}
            with self._doors.index.read() as connection:
                known = find_known(connection, self._doors.store.id, marks.values())
            for blob in batch:
                path = self._source.path_of(blob.name)
                other = found.renamed.get(path, blob.name)
                if other != blob.name:
                    self._failures[blob.name] = f"has the same path as {other!r}"
                digest = known.get(marks[blob.name]) if blob.size_bytes else EMPTY_RAW
                if digest is not None or not self._failures:  # after a failure nothing more is read
                    yield _Item(blob, path, digest)

    def _is_marker(self, blob: PlainBlob, found: Surveyed) -> bool:
        return not blob.size_bytes and blob.name in found.folders

    def _mark(self, blob: PlainBlob) -> str:
        return mark_of(self._source.container, self._source.place.full_name(blob.name), blob.etag)

    def _read(self, item: _Item) -> _Read:  # in worker threads
        if item.digest is not None:
            return _Read(item, item.digest)
        blob, place = item.blob, self._source.place
        hasher, leaves = blake3(), list[bytes]()

        def read(offset: int) -> bytes:
            return place.read(blob, offset, min(READ_BYTES_MAX, blob.size_bytes - offset))

        offsets = range(0, blob.size_bytes, READ_BYTES_MAX)
        try:
            if len(offsets) == 1:
                hasher.update(piece := read(0))
                leaves.append(leaf_checks(piece))
            else:
                with closing(parallel_map(read, offsets, workers=2, in_flight_max=3)) as pieces:
                    for piece in pieces:
                        hasher.update(piece)
                        leaves.append(leaf_checks(piece))
        except PlainChangedError:
            return _Read(item, b"", failure="was changed or deleted while it was read")
        except ConflictError as err:  # archived, or held by somebody
            return _Read(item, b"", failure=err.message)
        checks = None
        if has_checks(blob.size_bytes):
            step = piece_bytes(blob.size_bytes)
            checks = Checks(step, fold(b"".join(leaves), step))
        return _Read(item, hasher.digest(), checks)

    def _refuse_erased(self, reads: Sequence[_Read]) -> None:
        with self._doors.index.read() as connection:
            erased = find_erased(connection, self._doors.store.id, {read.digest for read in reads})
        for read in reads if erased else ():
            if read.digest in erased:
                self._failures[read.item.blob.name] = str(erased[read.digest].error())

    def _place(self, reads: Sequence[_Read]) -> None:
        """Place the contents that are nowhere yet, or only where they cannot be counted on."""
        first: dict[bytes, _Read] = {}
        for read in reads:
            if read.item.digest is None:
                self.tally.bytes_read += read.item.blob.size_bytes
                first.setdefault(read.digest, read)
        new, broken = self._find_new(first)
        for group in grouped(new, lambda read: len(read.item.blob.name) + 200, count_max=ROWS_MAX, bytes_max=ROWS_BYTES_MAX):
            if not self._is_dry:
                gone = {read.digest for read in group}
                self._write(group, [row for row in broken if row.digest in gone])
            self.tally.objects_new += len(group)
            self.tally.bytes_new += sum(read.item.blob.size_bytes for read in group)
            self._verify(read.digest for read in group)
        size_bytes = sum(read.item.blob.size_bytes for read in reads)
        self.tally.bytes_saved += size_bytes
        self._progress.hashed(len(reads), size_bytes, saved_bytes=size_bytes)

    def _find_new(self, first: dict[bytes, _Read]) -> tuple[list[_Read], list[DamageRow]]:
        """Return those of these contents that are to be placed, and the placements of some that are not what they were."""
        unknown = [digest for digest in first if digest not in self._verified]
        with self._doors.index.read() as connection:
            places = find_placements(connection, self._doors.store.id, unknown)
            damaged = find_damaged(connection, self._doors.store.id, unknown)
        outside = {
            digest: place
            for digest, place in places.items()
            if place.key.startswith(ADOPTED_PREFIX) and place.state in _HELD and digest not in damaged
        }
        broken: dict[bytes, DamageRow] = {}
        with closing(parallel_map(lambda one: (*one, self._find_fault(one[1])), outside.items())) as looks:
            for digest, place, fault in looks:
                if fault:
                    broken[digest] = DamageRow(digest, place.blob_id, fault)
        held = {digest for digest, place in places.items() if place.state in _HELD and digest not in damaged} - set(broken)
        self._verify(held)
        return [first[digest] for digest in unknown if digest not in held], list(broken.values())

    def _find_fault(self, place: PlacementRow) -> str:  # in worker threads
        """Return in what an adopted blob is not what was adopted, or nothing."""
        driver = self._doors.blobs
        assert isinstance(driver, RoutedDriver)
        try:
            outside = driver.find_outside(place.key)
            assert outside is not None, place.key
            found = driver.look_outside(outside)
        except CorruptionError as err:
            return err.message
        if found is not None and (found.etag, found.size_bytes) == (outside.blob.etag, outside.blob.size_bytes):
            return ""
        return f"plain blob {outside.place} was changed or deleted since it was adopted"

    def _verify(self, digests: Iterable[bytes]) -> None:
        if len(self._verified) > VERIFIED_MAX:
            self._verified.clear()  # they are only looked up again
        self._verified.update(digests)

    def _write(self, reads: Sequence[_Read], broken: Sequence[DamageRow]) -> None:
        assert self._opened is not None
        opened, doors, source = self._opened, self._doors, self._source
        opened.freshness.check()
        names = [source.place.full_name(read.item.blob.name) for read in reads]
        blobs = [
            AdoptedBlob(name, read.item.blob.etag, read.item.blob.size_bytes, read.digest)
            for name, read in zip(names, reads, strict=True)
        ]
        body = AdoptionRecord(doors.store.uid, source.container, blobs).encode()
        record = record_key(fresh_ulid(), body)
        put_record(doors.blobs, record, body)
        # A crash here leaves a record that no row refers to: harmless, a rebuild places what it says and collection lets it go.
        rows = [
            NewAdopted(
                adopted_key(record, number),
                self._mark(read.item.blob),
                read.item.blob.etag,
                read.digest,
                one.size_bytes,
                read.checks,
            )
            for number, (read, one) in enumerate(zip(reads, blobs, strict=True))
        ]
        doors.index.run(lambda connection: add_adopted(connection, doors.store.id, opened.upload.id, rows, broken))

    def _stage(self, reads: Sequence[_Read]) -> None:
        if self._opened is None:
            return
        ids = (self._doors.store.id, self._opened.part_id)
        rows: list[StagedRow] = [
            (*ids, read.item.path, WRITTEN, 1, 0, read.digest, read.item.blob.size_bytes, MODE_FILE, _modified_ns(read.item.blob))
            for read in reads
        ]
        self._doors.index.run(lambda connection: self._doors.index.insert_rows(connection, staged, rows))

    def _beat(self) -> None:
        now_s = time.monotonic()
        if self._opened is not None and now_s - self._beat_s >= HEARTBEAT_S:
            self._beat_s, upload_id = now_s, self._opened.upload.id
            self._doors.index.run(lambda connection: heartbeat(connection, upload_id))


_HELD = ("live", "condemned")
"""The states of blobs whose bytes are there; the commit takes condemned ones back into use."""


def _weigh_read(read: _Read) -> int:
    return read.item.blob.size_bytes if read.item.digest is None else 0


def _modified_ns(blob: PlainBlob) -> int:
    return int(blob.modified_at.timestamp()) * 1_000_000_000 + blob.modified_at.microsecond * 1000


@dataclass
class AdoptPlan:
    """Works out what the staged rows of an adoption change."""

    area: Area
    left: Left = field(default_factory=Left)

    def __call__(self, connection: Connection, base: int) -> None:
        """Flag the rows against `base`."""
        mark_changed(connection, self.area, base)
        self.left = find_left(connection, self.area, base, differing=False)

    def request(self, doors: Doors, opened: Session, intent: Intent) -> CommitRequest:
        """Return the commit of these rows: they win over what others committed meanwhile, as those of an upload do."""
        return request(doors, opened, intent, "adopt", on_touched="win", plan=self)
