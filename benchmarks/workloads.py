"""The trees that are uploaded: made once a matrix in memory or TMPDIR, of bytes that repeat nowhere."""

from __future__ import annotations

import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

FILES_PER_DIRECTORY = 500
PIECE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Workload:
    """One tree to upload, and what happens before the clock starts.

    Attributes:
        files: how many; 0 for the real tree, which has what this machine has.
        before: what precedes the measured upload: nothing, or one of the keys of `benchmarks.scenarios.SCENARIOS`.
        is_large: whether it is the bytes that take the time, and not the files.
        tree: the workload whose directory it uploads, when not its own.
    """

    name: str
    title: str
    files: int
    file_bytes: int
    is_large: bool = False
    before: str = ""
    tree: str = ""

    @property
    def is_shared(self) -> bool:
        """Whether the peers run it too; the others ask for what only vds does."""
        return not self.before and self.name != "million"


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("big", "one file of 2 GiB", 1, 2 << 30, is_large=True),
        Workload("resume", "the same file, the upload before killed at 50 %", 1, 2 << 30, True, "killed", "big"),
        Workload("medium", "64 files of 32 MiB", 64, 32 << 20, is_large=True),
        Workload("small", "10 000 files of 10 KB", 10_000, 10_000),
        Workload("unchanged", "the same files, uploaded before", 10_000, 10_000, False, "uploaded", "small"),
        Workload("changed", "the same files, uploaded before, then 1 % rewritten", 10_000, 10_000, False, "rewritten", "small"),
        Workload("hundred", "2 000 files of 100 KB", 2_000, 100_000),
        Workload("tree", "a real tree: the standard library and the site-packages", 0, 0),
        Workload("unchanged_100k", "100 000 files of 1 KB, uploaded before", 100_000, 1_000, False, "uploaded"),
        Workload("million", "1 000 000 files of 1 KB", 1_000_000, 1_000),
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
        else:
            _make_files(root, workload.files, workload.file_bytes)
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


def _make_files(root: Path, files: int, file_bytes: int) -> None:
    for number in range(files):
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
