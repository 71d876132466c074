"""Runs that read what the server was given before, and the loading of it."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.catalog import Peer
from benchmarks.runs import Run, RunError
from benchmarks.server import NullServer
from benchmarks.workloads import PIECE_BYTES, Tree, Workload

OWN_DIRECTORY = ".vds"
"""Where a checkout keeps its record."""

_UPLOADER = Peer("loading", "the upload before", "vds_upload", "vds", "vds", variant="mirror")
_PLAIN_LOADER = Peer("loading", "the same as plain blobs", "plain_load", "vds", "vds")
_ROWS_LOADER = Peer("loading", "a version of many rows", "vds_rows_load", "vds", "vds")


def load(workload: Workload, server: NullServer, tree: Tree, state: Path) -> None:
    """Give the server the tree as a version of vds's, and as plain blobs where other peers read it; not measured.

    Raises:
        RunError: not everything arrived.
    """
    Run(_UPLOADER, server, tree, 0, state).load()
    if workload.is_shared:
        Run(_PLAIN_LOADER, server, tree, 0, state).take()
    if workload.does == "index":
        Reading(_ROWS_LOADER, server, tree, 0, state, state, workload.count, workload.file_bytes).take()
    server.reset(counters_only=True)
    _warm(state / "warm", 2 * tree.bytes)


def _warm(path: Path, size_bytes: int) -> None:
    """Take as much memory as a run writes, and give it back: a virtual machine is slow with what was not used lately.

    Later runs get what the one before them gave back.
    """
    piece = bytes(PIECE_BYTES)
    with path.open("wb") as file:
        for _ in range(0, size_bytes, PIECE_BYTES):
            file.write(piece)
    path.unlink()


@dataclass(frozen=True, slots=True)
class Reading(Run):
    """A run that reads.

    Attributes:
        target: the directory that is written.
        count: of what is no whole file, how many are asked for; 0 for whole files.
        unit_bytes: of each of them.
    """

    target: Path
    count: int
    unit_bytes: int

    @property
    def units(self) -> dict[str, int]:
        """What the peer is asked for; what is no whole file counts as one."""
        if self.count:
            return {"files": self.count, "bytes": self.count * self.unit_bytes}
        return {"files": self.tree.files, "bytes": self.tree.bytes}

    @property
    def cache(self) -> Path:
        """The directory of vds's cache of bodies."""
        return self.state / "bodies"

    def make_room(self) -> None:
        """Remove what earlier runs left, but for what this peer is to find.

        Raises:
            RunError: that is not there.
        """
        self._remove_but(self.peer.finds)
        if missing := [name for name, place in self._places().items() if name in self.peer.finds and not place.exists()]:
            raise RunError(f"there is no {' and no '.join(missing)} of an earlier run of the round")
        self.server.reset(counters_only=True)

    def forget(self) -> None:
        """Remove what no later run of the round is to find; what the server was given stays."""
        self._remove_but(self.peer.leaves)

    def check_read(self, figures: Mapping[str, Any]) -> None:
        """Check that the peer placed the source, byte for byte, where it is one that places files.

        Raises:
            RunError: it did not.
        """
        if "files_read" in figures and (figures["files_read"], figures["bytes_read"]) != (self.tree.files, self.tree.bytes):
            raise RunError(f"{figures['files_read']} files of {figures['bytes_read']} bytes were read")
        if "files_listed" in figures and figures["files_listed"] != self.count:
            raise RunError(f"{figures['files_listed']} files were listed")
        if not {"checkout", "again"} & {*self.peer.does}:
            return
        found = 0
        filecmp.clear_cache()  # it knows files by size and time, which are the same in each round
        for directory, folders, names in os.walk(self.target):
            if OWN_DIRECTORY in folders:
                folders.remove(OWN_DIRECTORY)
            for name in names:
                path = Path(directory, name)
                wanted = self.tree.path / path.relative_to(self.target)
                if not wanted.exists() or not filecmp.cmp(path, wanted, shallow=False):
                    raise RunError(f"{path} is not what it should be")
                found += 1
        if found != self.tree.files:
            raise RunError(f"{found} of {self.tree.files} files were placed")

    def _places(self) -> dict[str, Path]:
        return {"cache": self.cache, "target": self.target}

    def _remove_but(self, names: Sequence[str]) -> None:
        for name, place in self._places().items():
            if name not in names:
                shutil.rmtree(place, ignore_errors=True)

    def _command(self) -> list[str]:
        return [*Run._command(self), "--target", str(self.target), "--count", str(self.count)]

    def _environment(self) -> dict[str, str]:
        return {**Run._environment(self), "VDS_CACHE": str(self.cache)}
