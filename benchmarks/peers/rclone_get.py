"""rclone: one `copy` of the blobs below the prefix, with as many transfers at a time as the job has workers."""

from __future__ import annotations

import os

from benchmarks.peers.measure import PREFIX, Figures, Job, run_peer
from benchmarks.peers.tool import run_tool, signed_container_url


def download(job: Job, figures: Figures) -> None:
    """Copy what is below the prefix into an empty directory."""
    command = [os.environ["BENCH_RCLONE"], "copy", f":azureblob:{job.container}/{PREFIX}", str(job.target)]
    # A large file comes in streams of its own.
    command += ["--transfers", str(job.workers), "--checkers", str(job.workers), "--multi-thread-streams", str(job.workers)]
    command += ["--no-check-dest", "--ignore-checksum", "--azureblob-disable-checksum", "--config", "/dev/null"]
    if job.ca_path:
        command += ["--ca-cert", job.ca_path]
    run_tool(job, figures, command, {"RCLONE_AZUREBLOB_SAS_URL": signed_container_url(job)})


if __name__ == "__main__":
    raise SystemExit(run_peer(download))
