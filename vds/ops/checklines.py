"""Hold the records in the container against the index: the versions of namespaces, the events of datasets.

What the index says of a version or an event is put together to the record that it must have come from; so nothing of it goes
uncompared. Which of two digests is right when they differ, the index's row or the container's record, the neighbours tell: each
record names the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import read_record
from vds.blobs.records import Found, Gap, Record, read_events, read_journals
from vds.errors import CorruptionError, NotFoundError
from vds.index.database import Connection
from vds.index.datasets import DatasetRow, list_datasets
from vds.index.inspect import EventFacts, VersionFacts, read_event_page, read_version_page
from vds.index.queue import list_records
from vds.index.stores import NamespaceRow, list_namespaces
from vds.model.event import EVENT_PREFIX, DatasetEvent, event_key
from vds.model.version import (
    EVENT_CONTEXT,
    NO_PARENT,
    VERSION_CONTEXT,
    VersionRecord,
    journal_key,
    name_digest,
    record_digest,
)
from vds.ops.findings import Inspection

DIFFERENCES_SHOWN_MAX = 5


class Facts(Protocol):
    """A row of the index that a record must stand for."""

    @property
    def number(self) -> int:
        """Its place in its line."""
        ...

    @property
    def digest(self) -> bytes:
        """What its record must have."""
        ...

    @property
    def record(self) -> Record:
        """What its record must say."""
        ...


F = TypeVar("F", bound=Facts)
R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Line(Generic[F, R]):
    """One line of records, as the index has it.

    Attributes:
        name: of the namespace or dataset, for people.
        head: the last number that was committed, and its digest.
        visible: the last number whose record must be in the container.
        page: returns the next rows after a number.
        key_of: the key of a number's record.
    """

    name: str
    head: int
    head_digest: bytes
    visible: int
    page: Callable[[Connection, int], list[F]]
    key_of: Callable[[int], str]
    context: str
    decode: Callable[[bytes, str], R]


VersionLine = Line[VersionFacts, VersionRecord]
EventLine = Line[EventFacts, DatasetEvent]


def version_line(store_uid: str, namespace: NamespaceRow) -> VersionLine:
    """Return the line of a namespace's versions."""
    return Line(
        namespace.name,
        namespace.head,
        namespace.head_digest,
        namespace.visible,
        lambda connection, after: read_version_page(connection, store_uid, namespace, after),
        lambda number: journal_key(namespace.uid, number),
        VERSION_CONTEXT,
        VersionRecord.decode,
    )


def event_line(store_uid: str, dataset: DatasetRow) -> EventLine:
    """Return the line of a dataset's events."""
    return Line(
        f"{dataset.name}:",
        dataset.head,
        dataset.head_digest,
        dataset.visible,
        lambda connection, after: read_event_page(connection, store_uid, dataset, after),
        lambda number: event_key(dataset.name, number),
        EVENT_CONTEXT,
        DatasetEvent.decode,
    )


class Lines(NamedTuple):
    """The lines of records that the index has: namespaces by id, datasets by the prefix of their events."""

    namespaces: dict[str, NamespaceRow]
    datasets: dict[str, DatasetRow]


def list_lines(run: Inspection) -> Lines:
    """Return the lines as the index has them now."""
    doors = run.doors
    with doors.index.read() as connection:
        namespaces = {row.uid: row for row in list_namespaces(connection, doors.store.id)}
        datasets = {f"{EVENT_PREFIX}{name_digest(row.name)}/": row for row, _ in list_datasets(connection, doors.store.id)}
    return Lines(namespaces, datasets)


def check_journal(run: Inspection, on_version: Callable[[NamespaceRow, VersionFacts, Found[VersionRecord] | None], None]) -> None:
    """Check the record of every version of every namespace.

    Args:
        run: the check.
        on_version: told of each visible version in order, and of its record if that is sound.
    """
    doors = run.doors
    left = list_lines(run).namespaces
    with closing(read_journals(doors.blobs, doors.store.uid)) as lines:
        for uid, items in lines:
            namespace = left.pop(uid, None)
            if namespace is None:
                _check_unknown(run, items, _find_version_head(run, uid))
            else:
                _check_versions(run, namespace, items, on_version)
    for namespace in left.values():
        _check_versions(run, namespace, (), on_version)


