"""Reading a container's own records, in order and with nothing but a driver: for who makes an index anew, or doubts one.

What cannot be believed is a `Gap` among what is found, and no error: whoever reads must hear of every one of them. Each reader
lists once and reads ahead in parallel; it holds a few records at a time, however many there are.

A record's digest is vouched for by its successor alone. So a record is handed out only when the next one names it as its parent;
where that is not so, it is the earlier one that is doubted. The last of a line has nobody to vouch for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from vds.blobs.driver import Blob, BlobDriver
from vds.blobs.objects import DIGEST_METADATA, OBJECT_PREFIX, PACK_PREFIX, is_stream_key, object_key
from vds.blobs.packs import read_footer
from vds.errors import CorruptionError, NotFoundError
from vds.model.claim import CLAIM_PREFIX, NamespaceClaim
from vds.model.content import Member
from vds.model.digest import Digest
from vds.model.event import EVENT_PREFIX, DatasetEvent
from vds.model.fields import HINT
from vds.model.manifest import ChangeRow, iter_changes
from vds.model.run import RUN_PREFIX, RunRecord
from vds.model.storelog import STORE_PREFIX, StoreRecord
from vds.model.version import (
    EVENT_CONTEXT,
    NO_PARENT,
    RECORD_BYTES_MAX,
    STORE_CONTEXT,
    VERSION_CONTEXT,
    ChangeListRef,
    VersionRecord,
    name_digest,
    record_digest,
)
from vds.pipeline import TRANSFER_WORKERS, parallel_map

JOURNAL_PREFIX = "journal/"
READ_AHEAD_BYTES_MAX = 32 * 1024 * 1024

NUMBER_DIGITS = 16
PIECE_BYTES = 4 * 1024 * 1024
"""How much of a change list is read in one request."""

GapKind = Literal["missing", "damaged", "chain"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that should be in the container and is not, or is not what it must be.

    Attributes:
        key: of the blob; of the first one, where several in a row are not there.
        kind: `missing`; `damaged`, when its bytes are no such blob; `chain`, when the record after it follows another one.
        detail: what is wrong.
    """

    key: str
    kind: GapKind
    detail: str


class Record(Protocol):
    """What the records of a line have in common."""

    @property
    def store(self) -> str:
        """The store's id."""
        ...

    @property
    def number(self) -> int:
        """Its place in its line."""
        ...

    @property
    def parent(self) -> bytes:
        """The digest of the record before."""
        ...


R = TypeVar("R", bound=Record)
T = TypeVar("T")
Stream: TypeAlias = Generator[T, None, None]
"""Read lazily and once; close one that is not read to its end (`contextlib.closing`), or its readers wait for the collector."""


@dataclass(frozen=True, slots=True)
class Found(Generic[R]):
    """One record that was found, its bytes and their digest."""

    key: str
    body: bytes
    record: R
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Line(Generic[R]):
    """One chain of records.

    Attributes:
        prefix: what their keys begin with; their numbers follow.
        find_fault: says in what a record does not belong here, or nothing.
    """

    prefix: str
    context: str
    decode: Callable[[bytes, str], R]
    find_fault: Callable[[R], str]


def read_store_log(
    driver: BlobDriver, store_uid: str, *, start: int = 1, parent: bytes | None = NO_PARENT
) -> Stream[Found[StoreRecord] | Gap]:
    """Yield the records of the store's log from `start` on.

    Args:
        driver: of the container.
        store_uid: the store's id.
        start: the first number.
        parent: what the first must name as its parent; None when nobody knows.
    """
    return _read_line(driver, _Line(STORE_PREFIX, STORE_CONTEXT, StoreRecord.decode, _of_store(store_uid)), start, parent)


def read_journal(
    driver: BlobDriver, store_uid: str, namespace_uid: str, *, start: int = 1, parent: bytes | None = NO_PARENT
) -> Stream[Found[VersionRecord] | Gap]:
    """Yield the version records of one namespace from `start` on; see `read_store_log`."""
    return _read_line(driver, _journal_line(store_uid, namespace_uid), start, parent)


