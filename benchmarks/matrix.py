"""Run peers side by side: rounds of A B C A B C, so that a slow minute of the machine meets them all."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.catalog import PEERS, Peer
from benchmarks.cells import run_cell
from benchmarks.install import BENCH, ROOT, find_absence, find_version
from benchmarks.report import print_report
from benchmarks.server import null_server
from benchmarks.workloads import WORKLOADS, Workload, find_scratch, make_tree

RESULTS = Path(__file__).parent / "results"
KEPT_BY_DEFAULT = BENCH / "last.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for; `workers` 0 takes those of the catalog."""

    workloads: tuple[Workload, ...]
    peers: tuple[Peer, ...]
    latencies_ms: tuple[float, ...]
    wires: tuple[str, ...]
    rounds: int
    workers: int


def main(words: Sequence[str]) -> int:
    """Run the matrix, print its tables, keep the results; 1 when any run failed."""
    options = _parse(words)
    wanted = Wanted(
        tuple(WORKLOADS[name] for name in options.workload),
        tuple(PEERS[name] for name in options.peers),
        tuple(options.latency),
        tuple(options.wire),
        options.rounds,
        options.workers,
    )
    absent = {peer.name: reason for peer in wanted.peers if (reason := find_absence(peer))}
    for name, reason in absent.items():
        print(f"{name} is absent: {reason}", file=sys.stderr)
    result = describe(wanted, absent)
    target = RESULTS / f"{options.keep}.json" if options.keep else KEPT_BY_DEFAULT
    target.parent.mkdir(exist_ok=True)
    for cell in run_cells(wanted, set(absent)):
        result["cells"].append(cell)
        target.write_text(json.dumps(result, indent=1) + "\n")  # after each cell: a matrix takes long, and may be stopped
    print_report(result)
    failed = [name for cell in result["cells"] for name, peer in cell["peers"].items() if peer["failed"]]
    print(f"kept in {target}" + (f"; failed: {', '.join(sorted(set(failed)))}" if failed else ""))
    return 1 if failed else 0


def run_cells(wanted: Wanted, absent: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the figures of each workload on each wire at each latency, as they come."""
    with tempfile.TemporaryDirectory(prefix="vds-bench-", dir=find_scratch(), ignore_cleanup_errors=True) as text:
        for workload in wanted.workloads:
            able = [peer for peer in wanted.peers if peer.name not in absent and workload.does in peer.does]
            peers = [peer for peer in able if workload.is_shared or peer.is_vds]
            if not peers:
                continue
            tree = make_tree(workload, Path(text))
            # What only vds does is measured once for each latency: encryption adds nothing that `big` and `small` do not show.
            wires = wanted.wires if workload.is_shared else wanted.wires[:1]
            for wire in wires:
                for latency_ms in wanted.latencies_ms[:1] if workload.is_local else wanted.latencies_ms:
                    with null_server(
                        latency_ms=latency_ms, is_tls=wire == "tls", keeps_bodies=workload.does != "upload"
                    ) as server:
                        yield run_cell(workload, peers, server, tree, rounds=wanted.rounds, workers=wanted.workers)


def describe(wanted: Wanted, absent: dict[str, str]) -> dict[str, Any]:
    """Return what the figures were taken on and with."""
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "is_modified": bool(_git("status", "--porcelain", "--", "vds", "migrations")),
        "machine": {
            "cpus": os.cpu_count(),
            "cpu": _cpu_model(),
            "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30,
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "rounds": wanted.rounds,
        "versions": {peer.name: find_version(peer) for peer in wanted.peers if peer.name not in absent},
        "absent": absent,
        "cells": [],
    }


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)

    def names(known: Sequence[str]) -> Any:
        def parse(text: str) -> list[str]:
            chosen = text.split(",")
            if unknown := [name for name in chosen if name not in known]:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
            return chosen

        return parse

    parser.add_argument("--workload", type=names([*WORKLOADS]), default=[*WORKLOADS], help=", ".join(WORKLOADS))
    parser.add_argument("--peers", type=names([*PEERS]), default=[*PEERS], help=", ".join(PEERS))
    parser.add_argument("--latency", type=lambda text: [float(one) for one in text.split(",")], default=[0.0, 20.0], help="ms")
    parser.add_argument("--wire", type=names(["plain", "tls"]), default=["plain", "tls"], help="plain, tls")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="for every peer, in place of its best")
    parser.add_argument("--keep", metavar="NAME", help=f"keep as {RESULTS.name}/NAME.json; else as .bench/last.json")
    return parser.parse_args(words)
