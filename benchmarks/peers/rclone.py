"""rclone: one `copy` of the source, with as many transfers at a time as the job has workers."""

from __future__ import annotations

import os

from benchmarks.peers.measure import PREFIX, Figures, Job, run_peer
from benchmarks.peers.tool import run_tool, signed_container_url


def upload(job: Job, figures: Figures) -> None:
    """Copy the files of the source below the prefix, none of them looked for first."""
    command = [os.environ["BENCH_RCLONE"], "copy", str(job.source), f":azureblob:{job.container}/{PREFIX}"]
    # Each transfer keeps its blocks in memory: many of both would be gigabytes.
    blocks_at_once = job.workers if len(job.files()) == 1 else 4
    command += ["--transfers", str(job.workers), "--azureblob-upload-concurrency", str(blocks_at_once)]
    command += [
        "--azureblob-chunk-size",
        "8M",
        "--azureblob-disable-checksum",
        "--no-check-dest",
        "--ignore-checksum",
        "--config",
        "/dev/null",
    ]
    if job.ca_path:
        command += ["--ca-cert", job.ca_path]
    run_tool(job, figures, command, {"RCLONE_AZUREBLOB_SAS_URL": signed_container_url(job)})


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
