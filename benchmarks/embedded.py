"""Time the main paths on an embedded store, several rounds each, and keep medians with their spread.

    python -m benchmarks embedded [--rounds 3] [--files 10000] [--rows 200000] [--keep]

`--keep` writes benchmarks/results/embedded.json. Source and store are in the temporary directory: point TMPDIR at memory to leave
the disk out of it. These figures compare one state of the code with another on one machine; they are no claim about Azure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import vds
from benchmarks.rows import put_rows
from vds.model.digest import EMPTY_RAW
from vds.store import Store

RESULTS = Path(__file__).parent / "results"

Timings = dict[str, list[float]]


def main(words: Sequence[str]) -> int:
    """Run all rounds, print the table and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks embedded", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10_000, help="of 10 KB each")
    parser.add_argument("--rows", type=int, default=200_000, help="staged and committed without any bytes")
    parser.add_argument("--keep", action="store_true", help="write the results file")
    options = parser.parse_args(words)
    timings: Timings = {}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="vds-bench-") as directory:
            run_round(Path(directory), options.files, options.rows, timings)
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    report = summarize(timings, vars(options))
    print(json.dumps(report, indent=2))
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "embedded.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


def run_round(directory: Path, files: int, rows: int, timings: Timings) -> None:
    """Take every figure once, on a store of its own."""
    source = make_tree(directory / "source", files)
    with vds.connect(directory / "store", create=True) as store:
        raw = store.namespace("bench/raw")
        with timed(timings, f"upload {files} x 10 KB, first"):
            raw.upload(source, show_progress=False)
        with timed(timings, f"upload {files} x 10 KB, unchanged"):
            raw.upload(source, show_progress=False)
        with timed(timings, f"download {files} x 10 KB"):
            raw.latest().download(directory / "copy", show_progress=False)
        with timed(timings, f"verify {files} x 10 KB"):
            assert raw.latest().verify().ok
        with timed(timings, "50 commits of one file"):
            for number in range(50):
                with raw.transaction() as tx:
                    tx.write_bytes(f"commits/{number}", b"%d" % number)
        commit_rows(store, rows, timings)


def commit_rows(store: Store, rows: int, timings: Timings) -> None:
    """Stage and commit entries of no bytes: what the index alone costs."""
    put_rows(store, "bench/rows", repeat((EMPTY_RAW, 0), rows), timed=lambda step: timed(timings, f"{step} {rows} rows"))


def make_tree(root: Path, files: int) -> Path:
    """Make `files` files of 10 KB in directories of 500."""
    for number in range(files):
        directory = root / f"{number // 500:04}"
        if number % 500 == 0:
            directory.mkdir(parents=True)
        (directory / f"{number % 500:03}.bin").write_bytes(os.urandom(10_000))
    return root


@contextmanager
def timed(timings: Timings, name: str, clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    """Add the seconds of a block to the figures called `name`."""
    begun = clock()
    yield
    timings.setdefault(name, []).append(clock() - begun)


def summarize(timings: Timings, settings: dict[str, object]) -> dict[str, object]:
    """Return medians with their spread, and what they were taken on."""
    commit_id = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "machine": {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "commit": commit_id,
        "settings": settings,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "seconds": {
            name: {"median": round(statistics.median(all_s), 3), "min": round(min(all_s), 3), "max": round(max(all_s), 3)}
            for name, all_s in timings.items()
        },
    }
