"""obstore: `get` of small files and `get_range` of large ones, in threads or, with the variant `async`, by its async calls."""

from __future__ import annotations

import asyncio
import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.measure import BLOCK_BYTES, Figures, Job, counted, run_peer
from benchmarks.peers.obstore_put import open_store


class Piece(NamedTuple):
    """What one request brings: a range of a large file, or a whole small one."""

    path: Path
    name: str
    offset_bytes: int
    length_bytes: int
    is_whole: bool

    def write(self, body: Any) -> None:
        """Write it to its place."""
        if self.is_whole:
            self.path.write_bytes(body)
            return
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, body, self.offset_bytes)
        finally:
            os.close(descriptor)


def download(job: Job, figures: Figures) -> None:
    """Write every file."""
    obstore: Any = importlib.import_module("obstore")
    store = open_store(job)

    def fetch(piece: Piece) -> None:
        if piece.is_whole:
            piece.write(obstore.get(store, piece.name).bytes())
        else:
            piece.write(obstore.get_range(store, piece.name, start=piece.offset_bytes, length=piece.length_bytes))

    with counted(job, figures):
        pieces = [
            Piece(path, name, offset_bytes, min(BLOCK_BYTES, size_bytes - offset_bytes), size_bytes <= BLOCK_BYTES)
            for path, name, size_bytes in job.missing_files()
            for offset_bytes in range(0, size_bytes, BLOCK_BYTES)
        ]
        if job.variant == "async":
            asyncio.run(_fetch_all(obstore, store, pieces, job.workers))
        else:
            with ThreadPoolExecutor(job.workers) as pool:
                list(pool.map(fetch, pieces))


async def _fetch_all(obstore: Any, store: Any, pieces: list[Piece], workers: int) -> None:
    waiting = iter(pieces)

    async def work() -> None:
        for piece in waiting:
            if piece.is_whole:
                piece.write(await (await obstore.get_async(store, piece.name)).bytes_async())
            else:
                first, count = piece.offset_bytes, piece.length_bytes
                piece.write(await obstore.get_range_async(store, piece.name, start=first, length=count))

    await asyncio.gather(*(work() for _ in range(workers)))


if __name__ == "__main__":
    raise SystemExit(run_peer(download))
