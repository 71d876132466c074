"""vds itself: one namespace, one upload, from the scan to the committed version. The index is embedded.

Where the index and the stat cache are is said by XDG_DATA_HOME and XDG_CACHE_HOME.
"""

from __future__ import annotations

import json
import time
from importlib import import_module

import vds
from benchmarks.peers.measure import Figures, Job, run_peer
from benchmarks.server import ask

NAMESPACE = "bench/raw"


def prepare(job: Job) -> None:
    """Make the store and the namespace, as each is made once; the peers find their container made too."""
    with (
        vds.connect(store_url(job), create=True, index="embedded", credential=job.key) as store,
        store.namespace(NAMESPACE).transaction() as tx,
    ):
        tx.write_bytes("before/first", b"1")


def upload(job: Job, figures: Figures) -> None:
    """Upload the source into the namespace bench/raw; with the variant `mirror` the new version has nothing else."""
    import_module("awscrt.checksums")  # vds does it with the first body it sends; imports are left out for every peer
    begun = time.perf_counter()
    with vds.connect(store_url(job), index="embedded", credential=job.key) as store:
        namespace = store.namespace(NAMESPACE)
        connected = time.perf_counter()
        before = _requests(job)
        with figures.timed():
            result = namespace.upload(job.source, show_progress=False, mirror=job.variant == "mirror")
        figures.extra |= {
            "connect_s": connected - begun,
            "upload_requests": _requests(job) - before,
            "version": str(result.version),
            "bytes_read": result.bytes_read,
            "bytes_sent": result.bytes_sent,
            "uploaded": result.uploaded,
        }


def store_url(job: Job) -> str:
    """Return where the store is."""
    return f"{job.account_url}/{job.container}"


def _requests(job: Job) -> int:
    return int(json.loads(ask(job.account_url, "/_stats"))["requests"])


if __name__ == "__main__":
    raise SystemExit(run_peer(upload, prepare))
