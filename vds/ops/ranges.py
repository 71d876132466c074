"""Place small objects: many to a request, read into memory that is used again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vds.blobs.driver import BlobDriver
from vds.blobs.packs import MEMBER_BYTES_END
from vds.blobs.reads import RangeRead, Wanted, damage_error, read_into
from vds.buffers import BufferPool, Loan
from vds.errors import CorruptionError
from vds.files.cache import Cache
from vds.files.outcome import Outcome, PlacedFile
from vds.files.placer import Row
from vds.files.placers import Placers
from vds.model.entry import Entry


class ByDigest:
    """Entries by the raw digests of their objects; most objects have one.

    Attributes:
        first: one entry of each object, in the order in which they come.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.first: dict[bytes, Entry] = {}
        self._more: dict[bytes, list[Entry]] = {}
        for entry in entries:
            digest_raw = entry.digest.raw
            if self.first.setdefault(digest_raw, entry) is not entry:
                self._more.setdefault(digest_raw, []).append(entry)

    def of(self, digest_raw: bytes) -> tuple[Entry, ...]:
        """Return the entries of an object."""
        more = self._more.get(digest_raw)
        return (self.first[digest_raw], *more) if more else (self.first[digest_raw],)


@dataclass(frozen=True, slots=True)
class CachedRanges:
    """Ranges of a store's blobs in the cache of this machine.

    Attributes:
        cache: None where there is none.
        store_uid: whose keys these are.
        keeps: whether what is read is put there.
    """

    cache: Cache | None
    store_uid: str
    keeps: bool

    def read(self, read: RangeRead, view: memoryview) -> bool:
        """Fill `view` with a range, which may be damaged, and return whether it was there."""
        if self.cache is None:
            return False
        found = self.cache.find_range(self.store_uid, read.key, read.offset_bytes, read.length_bytes)
        if found is not None:
            view[:] = found
        return found is not None

    def keep(self, read: RangeRead, view: memoryview) -> None:
        """Put a range there that was read from its blob, and is good."""
        if self.cache is None or not self.keeps:
            return
        if read.length_bytes >= MEMBER_BYTES_END and len(read.members) == 1:
            self.cache.put_object(read.members[0].digest_raw, [view], size_bytes=read.length_bytes)
        else:
            self.cache.put_range(self.store_uid, read.key, read.offset_bytes, view)

    def drop(self, read: RangeRead) -> None:
        """Remove a range that is damaged."""
        if self.cache is not None:
            self.cache.drop_range(self.store_uid, read.key, read.offset_bytes, read.length_bytes)


class RangePlacer:
    """Reads ranges and places what is in them; thread-safe.

    Args:
        driver: reads blobs.
        cached: asked first.
        placers: place the files.
        pool: of buffers, each as long as a range may be.
    """

    def __init__(self, driver: BlobDriver, cached: CachedRanges, placers: Placers, pool: BufferPool) -> None:
        self._driver = driver
        self._cached = cached
        self._placers = placers
        self._pool = pool

    def place(self, read: RangeRead, entries: ByDigest) -> Outcome:
        """Make one request, unless the cache has what it asks for, and place every file of its objects.

        Raises:
            UnavailableError, AccessDeniedError, NoSpaceError: files placed so far stay.
        """
        outcome = Outcome()
        loan = self._pool.lend()
        try:
            view = loan.view[: read.length_bytes]
            is_cached = bool(view) and self._cached.read(read, view)
            if is_cached or self._read(read, view, entries, outcome):
                bad = self._place(read, entries, loan, outcome)
                if bad and is_cached:
                    self._cached.drop(read)
                elif view and not bad and not is_cached:
                    self._cached.keep(read, view)
                for item in bad:
                    self._place_again(item, entries, loan, outcome)
        finally:
            loan.release()
        return outcome

    def _place_again(self, item: Wanted, entries: ByDigest, loan: Loan, outcome: Outcome) -> None:
        """Read one object once more, by itself: what was damaged on its way, or in the cache, is not so in its blob."""
        place = item.placement
        read = RangeRead(place.key, place.offset_bytes, place.length_bytes, (item,))
        if self._read(read, loan.view[: read.length_bytes], entries, outcome):
            for wrong, found_raw in self._place(read, entries, loan, outcome).items():
                outcome.fail(entries.of(item.digest_raw), damage_error(wrong, found_raw))

    def _read(self, read: RangeRead, view: memoryview, entries: ByDigest, outcome: Outcome) -> bool:
        try:
            if view:
                read_into(self._driver, read, view)
        except CorruptionError as err:
            for item in read.members:
                outcome.fail(entries.of(item.digest_raw), err)
            return False
        return True

    def _place(self, read: RangeRead, entries: ByDigest, loan: Loan, outcome: Outcome) -> dict[Wanted, bytes]:
        """Place what is in a range that was read; return what is not what it must be, with the digest that it has."""
        files: list[Entry] = []
        rows: list[Row] = []
        for item in read.members:
            offset_bytes, digest_raw = item.placement.offset_bytes - read.offset_bytes, item.digest_raw
            for entry in entries.of(digest_raw):
                files.append(entry)
                rows.append((entry.path, offset_bytes, entry.size_bytes, digest_raw, entry.mode, entry.modified_ns))
        bad: dict[Wanted, bytes] = {}
        for entry, row, result in zip(files, rows, self._placers.place(rows, loan), strict=True):
            if isinstance(result, tuple):
                outcome.placed.append(PlacedFile(entry, *result))
            elif isinstance(result, bytes):
                bad[next(item for item in read.members if item.digest_raw == row[3])] = result
            else:
                outcome.failures[entry.path] = result
        return bad
