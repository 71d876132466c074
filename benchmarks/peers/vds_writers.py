"""vds itself: many writers, in several processes of several threads, that commit to one namespace and never to the same path.

Every commit is a transaction of its own: begun, given its files, committed, acknowledged. `workers` says how many writers there
are, and `count` how many commits they make together. Afterwards what was acknowledged is held against the journal and the index.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing.synchronize import Barrier
from statistics import median, quantiles

from blake3 import blake3

import vds
from benchmarks.ledger import Acknowledged, hold_against_store
from benchmarks.peers.measure import Figures, Job, peak_rss_mib, run_peer
from benchmarks.peers.vds_upload import NAMESPACE, store_url

PROCESSES = 16
FILES_EACH = 1
FILE_BYTES = 1_000

_START_TIMEOUT_S = 120
_Spawned = multiprocessing.get_context("spawn")


def prepare(job: Job) -> None:
    """Make the store and the namespace; the index is the one that VDS_INDEX names."""
    with vds.connect(store_url(job), create=True, credential=job.key) as store, store.namespace(NAMESPACE).transaction() as tx:
        tx.write_bytes("before/first", b"1")


@dataclass(slots=True)
class Share:
    """What the writers of one process did; moments are of the clock that all processes of a machine share."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)
    commit_ms: list[float] = field(default_factory=list)
    begun_s: float = 0.0
    ended_s: float = 0.0
    cpu_s: float = 0.0
    rss_mib: int = 0


def write(job: Job, figures: Figures) -> None:
    """Let all writers go at once, and hold what they were told against the store."""
    processes = min(PROCESSES, job.workers)
    barrier = _Spawned.Barrier(processes)
    numbers = [range(first, job.workers, processes) for first in range(processes)]
    with _Spawned.Pool(processes, _receive, (barrier,)) as pool:
        shares = pool.starmap(_write_share, [(job, own) for own in numbers], chunksize=1)
    acknowledged = list(chain.from_iterable(share.acknowledged for share in shares))
    figures.seconds = max(share.ended_s for share in shares) - min(share.begun_s for share in shares)
    figures.cpu_s = sum(share.cpu_s for share in shares)
    figures.extra |= {"rss_mib": peak_rss_mib() + sum(share.rss_mib for share in shares), "processes": processes}
    figures.extra |= _spread("transaction", [one for share in shares for one in share.whole_ms])
    figures.extra |= _spread("commit", [one for share in shares for one in share.commit_ms])
    errors = [error for share in shares for error in share.errors]
    figures.extra |= {"acknowledged": len(acknowledged), "errors": len(errors), "errors_first": errors[:5]}
    with vds.connect(store_url(job), credential=job.key, read_only=True) as store:
        figures.extra |= hold_against_store(store, NAMESPACE, acknowledged, before=1)


_barrier: Barrier


def _receive(barrier: Barrier) -> None:
    """Take what cannot travel with a task."""
    global _barrier
    _barrier = barrier


def _write_share(job: Job, numbers: range) -> Share:
    share = Share()
    lock = threading.Lock()
    with vds.connect(store_url(job), credential=job.key) as store:
        namespace = store.namespace(NAMESPACE)
        namespace.latest()  # what is imported and connected once in a process's life is no part of a commit
        threads = [threading.Thread(target=_write_all, args=(namespace, one, job, share, lock)) for one in numbers]
        _barrier.wait(_START_TIMEOUT_S)
        share.begun_s, cpu_s = time.monotonic(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        share.ended_s, share.cpu_s = time.monotonic(), time.process_time() - cpu_s
    share.rss_mib = peak_rss_mib()
    return share


def _write_all(namespace: vds.Namespace, writer: int, job: Job, share: Share, lock: threading.Lock) -> None:
    for turn in range(job.count // job.workers):
        files = {f"{writer:03}/{turn:05}/{part}": f"{writer} {turn} {part} ".encode() * 200 for part in range(FILES_EACH)}
        files = {path: body[:FILE_BYTES] for path, body in files.items()}
        begun = time.perf_counter()
        try:
            with namespace.transaction() as tx:
                for path, body in files.items():
                    tx.write_bytes(path, body)
                asked = time.perf_counter()
                number = tx.commit().version.number
                ended = time.perf_counter()
        except Exception as err:  # noqa: BLE001 - a writer that fails is what is looked for, whatever it fails of
            with lock:
                share.errors.append(f"{type(err).__name__}: {err}")
            continue
        with lock:
            share.acknowledged.append((number, _digests(files)))
            share.whole_ms.append((ended - begun) * 1e3)
            share.commit_ms.append((ended - asked) * 1e3)


def _digests(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {path: blake3(body).digest() for path, body in files.items()}


def _spread(name: str, values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    return {f"{name}_ms": median(values), f"{name}_ms_p99": quantiles(values, n=100)[98], f"{name}_ms_most": max(values)}


if __name__ == "__main__":
    raise SystemExit(run_peer(write, prepare))
