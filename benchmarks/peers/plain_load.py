"""Put the source into the container as plain blobs, one a file, for the peers that read: no peer itself, and not measured."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.peers.measure import PREFIX, Figures, Job, run_peer
from benchmarks.peers.raw_sockets import PerThread

THREADS = 16


def load(job: Job, figures: Figures) -> None:
    """Put every file in one request, which the null server takes at any size."""
    threads = PerThread(job)

    def put(file: tuple[Path, str, int]) -> None:
        path, name, _ = file
        wire, _ = threads.get()
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as body, memoryview(body) as view:
            wire.put(name.removeprefix(f"{PREFIX}/"), view)

    with figures.timed(), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put, job.files()))


if __name__ == "__main__":
    raise SystemExit(run_peer(load))
