"""What vds is to reach, and whether kept results show it. Ratios are medians of the ratios of each round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.figures import Cell, cpu_of, median_of, rate_of, ratio_to, runs_of

SDK_LOOPS = ("sdk_default", "sdk_best", "sdk_stage")
SDK_GETS = ("sdk_get", "sdk_get_best")
OBSTORE_GETS = ("obstore_get", "obstore_get_aio")
RANDOM = ("adlfs_random", "adlfs_random_best")


@dataclass(frozen=True, slots=True)
class Ratio:
    """To be so many times as fast as the fastest of `peers`.

    Attributes:
        latency_ms: None for any.
        ours: who is to be.
    """

    text: str
    workload: str
    latency_ms: float | None
    peers: tuple[str, ...]
    at_least: float
    ours: str = "vds"


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure of vds alone; `take` returns none or one of a cell.

    Attributes:
        latency_ms: None for any.
    """

    text: str
    workload: str
    take: Callable[[Cell], list[float]]
    limit: float
    is_least: bool = False
    latency_ms: float | None = None


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


def _rate_of(peer: str) -> Callable[[Cell], list[float]]:
    def take(cell: Cell) -> list[float]:
        spread = rate_of(cell, peer)
        return [spread.median] if spread else []

    return take


def _us_a_file(cell: Cell) -> list[float]:
    return [1e6 / rate for rate in _rate_of("vds")(cell)]


def _memory(cell: Cell) -> list[float]:
    return [max(run["rss_mib"] - run["rss_start_mib"] for run in runs_of(cell, "vds"))] if runs_of(cell, "vds") else []


def _most(name: str, peer: str = "vds") -> Callable[[Cell], list[float]]:
    def take(cell: Cell) -> list[float]:
        values = [run[name] for run in runs_of(cell, peer)]
        return [max(values)] if values else []

    return take


def _median(name: str, peer: str) -> Callable[[Cell], list[float]]:
    def take(cell: Cell) -> list[float]:
        value = median_of(cell, peer, name)
        return [] if value is None else [value]

    return take


def _requests_beside(ours: str, peers: tuple[str, ...]) -> Callable[[Cell], list[float]]:
    """Return our requests for each thing asked for, beside those of the peer that makes the fewest."""

    def each(cell: Cell, peer: str) -> list[float]:
        count = cell["peers"][peer]["files"] if peer in cell["peers"] else 0
        return [value / count for value in _median("call_requests", peer)(cell)] if count else []

    def take(cell: Cell) -> list[float]:
        theirs = [value for peer in peers for value in each(cell, peer)]
        return [value / min(theirs) for value in each(cell, ours)] if theirs else []

    return take


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
    Ratio("checkout of 10 000 x 10 KB vs the SDK's best loop", "checkout_small", 20, SDK_GETS, 30, "vds_checkout"),
    Ratio("checkout of 10 000 x 10 KB vs obstore", "checkout_small", 20, OBSTORE_GETS, 3, "vds_checkout"),
    Ratio("checkout of 2 GiB vs download_blob, best concurrency", "checkout_big", None, ("sdk_get",), 1.8, "vds_checkout"),
    Ratio("checkout of 2 GiB vs download_blob, best sizes too", "checkout_big", None, ("sdk_get_best",), 1.8, "vds_checkout"),
    Ratio("the same without a cache, best concurrency", "checkout_big", None, ("sdk_get",), 1.8, "vds_checkout_alone"),
    Ratio("the same without a cache, best sizes too", "checkout_big", None, ("sdk_get_best",), 1.8, "vds_checkout_alone"),
    Ratio("again, 10 000 x 10 KB, vs the first checkout", "checkout_again", None, ("vds_first",), 20, "vds_again"),
    Ratio("again, 2 GiB, vs the first checkout", "checkout_again_big", None, ("vds_first",), 20, "vds_again"),
    Ratio("again, linked, vs the first checkout", "checkout_again", None, ("vds_first",), 20, "vds_again_link"),
    Ratio("again, linked, 2 GiB, vs the first checkout", "checkout_again_big", None, ("vds_first",), 20, "vds_again_link"),
    Ratio("again into the same directory vs the first", "checkout_again", None, ("vds_first",), 20, "vds_again_same"),
    Ratio("again into the same directory, 2 GiB, vs the first", "checkout_again_big", None, ("vds_first",), 20, "vds_again_same"),
    Ratio("random reads of 64 KB vs adlfs", "random_reads", None, RANDOM, 1, "vds_random"),
    Ratio("stream of 100 000 x 10 KB vs opening one by one", "stream", 20, ("vds_open_loop",), 20, "vds_stream"),
)

