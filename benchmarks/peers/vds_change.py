"""vds itself: commits of a thousand scattered changes, one after the other, to a version of many files.

The variant says of how many, and `count` how many commits are made. What of the time is the index's is taken apart: beside it
bodies are read, hashed and sent, and the record is written.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import vds
from benchmarks.grown import grow, grown_path, scattered
from benchmarks.indexclock import IndexClock, watched_index
from benchmarks.peers.measure import Figures, Job, run_peer
from benchmarks.peers.vds_upload import NAMESPACE, store_url

MODIFIED, ADDED, REMOVED = 600, 300, 100
FILE_BYTES = 1_000
WARM_UP = 2
"""Commits before those that count: the first ones also read the pages that all need."""


def prepare(job: Job) -> None:
    """Make the store, and its version of many files; the index is the one that VDS_INDEX names."""
    with vds.connect(store_url(job), create=True, credential=job.key) as store:
        grow(store, int(job.variant))


def change(job: Job, figures: Figures) -> None:
    """Commit as often as asked; `seconds` is the time of all the calls of `commit`."""
    taken: list[dict[str, float]] = []
    with vds.connect(store_url(job), credential=job.key) as store, watched_index() as clock, figures.timed():
        namespace = store.namespace(NAMESPACE)
        for written, removed in _changes(int(job.variant), WARM_UP + job.count, job.target):
            taken.append(_commit(namespace, written, removed, clock))
            shutil.rmtree(written)
    taken = taken[WARM_UP:]
    figures.seconds = sum(one["commit_ms"] for one in taken) / 1e3
    for name in taken[0]:
        values = [one[name] for one in taken]
        figures.extra |= {name: median(values), f"{name}_least": min(values), f"{name}_most": max(values)}


def _changes(rows: int, commits: int, target: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield for each commit a directory with what it writes, and what it removes; no path comes twice."""
    chosen = iter(scattered(rows, commits * (MODIFIED + ADDED + REMOVED), seed=rows))
    for turn in range(commits):
        modified = [grown_path(next(chosen)) for _ in range(MODIFIED)]
        added = [f"{grown_path(next(chosen))}.{turn}" for _ in range(ADDED)]
        removed = [grown_path(next(chosen)) for _ in range(REMOVED)]
        root = target / f"changes-{turn}"
        for path in (*modified, *added):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(FILE_BYTES))
        yield root, removed


def _commit(namespace: vds.Namespace, written: Path, removed: list[str], clock: IndexClock) -> dict[str, float]:
    clock.reset()
    with namespace.transaction() as tx:
        tx.upload(written, show_progress=False)
        for path in removed:
            tx.delete(path)
        staged_ms = clock.spent_s * 1e3
        clock.reset()
        begun = time.perf_counter()
        result = tx.commit()
        ended = time.perf_counter()
    if (result.uploaded, result.modified, result.removed) != (MODIFIED + ADDED, MODIFIED, REMOVED):
        raise RuntimeError(f"version {result.version.number} is not what was asked for")
    return {
        "commit_ms": (ended - begun) * 1e3,
        "index_ms": clock.spent_s * 1e3,
        "locked_ms": clock.commit_s * 1e3,
        "held_ms": clock.held_s * 1e3,
        "staging_ms": staged_ms,
        "transactions": clock.transactions,
    }


if __name__ == "__main__":
    raise SystemExit(run_peer(change, prepare))
