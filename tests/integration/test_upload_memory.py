"""Memory does not grow with the number of files or with their size."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import vds
import vds.engine.gather
import vds.ops.survey
from tests.integration.watch import watch_blobs
from tests.support import make_place, run_together
from vds.blobs.memory import MemoryDriver
from vds.files.scan import SourceFile
from vds.pipeline import HASH_WORKERS

MIB = 1024 * 1024
GAUGE = "tests.integration.gauge"
FILES = 60_000
FILES_GROWN_BYTES_MAX = 160 * MIB
"""Measured: 57 MiB; 105 MiB for 240 000 files and 114 MiB for 400 000, as databases and caches fill what they may."""
LARGE_BYTES = 3 * 1024 * MIB
LARGE_GROWN_BYTES_MAX = 96 * MIB
"""Measured: 24 MiB, for a file of half the size too; a driver that takes more requests at once has more blocks in flight."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDS_CACHE", str(tmp_path / "cache"))


def make_files(root: Path, count: int) -> Path:
    """Make as many tiny files, no two alike."""
    for number in range(count):
        if number % 1000 == 0:
            directory = root / f"{number:06d}"
            directory.mkdir(parents=True)
        (directory / str(number)).write_bytes(b"%d" % number)
    return root


def gauge(directory: Path, url: str = "") -> dict[str, Any]:
    """Upload in a process of its own and return what it says."""
    ((said,),) = run_together(GAUGE, [{"directory": str(directory), "url": url}])
    return said


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell the peak this way")
def test_many_files_take_no_more_memory_than_few(tmp_path: Path) -> None:
    said = gauge(make_files(tmp_path / "tree", FILES), str(tmp_path / "store"))
    assert said["uploaded"] == FILES
    assert 0 < said["grown_bytes"] <= FILES_GROWN_BYTES_MAX


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell the peak this way")
def test_a_large_file_takes_no_more_memory_than_its_blocks_in_flight(tmp_path: Path) -> None:
    large = tmp_path / "tree" / "large"
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(LARGE_BYTES)  # takes no space
    said = gauge(large.parent)
    assert (said["uploaded"], said["bytes_sent"]) == (1, LARGE_BYTES)
    assert 0 < said["grown_bytes"] <= LARGE_GROWN_BYTES_MAX


def test_of_all_files_found_only_a_few_are_held(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, ahead, group = 64, 4, 32
    monkeypatch.setattr(vds.ops.survey, "BATCH_FILES", batch)
    monkeypatch.setattr(vds.ops.survey, "AHEAD_BATCHES", ahead)
    monkeypatch.setattr(vds.engine.gather, "PACK_MEMBERS_MAX", group)
    tree = make_files(tmp_path / "tree", 2000)
    alive: list[int] = []
    lock = threading.Lock()

    def count(name: str) -> None:
        with lock:  # or the lists of objects would hold one another
            alive.append(sum(type(one) is SourceFile for one in gc.get_objects()))

    with make_place("memory", request).connect(create=True) as store:
        requests = watch_blobs(monkeypatch, MemoryDriver)
        requests.before = count
        result = store.namespace("a/raw").upload(tree, show_progress=False)
        requests.before = lambda name: None
    assert (result.uploaded, requests.puts["packs"]) == (2000, -(-2000 // group))
    # The batches found ahead and those that the steps behind them are at, the groups being read and filled and those just read.
    held = (ahead + 4) * batch + (2 * HASH_WORKERS + 4) * group
    assert held < result.uploaded // 2
    assert 0 < max(alive) <= held
