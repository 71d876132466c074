"""Look whether adopted blobs are where they were, and as they were: others may change them at any time.

They are in no listing of the store's container. Each that a row says is in use is asked for by itself, and the record that tells
where it is must be there and whole. Who may not look, or finds nobody to ask, says so and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from typing import NamedTuple

from vds.blobs.driver import Blob
from vds.blobs.outside import Outside, RoutedDriver, changed_error, read_adoption
from vds.errors import AccessDeniedError, CorruptionError, UnavailableError
from vds.index.inspect import BlobRow, find_blobs, list_members, read_blob_page
from vds.model.adoption import ADOPTED_PREFIX, split_key
from vds.ops.damagenotes import DamageNotes
from vds.ops.findings import Inspection
from vds.pipeline import parallel_map


class Present(NamedTuple):
    """A blob in use that is there.

    Attributes:
        is_cut: it is a pack of another size than it was made with, in which some objects may be left.
    """

    row: BlobRow
    blob: Blob
    is_cut: bool = False


class _Look(NamedTuple):
    row: BlobRow
    blob: Blob | None = None
    fault: str = ""
    skipped: str = ""


def check_adopted(run: Inspection, notes: DamageNotes) -> Iterator[Present]:
    """Yield the adopted blobs in use that are as they were, by key; of the others their contents are noted as damaged."""
    after = ""
    while True:
        with run.doors.index.read() as connection:
            page = read_blob_page(connection, run.doors.store.id, ADOPTED_PREFIX, after)
        if not page:
            return
        after = page[-1].key
        # What is condemned is of use to nobody: its owner may have deleted it.
        rows = [row for row in page if row.state == "live"]
        with closing(parallel_map(lambda one: _look(run, one), _locate(run, rows))) as looks:
            for look in looks:
                run.examined.blobs += 1
                if look.blob is not None:
                    yield Present(look.row, look.blob)
                elif look.skipped:
                    run.findings.add("check-skipped", detail=look.skipped)
                else:
                    _note(run, notes, look)


def _locate(run: Inspection, rows: list[BlobRow]) -> Iterator[tuple[BlobRow, Outside | str]]:
    """Yield each row with what its record says, which is read anew, or with what is wrong with that."""
    driver = run.doors.blobs
    assert isinstance(driver, RoutedDriver)
    for record_key, group in groupby(rows, lambda row: row.key.rpartition("/")[0]):
        try:
            record = read_adoption(driver.inner, record_key)
        except CorruptionError as err:
            yield from ((row, err.message) for row in group)
            continue
        for row in group:
            parts = split_key(row.key)
            if parts is None or parts[1] >= len(record.blobs):
                yield row, f"adoption record {record_key!r} says nothing of it"
            else:
                yield row, Outside(driver.whole_place(record), record.blobs[parts[1]])


def _look(run: Inspection, one: tuple[BlobRow, Outside | str]) -> _Look:  # in worker threads
    row, outside = one
    if isinstance(outside, str):
        return _Look(row, fault=outside)
    driver = run.doors.blobs
    assert isinstance(driver, RoutedDriver)
    try:
        found = driver.look_outside(outside)
    except (AccessDeniedError, UnavailableError) as err:
        return _Look(row, skipped=f"adopted blobs in {outside.container!r}: {err.message}")
    if found is None or found.etag != outside.blob.etag or found.size_bytes != outside.blob.size_bytes:
        return _Look(row, fault=changed_error(outside, found).message)
    return _Look(row, Blob(row.key, found.size_bytes, found.etag))


def _note(run: Inspection, notes: DamageNotes, look: _Look) -> None:
    with run.doors.index.read() as connection:
        now = find_blobs(connection, run.doors.store.id, [look.row.key]).get(look.row.key)
        if now is None or now.state != "live":
            return  # it left use meanwhile
        members = list_members(connection, run.doors.store.id, look.row.id)
    for member in members:
        notes.add_damaged(member.digest, look.row.id, look.row.key, look.fault)
