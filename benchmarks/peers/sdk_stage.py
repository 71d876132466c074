"""azure-storage-blob below `upload_blob`: `stage_block` of whole blocks in threads over all files, with a full pool.

The fastest way through the SDK's public calls. Files of one block go in one `upload_blob`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.measure import BLOCK_BYTES, Figures, Job, run_peer
from benchmarks.peers.sdk_clients import pooled_client


def upload(job: Job, figures: Figures) -> None:
    """Stage the blocks of all files side by side, then commit each file."""
    client = pooled_client(job)

    def put(file: tuple[Path, str, int]) -> None:
        client.upload_blob(file[1], file[0].read_bytes(), overwrite=True)

    def stage(task: tuple[Path, Any, int]) -> None:
        path, blob, offset_bytes = task
        descriptor = os.open(path, os.O_RDONLY)
        try:
            body = os.pread(descriptor, BLOCK_BYTES, offset_bytes)
        finally:
            os.close(descriptor)
        blob.stage_block(_block_id(offset_bytes), body, length=len(body))

    with figures.timed(), ThreadPoolExecutor(job.workers) as pool:
        files = job.files()
        large = [(path, client.get_blob_client(name), size) for path, name, size in files if size > BLOCK_BYTES]
        tasks = [(path, blob, offset) for path, blob, size in large for offset in range(0, size, BLOCK_BYTES)]
        list(pool.map(put, [file for file in files if file[2] <= BLOCK_BYTES]))
        list(pool.map(stage, tasks))
        list(pool.map(_commit, large))


def _commit(file: tuple[Path, Any, int]) -> None:
    _, blob, size_bytes = file
    blob.commit_block_list([_block_id(offset_bytes) for offset_bytes in range(0, size_bytes, BLOCK_BYTES)])


def _block_id(offset_bytes: int) -> str:
    return f"{offset_bytes:016}"


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
