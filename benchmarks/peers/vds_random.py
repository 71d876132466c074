"""Random reads through vds's own file system under fsspec. The variant `open` takes `version.open` instead."""

from __future__ import annotations

import fsspec

import vds
from benchmarks.peers.measure import Figures, Job, run_peer
from benchmarks.peers.random_reads import read_all
from benchmarks.peers.vds_upload import NAMESPACE, store_url


def read(job: Job, figures: Figures) -> None:
    """Read with one file object for each file."""
    with vds.connect(store_url(job), index="embedded", credential=job.key) as store:
        version = store.namespace(NAMESPACE).latest()
        if job.variant == "open":
            read_all(job, figures, version.open)
            return
        options = {"store": store_url(job), "index": "embedded", "credential": job.key}
        system = fsspec.filesystem("vds", **options)
        read_all(job, figures, lambda name: system.open(f"{version.uri.rstrip('/')}/{name}", "rb"))


if __name__ == "__main__":
    raise SystemExit(run_peer(read))
