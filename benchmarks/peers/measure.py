"""What all peers have in common: their options, their clock, and the line that they print.

Runs in virtual environments that lack vds, so it imports nothing that needs more than the standard library.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.server import ask

BLOCK_BYTES = 8 << 20
PREFIX = "objects/peer"
"""Below it the null server keeps no bodies, so that its memory is no part of what is measured."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is asked to do.

    Attributes:
        account_url: of the null server, as in http://127.0.0.1:PORT/devstoreaccount1.
        source: the tree to upload; for a peer that reads, what the server was given.
        workers: threads, tasks or connections, as the peer counts them; 0 leaves the peer's own choice.
        ca_path: the authority to trust; None for plain HTTP.
        target: the directory that a peer that reads writes to.
        variant: which of its ways a peer is to take.
        count: of what is no whole file, random reads for example, how many are asked for.
    """

    account_url: str
    container: str
    source: Path
    key: str
    workers: int
    ca_path: str | None
    target: Path
    variant: str = ""
    count: int = 0

    @property
    def account(self) -> str:
        """The name of the storage account."""
        return self.account_url.rpartition("/")[2]

    def files(self) -> list[tuple[Path, str, int]]:
        """Return (path, blob name, size in bytes) of every file below the source, sorted by path."""
        found = []
        for directory, _, names in os.walk(self.source):
            for name in names:
                path = Path(directory, name)
                found.append((path, f"{PREFIX}/{path.relative_to(self.source).as_posix()}", path.stat().st_size))
        return sorted(found)

    def missing_files(self) -> list[tuple[Path, str, int]]:
        """Return (path to write, blob name, size in bytes) of every file of the source, its directory made."""
        found = [(self.target / path.relative_to(self.source), name, size_bytes) for path, name, size_bytes in self.files()]
        for directory in {path.parent for path, _, _ in found}:
            directory.mkdir(parents=True, exist_ok=True)
        return found


@dataclass(slots=True)
class Figures:
    """What one run took. `extra` holds what only this peer can tell."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Take wall time and CPU time, children included, of a block: the transfer from its scan to the last acknowledgement.

        What the imports left is collected before, for every peer that is written in Python: else that falls at random.
        """
        gc.collect()
        cpu_s, begun = _cpu_s(), time.perf_counter()
        yield
        self.seconds, self.cpu_s = time.perf_counter() - begun, _cpu_s() - cpu_s


@contextmanager
def counted(job: Job, figures: Figures) -> Iterator[None]:
    """Take the time of a block, as `Figures.timed` does, and the requests that the server had meanwhile."""
    before = _requests(job)
    with figures.timed():
        yield
    figures.extra["call_requests"] = _requests(job) - before


def run_peer(measure: Callable[[Job, Figures], None], prepare: Callable[[Job], None] | None = None) -> int:
    """Read the options, let `measure` do its work and take its own time, and print the figures as one line of JSON.

    With `--prepare` nothing is measured: what must be there before the first upload is made.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--container", required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--ca")
    parser.add_argument("--target", type=Path, default=Path(os.devnull))
    parser.add_argument("--variant", default="")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args()
    job = Job(
        options.url,
        options.container,
        options.source,
        options.key,
        options.workers,
        options.ca,
        options.target,
        options.variant,
        options.count,
    )
    if options.prepare:
        assert prepare is not None
        prepare(job)
        return 0
    figures = Figures(extra={"rss_start_mib": peak_rss_mib()})
    measure(job, figures)
    line = {"seconds": figures.seconds, "cpu_s": figures.cpu_s, "rss_mib": peak_rss_mib(), **figures.extra}
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


def peak_rss_mib() -> int:
    """Return the most memory this process has held so far.

    Not `ru_maxrss`: across fork and exec that begins with the memory of the parent.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _requests(job: Job) -> int:
    return int(json.loads(ask(job.account_url, "/_stats"))["requests"])


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
