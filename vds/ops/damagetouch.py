"""Name what a damaged content touches: files of versions, the releases that show them, and the tags that show those."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vds.index.database import Connection
from vds.index.datasets import list_datasets, list_tags
from vds.index.inspect import ReleasePlace, UseRow, find_uses, list_release_places
from vds.index.schema import OPEN
from vds.index.stores import list_namespaces
from vds.model.path import is_under
from vds.ops.findings import PROBLEMS_MAX, TOUCHES_MAX, Inspection, Touch

_KINDS = ("object-damaged", "object-unplaced", "object-misplaced")


@dataclass
class _Touched:
    touches: list[Touch] = field(default_factory=list)
    releases: dict[str, None] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    left_out: int = 0


def name_touched(run: Inspection) -> None:
    """Add to each problem about an object what it touches, in one walk through all entries for all of them."""
    digests = list(dict.fromkeys(digest for kind in _KINDS for digest in run.findings.digests_of(kind)))[:PROBLEMS_MAX]
    if not digests:
        return
    store_id = run.doors.store.id
    touched: dict[bytes, _Touched] = defaultdict(_Touched)
    count = 0
    with run.doors.index.read() as connection:
        names = {row.id: row.name for row in list_namespaces(connection, store_id)}
        shown = _Shown(connection, store_id)
        for use in find_uses(connection, store_id, digests):
            one = touched[use.digest]
            shown.add(use, one)
            count += 1
            if count > TOUCHES_MAX:
                one.left_out += 1
                continue
            last = None if use.end_version == OPEN else use.end_version - 1
            one.touches.append(Touch(names.get(use.namespace_id, ""), use.path, use.first_version, last))
    for problem in run.findings.of(*_KINDS):
        found = touched.get(bytes.fromhex(problem.digest.removeprefix("b3:")))
        if found is not None:
            more = f"; and {found.left_out} more files" if found.left_out else ""
            run.findings.update(
                replace(
                    problem,
                    detail=problem.detail + more,
                    touches=tuple(found.touches),
                    releases=tuple(found.releases),
                    tags=tuple(found.tags),
                )
            )


class _Shown:
    """Which releases and tags show a file."""

    def __init__(self, connection: Connection, store_id: int) -> None:
        self._by_namespace: dict[int, list[ReleasePlace]] = defaultdict(list)
        for place in list_release_places(connection, store_id):
            self._by_namespace[place.namespace_id].append(place)
        self._versions = {key: [place.version for place in places] for key, places in self._by_namespace.items()}
        self._tags: Mapping[tuple[int, int], Sequence[str]] = _tags_by_release(connection, store_id) if self._by_namespace else {}

    def add(self, use: UseRow, to: _Touched) -> None:
        places, versions = self._by_namespace.get(use.namespace_id, ()), self._versions.get(use.namespace_id, [])
        for place in places[bisect_left(versions, use.first_version) : bisect_left(versions, use.end_version)]:
            if is_under(use.path, place.path):
                to.releases[f"{place.dataset}:{place.number}"] = None
                to.tags.update(dict.fromkeys(self._tags.get((place.dataset_id, place.number), ())))


def _tags_by_release(connection: Connection, store_id: int) -> dict[tuple[int, int], list[str]]:
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for dataset, _ in list(list_datasets(connection, store_id)):
        for tag, release in list_tags(connection, dataset).items():
            found[dataset.id, release].append(f"{dataset.name}:{tag}")
    return found
