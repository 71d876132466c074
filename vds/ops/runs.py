"""Runs: begin one, say what it reads and wrote, end it, and find it again.

A run is a row of the index and two records in the container. The first record is written when it begins; the last one, before the
row says that it has ended. A crash in between leaves a run that nobody hears of any more: it shows as abandoned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vds.blobs.objects import RecordDivergedError, fresh_ulid, put_record, read_record
from vds.engine.doors import Doors
from vds.engine.resume import is_gone, own_process
from vds.errors import NotFoundError, redact
from vds.index.database import now_us
from vds.index.runs import (
    PlaceKind,
    PlaceRow,
    RunFilter,
    RunRow,
    add_place,
    add_run,
    beat_run,
    end_run,
    find_run,
    list_places,
    list_runs,
    list_users,
    list_written,
)
from vds.index.stores import NamespaceRow, find_namespace
from vds.model.moment import micros_of, moment_of
from vds.model.run import EndStatus, Place, RunKind, RunRecord, RunStatus, check_params, check_run_name
from vds.provenance import VALUE_BYTES_MAX, cut, without_secrets

HEARTBEAT_S = 10.0
"""How often who runs something says that it is at work: six times before it counts as abandoned."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is known of a run when it begins.

    Attributes:
        parent: the run it belongs to; empty for none.
        key: of a step, see `RunRecord`.
    """

    name: str
    author: str
    kind: RunKind = "run"
    parent: str = ""
    params: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    key_parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run, with what it read and what it wrote.

    Attributes:
        status: as it is now; `abandoned` when nobody runs it any more and it did not end.
        outputs: what it said it put out.
        written: (namespace, number) of every version it wrote.
    """

    row: RunRow
    status: RunStatus
    inputs: list[PlaceRow]
    outputs: list[PlaceRow]
    written: list[tuple[str, int]]


def begin(doors: Doors, new: NewRun) -> str:
    """Record that a run begins now, and return its id.

    Raises:
        AccessDeniedError: the store was opened for reading.
        InvalidInputError: name or params cannot be recorded.
    """
    doors.check_writable()
    uid = fresh_ulid()
    row = RunRow(
        uid=uid,
        parent=new.parent,
        kind=new.kind,
        name=check_run_name(new.name),
        author=new.author,
        status="running",
        started_us=0,
        ended_us=None,
        is_silent=False,
        process=own_process(),
        params=without_secrets(check_params(new.params)),
        provenance=new.provenance,
        key=new.key,
        key_parts=new.key_parts,
    )
    _record(doors, row).encode()  # before anything is there: it may be too long
    started_us = doors.index.run(lambda connection: add_run(connection, doors.store.id, row))
    record = _record(doors, row, started_us)
    put_record(doors.blobs, record.record_key, record.encode())
    return uid


def beat(doors: Doors, uid: str) -> None:
    """Say that a run is at work."""
    doors.index.run(lambda connection: beat_run(connection, doors.store.id, uid))


def note(doors: Doors, uid: str, kind: PlaceKind, place: PlaceRow) -> None:
    """Record that a run read, or put out, a version; again is harmless."""
    doors.check_writable()
    doors.index.run(lambda connection: add_place(connection, doors.store.id, uid, kind, place))


def end(doors: Doors, uid: str, status: EndStatus, *, error: str = "", reused: str = "") -> RunStatus:
    """Record how a run ended, and return how it did: the first end counts.

    Raises:
        NotFoundError: there is no such run.
    """
    found = get(doors, uid)
    if found.row.status != "running":
        return found.row.status
    with doors.index.read() as connection:
        ended_us = max(now_us(connection), found.row.started_us)
    record = _record(
        doors, found.row, status=status, ended_us=ended_us, error=cut(redact(error), VALUE_BYTES_MAX), reused=reused, facts=found
    )
    try:
        put_record(doors.blobs, record.record_key, record.encode())
    except RecordDivergedError:  # it was ended already, and the row does not say so yet
        record = RunRecord.decode(read_record(doors.blobs, record.record_key), record.record_key)
    ended = record.status
    assert ended is not None
    assert record.ended_at is not None
    at_us = micros_of(record.ended_at)
    doors.index.run(
        lambda connection: end_run(connection, doors.store.id, uid, ended, at_us, error=record.error, reused=record.reused)
    )
    return ended


def get(doors: Doors, uid: str) -> RunFacts:
    """Return a run.

    Raises:
        NotFoundError: there is none of this id.
    """
    with doors.index.read() as connection:
        row = find_run(connection, doors.store.id, uid)
    if row is None:
        raise NotFoundError(f"there is no run {uid!r} in this store", hint="vds runs")
    return _facts(doors, row)


def find(doors: Doors, wanted: RunFilter, limit: int | None = None) -> list[RunFacts]:
    """Return runs, newest first."""
    with doors.index.read() as connection:
        rows = list(list_runs(connection, doors.store.id, wanted, limit))
    return [_facts(doors, row) for row in rows]


def find_users(doors: Doors, namespace: NamespaceRow, number: int) -> list[tuple[RunFacts, PlaceRow]]:
    """Return the runs that read a version, oldest first, each with what it read of it."""
    with doors.index.read() as connection:
        found = list_users(connection, doors.store.id, namespace.id, number)
    return [(_facts(doors, row), place) for row, place in found]


def status_of(row: RunRow) -> RunStatus:
    """Return how a run is now: one that is not heard of for a minute, or whose process is gone, was abandoned."""
    if row.status == "running" and (row.is_silent or is_gone(row.process)):
        return "abandoned"
    return row.status


def _facts(doors: Doors, row: RunRow) -> RunFacts:
    with doors.index.read() as connection:
        inputs = list_places(connection, doors.store.id, row.uid, "input")
        outputs = list_places(connection, doors.store.id, row.uid, "output")
        written = [(name, number) for _, name, number in list_written(connection, doors.store.id, row.uid)]
    return RunFacts(row, status_of(row), inputs, outputs, written)


def _record(
    doors: Doors,
    row: RunRow,
    started_us: int = 0,
    *,
    status: EndStatus | None = None,
    ended_us: int | None = None,
    error: str = "",
    reused: str = "",
    facts: RunFacts | None = None,
) -> RunRecord:
    return RunRecord(
        store=doors.store.uid,
        uid=row.uid,
        parent=row.parent,
        kind=row.kind,
        name=row.name,
        author=row.author,
        started_at=moment_of(started_us or row.started_us),
        params=row.params,
        provenance=row.provenance,
        key=row.key,
        key_parts=row.key_parts,
        reused=reused,
        status=status,
        ended_at=None if ended_us is None else moment_of(ended_us),
        error=error,
        inputs=_places(doors, facts.inputs if facts else []),
        outputs=_places(doors, facts.outputs if facts else []),
    )


def _places(doors: Doors, rows: list[PlaceRow]) -> list[Place]:
    if not rows:
        return []
    with doors.index.read() as connection:
        names = {row.namespace for row in rows}
        found = {name: find_namespace(connection, doors.store.id, name) for name in names}
    return [
        Place(row.name, namespace.uid, row.namespace, row.number, row.path, row.asked)
        for row in rows
        if (namespace := found[row.namespace]) is not None
    ]
