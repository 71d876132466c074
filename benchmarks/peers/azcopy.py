"""azcopy: one `copy --recursive` of the source. Its process looks at its job every two seconds, and so ends late."""

from __future__ import annotations

import os
import tempfile

from benchmarks.peers.measure import PREFIX, Figures, Job, run_peer
from benchmarks.peers.tool import run_tool, signed_container_url


def upload(job: Job, figures: Figures) -> None:
    """Copy the files of the source below the prefix."""
    container_url, _, signature = signed_container_url(job).partition("?")
    with tempfile.TemporaryDirectory(prefix="azcopy-") as home:
        command = [
            os.environ["BENCH_AZCOPY"],
            "copy",
            f"{job.source}/*",
            f"{container_url}/{PREFIX}?{signature}",
            "--recursive",
            "--from-to=LocalBlob",
        ]
        # A fresh container is what the others meet; looking for each file first would only slow it down.
        command += ["--overwrite=true", "--check-length=false", "--put-md5=false", "--log-level=NONE", "--output-level=quiet"]
        command += ["--block-size-mb=8"]
        environment = {
            "AZCOPY_LOG_LOCATION": home,
            "AZCOPY_JOB_PLAN_LOCATION": home,
            "HOME": home,
            "AZCOPY_DISABLE_SYSLOG": "true",
        }
        if job.workers:
            environment["AZCOPY_CONCURRENCY_VALUE"] = str(job.workers)
        run_tool(job, figures, command, environment)


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
