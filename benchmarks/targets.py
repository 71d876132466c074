"""What vds is to reach, and whether kept results show it. Ratios are medians of the ratios of each round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.figures import Cell, cpu_of, rate_of, ratio_to, runs_of

SDK_LOOPS = ("sdk_default", "sdk_best", "sdk_stage")


@dataclass(frozen=True, slots=True)
class Ratio:
    """To be so many times as fast as the fastest of `peers`.

    Attributes:
        latency_ms: None for any.
    """

    text: str
    workload: str
    latency_ms: float | None
    peers: tuple[str, ...]
    at_least: float


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure of vds alone; `take` returns one for each run."""

    text: str
    workload: str
    take: Callable[[Cell], list[float]]
    limit: float
    is_least: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """One target on one cell; `reached` is words for people."""

    text: str
    where: str
    wanted: str
    reached: str
    is_met: bool


def _cpu(cell: Cell) -> list[float]:
    spread = cpu_of(cell, "vds")
    return [spread.median] if spread else []


def _rate(cell: Cell) -> list[float]:
    spread = rate_of(cell, "vds")
    return [spread.median] if spread else []


def _us_a_file(cell: Cell) -> list[float]:
    return [1e6 / rate for rate in _rate(cell)]


def _memory(cell: Cell) -> list[float]:
    return [max(run["rss_mib"] - run["rss_start_mib"] for run in runs_of(cell, "vds"))] if runs_of(cell, "vds") else []


def _each(name: str) -> Callable[[Cell], list[float]]:
    def most(cell: Cell) -> list[float]:
        values = [run[name] for run in runs_of(cell, "vds")]
        return [max(values)] if values else []

    return most


RATIOS = (
    Ratio("10 000 x 10 KB vs the SDK's best loop", "small", 20, SDK_LOOPS, 40),
    Ratio("10 000 x 10 KB vs obstore", "small", 20, ("obstore",), 3.5),
    Ratio("10 000 x 10 KB vs azcopy", "small", 20, ("azcopy",), 25),
    Ratio("10 000 x 10 KB vs rclone", "small", 20, ("rclone",), 20),
    Ratio("10 000 x 10 KB vs azureml-core", "small", 20, ("azureml",), 40),
    Ratio("2 GiB vs upload_blob at its defaults (aim 1.5)", "big", None, ("sdk_default",), 1.3),
    Ratio("2 GiB vs upload_blob at its best (aim 1.15)", "big", None, ("sdk_best",), 0.95),
    Ratio("2 GiB, share of bare sockets + BLAKE3", "big", None, ("raw",), 0.85),
    Ratio("64 x 32 MiB vs the SDK at its best (aim 1.2)", "medium", 20, ("sdk_stage",), 0.95),
)

BOUNDS = (
    Bound("2 GiB, CPU seconds a GB", "big", _cpu, 0.55),
    Bound("100 000 unchanged files, us a file", "unchanged_100k", _us_a_file, 12),
    Bound("100 000 unchanged files, requests", "unchanged_100k", _each("upload_requests"), 0),
    Bound("100 000 unchanged files, bytes read", "unchanged_100k", _each("bytes_read"), 0),
    Bound("1 000 000 x 1 KB, files/s", "million", _rate, 25_000, is_least=True),
    Bound("1 000 000 x 1 KB, MiB above the start", "million", _memory, 400),
)


def judge(cells: Sequence[Cell]) -> Iterator[Judgement]:
    """Yield a judgement for each target and each cell that says something about it."""
    for cell in cells:
        where = f"{cell['wire']}, {cell['latency_ms']:g} ms"
        for ratio in RATIOS:
            if ratio.workload == cell["workload"] and ratio.latency_ms in (None, cell["latency_ms"]):
                yield from _judge_ratio(ratio, cell, where)
        for bound in BOUNDS:
            if bound.workload == cell["workload"]:
                for value in bound.take(cell):
                    is_met = value >= bound.limit if bound.is_least else value <= bound.limit
                    sign = ">=" if bound.is_least else "<="
                    yield Judgement(bound.text, where, f"{sign} {bound.limit:,g}", f"{value:,.2f}", is_met)


def _judge_ratio(ratio: Ratio, cell: Cell, where: str) -> Iterator[Judgement]:
    rates = {peer: rate.median for peer in ratio.peers if (rate := rate_of(cell, peer)) is not None}
    if not rates:
        return
    fastest = max(rates, key=lambda peer: rates[peer])
    reached = ratio_to(cell, fastest)
    if reached is None:
        return
    name = f" [{fastest}]" if len(ratio.peers) > 1 else ""
    yield Judgement(ratio.text + name, where, f">= {ratio.at_least:g}", reached.shown(2), reached.median >= ratio.at_least)
