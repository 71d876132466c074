"""vds itself: one checkout of the newest version of bench/raw. Its cache is where VDS_CACHE says.

The variant `link` asks for files that are linked to the cache, and `alone` is without one.
"""

from __future__ import annotations

import os
import time
from typing import Any

import vds
from benchmarks.peers.measure import Figures, Job, counted, run_peer
from benchmarks.peers.vds_upload import NAMESPACE, store_url


def checkout(job: Job, figures: Figures) -> None:
    """Make the target equal to the version; opening the store is shown beside."""
    options: dict[str, Any] = {"link": True} if job.variant == "link" else {}
    if job.variant == "alone":
        os.environ["VDS_CACHE_MAX"] = "0"
    begun = time.perf_counter()
    with vds.connect(store_url(job), index="embedded", credential=job.key) as store:
        version = store.namespace(NAMESPACE).latest()
        figures.extra["connect_s"] = time.perf_counter() - begun
        with counted(job, figures):
            version.checkout(job.target, show_progress=False, **options)


if __name__ == "__main__":
    raise SystemExit(run_peer(checkout))
