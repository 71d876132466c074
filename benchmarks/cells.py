"""One cell of the matrix: a workload over one wire at one latency, all its peers, all rounds."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalog import SLOW_FILES_MAX, Peer
from benchmarks.install import BENCH
from benchmarks.load import Asking, Loading, Postgres, postgres_for
from benchmarks.reading import Reading, load
from benchmarks.runs import Run, RunError
from benchmarks.scenarios import SCENARIOS
from benchmarks.server import NullServer
from benchmarks.workloads import Tree, Workload, sample_tree

MakeRun = Callable[[Peer, int], Run]
"""Of a peer and its workers."""


def run_cell(
    workload: Workload, peers: Sequence[Peer], server: NullServer, tree: Tree, *, rounds: int, workers: int
) -> dict[str, Any]:
    """Run all rounds of one cell and return its figures; `workers` 0 takes those of the catalog."""
    wire = "tls" if server.ca_path else "plain"
    cell: dict[str, Any] = {"workload": workload.name, "title": workload.title, "latency_ms": server.latency_ms, "wire": wire}
    cell |= {"files": workload.count or tree.files, "bytes": workload.count * workload.file_bytes or tree.bytes}
    cell |= {"unit": workload.unit, "peers": {}}
    state = (BENCH if workload.is_load else tree.path.parent) / f"state-{workload.name}-{os.getpid()}"
    try:
        with postgres_for(peers) as postgres:
            cell |= {"postgres": postgres.settings} if postgres is not None else {}
            if workload.is_load:
                make_run = _loader(workload, server, tree, state, postgres)
            else:
                make_run = _reader(workload, server, tree, state) if workload.is_read else _uploader(server, tree)
            reason = _load(workload, server, tree, state)
            for number in range(rounds):
                for peer in peers:
                    run = make_run(peer, workers or peer.workers_for(workload, server.latency_ms))
                    _take(run, workload, number, cell, reason)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    return cell


def _load(workload: Workload, server: NullServer, tree: Tree, state: Path) -> str:
    """Return why the server could not be given what is to be read; "" when it was, or nothing is."""
    try:
        if workload.is_read:
            load(workload, server, tree, state)
    except RunError as err:
        return f"nothing to read: {err}"
    return ""


def _take(run: Run, workload: Workload, number: int, cell: dict[str, Any], reason: str) -> None:
    empty = {"workers": run.workers, **run.units, "runs": [], "failed": {}}
    name = run.peer.name
    kept = cell["peers"].setdefault(name, empty)
    try:
        if reason:
            raise RunError(reason)
        figures: dict[str, Any] | None = SCENARIOS[workload.before](run)
    except RunError as err:
        figures, kept["failed"][str(number)] = None, str(err)
        print(f"{name} failed: {err}", file=sys.stderr)
    finally:
        run.forget()
    kept["runs"].append(figures)  # None keeps the rounds of all peers in step, as ratios need them
    seconds = f"{figures['seconds']:.3f} s" if figures else "failed"
    print(f"{workload.name} {cell['wire']} {cell['latency_ms']:g} ms round {number + 1} {name}: {seconds}", file=sys.stderr)


def _uploader(server: NullServer, tree: Tree) -> MakeRun:
    def make(peer: Peer, workers: int) -> Run:
        state = (BENCH if peer.is_on_disk else tree.path.parent) / f"state-{peer.name}-{os.getpid()}"
        return Run(peer, server, _part(peer, tree), workers, state)

    return make


def _reader(workload: Workload, server: NullServer, tree: Tree, state: Path) -> MakeRun:
    def make(peer: Peer, workers: int) -> Run:
        target = state / "placed" / ("shared" if "target" in (*peer.finds, *peer.leaves) else "own")
        count = workload.count // peer.share
        part = tree if count else _part(peer, tree)
        return Reading(peer, server, part, workers, state, target, count, workload.file_bytes)

    return make


def _loader(workload: Workload, server: NullServer, tree: Tree, state: Path, postgres: Postgres | None) -> MakeRun:
    def make(peer: Peer, workers: int) -> Run:
        kind = Asking if workload.before == "grown" else Loading
        server_of = postgres if peer.index == "postgresql" else None
        target = tree.path.parent / f"committed-{os.getpid()}"
        return kind(peer, server, tree, workers, state / peer.name, workload.count, workload.file_bytes, server_of, target)

    return make


def _part(peer: Peer, tree: Tree) -> Tree:
    return sample_tree(tree, SLOW_FILES_MAX if peer.is_slow else 0)
