"""The trees that are uploaded and read: made once a matrix in memory or TMPDIR, of bytes that repeat nowhere."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.random_reads import READ_BYTES

FILES_PER_DIRECTORY = 500
PIECE_BYTES = 64 << 20
MIXED_BYTES = (64 << 20, 64 << 20, 256 << 20, 2 << 30)
"""The files of random reads."""
_READ_TREES = {
    "small": (10_000, 10_000),
    "big": (1, 2 << 30),
    "many": (100_000, 10_000),
    "mixed": (len(MIXED_BYTES), READ_BYTES),
}

_LOADS = ("write", "change", "ask")


@dataclass(frozen=True, slots=True)
class Workload:
    """One tree, what is done with it, and what happens before the clock starts.

    Attributes:
        files: how many; 0 for the real tree, which has what this machine has.
        before: what precedes what is measured: nothing, or one of the keys of `benchmarks.scenarios.SCENARIOS`.
        is_large: whether it is the bytes that take the time, and not the files.
        tree: the workload whose directory it takes, when not its own.
        does: what is measured; the peers that do the same run it.
        count: of what is no whole file, how many; each of `file_bytes`.
        unit: what is counted: files, or what `count` says the number of.
        is_shared: whether it is for other peers too; of what is for vds alone one wire is enough.
        is_local: whether the service has next to no part in it, so that one latency is enough.
    """

    name: str
    title: str
    files: int
    file_bytes: int
    is_large: bool = False
    before: str = ""
    tree: str = ""
    does: str = "upload"
    count: int = 0
    unit: str = "files"
    is_shared: bool = True
    is_local: bool = False

    @property
    def is_load(self) -> bool:
        """Whether there is no tree: what it is about is a store and its index."""
        return self.does in _LOADS

    @property
    def is_read(self) -> bool:
        """Whether the tree is on the server before, and read."""
        return self.does not in ("upload", *_LOADS)


def _own(
    name: str, title: str, files: int, file_bytes: int, is_large: bool = False, before: str = "", tree: str = ""
) -> Workload:
    return Workload(name, title, files, file_bytes, is_large, before, tree, is_shared=False)


def _read(name: str, title: str, does: str, tree: str, *, is_shared: bool = True) -> Workload:
    files, file_bytes = _READ_TREES[tree]
    count, unit = {"random": (500, "reads"), "index": (1_000_000, "rows")}.get(does, (0, "files"))
    return Workload(name, title, files, file_bytes, tree == "big", "loaded", tree, does, count, unit, is_shared, does == "index")


def _load(name: str, title: str, does: str, count: int, unit: str, *, before: str = "", is_local: bool = True) -> Workload:
    return Workload(name, title, 0, 0, before=before, does=does, count=count, unit=unit, is_shared=False, is_local=is_local)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("big", "one file of 2 GiB", 1, 2 << 30, is_large=True),
        _own("resume", "the same file, the upload before killed at 50 %", 1, 2 << 30, True, "killed", "big"),
        Workload("medium", "64 files of 32 MiB", 64, 32 << 20, is_large=True),
        Workload("small", "10 000 files of 10 KB", 10_000, 10_000),
        _own("unchanged", "the same files, uploaded before", 10_000, 10_000, False, "uploaded", "small"),
        _own("changed", "the same files, uploaded before, then 1 % rewritten", 10_000, 10_000, False, "rewritten", "small"),
        Workload("hundred", "2 000 files of 100 KB", 2_000, 100_000),
        Workload("tree", "a real tree: the standard library and the site-packages", 0, 0),
        _own("unchanged_100k", "100 000 files of 1 KB, uploaded before", 100_000, 1_000, False, "uploaded"),
        _own("million", "1 000 000 files of 1 KB", 1_000_000, 1_000),
        _read("checkout_small", "checkout of 10 000 files of 10 KB", "checkout", "small"),
        _read("checkout_big", "checkout of one file of 2 GiB", "checkout", "big"),
        _read("checkout_again", "checkout of 10 000 files of 10 KB from the cache", "again", "small", is_shared=False),
        _read("checkout_again_big", "checkout of one file of 2 GiB from the cache", "again", "big", is_shared=False),
        _read("random_reads", "random reads of 64 KB in files of 64 MiB to 2 GiB", "random", "mixed"),
        _read("stream", "100 000 files of 10 KB, as a stream of bytes", "stream", "many", is_shared=False),
        _read("million_read", "the index of a version of 1 000 000 files", "index", "small", is_shared=False),
        _load("writers", "64 writers that commit to one namespace", "write", 1_280, "commits", is_local=False),
        _load("million_change", "commits of 1 000 changes to a version of 1 000 000 files", "change", 25, "commits"),
        _load("ten_million", "questions to the index of a version of 10 000 000 files", "ask", 25, "rounds", before="grown"),
    )
}


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory that holds a workload, or part of it."""

    path: Path
    files: int
    bytes: int