def read_journals(driver: BlobDriver, store_uid: str) -> Stream[tuple[str, Iterator[Found[VersionRecord] | Gap]]]:
    """Yield each namespace's id and its version records, from one listing; a line must be read before the next is asked for."""
    with closing(_read_bodies(driver, driver.list_blobs(JOURNAL_PREFIX))) as bodies:
        for namespace_uid, own in groupby(bodies, _owner):
            yield namespace_uid, _check_line(own, _journal_line(store_uid, namespace_uid), 1, NO_PARENT)


def read_events(driver: BlobDriver, store_uid: str) -> Stream[tuple[str, Iterator[Found[DatasetEvent] | Gap]]]:
    """Yield each dataset's prefix and its events, from one listing; a line must be read before the next is asked for."""
    with closing(_read_bodies(driver, driver.list_blobs(EVENT_PREFIX))) as bodies:
        for owner, own in groupby(bodies, _owner):
            yield f"{EVENT_PREFIX}{owner}/", _check_line(own, _event_line(store_uid, owner), 1, NO_PARENT)


def read_dataset(driver: BlobDriver, store_uid: str, name: str) -> Iterator[Found[DatasetEvent] | Gap]:
    """Yield the events of the dataset called `name`, blind to case; none when there is no such dataset."""
    return _read_line(driver, _event_line(store_uid, name_digest(name)), 1, NO_PARENT)


def list_claims(driver: BlobDriver) -> Stream[NamespaceClaim | Gap]:
    """Yield which name has which id."""
    with closing(_read_bodies(driver, driver.list_blobs(CLAIM_PREFIX))) as bodies:
        for key, body in bodies:
            if isinstance(body, Gap):
                yield body
                continue
            try:
                yield NamespaceClaim.decode(body, key)
            except CorruptionError as err:
                yield Gap(key, "damaged", str(err))


def read_runs(driver: BlobDriver, store_uid: str) -> Stream[RunRecord | Gap]:
    """Yield each run's record, by id: that of its end, else that of its beginning, where one can be read."""
    with closing(_read_bodies(driver, driver.list_blobs(RUN_PREFIX))) as bodies:
        for _, own in groupby(bodies, _owner):
            found = [_decode_run(key, body, store_uid) for key, body in own]
            yield from (item for item in found if isinstance(item, Gap))
            records = [item for item in found if isinstance(item, RunRecord)]
            yield from [record for record in records if record.status is not None] or records[:1]


def _decode_run(key: str, body: bytes | Gap, store_uid: str) -> RunRecord | Gap:
    if isinstance(body, Gap):
        return body
    try:
        record = RunRecord.decode(body, key)
    except CorruptionError as err:
        return Gap(key, "damaged", str(err))
    return record if record.store == store_uid else Gap(key, "damaged", f"it is of store {record.store!r}")


def _journal_line(store_uid: str, namespace_uid: str) -> _Line[VersionRecord]:
    of_store = _of_store(store_uid)

    def find_fault(record: VersionRecord) -> str:
        other = "" if record.namespace == namespace_uid else f"it is of namespace {record.namespace!r}"
        return of_store(record) or other

    return _Line(f"{JOURNAL_PREFIX}{namespace_uid}/", VERSION_CONTEXT, VersionRecord.decode, find_fault)


def _event_line(store_uid: str, owner: str) -> _Line[DatasetEvent]:
    of_store = _of_store(store_uid)
    prefix = f"{EVENT_PREFIX}{owner}/"

    def find_fault(event: DatasetEvent) -> str:
        return of_store(event) or ("" if event.key.startswith(prefix) else f"it is of dataset {event.dataset!r}")

    return _Line(prefix, EVENT_CONTEXT, DatasetEvent.decode, find_fault)


