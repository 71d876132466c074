"""The stat cache against a dict, over uploads of changing trees that end in every way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from vds.files import statcache, statspool
from vds.files.scan import SourceFile
from vds.files.statcache import StatCache, open_stat_cache
from vds.model.batch import batched
from vds.model.entry import MODE_FILE
from vds.model.path import EntryPath

NOW_NS = 1_800_000_000_123_456_789

names = st.text(st.sampled_from("ab-/é日\ue000😀"), min_size=1, max_size=4)
trees = st.dictionaries(names, st.integers(0, 2), max_size=14)
"""Path → which state of its file is there; state 2 is written in the moment of the upload."""
uploads = st.tuples(trees, st.sampled_from(["complete", "partial", "dropped", "killed"]), st.integers(1, 5), st.randoms())


def source(path: str, state: int) -> SourceFile:
    modified_ns = NOW_NS if state == 2 else NOW_NS - 10**12 + state
    return SourceFile(EntryPath(path), path, state, modified_ns, 5, 1, MODE_FILE)


def digest(path: str, state: int) -> bytes:
    return f"{state}{path}".encode().ljust(32, b".")


@contextmanager
def small_frames() -> Iterator[None]:
    with (
        patch.object(statcache, "FRAME_ROWS", 2),
        patch.object(statspool, "FRAME_ROWS", 2),
        patch.object(statspool, "FRAME_ROWS_MAX", 4),
        patch.object(statcache, "_BUFFER_ROWS", 3),
    ):
        yield


@given(st.lists(uploads, max_size=6))
def test_what_is_known_is_what_a_dict_would_know(runs: list[tuple[dict[str, int], str, int, Random]]) -> None:
    with small_frames(), tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        model: dict[str, int] = {}
        for tree, ending, batch, random in runs:
            cache = open_stat_cache(directory, home)
            try:
                unknown = look_up(cache, tree, model, batch)
                random.shuffle(unknown)
                spooled = add(cache, unknown, tree, batch)
            finally:
                end(cache, ending)
            fresh = {path: tree[path] for path in unknown if tree[path] != 2}
            if ending == "killed":
                model |= {path: tree[path] for path in spooled}
            elif ending != "dropped":
                unasked = model.keys() - tree.keys() if ending == "complete" else set()
                if fresh or unasked:  # otherwise nothing is written: a row that is out of date stays
                    model = {path: state for path, state in model.items() if path not in unasked | set(unknown)} | fresh
            left = sorted(path.suffix for path in (home / "stat").iterdir()) if home.exists() else []
            assert left in ([], [".stat"]) or ending == "killed"


def look_up(cache: StatCache, tree: dict[str, int], model: dict[str, int], batch: int) -> list[str]:
    unknown = []
    for paths in batched(sorted(tree), batch):
        found = cache.find([source(path, tree[path]) for path in paths])
        assert found == [digest(path, tree[path]) if model.get(path) == tree[path] else None for path in paths]
        unknown += [path for path, raw in zip(paths, found, strict=True) if raw is None]
    return unknown


def add(cache: StatCache, unknown: list[str], tree: dict[str, int], batch: int) -> list[str]:
    """Return the paths whose rows have left the buffer."""
    spooled: list[str] = []
    waiting: list[str] = []
    for paths in batched(unknown, batch):
        cache.add([source(path, tree[path]) for path in paths], [digest(path, tree[path]) for path in paths], NOW_NS)
        waiting += [path for path in paths if tree[path] != 2]
        if len(waiting) >= 3:
            spooled += waiting
            waiting = []
    return spooled


def end(cache: StatCache, ending: str) -> None:
    if ending == "killed":  # what the system does for a process that is no more: its files are closed, and nothing else
        for file in (cache._known, cache._spool and cache._spool.file):
            if file is not None:
                file.close()
        return
    if ending != "dropped":
        cache.save(is_complete=ending == "complete")
    cache.close()