def _check_versions(
    run: Inspection,
    namespace: NamespaceRow,
    items: Iterable[Found[VersionRecord] | Gap],
    on_version: Callable[[NamespaceRow, VersionFacts, Found[VersionRecord] | None], None],
) -> None:
    line = version_line(run.doors.store.uid, namespace)
    for facts, found in hold_line(run, line, items, _find_version_head(run, namespace.uid)):
        if found is not None:
            known = replace(facts.record, changes=found.record.changes)
            _compare(run, f"{namespace.name}@{facts.number}", known, found.record)
        on_version(namespace, facts, found)


def check_events(run: Inspection) -> None:
    """Check the record of every event of every dataset."""
    doors = run.doors
    left = list_lines(run).datasets
    with closing(read_events(doors.blobs, doors.store.uid)) as lines:
        for prefix, items in lines:
            dataset = left.pop(prefix, None)
            if dataset is None:
                _check_unknown(run, items, _find_event_head(run, prefix))
            else:
                _check_events_of(run, dataset, prefix, items)
    for prefix, dataset in left.items():
        _check_events_of(run, dataset, prefix, ())


def _check_events_of(run: Inspection, dataset: DatasetRow, prefix: str, items: Iterable[Found[DatasetEvent] | Gap]) -> None:
    for facts, found in hold_line(run, event_line(run.doors.store.uid, dataset), items, _find_event_head(run, prefix)):
        if found is not None:
            _compare(run, f"{dataset.name}: event {facts.number}", facts.record, found.record)


def _find_version_head(run: Inspection, uid: str) -> Callable[[], int]:
    return lambda: row.head if (row := list_lines(run).namespaces.get(uid)) is not None else 0


def _find_event_head(run: Inspection, prefix: str) -> Callable[[], int]:
    return lambda: row.head if (row := list_lines(run).datasets.get(prefix)) is not None else 0


def hold_line(
    run: Inspection, line: Line[F, R], items: Iterable[Found[R] | Gap], find_head: Callable[[], int]
) -> Iterator[tuple[F, Found[R] | None]]:
    """Hold a line's records against the index, and yield each visible row with its record, None where that is not sound.

    Args:
        run: is told of every problem.
        line: as the index had it before the records were listed.
        items: the records, by number.
        find_head: asks the index how far the line goes by now.
    """
    rows = _check_chain(run, line)
    row = next(rows, None)
    beyond: list[Found[R] | Gap] = []
    for item in items:
        number = number_of(item.key)
        if number is None:
            run.findings.add("key-foreign", item.key, item.detail if isinstance(item, Gap) else "")
            continue
        if isinstance(item, Gap) and item.kind == "missing":
            continue  # the index's rows say which are
        if number > line.head:
            beyond.append(item)
            break
        while row is not None and row.number < min(number, line.visible + 1):
            _tell_missing(run, line, row)
            yield row, None
            row = next(rows, None)
        if row is None or row.number > number:
            continue  # a hole in the index, which was told of
        if number <= line.visible:  # later ones may be written at this moment
            yield row, _hold(run, line, row, item)
        row = next(rows, None)
    while row is not None and row.number <= line.visible:
        _tell_missing(run, line, row)
        yield row, None
        row = next(rows, None)
    _check_unknown(run, beyond, find_head)


def _check_chain(run: Inspection, line: Line[F, R]) -> Iterator[F]:
    """Yield the index's rows of a line, checked to be dense and chained."""
    number, digest = 0, NO_PARENT
    while True:
        with run.doors.index.read() as connection:
            page = line.page(connection, number)
        for row in page:
            if row.number > line.head:
                return  # committed since
            if row.number != number + 1 or row.record.parent != digest:
                run.findings.add(
                    "line-broken", line.key_of(row.number), f"{line.name}: row {row.number} does not follow {number}"
                )
            number, digest = row.number, row.digest
            yield row
        if not page:
            break
    if number != line.head or digest != line.head_digest:
        run.findings.add("line-broken", line.key_of(line.head), f"{line.name}: its rows end at {number}, its head is {line.head}")


