"""What comes before a measured upload, where that is not nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from benchmarks.load import Asking
from benchmarks.reading import Reading
from benchmarks.runs import RUN_TIMEOUT_S, Figures, Run, RunError, end_group
from benchmarks.workloads import rewrite_files

CHANGED_SHARE = 0.01
KILLED_AT_SHARE = 0.5


def take_plain(run: Run) -> Figures:
    """Measure an upload into an empty container."""
    run.clear()
    figures = run.take()
    run.check_whole(figures)
    return figures


def take_uploaded(run: Run) -> Figures:
    """Measure an upload of what the same store holds already."""
    run.load()
    return run.take()


def take_rewritten(run: Run) -> Figures:
    """Measure an upload after a hundredth of the files was given other bytes."""
    run.load()
    rewritten = rewrite_files(run.tree, CHANGED_SHARE)
    return run.take() | {"rewritten": rewritten}


def take_killed(run: Run) -> Figures:
    """Measure an upload that follows one killed when half of the bytes had arrived.

    Raises:
        RunError: the first upload was done before it could be killed.
    """
    run.clear()
    process = run.start()
    deadline_s = time.monotonic() + RUN_TIMEOUT_S
    arrived_bytes = 0
    while arrived_bytes < run.tree.bytes * KILLED_AT_SHARE and process.poll() is None and time.monotonic() < deadline_s:
        arrived_bytes = run.server.stats()["body_bytes"]
        time.sleep(0.002)
    end_group(process)
    if process.returncode != -signal.SIGKILL:
        raise RunError(f"the upload to be killed ended by itself with {process.returncode}")
    arrived_bytes = run.server.stats()["body_bytes"]
    run.server.reset(counters_only=True)
    return run.take() | {"arrived_before_bytes": arrived_bytes}


def take_loaded(run: Run) -> Figures:
    """Measure what reads a tree that the server was given before; only what the peer is to find is left of earlier runs."""
    assert isinstance(run, Reading)
    run.make_room()
    figures = run.take()
    run.check_read(figures)
    return figures


def take_grown(run: Run) -> Figures:
    """Measure what asks a store that is made in the first round, and stays as it is."""
    assert isinstance(run, Asking)
    run.make_once()
    return run.take()


SCENARIOS: dict[str, Callable[[Run], Figures]] = {
    "": take_plain,
    "uploaded": take_uploaded,
    "rewritten": take_rewritten,
    "killed": take_killed,
    "loaded": take_loaded,
    "grown": take_grown,
}
