"""Which version a ref means by the records in the container alone, without the index.

A version is there once its record and all earlier ones are. Where a record is missing and later ones are there, its writer is at
work, or was stopped, or the record was lost; only the index could tell. Then nothing is guessed: what does not depend on it is
answered, anything else is refused. A checkpoint is of a version that was there, so what is missing before it does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import read_record
from vds.blobs.records import Gap, read_dataset, read_journal
from vds.engine.logfacts import lost
from vds.engine.resolve import find_as_of
from vds.errors import CorruptionError, InvalidInputError, NotFoundError
from vds.model.checkpoint import CheckpointKey, checkpoint_prefix, parse_checkpoint_key
from vds.model.claim import NamespaceClaim
from vds.model.event import DatasetEvent
from vds.model.path import join
from vds.model.ref import DatasetRef, NamespaceRef, Point, Ref, format_moment
from vds.model.version import VersionRecord, journal_key, name_digest

WRITER_PAUSE_S = 2.0
"""How long a writer gets for the record that is missing: others write it after one second."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A point in a namespace's line of versions, and what else a ref says.

    Attributes:
        namespace: the id.
        digest: of the version, where a release names it.
        as_of: what VDS_AS_OF says, where the ref goes by it.
    """

    namespace: str
    name: str
    point: Point
    path: str
    digest: bytes | None = None
    as_of: datetime | None = None


def find_asked(driver: BlobDriver, store_uid: str, ref: Ref, path: str) -> Asked:
    """Return where to look for what a ref means; one that can move, as of VDS_AS_OF where that is set.

    Raises:
        NotFoundError: there is no such namespace, dataset, release or tag (or was none at that moment).
        CorruptionError: a record that says so cannot be believed.
        InvalidInputError: VDS_AS_OF is no moment.
    """
    as_of = find_as_of() if _can_move(ref) else None
    if isinstance(ref, DatasetRef):
        return _find_release(driver, store_uid, ref if as_of is None else replace(ref, moment=as_of), path)
    key = f"namespaces/{name_digest(ref.name)}"
    try:
        claim = NamespaceClaim.decode(read_record(driver, key), key)
    except NotFoundError as err:
        raise NotFoundError(f"no namespace {ref.name!r} in this store") from err
    point = ref.point if as_of is None else replace(ref.point, moment=as_of)
    return Asked(claim.namespace, claim.name, point, path, as_of=as_of)


def _can_move(ref: Ref) -> bool:
    """Return whether VDS_AS_OF says what it means: it is not fixed, and names no moment of its own."""
    if isinstance(ref, NamespaceRef):
        return not ref.point.is_fixed and ref.point.moment is None
    return ref.release is None and ref.moment is None


def _find_release(driver: BlobDriver, store_uid: str, ref: DatasetRef, path: str) -> Asked:
    events = list(_read_events(driver, store_uid, ref.name))
    if not events:
        raise NotFoundError(f"no dataset {ref.name!r} in this store")
    name, moment = events[0].dataset, ref.moment
    when = "" if moment is None else f" at {format_moment(moment)}"
    seen = [event for event in events if moment is None or event.created_at <= moment]
    if ref.tag is not None:
        moves = [event for event in seen if event.tag == ref.tag]
        number = moves[-1].release if moves else None
        if number is None:
            raise NotFoundError(f"dataset {name!r} has no tag {ref.tag!r}{when}")
    else:
        number = ref.release or max((event.release or 0 for event in seen if event.registered), default=0)
    for event in seen:
        if event.registered is not None and event.release == number:
            made = event.registered
            point = Point(number=made.version)
            return Asked(made.namespace, made.namespace_name, point, join(made.path, path), made.version_digest)
    raise NotFoundError(f"dataset {name!r} has no {f'release {number}' if number else 'release'}{when}")


def _read_events(driver: BlobDriver, store_uid: str, name: str) -> Iterator[DatasetEvent]:
    for item in read_dataset(driver, store_uid, name):
        if isinstance(item, Gap):
            raise lost(item)
        yield item.record


def list_checkpoints(driver: BlobDriver, namespace: str) -> list[CheckpointKey]:
    """Return the checkpoints of a namespace, the newest version first."""
    keys = (parse_checkpoint_key(blob.key) for blob in driver.list_blobs(checkpoint_prefix(namespace)))
    return sorted((key for key in keys if key is not None), key=lambda key: key.number, reverse=True)


class VersionLine:
    """The version records of one namespace.

    Args:
        driver: of the container.
        store_uid: the store's id.
        asked: which namespace.
        created_at: when that was made.
        pause: waits for a writer.
    """

    def __init__(
        self,
        driver: BlobDriver,
        store_uid: str,
        asked: Asked,
        created_at: datetime | None,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._driver = driver
        self._store_uid = store_uid
        self._asked = asked
        self._created_at = created_at
        self._end, self._hole = self._find_end()
        if self._hole:
            pause(WRITER_PAUSE_S)
            hole = self._hole
            self._end, self._hole = self._find_end()
            if self._hole != hole:
                self._hole = ""  # it came, so writers are at work, and the next one will come too

    def get(self, number: int) -> VersionRecord:
        """Return a record.

        Raises:
            CorruptionError: it is not there, or is not the one that belongs there.
        """
        key = journal_key(self._asked.namespace, number)
        try:
            record = VersionRecord.decode(read_record(self._driver, key), key)
        except NotFoundError as err:
            raise lost(Gap(key, "missing", "there is no such record")) from err
        own = (self._store_uid, self._asked.namespace, number)
        if (record.store, record.namespace, record.number) != own:
            raise lost(Gap(key, "damaged", f"it is record {record.number} of namespace {record.namespace!r}"))
        return record

    def find_number(self) -> int:
        """Return the number of the version that is asked for.

        Raises:
            NotFoundError: there is none.
            InvalidInputError: a digest prefix fits several versions.
            CorruptionError: a record on which the answer depends is missing or cannot be believed.
        """
        point, name = self._asked.point, self._asked.name
        if point.number is not None:
            if point.number > self._end:
                self._refuse_hole()
                raise NotFoundError(f"namespace {name!r} has no version {point.number}, its latest is {self._end}")
            number = point.number
        elif point.digest_prefix is not None:
            number = self._number_of_digest(point.digest_prefix)
        elif point.moment is not None:
            number = self._number_at(point.moment)
        else:
            self._refuse_hole()
            number = self._end
        if number == 0 and self._asked.as_of is not None:
            # Not version 0: the name may have been claimed while that moment passed.
            raise NotFoundError(f"namespace {name!r} had no version at {format_moment(self._asked.as_of)}")
        if point.back > number:
            raise NotFoundError(f"there is no version {point.back} before version {number} of {name!r}")
        return number - point.back

    def _find_end(self) -> tuple[int, str]:
        """Return the last version up to which all records are there, and the key of one that is missing behind it, or nothing."""
        namespace = self._asked.namespace
        number = max((key.number for key in list_checkpoints(self._driver, namespace)), default=0)
        for blob in self._driver.list_blobs(f"journal/{namespace}/", journal_key(namespace, number)):
            expected = journal_key(namespace, number + 1)
            if blob.key != expected:
                return number, expected
            number += 1
        return number, ""

    def _refuse_hole(self) -> None:
        if self._hole:
            raise CorruptionError(
                f"{self._hole!r} is missing, and later records are there: without the index it cannot be told which version of"
                f" {self._asked.name!r} is the latest",
                hint=f"if a writer is at work, try again; or name a version, as {self._asked.name}@{self._end}",
            )

    def _number_of_digest(self, prefix: str) -> int:
        found = []
        for item in read_journal(self._driver, self._store_uid, self._asked.namespace):
            if isinstance(item, Gap):
                if len(prefix) < 64:  # as there may be two; a whole digest is of one version
                    raise lost(item)
            elif item.record.number > self._end:
                break
            elif item.digest.hex().startswith(prefix):
                found.append(item.record.number)
        if len(found) > 1:
            raise InvalidInputError(f"b3:{prefix} fits several versions of {self._asked.name!r}", hint="give more digits")
        if not found:
            self._refuse_hole()
            raise NotFoundError(f"namespace {self._asked.name!r} has no version b3:{prefix}")
        return found[0]

    def _number_at(self, moment: datetime) -> int:
        """Return the newest version not younger than `moment`: each is younger than the one before."""
        if self._created_at is None or moment < self._created_at:
            raise NotFoundError(f"namespace {self._asked.name!r} did not exist at {format_moment(moment)}")
        if self._end == 0 or self.get(self._end).created_at <= moment:
            self._refuse_hole()
            return self._end
        low, high = 0, self._end - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.get(middle).created_at <= moment:
                low = middle
            else:
                high = middle - 1
        return low
