"""azure-storage-blob: `upload_blob` at its best: blocks of 8 MiB out of one buffer, files in threads, a full pool."""

from __future__ import annotations

from benchmarks.peers.measure import Figures, Job, run_peer
from benchmarks.peers.sdk_clients import BEST_SETTINGS, pooled_client
from benchmarks.peers.sdk_default import upload_files


def upload(job: Job, figures: Figures) -> None:
    """Send every file through a client at its best."""
    upload_files(pooled_client(job, **BEST_SETTINGS), job, figures)


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
