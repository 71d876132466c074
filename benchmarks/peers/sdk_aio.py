"""azure-storage-blob's async client: `upload_blob` at its best settings, as many files at a time as the job has workers."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

from benchmarks.peers.measure import Figures, Job, run_peer
from benchmarks.peers.sdk_clients import BEST_SETTINGS


def upload(job: Job, figures: Figures) -> None:
    """Run the event loop until all files are acknowledged."""
    asyncio.run(_upload(job, figures))


async def _upload(job: Job, figures: Figures) -> None:
    aio = importlib.import_module("azure.storage.blob.aio")
    turns = asyncio.Semaphore(job.workers)
    # The authority comes by SSL_CERT_FILE: given as connection_verify, aiohttp makes a context, and so a connection, a request.
    async with aio.ContainerClient(job.account_url, job.container, job.key, **BEST_SETTINGS) as client:

        async def send(file: tuple[Path, str, int], block_tasks: int) -> None:
            path, name, size_bytes = file
            async with turns:
                with path.open("rb") as stream:
                    await client.upload_blob(name, stream, length=size_bytes, overwrite=True, max_concurrency=block_tasks)

        with figures.timed():
            files = job.files()
            await asyncio.gather(*(send(file, job.workers if len(files) == 1 else 1) for file in files))


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