def _of_store(store_uid: str) -> Callable[[Record], str]:
    return lambda record: "" if record.store == store_uid else f"it is of store {record.store!r}"


def _read_line(driver: BlobDriver, line: _Line[R], start: int, parent: bytes | None) -> Stream[Found[R] | Gap]:
    blobs = driver.list_blobs(line.prefix, f"{line.prefix}{start - 1:016d}")
    with closing(_read_bodies(driver, blobs)) as bodies:
        yield from _check_line(bodies, line, start, parent)


Body: TypeAlias = tuple[str, bytes | Gap]
"""A key, and what was read there."""


def _read_bodies(driver: BlobDriver, blobs: Iterable[Blob]) -> Stream[Body]:
    def read(blob: Blob) -> Body:
        if blob.size_bytes > RECORD_BYTES_MAX:
            return blob.key, Gap(blob.key, "damaged", f"it has {blob.size_bytes} bytes, the limit is {RECORD_BYTES_MAX}")
        try:
            return blob.key, driver.read_range(blob.key, 0, blob.size_bytes)
        except NotFoundError:
            return blob.key, Gap(blob.key, "missing", "it was listed, and is gone")
        except CorruptionError as err:
            return blob.key, Gap(blob.key, "damaged", str(err))

    return parallel_map(read, blobs, weigh=_weigh, in_flight_bytes_max=READ_AHEAD_BYTES_MAX)


def _weigh(blob: Blob) -> int:
    return blob.size_bytes if blob.size_bytes <= RECORD_BYTES_MAX else 0


def _owner(body: Body) -> str:
    return body[0].split("/")[1]


def _check_line(bodies: Iterable[Body], line: _Line[R], start: int, parent: bytes | None) -> Iterator[Found[R] | Gap]:
    """Yield the records of a line; a record waits until the one after it has said whom it follows."""
    expected = start
    waiting: Found[R] | None = None
    for key, body in bodies:
        number = number_in(key, line.prefix)
        if number is None:
            yield Gap(key, "damaged", "it is not the key of a record")
            continue
        item = body if isinstance(body, Gap) else _decode(key, number, body, line)
        hole = _find_hole(line, expected, number)
        if isinstance(item, Gap) or hole is not None:
            yield from filter(None, (waiting, hole))
            waiting, parent = None, None
        expected = number + 1
        if isinstance(item, Gap):
            yield item
            continue
        if parent is not None and item.record.parent != parent:
            doubted = key if waiting is None else waiting.key
            yield Gap(doubted, "chain", f"{key!r} follows {_text(item.record.parent)}, here is {_text(parent)}")
            waiting = None if waiting is None else item
        else:
            if waiting is not None:
                yield waiting
            waiting = item
        parent = item.digest
    if waiting is not None:
        yield waiting


def _decode(key: str, number: int, body: bytes, line: _Line[R]) -> Found[R] | Gap:
    try:
        record = line.decode(body, key)
    except CorruptionError as err:
        return Gap(key, "damaged", str(err))
    fault = line.find_fault(record)
    if not fault and record.number != number:
        fault = f"it is record {record.number}"
    return Gap(key, "damaged", fault) if fault else Found(key, body, record, record_digest(line.context, body))


def _find_hole(line: _Line[R], expected: int, number: int) -> Gap | None:
    if number == expected:
        return None
    last = f" to {number - 1}" if number - 1 > expected else ""
    return Gap(f"{line.prefix}{expected:016d}", "missing", f"record {expected}{last} is not there, {number} is")


def number_in(key: str, prefix: str) -> int | None:
    digits = key.removeprefix(prefix)
    is_number = len(digits) == NUMBER_DIGITS and digits.isascii() and digits.isdigit()
    return (int(digits) or None) if is_number else None


def _text(digest: bytes) -> str:
    return str(Digest.from_raw(digest))