BOUNDS = (
    Bound("2 GiB, CPU seconds a GB", "big", _cpu, 0.55),
    Bound("100 000 unchanged files, us a file", "unchanged_100k", _us_a_file, 12),
    Bound("100 000 unchanged files, requests", "unchanged_100k", _most("upload_requests"), 0),
    Bound("100 000 unchanged files, bytes read", "unchanged_100k", _most("bytes_read"), 0),
    Bound("1 000 000 x 1 KB, files/s", "million", _rate_of("vds"), 25_000, is_least=True),
    Bound("1 000 000 x 1 KB, MiB above the start", "million", _memory, 400),
    Bound("again, 10 000 x 10 KB, requests", "checkout_again", _most("call_requests", "vds_again"), 0),
    Bound("again, 2 GiB, requests", "checkout_again_big", _most("call_requests", "vds_again"), 0),
    Bound("again into the same directory, requests", "checkout_again", _most("call_requests", "vds_again_same"), 0),
    Bound("again into the same directory, 2 GiB, requests", "checkout_again_big", _most("call_requests", "vds_again_same"), 0),
    Bound("random reads, requests beside adlfs's", "random_reads", _requests_beside("vds_random", RANDOM), 1.2),
    Bound("stream of 100 000 x 10 KB, files/s", "stream", _rate_of("vds_stream"), 20_000, is_least=True, latency_ms=20),
    Bound("1 000 000 rows, looking one up, ms", "million_read", _median("lookup_ms", "vds_rows_open"), 5),
    Bound("1 000 000 rows, opening and reading one, ms", "million_read", _median("read_ms", "vds_rows_open"), 5, latency_ms=0),
    Bound("1 000 000 rows, listing them, s", "million_read", _median("seconds", "vds_rows_list"), 3),
    Bound("1 000 000 rows, listing them, MiB", "million_read", _most("rss_mib", "vds_rows_list"), 300),
    Bound("64 writers, commits/s", "writers", _rate_of("vds_writers"), 50, is_least=True),
    Bound("64 writers, acknowledged versions lost", "writers", _most("lost", "vds_writers"), 0),
    Bound("64 writers, errors seen", "writers", _most("errors", "vds_writers"), 0),
    *(
        bound
        for where, index in (("SQLite", "sqlite"), ("PostgreSQL", "postgres"))
        for bound in (
            Bound(
                f"1 000 changes to 1 000 000, index ms, {where}",
                "million_change",
                _median("index_ms", f"vds_change_{index}"),
                100,
            ),
            Bound(f"10 000 000 rows, tables walked through, {where}", "ten_million", _most("scans", f"vds_ask_{index}"), 0),
            Bound(f"10 000 000 rows, looked at at most, {where}", "ten_million", _most("looked_at", f"vds_ask_{index}"), 500_000),
        )
    ),
)


def judge(cells: Sequence[Cell]) -> Iterator[Judgement]:
    """Yield a judgement for each target and each cell that says something about it."""
    for cell in cells:
        where = f"{cell['wire']}, {cell['latency_ms']:g} ms"
        for ratio in RATIOS:
            if ratio.workload == cell["workload"] and ratio.latency_ms in (None, cell["latency_ms"]):
                yield from _judge_ratio(ratio, cell, where)
        for bound in BOUNDS:
            if bound.workload == cell["workload"] and bound.latency_ms in (None, cell["latency_ms"]):
                for value in bound.take(cell):
                    is_met = value >= bound.limit if bound.is_least else value <= bound.limit
                    sign = ">=" if bound.is_least else "<="
                    yield Judgement(bound.text, where, f"{sign} {bound.limit:,g}", f"{value:,.2f}", is_met)


def _judge_ratio(ratio: Ratio, cell: Cell, where: str) -> Iterator[Judgement]:
    rates = {peer: rate.median for peer in ratio.peers if (rate := rate_of(cell, peer)) is not None}
    if not rates:
        return
    fastest = max(rates, key=lambda peer: rates[peer])
    reached = ratio_to(cell, fastest, ratio.ours)
    if reached is None:
        return
    name = f" [{fastest}]" if len(ratio.peers) > 1 else ""
    yield Judgement(ratio.text + name, where, f">= {ratio.at_least:g}", reached.shown(2), reached.median >= ratio.at_least)
