"""A new index, from the container alone.

Its order is the safety of the store:

1. the store's log is read to its end, and that its index is replaced is appended: from then on nothing is acknowledged through
   the old index, and nobody collects with it;
2. everything is read, and written under a row of its own: the old rows stay as they are and serve who reads;
3. the container's format record names the new index: from then on the old one is opened by nobody;
4. one transaction puts the new rows in the place of the old ones;
5. the old rows go.

A crash anywhere leaves rows, copies and records that mean nothing: a rebuild begun again does all of it again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import fresh_ulid, read_record
from vds.blobs.records import Gap, holds_bytes
from vds.errors import BlobExistsError, InvalidInputError, UnavailableError, VdsError
from vds.index.database import Database, now_us
from vds.index.migrate import upgrade
from vds.index.rebuild import drop_rows, find_fault, list_replaced, move_aside, read_known, superseded_error
from vds.index.rebuildrows import Unplaced, list_unplaced
from vds.index.rebuildsink import Sink
from vds.index.stores import NamespaceRow, list_namespaces
from vds.index.sweep import count_rows
from vds.model.digest import Digest
from vds.model.format import FORMAT_PREFIX, FormatRecord, format_key
from vds.model.moment import moment_of
from vds.model.ref import format_moment
from vds.model.storelog import STORE_PREFIX, store_key
from vds.ops.rebuilddatasets import remake_datasets
from vds.ops.rebuildentries import Replay
from vds.ops.rebuilding import PATHS_SHOWN_MAX, Making, RebuildGap, RebuildReport
from vds.ops.rebuildlines import list_lines
from vds.ops.rebuildlog import StoreLog
from vds.ops.rebuildplaces import place_blobs, place_late, save_going
from vds.ops.rebuildruns import remake_runs
from vds.progress import Progress

FORMAT_TRIES_MAX = 100
"""How many format records others may write while this one is being written."""


class NewIndex(NamedTuple):
    """The index that is to serve a store.

    Attributes:
        address: how the container names it.
        host: the machine of an embedded one, else empty.
    """

    database: Database
    address: str
    host: str


def rebuild(blobs: BlobDriver, record: FormatRecord, index: NewIndex, progress: Progress) -> RebuildReport:
    """Make the index of a store anew in a database, which may hold the old one, and have the container name it.

    What the container does not say any more is reported, and remembered by the index.

    Args:
        blobs: the container.
        record: what it says of itself now.
        index: the new one; its tables are made if they are not there.
        progress: is told how far it is.

    Raises:
        ConflictError: another rebuild was begun after this one.
        InvalidInputError: the database is a damaged file, and none that the store has named.
        FormatError: the database, or something in the container, is newer than this program.
        UnavailableError: the container or the database does not answer; the store needs another rebuild then.
    """
    begun_s = time.monotonic()
    moved_aside = _prepare(record, index)
    incarnation = fresh_ulid()
    making = _begin(blobs, record.store, index.database, incarnation, progress)
    log = StoreLog(making)
    progress.stage("reading the store's log")
    log.close(incarnation, index.address, index.host)
    _check_log(making, log, record)
    _remake(making, log)
    _name_index(making, log, index, incarnation)
    making.sink.switch(making.uid, log.number, log.digest)
    progress.stage("dropping the old rows")
    _drop_replaced(making)
    return RebuildReport(
        store=record.store,
        index=index.address,
        incarnation=incarnation,
        moved_aside=None if moved_aside is None else str(moved_aside),
        **making.counted(),
        seconds=time.monotonic() - begun_s,
        gap_count=making.findings.count,
        gaps=tuple(making.findings.gaps),
    )


def _prepare(record: FormatRecord, index: NewIndex) -> Path | None:
    """Make the tables, beside a damaged file where there is one; return where that was moved."""
    database, moved = index.database, None
    fault = find_fault(database) if database.is_sqlite else None
    if fault is not None:
        if index.address != record.index:
            raise InvalidInputError(
                f"{str(database.path)!r} is no index, or a damaged one ({fault})", hint="name a file that is not there yet"
            )
        moved = move_aside(database)
    upgrade(database)
    return moved


def _begin(blobs: BlobDriver, uid: str, database: Database, incarnation: str, progress: Progress) -> Making:
    with database.read() as connection:
        began_us = now_us(connection)
        known = read_known(connection, uid)
    return Making(blobs, Sink(database, uid, incarnation), uid, known, progress, began_us)


def _check_log(making: Making, log: StoreLog, record: FormatRecord) -> None:
    """Look whether the log says of the index that served until now how it came to that; the first one came with the store."""
    oldest = next(making.blobs.list_blobs(FORMAT_PREFIX))
    first = FormatRecord.decode(read_record(making.blobs, oldest.key, oldest.size_bytes), oldest.key, read_only=False)
    if record.incarnation != first.incarnation and record.incarnation not in log.incarnations:
        detail = f"nothing in it says that the index of incarnation {record.incarnation} replaced the one before"
        making.lose("log", Gap(STORE_PREFIX, "missing", detail))


def _remake(making: Making, log: StoreLog) -> None:
    checkpoints = place_blobs(making, log.erased)
    for line in list_lines(making, log, checkpoints):
        Replay(making, line, checkpoints.get(line.uid, ())).run()
    making.flush_lists()
    remake_datasets(making)
    remake_runs(making)
    making.sink.run(count_rows)
    save_going(making, log.erased)
    if _lacks_objects(making):
        place_late(making, log.erased)
    _report_unplaced(making)


def _lacks_objects(making: Making) -> bool:
    making.progress.stage("looking for missing objects")
    with making.sink.database.read() as connection:
        return next(list_unplaced(connection, making.store_id), None) is not None


def _report_unplaced(making: Making) -> None:
    """Report the objects that versions need and that are nowhere; their entries are there, and reading them fails."""
    with making.sink.database.read() as connection:
        namespaces = {row.id: row for row in list_namespaces(connection, making.store_id)}
        rows = list_unplaced(connection, making.store_id)
        for (namespace_id, digest, size_bytes), own in groupby(
            rows, key=lambda row: (row.namespace_id, row.digest, row.size_bytes)
        ):
            making.findings.add(_unplaced_gap(namespaces[namespace_id], Digest.from_raw(digest), size_bytes, list(own)))


def _unplaced_gap(namespace: NamespaceRow, digest: Digest, size_bytes: int, rows: list[Unplaced]) -> RebuildGap:
    versions: list[tuple[int, int]] = []
    for first, last in sorted((row.first_version, min(row.end_version - 1, namespace.head)) for row in rows):
        if versions and first <= versions[-1][1] + 1:
            versions[-1] = (versions[-1][0], max(last, versions[-1][1]))
        else:
            versions.append((first, last))
    paths = tuple(sorted({row.path for row in rows})[:PATHS_SHOWN_MAX])
    detail = f"no blob holds these {size_bytes} bytes"
    return RebuildGap("object", digest, detail, namespace.name, (*versions,), paths)


def _name_index(making: Making, log: StoreLog, index: NewIndex, incarnation: str) -> None:
    """Write the next format record, unless another rebuild was begun after this one.

    Raises:
        ConflictError: one was.
    """
    for _ in range(FORMAT_TRIES_MAX):
        newest = list(making.blobs.list_blobs(FORMAT_PREFIX))[-1]
        # After the listing: a rebuild that was begun later, and has ended, is seen here or in the number it took.
        if making.blobs.find_blob(store_key(log.number + 1)) is not None:
            raise superseded_error()
        body = read_record(making.blobs, newest.key, newest.size_bytes)
        with making.sink.database.read() as connection:
            created_at = format_moment(moment_of(now_us(connection)))
        record = replace(
            FormatRecord.decode(body, newest.key, read_only=False),
            incarnation=incarnation,
            index=index.address,
            host=index.host,
            created_at=created_at,
        )
        key = format_key(int(newest.key.removeprefix(FORMAT_PREFIX)) + 1)
        try:
            making.blobs.put_if_absent(key, record.encode())
        except BlobExistsError:
            if not holds_bytes(making.blobs, key, record.encode()):
                continue
        return
    raise UnavailableError("others write format records all the time", hint="try again when they are done")


def _drop_replaced(making: Making) -> None:
    with suppress(VdsError):  # the new index serves already; what is left here, the next rebuild takes
        with making.sink.database.read() as connection:
            replaced = list_replaced(connection, making.uid)
        for store_id in replaced:
            drop_rows(making.sink.database, store_id)
