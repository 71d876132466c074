"""azure-storage-blob: `download_blob` of each file in threads, written by its `readinto`; one file alone gets the threads itself.

The variant `best` asks for ranges of 8 MiB and keeps a connection for each thread.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.measure import BLOCK_BYTES, Figures, Job, counted, run_peer
from benchmarks.peers.sdk_clients import container_client, pooled_client

BEST_RANGES: dict[str, Any] = {"max_single_get_size": BLOCK_BYTES, "max_chunk_get_size": BLOCK_BYTES}


def download(job: Job, figures: Figures) -> None:
    """Write every file."""
    client = pooled_client(job, **BEST_RANGES) if job.variant == "best" else container_client(job)

    def fetch(file: tuple[Path, str, int], range_threads: int = 1) -> None:
        path, name, _ = file
        with path.open("wb") as stream:
            client.download_blob(name, max_concurrency=range_threads).readinto(stream)

    with counted(job, figures):
        files = job.missing_files()
        if len(files) == 1:
            fetch(files[0], job.workers)
            return
        with ThreadPoolExecutor(job.workers) as pool:
            list(pool.map(fetch, files))


if __name__ == "__main__":
    raise SystemExit(run_peer(download))
