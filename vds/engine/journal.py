"""From committed to visible: writing queued records to the container, and refusing an index that is older than it.

Guarantees:
- a record is acknowledged only when it and all earlier ones of its line are in the container;
- whoever flushes writes the same bytes, since records are queued complete: "exists" with equal bytes is success;
- other bytes under a record's key mean that two histories claim one place: nothing more is written to that line.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from vds.blobs.objects import RecordDivergedError, put_record
from vds.engine.doors import Doors
from vds.errors import CorruptionError, FormatError, OutcomeUnknownError, VdsError
from vds.index.database import Connection, now_us
from vds.index.gaps import check_line_whole
from vds.index.queue import Line, QueuedRecord, add_record, find_lowest, list_records, remove_record
from vds.index.stores import (
    NamespaceRow,
    StoreRow,
    advance_store_log,
    find_store_log,
    list_recent_namespaces,
    lock_store,
    read_namespace,
)
from vds.index.versions import queued_for_us
from vds.model.moment import moment_of
from vds.model.storelog import StoreRecord, store_key
from vds.model.version import STORE_CONTEXT, journal_key, record_digest
from vds.pipeline import parallel_map

HELP_OTHERS_AFTER_S = 1.0
"""How long a writer waits for the records before its own, before it writes them itself."""

OVERDUE_US = 5_000_000
"""How old a queued record is when its writer is taken for dead: several times a slow put."""

RECENT_NAMESPACES = 4
"""How many namespaces are held against the container when a store is opened; they are asked about at once."""

_POLL_S_MIN, _POLL_S_MAX = 0.002, 0.05


@dataclass(frozen=True, slots=True)
class AddedRecord:
    """A record appended to the store's log, not yet in the container, and when that was."""

    queued: QueuedRecord
    created_us: int


def publish(
    doors: Doors,
    line: Line,
    owner_id: int,
    number: int,
    *,
    first: int | None = None,
    made: QueuedRecord | None = None,
) -> None:
    """Write the record `number` of a line (or all from `first` on, when one step made several), and return once it is visible.

    Our own records go out at once, beside those of other writers; only if an earlier one stays away is that one written too.

    Args:
        made: the record, where the caller has it from the step that queued it: the index is then not asked for it.

    Raises:
        UnavailableError: the container does not answer. What was committed stays queued: any writer's next start flushes it.
        RecordDivergedError: the container holds another record under this number.
    """
    if made is not None:
        own: Sequence[QueuedRecord] = [made]
    else:
        with doors.index.read() as connection:
            own = list_records(connection, doors.store.id, line, owner_id, number, first=number if first is None else first)
            lowest = None if own else find_lowest(connection, doors.store.id, line, owner_id)
    if own:
        lowest = _flush(doors, own)
    help_at, pause_s = time.monotonic() + HELP_OTHERS_AFTER_S, _POLL_S_MIN
    while lowest is not None and lowest <= number:
        if time.monotonic() >= help_at:
            flush_line(doors, line, owner_id, up_to=number)
        else:
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _POLL_S_MAX)
        with doors.index.read() as connection:
            lowest = find_lowest(connection, doors.store.id, line, owner_id)


def flush_line(doors: Doors, line: Line | None = None, owner_id: int | None = None, up_to: int | None = None) -> int:
    """Write what is queued (of one line, or of all) and return how many records that was.

    Raises:
        UnavailableError: as `publish`.
        RecordDivergedError: as `publish`.
    """
    with doors.index.read() as connection:
        records = list_records(connection, doors.store.id, line, owner_id, up_to)
    _flush(doors, records)
    return len(records)


def flush_overdue(doors: Doors, namespace: NamespaceRow) -> None:
    """Write what some crashed writer left queued in a namespace; leaves alone what live writers are writing themselves.

    Raises:
        RecordDivergedError: a record of the namespace cannot be written: no more versions may follow it.
    """
    if namespace.visible == namespace.head:
        return
    with doors.index.read() as connection:
        waits_us = queued_for_us(connection, namespace)
    if waits_us > OVERDUE_US:
        flush_line(doors, "version", namespace.id)


def _flush(doors: Doors, records: Sequence[QueuedRecord]) -> int | None:
    """Write records, and return the lowest number of the last one's line that is not known to be written then."""
    lowest = None
    for record in records:
        put_record(doors.blobs, record.key, record.body)
        # A crash here leaves a written record in the queue: the next flush finds it there with equal bytes.
        lowest = doors.index.run(partial(remove_record, store_id=doors.store.id, record=record))
    return lowest


def check_namespace_fresh(doors: Doors, namespace: NamespaceRow, *, is_ours: bool = False) -> NamespaceRow:
    """Return the namespace as it is now, after checking that the container holds no version the index does not know.

    Args:
        namespace: as it was a moment ago.
        is_ours: the caller is about to write to it. That others commit meanwhile is then answer enough, as its own record goes
            under its own number, where another history's would be met; and where many write, someone always does.

    Raises:
        FormatError: it does: the index was restored from an old copy, and would deduplicate against deleted bytes.
        CorruptionError: its line is known to end in a gap: nothing may follow.
    """
    with doors.index.read() as connection:
        check_line_whole(connection, namespace)
    while doors.blobs.find_blob(journal_key(namespace.uid, namespace.head + 1)) is not None:
        with doors.index.read() as connection:
            now = read_namespace(connection, namespace.id)
        if now.head == namespace.head:
            raise stale_index(f"the container holds version {now.head + 1} of {now.name!r}")
        namespace = now  # someone committed meanwhile
        if is_ours:
            break
    return namespace


