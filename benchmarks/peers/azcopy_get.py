"""azcopy: one `copy --recursive` of the blobs below the prefix into the target."""

from __future__ import annotations

import os
import tempfile

from benchmarks.peers.azcopy import home_environment
from benchmarks.peers.measure import PREFIX, Figures, Job, run_peer
from benchmarks.peers.tool import run_tool, signed_container_url


def download(job: Job, figures: Figures) -> None:
    """Copy what is below the prefix."""
    container_url, _, signature = signed_container_url(job).partition("?")
    job.target.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="azcopy-") as home:
        command = [os.environ["BENCH_AZCOPY"], "copy", f"{container_url}/{PREFIX}/*?{signature}", str(job.target)]
        command += ["--recursive", "--from-to=BlobLocal", "--overwrite=true", "--check-length=false", "--check-md5=NoCheck"]
        command += ["--log-level=NONE", "--output-level=quiet", "--block-size-mb=8"]
        run_tool(job, figures, command, home_environment(job, home))


if __name__ == "__main__":
    raise SystemExit(run_peer(download))
