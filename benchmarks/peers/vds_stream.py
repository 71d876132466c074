"""vds itself: all files of the newest version of bench/raw as a stream of bytes. The variant `one` opens them one by one."""

from __future__ import annotations

import time

import vds
from benchmarks.peers.measure import Figures, Job, counted, run_peer
from benchmarks.peers.vds_upload import NAMESPACE, store_url


def read(job: Job, figures: Figures) -> None:
    """Read every file of the source once."""
    paths = [path.relative_to(job.source).as_posix() for path, _, _ in job.files()]
    begun = time.perf_counter()
    with vds.connect(store_url(job), index="embedded", credential=job.key) as store:
        version = store.namespace(NAMESPACE).latest()
        figures.extra["connect_s"] = time.perf_counter() - begun
        files = size_bytes = 0
        with counted(job, figures):
            if job.variant == "one":
                for path in paths:
                    with version.open(path) as file:
                        size_bytes += len(file.read())
                    files += 1
            else:
                for _, body in version.stream():
                    size_bytes += len(body)
                    files += 1
        figures.extra |= {"files_read": files, "bytes_read": size_bytes}


if __name__ == "__main__":
    raise SystemExit(run_peer(read))
