"""vds itself: what the index of a large version costs. The variant says what is done: `open`, `list` or `manifest`.

`open` looks up files one by one, in the index or, where the cache holds it, in the local manifest; then it opens and reads some
of them, with a request each. The manifest is made as it is when a version goes to another process.
"""

from __future__ import annotations

import pickle
import random
import statistics
import time

import vds
from benchmarks.peers.measure import Figures, Job, counted, run_peer
from benchmarks.peers.vds_rows_load import ROWS_NAMESPACE
from benchmarks.peers.vds_upload import store_url
from benchmarks.rows import row_path
from vds.store import Version

READS = 100


def measure(job: Job, figures: Figures) -> None:
    """Do what the variant says with the version of many rows."""
    with vds.connect(store_url(job), index="embedded", credential=job.key) as store:
        version = store.namespace(ROWS_NAMESPACE).latest()
        if job.variant == "list":
            with counted(job, figures):
                figures.extra["files_listed"] = sum(1 for _ in version.entries())
        elif job.variant == "manifest":
            with counted(job, figures):
                pickle.dumps(version)
        else:
            _look_up(job, figures, version)


def _look_up(job: Job, figures: Figures, version: Version) -> None:
    chance = random.Random(job.count)
    paths = [row_path(chance.randrange(version.file_count)) for _ in range(job.count)]
    entries_ms = []
    with counted(job, figures):
        for path in paths:
            begun = time.perf_counter()
            version.entry(path)
            entries_ms.append((time.perf_counter() - begun) * 1e3)
    reads_ms = []
    for path in paths[:READS]:
        begun = time.perf_counter()
        with version.open(path) as file:
            file.read()
        reads_ms.append((time.perf_counter() - begun) * 1e3)
    figures.extra |= {
        "lookup_ms": statistics.median(entries_ms),
        "lookup_ms_most": max(entries_ms),
        "lookup_ms_first": entries_ms[0],
        "read_ms": statistics.median(reads_ms),
    }


if __name__ == "__main__":
    raise SystemExit(run_peer(measure))
