"""obstore, the Python face of Rust's object_store: `put` in threads, or `put_async` of many small files at a time."""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.measure import BLOCK_BYTES, Figures, Job, run_peer

# Measured: threads are faster up to some dozens, the event loop beyond.
THREADS_MAX = 64


def upload(job: Job, figures: Figures) -> None:
    """Send every file; one file alone gets the workers for its blocks."""
    obstore: Any = importlib.import_module("obstore")
    store = open_store(job)
    with figures.timed():
        files = job.files()
        if len(files) == 1:
            path, name, _ = files[0]
            obstore.put(store, name, path, chunk_size=BLOCK_BYTES, max_concurrency=job.workers)
        elif job.workers > THREADS_MAX:
            asyncio.run(_put_all(obstore, store, files, job.workers))
        else:

            def send(file: tuple[Path, str, int]) -> None:
                obstore.put(store, file[1], _content(file), chunk_size=BLOCK_BYTES, max_concurrency=1)

            with ThreadPoolExecutor(job.workers) as pool:
                list(pool.map(send, files))


def open_store(job: Job) -> Any:
    """Return the store of the job's container."""
    options: dict[str, Any] = {"allow_http": True}
    if job.ca_path:
        options["root_certificate"] = Path(job.ca_path).read_text()
    return importlib.import_module("obstore.store").AzureStore(
        job.container, account_name=job.account, account_key=job.key, endpoint=job.account_url, client_options=options
    )


async def _put_all(obstore: Any, store: Any, files: list[tuple[Path, str, int]], workers: int) -> None:
    waiting = iter(files)

    async def work() -> None:
        for file in waiting:
            await obstore.put_async(store, file[1], _content(file), chunk_size=BLOCK_BYTES, max_concurrency=1)

    await asyncio.gather(*(work() for _ in range(workers)))


def _content(file: tuple[Path, str, int]) -> bytes | Path:
    # Of a small file bytes are faster than a path; a large one is best read by obstore itself, in blocks.
    return file[0].read_bytes() if file[2] <= BLOCK_BYTES else file[0]


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