def make_tree(workload: Workload, scratch: Path) -> Tree:
    """Return the tree of a workload below `scratch`, made if it is not there."""
    root = scratch / (workload.tree or workload.name)
    if not root.exists():
        if workload.name == "tree":
            _copy_installed(root)
        elif workload.tree == "mixed":
            _make_files(root, MIXED_BYTES)
        else:
            _make_files(root, [workload.file_bytes] * workload.files)
    return measure_tree(root)


def sample_tree(tree: Tree, files_max: int) -> Tree:
    """Return a tree of at most `files_max` of the files, evenly chosen, linked and not copied."""
    if not files_max or tree.files <= files_max:
        return tree
    root = tree.path.with_name(f"{tree.path.name}-{files_max}")
    if not root.exists():
        paths = sorted(path for path in tree.path.rglob("*") if path.is_file())
        for number in range(files_max):
            path = paths[number * len(paths) // files_max]
            target = root / path.relative_to(tree.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    return measure_tree(root)


def measure_tree(root: Path) -> Tree:
    """Return how many files and bytes are below `root`."""
    files = size_bytes = 0
    for directory, _, names in os.walk(root):
        files += len(names)
        size_bytes += sum(os.stat(f"{directory}/{name}").st_size for name in names)
    return Tree(root, files, size_bytes)


def rewrite_files(tree: Tree, share: float) -> int:
    """Give every n-th file other bytes of the same length, and return how many."""
    paths = sorted(path for path in tree.path.rglob("*") if path.is_file())
    chosen = paths[:: max(1, round(1 / share))]
    for path in chosen:
        size_bytes = path.stat().st_size
        path.unlink()  # it may be linked into a sample, which stays as it is
        path.write_bytes(os.urandom(size_bytes))
    return len(chosen)


def find_scratch() -> Path:
    """Return where trees are made: TMPDIR when set, else memory, so that no disk is measured by the way."""
    chosen = os.environ.get("TMPDIR") or ("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp")
    return Path(chosen)


def _make_files(root: Path, sizes: Sequence[int]) -> None:
    for number, file_bytes in enumerate(sizes):
        directory = root / f"{number // FILES_PER_DIRECTORY:05}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        with (directory / f"{number % FILES_PER_DIRECTORY:03}.bin").open("wb") as file:
            for offset_bytes in range(0, file_bytes, PIECE_BYTES):
                file.write(os.urandom(min(PIECE_BYTES, file_bytes - offset_bytes)))


def _copy_installed(root: Path) -> None:
    """Copy the standard library and this environment's packages: real names, sizes and depths."""
    skipped = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages")
    shutil.copytree(sysconfig.get_path("stdlib"), root / "stdlib", ignore=skipped)
    site = Path(sysconfig.get_path("purelib"))
    shutil.copytree(site, root / "site-packages", ignore=shutil.ignore_patterns("__pycache__"))
    for directory, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(directory, name)
            if path.is_symlink():
                path.unlink()  # peers differ in whether they follow one
