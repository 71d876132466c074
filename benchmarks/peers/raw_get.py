"""The ceiling of one request a range: bare sockets, BLAKE3, and a write by the thread that read.

No client library, no signing, no retries; of a large file the ranges are hashed, and not the whole.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.measure import BLOCK_BYTES, PREFIX, Figures, Job, counted, run_peer
from benchmarks.peers.raw_sockets import PerThread


def download(job: Job, figures: Figures) -> None:
    """Write every file in ranges of 8 MiB."""
    blake3: Callable[[Any], Any] = importlib.import_module("blake3").blake3
    threads = PerThread(job)

    def fetch(task: tuple[Path, str, int, int]) -> None:
        path, name, offset_bytes, length_bytes = task
        wire, buffer = threads.get()
        body = buffer[:length_bytes]
        wire.get(name, offset_bytes, body)
        blake3(body).digest()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, body, offset_bytes)
        finally:
            os.close(descriptor)

    with counted(job, figures), ThreadPoolExecutor(job.workers) as pool:
        tasks = [
            (path, name.removeprefix(f"{PREFIX}/"), offset_bytes, min(BLOCK_BYTES, size_bytes - offset_bytes))
            for path, name, size_bytes in job.missing_files()
            for offset_bytes in range(0, size_bytes, BLOCK_BYTES)
        ]
        list(pool.map(fetch, tasks))


if __name__ == "__main__":
    raise SystemExit(run_peer(download))
