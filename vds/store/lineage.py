"""What came from what: runs, and the versions between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vds.store.runs import RunInfo
from vds.store.store import Store

RUNS_MAX = 1000
"""How many runs a graph has at most."""


@dataclass(frozen=True)
class Graph:
    """Runs and versions, and what led from one to the other.

    Attributes:
        runs: by id, in the order they began.
        versions: uris, in the order they were met.
        reads: (uri, run, name of the input).
        writes: (run, uri, name of the output).
        is_cut: whether there is more than is shown.
    """

    runs: dict[str, RunInfo] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    reads: list[tuple[str, str, str]] = field(default_factory=list)
    writes: list[tuple[str, str, str]] = field(default_factory=list)
    is_cut: bool = False


def graph_of_run(store: Store, run: str) -> Graph:
    """Return a run with all that belong to it.

    Raises:
        NotFoundError: there is no such run.
    """
    found = [store.get_run(run)]
    for info in found:  # which grows meanwhile
        if len(found) < RUNS_MAX:
            found += store.runs(parent=info.id, limit=RUNS_MAX)
    own = found if len(found) == 1 else [info for info in found if info.kind != "pipeline"]
    return _graph(own[:RUNS_MAX], is_cut=len(found) > RUNS_MAX)


def graph_of_version(store: Store, ref: str) -> Graph:
    """Return the runs that led to a version: the one that wrote it, those that wrote what that one read, and so on.

    Raises:
        NotFoundError: there is no such version.
    """
    found: dict[str, RunInfo] = {}
    left = [store.get(ref)]
    while left and len(found) < RUNS_MAX:
        info = left.pop().produced_by
        if info is None or info.id in found:
            continue
        found[info.id] = info
        left += [store.namespace(place.namespace).get(place.number) for place in info.inputs]
    return _graph(found.values(), is_cut=bool(left))


def _graph(infos: Iterable[RunInfo], *, is_cut: bool) -> Graph:
    graph = Graph({info.id: info for info in sorted(infos, key=lambda info: info.id)}, is_cut=is_cut)
    for info in graph.runs.values():
        for place in info.inputs:
            graph.reads.append((place.uri, info.id, place.name))
        for place in info.outputs:
            graph.writes.append((info.id, place.uri, place.name))
        put_out = {f"{place.namespace}@{place.number}" for place in info.outputs}
        for written in info.written:
            if written not in put_out and not written.startswith("azureml/artifacts@"):
                graph.writes.append((info.id, f"vds://{written}/", ""))
    met = [uri for uri, _, _ in graph.reads] + [uri for _, uri, _ in graph.writes]
    graph.versions.extend(dict.fromkeys(met))
    return graph
