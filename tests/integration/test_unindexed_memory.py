"""What it takes to read a version of very many files without its index."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import run_together
from tests.unit.ops.crafted import craft

FILES = 200_000
GROWN_BYTES_MAX = 96 * 1024 * 1024
"""Measured: 67 MiB, of which 32 are the cache of the temporary database and 20 the list of files, which is mapped; 180 MiB for a
million files, 104 of them mapped. With all rows held as objects it is 127 MiB for these."""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell the peak this way")
def test_the_files_are_not_held_in_memory(tmp_path: Path) -> None:
    craft(tmp_path / "small", 1)
    craft(tmp_path / "large", FILES)
    task = {"small": str(tmp_path / "small"), "large": str(tmp_path / "large")}
    said = [run_together("tests.integration.unindexedgauge", [{**task, "holds": holds}])[0][0] for holds in (False, True)]
    assert [line["file_count"] for line in said] == [FILES, FILES]
    assert all(line["is_whole"] for line in said)
    assert 0 < said[0]["grown_bytes"] <= GROWN_BYTES_MAX
    assert said[1]["grown_bytes"] > GROWN_BYTES_MAX, "this test would not see rows that are held"
