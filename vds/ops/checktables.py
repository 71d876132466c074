"""Look for rows of the index that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping

from vds.index.contradictions import (
    check_database,
    find_lost_releases,
    find_misplaced,
    find_needed,
    find_overlaps,
    find_unplaced,
    find_wrong_uses,
    list_totals,
    sum_entries,
)
from vds.index.gaps import LostRow, list_gaps
from vds.index.inspect import IN_USE
from vds.index.stores import NamespaceRow, list_namespaces
from vds.model.digest import EMPTY_RAW
from vds.ops.findings import Inspection


def check_tables(run: Inspection) -> None:
    """Look for contradictions in all tables; each is one walk through the largest of them."""
    doors = run.doors
    with doors.index.read() as connection:
        for fault in check_database(connection):
            run.findings.add("index-damaged", detail=fault)
        namespaces = {row.id: row for row in list_namespaces(connection, doors.store.id)}
    _check_placements(run)
    _check_entries(run, namespaces)
    for namespace in namespaces.values():
        _check_totals(run, namespace)
    _check_collection(run, namespaces)
    with doors.index.read() as connection:
        for dataset, release, why in find_lost_releases(connection, doors.store.id):
            run.findings.add("release-lost", f"{dataset}:{release}", why)


def list_lost(run: Inspection) -> list[LostRow]:
    """Return the gaps with which the index was made from the container, and tell of each."""
    with run.doors.index.read() as connection:
        rows = list_gaps(connection, run.doors.store.id)
    for row in rows:
        run.findings.add("rebuild-gap", row.key, row.detail)
    return rows


def _check_placements(run: Inspection) -> None:
    store_id = run.doors.store.id
    with run.doors.index.read() as connection:
        for digest, size_bytes, count, state in find_unplaced(connection, store_id, EMPTY_RAW):
            why = f"its blob is {state}" if state else f"there is no place of {size_bytes} bytes for it"
            run.findings.add("object-unplaced", detail=f"{count} files need it, {why}", digest=digest)
        for digest, key, state, place in find_misplaced(connection, store_id):
            if state in ("deleting", "deleted"):
                run.findings.add("placement-stale", key, f"it is {state}", digest=digest)
            else:
                why = place if state in IN_USE else f"its blob is {state or 'not known'}"
                run.findings.add("object-misplaced", key, why, digest=digest)


def _check_entries(run: Inspection, namespaces: Mapping[int, NamespaceRow]) -> None:
    with run.doors.index.read() as connection:
        for namespace_id, path, first, end in find_overlaps(connection, run.doors.store.id):
            name = f"{_name(namespaces, namespace_id)}@{first}/{path}"
            run.findings.add("interval-overlap", name, f"it ends at version {end}, another one begins before that")


def _check_totals(run: Inspection, namespace: NamespaceRow) -> None:
    """Compare the counts of every version that is left with its entries, all in two walks through them."""
    store_id = namespace.store_id
    wrong: list[tuple[int, str]] = []
    with run.doors.index.read() as connection:
        totals = list_totals(connection, store_id, namespace.id)
        steps = sum_entries(connection, store_id, namespace.id)
        step = next(steps, None)
        files = size_bytes = 0
        for number, file_count, total_bytes in totals:
            while step is not None and step[0] <= number:
                files, size_bytes = files + step[1], size_bytes + step[2]
                step = next(steps, None)
            if (files, size_bytes) != (file_count, total_bytes):
                wrong.append((number, f"it says {file_count} files of {total_bytes} bytes, it has {files} of {size_bytes}"))
    if not wrong:
        return
    with run.doors.index.read() as connection:  # what has expired meanwhile may have been set aside
        left = {number for number, _, _ in list_totals(connection, store_id, namespace.id)}
    for number, detail in wrong:
        if number in left:
            run.findings.add("totals-differ", f"{namespace.name}@{number}", detail)


def _check_collection(run: Inspection, namespaces: Mapping[int, NamespaceRow]) -> None:
    store_id = run.doors.store.id
    with run.doors.index.read() as connection:
        for digest, counted, found in find_wrong_uses(connection, store_id):
            run.findings.add("uses-differ", detail=f"counted {counted} times, used {found} times", digest=digest)
        for namespace_id, path, first, needed in find_needed(connection, store_id):
            name = f"{_name(namespaces, namespace_id)}@{first}/{path}"
            run.findings.add("set-aside-needed", name, f"version {needed} needs it")


def _name(namespaces: Mapping[int, NamespaceRow], namespace_id: int) -> str:
    return namespaces[namespace_id].name if namespace_id in namespaces else f"namespace {namespace_id}"
