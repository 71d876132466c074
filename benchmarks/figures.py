"""Arithmetic on kept results: rates, spreads, and ratios round by round. Pure; a cell is what `matrix.run_cell` made."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Cell = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the least and the most it was taken from."""

    median: float
    least: float
    most: float

    def shown(self, digits: int = 2) -> str:
        """Return it as in `3.41 (3.20-3.55)`."""
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}-{self.most:,.{digits}f})"


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return the spread of `values`, None when there are none."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def runs_of(cell: Cell, peer: str) -> list[dict[str, Any]]:
    """Return the runs of a peer that came to their end, in the order of the rounds."""
    return [run for run in cell["peers"].get(peer, {"runs": []})["runs"] if run is not None]


def seconds_each(cell: Cell, peer: str) -> list[float | None]:
    """Return for each round the seconds a byte or, where files take the time, a file; None where the run failed."""
    kept = cell["peers"].get(peer)
    if kept is None:
        return []
    units = kept["bytes"] if is_large(cell) else kept["files"]
    return [None if run is None else run["seconds"] / units for run in kept["runs"]]


def is_large(cell: Cell) -> bool:
    """Return whether the cell's rate is in GB/s, and not in files/s."""
    return bool(cell["bytes"] > cell["files"] * (1 << 20))


def rate_of(cell: Cell, peer: str) -> Spread | None:
    """Return GB/s or files/s."""
    scale = 1e-9 if is_large(cell) else 1.0
    return spread_of([scale / each for each in seconds_each(cell, peer) if each])


def ours_of(cell: Cell) -> str:
    """Return the peer that the others are compared with: vds, or the first of its ways."""
    return next((name for name in cell["peers"] if name.startswith("vds")), "vds")


def ratio_to(cell: Cell, peer: str, ours: str = "vds") -> Spread | None:
    """Return how many times faster `ours` was than `peer`, from the ratio of each round in which both came to their end."""
    pairs = zip(seconds_each(cell, ours), seconds_each(cell, peer), strict=False)
    return spread_of([theirs / own for own, theirs in pairs if own and theirs])


def cpu_of(cell: Cell, peer: str) -> Spread | None:
    """Return CPU seconds a GB, user and system, of the transfer alone."""
    size_bytes = cell["peers"][peer]["bytes"] if peer in cell["peers"] else 0
    return spread_of([run["cpu_s"] / size_bytes * 1e9 for run in runs_of(cell, peer)]) if size_bytes else None


def peak_of(cell: Cell, peer: str) -> float | None:
    """Return the most MiB of any round, of the tool itself where a tool did the work."""
    peaks = [run.get("tool_rss_mib", run["rss_mib"]) for run in runs_of(cell, peer)]
    return max(peaks) if peaks else None


def median_of(cell: Cell, peer: str, name: str) -> float | None:
    """Return the median of one figure that runs have; None when none has it."""
    values = [run[name] for run in runs_of(cell, peer) if name in run]
    return statistics.median(values) if values else None
