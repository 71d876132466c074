"""Runs: what their records say, the last one where there are two."""

from __future__ import annotations

from contextlib import closing

from vds.blobs.records import Gap, read_runs
from vds.index.rebuildrows import find_namespaces
from vds.index.runs import PlaceKind, PlaceRow, RunRow, add_rebuilt
from vds.model.moment import micros_of
from vds.model.run import Place, RunRecord
from vds.ops.rebuilding import Making


def remake_runs(making: Making) -> None:
    """Add every run that has a record; one that cannot be read is reported, and costs nothing else."""
    making.progress.stage("reading runs")
    making.sink.flush()
    with making.sink.database.read() as connection:
        namespaces = find_namespaces(connection, making.store_id)
    with closing(read_runs(making.blobs, making.uid)) as records:
        for found in records:
            if isinstance(found, Gap):
                making.report("run", found)
            else:
                _remake_run(making, namespaces, found)


def _remake_run(making: Making, namespaces: dict[str, int], record: RunRecord) -> None:
    kinds: list[tuple[PlaceKind, Place]] = [("input", place) for place in record.inputs]
    kinds += [("output", place) for place in record.outputs]
    places = [
        (kind, PlaceRow(place.name, namespaces[place.namespace], place.namespace_name, place.number, place.path, place.asked))
        for kind, place in kinds
        if place.namespace in namespaces  # its name's claim is lost, which is reported
    ]
    row = RunRow(
        uid=record.uid,
        parent=record.parent,
        kind=record.kind,
        name=record.name,
        author=record.author,
        status=record.status or "running",
        started_us=micros_of(record.started_at),
        ended_us=None if record.ended_at is None else micros_of(record.ended_at),
        is_silent=False,
        process="",
        params=record.params,
        provenance=record.provenance,
        key=record.key,
        key_parts=record.key_parts,
        reused=record.reused,
        error=record.error,
    )
    making.sink.run(lambda connection: add_rebuilt(connection, making.store_id, row, places))
