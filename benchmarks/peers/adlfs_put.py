"""adlfs under fsspec: one `put` of the whole tree, with its own batching at the job's workers."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.measure import PREFIX, Figures, Job, run_peer


def upload(job: Job, figures: Figures) -> None:
    """Put the source as fsspec's users do."""
    system = open_system(job)
    # A put gives each file one connection unless told otherwise; one file alone gets them all.
    blocks_at_once = job.workers if len(job.files()) == 1 else 1
    with figures.timed():
        system.put(
            f"{job.source}/",
            f"{job.container}/{PREFIX}/",
            recursive=True,
            batch_size=job.workers,
            max_concurrency=blocks_at_once,
        )


def open_system(job: Job) -> Any:
    """Return the file system of the job's account."""
    scheme = job.account_url.partition("://")[0]
    connection = (
        f"DefaultEndpointsProtocol={scheme};AccountName={job.account};AccountKey={job.key};BlobEndpoint={job.account_url};"
    )
    return importlib.import_module("adlfs").AzureBlobFileSystem(connection_string=connection, skip_instance_cache=True)


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
