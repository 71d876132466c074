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


def prepare(job: Job) -> None:
    """Make the store and the namespace, as each is made once; the peers find their container made too."""
    with (
        vds.connect(_url(job), create=True, index="embedded", credential=job.key) as store,
        store.namespace("bench/raw").transaction() as tx,
    ):
        tx.write_bytes("before/first", b"1")


def upload(job: Job, figures: Figures) -> None:
    """Upload the source into the namespace bench/raw."""
    import_module("awscrt.checksums")  # vds does it with the first body it sends; imports are left out for every peer
    begun = time.perf_counter()
    with vds.connect(_url(job), index="embedded", credential=job.key) as store:
        namespace = store.namespace("bench/raw")
        connected = time.perf_counter()
        before = _requests(job)
        with figures.timed():
            result = namespace.upload(job.source, show_progress=False)
        figures.extra |= {
            "connect_s": connected - begun,
            "upload_requests": _requests(job) - before,
            "version": str(result.version),
            "bytes_read": result.bytes_read,
            "bytes_sent": result.bytes_sent,
            "uploaded": result.uploaded,
        }


def _url(job: Job) -> str:
    return f"{job.account_url}/{job.container}"


def _requests(job: Job) -> int:
    return int(json.loads(ask(job.account_url, "/_stats"))["requests"])


if __name__ == "__main__":
    raise SystemExit(run_peer(upload, prepare))