def _tell_missing(run: Inspection, line: Line[F, R], row: F) -> None:
    run.findings.add("record-missing", line.key_of(row.number), f"record {row.number} of {line.name}")


def _hold(run: Inspection, line: Line[F, R], row: F, item: Found[R] | Gap) -> Found[R] | None:
    """Return a record that is the one the index names."""
    if isinstance(item, Gap) and item.kind == "chain":
        item = _read_again(run.doors.blobs, line, item)  # its successor doubts it, the index may vouch for it
    run.examined.records += 1
    run.progress.add(files=1)
    if isinstance(item, Gap):
        run.findings.add("record-damaged", item.key, item.detail)
        return None
    if item.digest != row.digest:
        run.findings.add("record-damaged", item.key, f"its digest is {item.digest.hex()}, the index says {row.digest.hex()}")
        return None
    return item


def _read_again(blobs: BlobDriver, line: Line[F, R], gap: Gap) -> Found[R] | Gap:
    try:
        body = read_record(blobs, gap.key)
        return Found(gap.key, body, line.decode(body, gap.key), record_digest(line.context, body))
    except (NotFoundError, CorruptionError) as err:
        return Gap(gap.key, "damaged", err.message)


def _check_unknown(run: Inspection, items: Iterable[Found[R] | Gap], find_head: Callable[[], int]) -> None:
    """Tell of a record that the index does not know, unless it was committed since; one for each line says enough."""
    for item in items:
        number = number_of(item.key)
        if number is None:
            run.findings.add("key-foreign", item.key, "it is not the key of a record")
        elif number > find_head():
            run.findings.add("record-unknown", item.key, "the index is older than its store: vds index rebuild")
            return
        else:
            return


def _compare(run: Inspection, name: str, known: Any, found: Any) -> None:
    """Compare what a row says with what its record says, field by field."""
    if known == found:
        return
    differing = [
        f"{field.name} is {getattr(known, field.name)!r:.100}, the record says {getattr(found, field.name)!r:.100}"
        for field in fields(found)
        if getattr(known, field.name) != getattr(found, field.name)
    ]
    run.findings.add("record-differs", name, "; ".join(differing[:DIFFERENCES_SHOWN_MAX]))


def number_of(key: str) -> int | None:
    """Return the number at the end of a record's key, or None when there is none."""
    digits = key.rpartition("/")[2]
    return int(digits) if len(digits) == 16 and digits.isascii() and digits.isdigit() else None


def check_queue(run: Inspection) -> None:
    """Check the records that wait to be written: each must be the one that its row names."""
    doors = run.doors
    with doors.index.read() as connection:
        records = list_records(connection, doors.store.id)
        namespaces = {row.id: row for row in list_namespaces(connection, doors.store.id)}
        datasets = {row.id: row for row, _ in list_datasets(connection, doors.store.id)}
        for record in records:
            facts: list[Any] = []
            if record.line == "version" and record.owner_id in namespaces:
                facts = read_version_page(connection, doors.store.uid, namespaces[record.owner_id], record.number - 1)
            elif record.line == "event" and record.owner_id in datasets:
                facts = read_event_page(connection, doors.store.uid, datasets[record.owner_id], record.number - 1)
            elif record.line == "store":
                run.findings.add("record-queued", record.key)
                continue
            context = VERSION_CONTEXT if record.line == "version" else EVENT_CONTEXT
            if not facts or facts[0].number != record.number or facts[0].digest != record_digest(context, record.body):
                run.findings.add("queue-damaged", record.key, f"the {record.line} that waits is not that of row {record.number}")
            else:
                run.findings.add("record-queued", record.key, "the next writer that opens the store writes it")
