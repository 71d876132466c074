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
        run_tool(job, figures, command, home_environment(job, home))


def home_environment(job: Job, home: str) -> dict[str, str]:
    """Return the variables that keep all that azcopy writes for itself in one directory, and set its workers."""
    places = {"AZCOPY_LOG_LOCATION": home, "AZCOPY_JOB_PLAN_LOCATION": home, "HOME": home, "AZCOPY_DISABLE_SYSLOG": "true"}
    return places | ({"AZCOPY_CONCURRENCY_VALUE": str(job.workers)} if job.workers else {})


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
