"""azure-storage-blob: `upload_blob` at its default sizes, files in threads; one file alone gets the threads for its blocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.measure import Figures, Job, run_peer
from benchmarks.peers.sdk_clients import container_client


def upload(job: Job, figures: Figures) -> None:
    """Send every file through a client at its defaults."""
    upload_files(container_client(job), job, figures)


def upload_files(client: Any, job: Job, figures: Figures) -> None:
    """Send every file with `upload_blob`, in as many threads as the job has workers."""

    def send(file: tuple[Path, str, int], block_threads: int = 1) -> None:
        path, name, size_bytes = file
        with path.open("rb") as stream:
            client.upload_blob(name, stream, length=size_bytes, overwrite=True, max_concurrency=block_threads)

    with figures.timed():
        files = job.files()
        if len(files) == 1:
            send(files[0], job.workers)
            return
        with ThreadPoolExecutor(job.workers) as pool:
            list(pool.map(send, files))


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
