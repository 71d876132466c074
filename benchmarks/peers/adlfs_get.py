"""adlfs under fsspec: one `get` of all files, with its own batching at the job's workers."""

from __future__ import annotations

from benchmarks.peers.adlfs_put import open_system
from benchmarks.peers.measure import Figures, Job, counted, run_peer


def download(job: Job, figures: Figures) -> None:
    """Get the files by their names, as the others do, so that none pays for a listing."""
    system = open_system(job)
    with counted(job, figures):
        files = job.missing_files()
        system.get(
            [f"{job.container}/{name}" for _, name, _ in files],
            [str(path) for path, _, _ in files],
            batch_size=job.workers,
            # A get gives each file one connection unless told otherwise; one file alone gets them all.
            max_concurrency=job.workers if len(files) == 1 else 1,
        )


if __name__ == "__main__":
    raise SystemExit(run_peer(download))
