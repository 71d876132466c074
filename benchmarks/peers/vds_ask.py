"""vds itself: questions to the index of a version of very many files, and what the database did to answer each.

The variant says of how many. Each question is asked once under watch and `count` times against the clock, about ever other files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import vds
from benchmarks.grown import FILES_PER_DIRECTORY, grow, grown_path, scattered
from benchmarks.indexwatch import watch
from benchmarks.peers.measure import Figures, Job, run_peer
from benchmarks.peers.vds_upload import NAMESPACE, store_url
from vds.index.placements import find_placements

CHANGES = 1_000


def prepare(job: Job) -> None:
    """Make the store and its version of many files, and a second version a thousand changes apart from it."""
    rows = int(job.variant)
    with vds.connect(store_url(job), create=True, credential=job.key) as store:
        grow(store, rows)
        with store.namespace(NAMESPACE).transaction() as tx:
            for number in _changed(rows):
                tx.write_bytes(grown_path(number), b"%d" % number)


def ask(job: Job, figures: Figures) -> None:
    """Ask every question; `seconds` is the time of all that were asked against the clock."""
    seen, times = {}, {}
    with figures.timed():
        asked = Asked(job)
        for name, question in asked.questions().items():
            seen[name] = watch(lambda: asked.store._handle.doors.index, question)
            question()  # a connection made anew is no part of what is timed
            times[name] = [_seconds(question) for _ in range(job.count)]
        asked.store.close()
    figures.seconds = sum(map(sum, times.values()))
    for name, taken in times.items():
        figures.extra |= {f"{name}_ms": median(taken) * 1e3, f"{name}_ms_most": max(taken) * 1e3}
        figures.extra |= {f"{name}_{what}": value for what, value in seen[name].items()}
    figures.extra |= {
        "scans": sum(one["scans"] for one in seen.values()),
        "looked_at": max(one["looked_at"] for one in seen.values()),
    }


def _changed(rows: int) -> list[int]:
    return sorted(scattered(rows, CHANGES, seed=1))


def _seconds(question: Callable[[], None]) -> float:
    begun = time.perf_counter()
    question()
    return time.perf_counter() - begun


class Asked:
    """The store that is asked, and how far the asking has come."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rows = int(job.variant)
        self._changed = _changed(self._rows)
        self._turn = 0
        self.store = vds.connect(store_url(job), credential=job.key)

    def questions(self) -> Mapping[str, Callable[[], None]]:
        """Return what is asked, by name; each asks about something else when it is called again, and checks the answer."""
        return {
            "open": self.open,
            "find": self.find,
            "read": self.read,
            "children": self.list_children,
            "below": self.list_below,
            "diff": self.diff,
        }

    def open(self) -> None:
        """Open the store anew, and find its newest version."""
        self.store.close()
        self.store = vds.connect(store_url(self._job), credential=self._job.key)
        assert self._latest().number == 2

    def find(self) -> None:
        """Look up one path: its entry, and where its bytes lie."""
        [number] = scattered(self._rows, 1, seed=self._next())
        entry = self._latest().entry(grown_path(number))
        doors = self.store._handle.doors
        with doors.index.read() as connection:
            assert len(find_placements(connection, doors.store.id, [entry.digest.raw])) == 1

    def read(self) -> None:
        """Read one file whose bytes are there: one of those that the second version changed."""
        number = self._changed[self._next() % CHANGES]
        assert self._latest().read_bytes(grown_path(number)) == b"%d" % number

    def list_children(self) -> None:
        """List what stands in one directory."""
        assert len(self._latest().children(self._directory())) == FILES_PER_DIRECTORY

    def list_below(self) -> None:
        """List all files below one directory."""
        assert sum(1 for _ in self._latest().entries(self._directory())) == FILES_PER_DIRECTORY

    def diff(self) -> None:
        """Compare the two versions."""
        assert len(self._latest().diff(self.store.namespace(NAMESPACE).get(1))) == CHANGES

    def _latest(self) -> vds.Version:
        return self.store.namespace(NAMESPACE).latest()

    def _directory(self) -> str:
        directories = self._rows // FILES_PER_DIRECTORY
        number = (directories // 2 + self._next()) % directories
        return grown_path(number * FILES_PER_DIRECTORY).partition("/")[0]

    def _next(self) -> int:
        self._turn += 1
        return self._turn


if __name__ == "__main__":
    raise SystemExit(run_peer(ask, prepare))