def find_outdated(doors: Doors) -> str:
    """Return what shows that the index is older than the container: a version of one of the namespaces written to last.

    Asked when a store is opened, as one that changes nothing asks nothing later. Empty when all is well.
    """
    with doors.index.read() as connection:
        recent = list_recent_namespaces(connection, doors.store.id, RECENT_NAMESPACES)

    def check(namespace: NamespaceRow) -> str:
        try:
            check_namespace_fresh(doors, namespace)
        except FormatError as err:
            return err.message
        except CorruptionError:
            return ""  # a gap that is known: who writes to that namespace is told, and nobody else
        return ""

    with closing(parallel_map(check, recent, ordered=False)) as checks:
        return next(filter(None, checks), "")


def check_store_fresh(doors: Doors) -> None:
    """Check that this index still serves the store, and that the container's store log does not go on after what it knows.

    What is queued of the log is written first: a record that is not there yet may have lost its number to another index, and a
    look behind it would not see that.

    Raises:
        FormatError: it was replaced, or is older than the store: restored from an old copy.
    """
    row, lowest = _read_own_store(doors)
    while True:
        if lowest is not None and not doors.read_only:
            _flush_log(doors)
            row, lowest = _read_own_store(doors)
            continue
        if doors.blobs.find_blob(store_key(row.log_seq + 1)) is None:
            return
        # The commit of a record comes before its blob: whoever saw the blob and then reads the index must find it there.
        now, lowest = _read_own_store(doors)
        if now.log_seq == row.log_seq:
            raise stale_index(f"the container holds store record {row.log_seq + 1}")
        row = now


def _flush_log(doors: Doors) -> None:
    try:
        flush_line(doors, "store")
    except RecordDivergedError as err:
        raise stale_index(err.message) from err


def check_serving(doors: Doors) -> None:
    """Check that this index still serves the store: to be asked where it knows nothing of what is looked for.

    One that was replaced while it was in use is empty, and must not be taken for a store with nothing in it.

    Raises:
        FormatError: it does not.
    """
    _read_own_store(doors)


def _read_own_store(doors: Doors) -> tuple[StoreRow, int | None]:
    """Return the store's row, and the lowest number of its log that is queued, as of one moment."""
    with doors.index.read() as connection:
        row, lowest = find_store_log(connection, doors.store.uid)
    if row is None or row.incarnation != doors.store.incarnation:
        was = f"it was replaced by another one; its incarnation was {doors.store.incarnation}"
        raise stale_index(was, hint="connect to the store again")
    if row.log_seq < doors.store.log_seq:
        raise stale_index(f"its store log ends at {row.log_seq}, and was at {doors.store.log_seq} before")
    return row, lowest


def check_still_ours(doors: Doors, what: str, commit_id: str = "") -> None:
    """Check, after a record was written and before it is acknowledged, that no other index has taken the store over meanwhile.

    Whoever makes an index anew first puts a record into the store's log, and then reads the container. So what was written before
    that record was seen, and what is found to come after it must not be acknowledged.

    Raises:
        OutcomeUnknownError: one has; whether it knows of the record is to be asked of the new one.
    """
    try:
        check_store_fresh(doors)
    except FormatError as err:
        raise OutcomeUnknownError(
            f"{what} is written, but {err.message}",
            commit_id=commit_id,
            hint="connect again, with the index that serves the store now, and ask store.outcome(commit_id)",
        ) from err


def stale_index(evidence: str, *, hint: str = "vds index rebuild") -> FormatError:
    """Return the error that refuses an index which is older than its store."""
    return FormatError(f"this index is older than its store: {evidence}", hint=hint)


def add_store_record(connection: Connection, store: StoreRow, kind: str, fields: Mapping[str, Any]) -> AddedRecord:
    """Append to the store's log, inside the transaction that does what the record says; publish it after its commit.

    It locks the store's row, the last of all locks.

    Raises:
        InvalidInputError: the record would be too long.
    """
    last = lock_store(connection, store.id)
    number = last.log_seq + 1
    created_us = now_us(connection)
    record = StoreRecord(store.uid, number, last.log_digest, kind, moment_of(created_us), fields)
    body = record.encode()
    advance_store_log(connection, store.id, number, record_digest(STORE_CONTEXT, body))
    queued = QueuedRecord("store", 0, number, store_key(number), body)
    add_record(connection, store.id, queued)
    return AddedRecord(queued, created_us)


def publish_store_record(doors: Doors, added: AddedRecord) -> None:
    """Write a record of the store's log to the container, after all before it: a hole in the log would hide what follows.

    Raises:
        RecordDivergedError: the container holds another one under its number: an index that replaced this one, most likely.
        OutcomeUnknownError: what it says is done in the index, but the container did not take it; the record stays queued.
    """
    try:
        flush_line(doors, "store", added.queued.owner_id, added.queued.number)
    except OutcomeUnknownError:
        raise
    except VdsError as err:
        raise OutcomeUnknownError(
            f"record {added.queued.number} of the store's log is not yet in the container: {err}",
            hint="make the same call again: it goes on where this one ended",
        ) from err
