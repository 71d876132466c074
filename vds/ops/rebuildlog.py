"""What the store's own log says: which namespaces there are, what has expired, what was erased, and which keys are going.

The last thing it says is ours: `index-replaced`. Whoever still writes through the old index, or collects with it, is told so by
that record. Everything acknowledged before it is in the container; nothing is acknowledged after it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import read_record
from vds.blobs.records import Found, Gap, holds_bytes, number_in, read_store_log
from vds.errors import BlobExistsError, CorruptionError, NotFoundError, UnavailableError
from vds.index.database import now_us
from vds.index.rebuildrows import add_deleting_blobs, add_erased
from vds.model.digest import Digest
from vds.model.moment import micros_of, moment_of
from vds.model.storelog import STORE_PREFIX, StoreRecord, store_key, unpack_numbers
from vds.model.version import NO_PARENT, STORE_CONTEXT, record_digest
from vds.ops.rebuilding import Making

TRIES_MAX = 1000
"""How often somebody else may be first with a record of the log; each of theirs is done then."""


class Expired:
    """Which versions of a namespace have expired, and since when: ascending ranges that do not touch each other's numbers."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges, first and last of each; neighbours of different times are two."""
        return ((first, last) for first, last, _ in self._ranges)

    def add(self, ranges: Iterable[tuple[int, int]], expired_us: int) -> None:
        """Let these versions expire; those that had before stay as they were."""
        new = [(*rest, expired_us) for one in ranges for rest in _without(one, self._ranges)]
        self._ranges = sorted(self._ranges + new)

    def remove(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Bring these versions back."""
        gone = [(first, last, 0) for first, last in ranges]
        self._ranges = [(*rest, us) for first, last, us in self._ranges for rest in _without((first, last), gone)]

    def find(self, number: int) -> int | None:
        """Return since when a version has expired, or None."""
        place = bisect_right(self._ranges, (number, _HIGHEST, 0)) - 1
        if place < 0 or self._ranges[place][1] < number:
            return None
        return self._ranges[place][2]

    def is_any_left(self, first: int, end: int) -> bool:
        """Return whether a version from `first` up to, and without, `end` has not expired."""
        number = first
        while number < end:
            place = bisect_right(self._ranges, (number, _HIGHEST, 0)) - 1
            if place < 0 or self._ranges[place][1] < number:
                return True
            number = self._ranges[place][1] + 1
        return False

    def lowest_left(self) -> int:
        """Return the lowest version that has not expired; there may be none of that number."""
        number = 1
        for first, last, _ in self._ranges:
            if first > number:
                break
            number = last + 1
        return number

    def highest(self) -> int:
        """Return the highest version that has expired, 0 for none."""
        return max((last for _, last, _ in self._ranges), default=0)

    def gaps(self, lowest: int, head: int) -> Iterator[tuple[int, int]]:
        """Yield pairs of versions that are left and have only expired ones between them, within these."""
        low = high = 0
        for first, last, _ in self._ranges:
            if high and first > high:
                yield low, high
                low = high = 0
            if lowest < first <= head:
                low, high = low or first - 1, last + 1
        if high:
            yield low, high


_HIGHEST = 2**63


def _without(one: tuple[int, int], others: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Yield what is left of a range when ascending other ranges are taken out of it."""
    first, last = one
    for other_first, other_last, _ in others:
        if other_last < first:
            continue
        if other_first > last:
            break
        if first < other_first:
            yield first, other_first - 1
        first = other_last + 1
    if first <= last:
        yield first, last


@dataclass
class StoreLog:
    """What was read of the log.

    Attributes:
        number: of the last record, read or known to have been there; 0 for none.
        digest: of that record, which the next one names.
        namespaces: id → (name, created_us).
        expired: by namespace.
        incarnations: of the indexes that replaced others.
        erased: the digests of erased objects.
    """

    making: Making
    number: int = 0
    digest: bytes = NO_PARENT
    namespaces: dict[str, tuple[str, int]] = field(default_factory=dict)
    expired: dict[str, Expired] = field(default_factory=dict)
    incarnations: set[str] = field(default_factory=set)
    erased: set[bytes] = field(default_factory=set)

    def read_on(self) -> None:
        """Read what follows on what was read."""
        blobs = self.making.blobs
        for item in read_store_log(blobs, self.making.uid, start=self.number + 1, parent=self.digest):
            if isinstance(item, Gap):
                self.making.lose("log", item)
                number = number_in(item.key, STORE_PREFIX)
                if number is not None and item.kind != "missing":
                    self.number, self.digest = max(self.number, number), _digest_of(blobs, item.key)
                continue
            self._take(item)
            self.number, self.digest = item.record.number, item.digest
        known = self.making.known.log_seq
        if self.number < known:
            gap = Gap(store_key(self.number + 1), "missing", f"the log ends with {self.number}, and had {known} records")
            self.making.lose("log", gap)
            self.number = known  # behind this one looks whoever still writes through the old index

    def close(self, incarnation: str, address: str, host: str) -> None:
        """Append that this index replaces the one before, after whatever others append meanwhile, which is read too.

        Raises:
            ConflictError: another rebuild began after this one.
            UnavailableError: the container does not answer, or others never stop.
        """
        fields = {"incarnation": incarnation, "address": address, "host": host}
        for _ in range(TRIES_MAX):
            self.read_on()
            body = self._next_record(fields)
            self.making.sink.check()  # a rebuild that another one has ended must not fence that one's index
            try:
                self.making.blobs.put_if_absent(store_key(self.number + 1), body)
            except BlobExistsError:
                if not holds_bytes(self.making.blobs, store_key(self.number + 1), body):
                    continue
            self.number, self.digest = self.number + 1, record_digest(STORE_CONTEXT, body)
            return
        raise UnavailableError("others write to the store's log all the time", hint="try again when they are done")

    def _next_record(self, fields: Mapping[str, Any]) -> bytes:
        with self.making.sink.database.read() as connection:
            created_us = now_us(connection)
        number = self.number + 1
        return StoreRecord(self.making.uid, number, self.digest, "index-replaced", moment_of(created_us), fields).encode()

    def _take(self, item: Found[StoreRecord]) -> None:
        fields, time_us = item.record.fields, micros_of(item.record.created_at)
        kind, sink, store_id = item.record.kind, self.making.sink, self.making.store_id
        if kind == "namespace-created":
            self.namespaces.setdefault(fields["namespace"], (fields["name"], time_us))
        elif kind == "versions-expired":
            self.expired.setdefault(fields["namespace"], Expired()).add(unpack_numbers(fields["numbers"]), time_us)
        elif kind == "versions-restored":
            self.expired.setdefault(fields["namespace"], Expired()).remove(unpack_numbers(fields["numbers"]))
        elif kind == "keys-deleting":
            sink.run(lambda connection: add_deleting_blobs(connection, store_id, fields["keys"]))
        elif kind == "object-erased":
            digest = Digest(fields["digest"]).raw
            self.erased.add(digest)
            author, reason = fields["author"], fields["reason"]
            sink.run(lambda connection: add_erased(connection, store_id, digest, time_us, author, reason))
        elif kind == "index-replaced":
            self.incarnations.add(fields["incarnation"])


def _digest_of(blobs: BlobDriver, key: str) -> bytes:
    """Return the digest of a record's bytes, whatever they are."""
    try:
        return record_digest(STORE_CONTEXT, read_record(blobs, key))
    except (NotFoundError, CorruptionError):
        return NO_PARENT
