"""Random reads through adlfs under fsspec, at its default blocks and cache, or with the variant `best` without a cache."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.adlfs_put import open_system
from benchmarks.peers.measure import PREFIX, Figures, Job, run_peer
from benchmarks.peers.random_reads import read_all


def read(job: Job, figures: Figures) -> None:
    """Read with one file object for each file."""
    system = open_system(job)
    options: dict[str, Any] = {"cache_type": "none"} if job.variant == "best" else {}
    read_all(job, figures, lambda name: system.open(f"{job.container}/{PREFIX}/{name}", "rb", **options))


if __name__ == "__main__":
    raise SystemExit(run_peer(read))
