"""azure-storage-blob's async client: `download_blob` of as many files at a time as the job has workers."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

from benchmarks.peers.measure import Figures, Job, counted, run_peer
from benchmarks.peers.sdk_get import BEST_RANGES


def download(job: Job, figures: Figures) -> None:
    """Run the event loop until all files are written."""
    asyncio.run(_download(job, figures))


async def _download(job: Job, figures: Figures) -> None:
    aio = importlib.import_module("azure.storage.blob.aio")
    turns = asyncio.Semaphore(job.workers)
    # The authority comes by SSL_CERT_FILE, as for the uploads of this client.
    async with aio.ContainerClient(job.account_url, job.container, job.key, **BEST_RANGES) as client:

        async def fetch(file: tuple[Path, str, int], range_tasks: int) -> None:
            path, name, _ = file
            async with turns:
                content = await client.download_blob(name, max_concurrency=range_tasks)
                with path.open("wb") as stream:
                    await content.readinto(stream)

        with counted(job, figures):
            files = job.missing_files()
            await asyncio.gather(*(fetch(file, job.workers if len(files) == 1 else 1) for file in files))


if __name__ == "__main__":
    raise SystemExit(run_peer(download))
