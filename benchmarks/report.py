"""Print kept results as tables, and what they say about the targets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalog import PEERS
from benchmarks.figures import Cell, cpu_of, is_large, median_of, ours_of, peak_of, rate_of, ratio_to, runs_of, spread_of
from benchmarks.targets import judge

_LOAD_FACTS = {
    "errors": "errors",
    "acknowledged and lost": "lost",
    "there and not acknowledged": "untold",
    "numbers left out": "gaps",
    "a transaction, median ms": "transaction_ms",
    "a transaction, p99 ms": "transaction_ms_p99",
    "of it the commit, median ms": "commit_ms",
    "of it the commit, p99 ms": "commit_ms_p99",
    "a commit's time in the index, ms": "index_ms",
    "least": "index_ms_least",
    "most": "index_ms_most",
    "of it in the transaction that commits, ms": "locked_ms",
    "of it with the head held, ms": "held_ms",
    "staging before it, ms": "staging_ms",
    "CPU ms each": "cpu_each_ms",
    "of the index's server": "index_cpu_each_ms",
    "to open the store, ms": "open_ms",
    "to find a path and its bytes, ms": "find_ms",
    "to list a directory of 1 000, ms": "children_ms",
    "all below it, ms": "below_ms",
    "to compare versions 1 000 changes apart, ms": "diff_ms",
    "tables walked through": "scans",
    "the most that one question looked at": "looked_at",
}
"""What runs on a store alone have: how it is called, and the figure."""


def main(words: Sequence[str]) -> int:
    """Print the reports of the files named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=__doc__)
    parser.add_argument("file", type=Path, nargs="+")
    for path in parser.parse_args(words).file:
        print_report(json.loads(path.read_text()))
    return 0


def print_report(result: dict[str, Any]) -> None:
    """Print every table of one result."""
    machine = result["machine"]
    modified = ", with changes that are not committed" if result["is_modified"] else ""
    print(f"vds {result['commit']}{modified}, {result['taken']}, rounds: {result['rounds']}")
    print(f"{machine['cpus']} x {machine['cpu']}, {machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}")
    print("versions: " + ", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    for name, reason in result["absent"].items():
        print(f"absent: {name}: {reason}")
    for cell in result["cells"]:
        _print_cell(cell)
    _print_targets(result["cells"])


def _print_cell(cell: Cell) -> None:
    things = cell.get("unit", "files")
    unit = "GB/s" if is_large(cell) else f"{things}/s"
    print(f"\n### {cell['title']}; {cell['wire']}, {cell['latency_ms']:g} ms ({cell['files']} {things}, {cell['bytes']} bytes)\n")
    ours = ours_of(cell)
    print(f"| peer | workers | seconds | {unit} | CPU s/GB | peak MiB | requests | vds is faster by |")
    print("|---|---|---|---|---|---|---|---|")
    for name, kept in cell["peers"].items():
        rate, cpu, peak = rate_of(cell, name), cpu_of(cell, name), peak_of(cell, name)
        if rate is None or peak is None:
            print(f"| {PEERS[name].title} | failed: {next(iter(kept['failed'].values()), '')[:200]!r} | | | | | | |")
            continue
        seconds = spread_of([run["seconds"] for run in runs_of(cell, name)])
        ratio = None if PEERS[name].is_vds else ratio_to(cell, name, ours)
        part = f", {kept['files']} {things}" if kept["files"] != cell["files"] else ""
        failed = f", {len(kept['failed'])} failed" if kept["failed"] else ""
        columns = [f"{PEERS[name].title}{part}{failed}", str(kept["workers"] or "own"), seconds.shown(3) if seconds else ""]
        columns += [rate.shown(2 if is_large(cell) else 0), cpu.shown(2) if cpu else "", f"{peak:.0f}"]
        columns += [f"{median_of(cell, name, 'requests') or 0:.0f}", ratio.shown(2) if ratio else ""]
        print("| " + " | ".join(columns) + " |")
    _print_notes(cell)


def _print_notes(cell: Cell) -> None:
    """Print the facts that only vds's runs and the tools' have."""
    has_reads = cell.get("unit") == "reads"
    for name in cell["peers"]:
        is_told = PEERS[name].is_vds or has_reads
        facts = {
            "connect s": median_of(cell, name, "connect_s"),
            "whole process s": median_of(cell, name, "process_s"),
            "requests of the upload": median_of(cell, name, "upload_requests"),
            "requests of the call": median_of(cell, name, "call_requests") if is_told else None,
            "bytes sent to it": median_of(cell, name, "sent_bytes") if has_reads else None,
            "one looked up in ms": median_of(cell, name, "lookup_ms"),
            "the first in ms": median_of(cell, name, "lookup_ms_first"),
            "one opened and read in ms": median_of(cell, name, "read_ms"),
            "bytes read": median_of(cell, name, "bytes_read"),
            "bytes received": median_of(cell, name, "body_bytes")
            if "upload" in PEERS[name].does and PEERS[name].is_vds
            else None,
            "bytes received before the kill": median_of(cell, name, "arrived_before_bytes"),
            "server CPU s": median_of(cell, name, "server_cpu_s") if PEERS[name].is_vds else None,
            "files rewritten": median_of(cell, name, "rewritten"),
            **{text: median_of(cell, name, figure) for text, figure in _LOAD_FACTS.items()},
        }
        shown = [f"{text} {value:,.3f}".rstrip("0").rstrip(".") for text, value in facts.items() if value is not None]
        if shown:
            print(f"\n{PEERS[name].title}: {'; '.join(shown)}.")


def _print_targets(cells: Sequence[Cell]) -> None:
    judgements = list(judge(cells))
    if not judgements:
        return
    print("\n### Targets: how many times faster, or the figure itself; medians of per-round ratios (least-most)\n")
    print("| target | where | wanted | reached | |")
    print("|---|---|---|---|---|")
    for one in judgements:
        print(f"| {one.text} | {one.where} | {one.wanted} | {one.reached} | {'met' if one.is_met else 'MISSED'} |")
