"""Commit a version of many rows, whose contents are the files of bench/raw over and over: no peer itself, and not measured."""

from __future__ import annotations

from itertools import cycle, islice

import vds
from benchmarks.peers.measure import Figures, Job, run_peer
from benchmarks.peers.vds_upload import NAMESPACE, store_url
from benchmarks.rows import put_rows

ROWS_NAMESPACE = "bench/rows"


def load(job: Job, figures: Figures) -> None:
    """Commit as many rows as the job asks for."""
    with vds.connect(store_url(job), index="embedded", credential=job.key) as store, figures.timed():
        contents = [(entry.digest.raw, entry.size_bytes) for entry in store.namespace(NAMESPACE).latest().entries()]
        put_rows(store, ROWS_NAMESPACE, islice(cycle(contents), job.count))


if __name__ == "__main__":
    raise SystemExit(run_peer(load))