def holds_bytes(driver: BlobDriver, key: str, body: bytes) -> bool:
    """Return whether a blob holds these bytes: a put that is repeated meets its own first one."""
    blob = driver.find_blob(key)
    return blob is not None and blob.size_bytes == len(body) and driver.read_range(key, 0, blob.size_bytes) == body


def open_changes(driver: BlobDriver, changes: ChangeListRef) -> Iterator[ChangeRow]:
    """Yield the rows of a change list, wherever it is, by path; a few pieces of it are held at a time.

    Raises:
        CorruptionError: it is not the list that was written, or its blob is gone. What was yielded before must not be believed.
    """
    if changes.key is None:
        pieces: Iterable[bytes] = [changes.inline or b""]
    else:
        pieces = _read_pieces(driver, changes.key)
    return iter_changes(pieces, changes.digest, count=changes.count)


def _read_pieces(driver: BlobDriver, key: str) -> Iterator[bytes]:
    blob = driver.find_blob(key)
    if blob is None:
        raise CorruptionError(f"change list {key!r} is missing", hint=HINT)

    def read(offset: int) -> bytes:
        return driver.read_range(key, offset, min(PIECE_BYTES, blob.size_bytes - offset))

    offsets = range(0, blob.size_bytes, PIECE_BYTES)
    try:
        if len(offsets) <= 1:  # as most are: no thread for them
            yield from map(read, offsets)
            return
        with closing(parallel_map(read, offsets, workers=2, in_flight_max=3)) as pieces:
            yield from pieces
    except NotFoundError as err:
        raise CorruptionError(f"change list {key!r} is missing", hint=HINT) from err


@dataclass(frozen=True, slots=True)
class PlacedBlob:
    """One blob that holds objects, and which; what a whole object's bytes are was not looked at."""

    key: str
    size_bytes: int
    etag: str
    members: Sequence[Member]


def list_placements(driver: BlobDriver) -> Stream[PlacedBlob | Gap]:
    """Yield every blob below `objects/` and `packs/`, by key; of packs the footers are read."""
    for blob in driver.list_blobs(OBJECT_PREFIX):
        yield _whole_object(blob)
    blobs = driver.list_blobs(PACK_PREFIX)
    # Thousands of members are a megabyte or two: no more packs are held than are read at once.
    with closing(parallel_map(lambda blob: _read_pack(driver, blob), blobs, in_flight_max=TRANSFER_WORKERS)) as packs:
        yield from packs


def read_placement(driver: BlobDriver, blob: Blob) -> PlacedBlob | Gap:
    """Return what one blob below `objects/` or `packs/` holds."""
    return _read_pack(driver, blob) if blob.key.startswith(PACK_PREFIX) else _whole_object(blob)


def _read_pack(driver: BlobDriver, blob: Blob) -> PlacedBlob | Gap:
    try:
        rows = read_footer(driver, blob.key, blob.size_bytes)
    except NotFoundError:
        return Gap(blob.key, "missing", "it was listed, and is gone")
    except CorruptionError as err:
        return Gap(blob.key, "damaged", str(err))
    members = [Member(row.digest_raw, row.offset_bytes, row.length_bytes) for row in rows]
    return PlacedBlob(blob.key, blob.size_bytes, blob.etag, members)


def _whole_object(blob: Blob) -> PlacedBlob | Gap:
    digest = _stream_digest(blob) if is_stream_key(blob.key) else _digest_in(blob.key)
    if digest is None:
        return Gap(blob.key, "damaged", "nothing says which object it is")
    return PlacedBlob(blob.key, blob.size_bytes, blob.etag, [Member(digest, 0, blob.size_bytes)])


def _stream_digest(blob: Blob) -> bytes | None:
    try:
        return Digest(blob.metadata.get(DIGEST_METADATA, "")).raw
    except ValueError:
        return None


def _digest_in(key: str) -> bytes | None:
    name, _, generation = key.rpartition("/")[2].partition(".")
    try:
        digest = Digest(f"b3:{name}").raw
    except ValueError:
        return None
    return digest if key == object_key(digest, generation) else None
