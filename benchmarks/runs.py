"""One run of one peer, in a process of its own, and what the server saw of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.catalog import Peer
from benchmarks.install import ROOT, python_of, tool_environment
from benchmarks.server import ACCOUNT_KEY, CONTAINER, NullServer
from benchmarks.workloads import Tree

RUN_TIMEOUT_S = 600

Figures = dict[str, Any]


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill what is left of a peer, the tools it started included, and collect it; harmless when nothing is."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


class RunError(RuntimeError):
    """A peer failed, or did less than it was asked."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run is made of.

    Attributes:
        state: the directory of vds's index and stat cache; emptied by `clear`.
    """

    peer: Peer
    server: NullServer
    tree: Tree
    workers: int
    state: Path

    @property
    def units(self) -> dict[str, int]:
        """What the peer is asked for: files and bytes, by which rates are taken."""
        return {"files": self.tree.files, "bytes": self.tree.bytes}

    def clear(self) -> None:
        """Forget all that earlier runs left, on the server and here, and make the store that vds uploads to.

        Raises:
            RunError: it could not be made.
        """
        self.forget()
        self.state.mkdir(parents=True)
        if self.peer.is_vds:
            made = subprocess.run(
                [*self._command(), "--prepare"], cwd=ROOT, env=self._environment(), capture_output=True, text=True, check=False
            )
            if made.returncode:
                raise RunError(f"the store could not be made: {made.stderr.strip()[-600:]}")
            self.server.reset(counters_only=True)

    def forget(self) -> None:
        """Take away what the runs left; nothing is there to be found by the next peer."""
        self.server.reset()
        shutil.rmtree(self.state, ignore_errors=True)

    def load(self) -> None:
        """Make the store and upload the tree to it, before what is measured.

        Raises:
            RunError: not everything arrived.
        """
        self.clear()
        self.check_whole(self.take())
        self.server.reset(counters_only=True)

    def start(self) -> subprocess.Popen[str]:
        """Start the peer in a process group of its own; its output is to be collected by the caller."""
        return subprocess.Popen(
            self._command(),
            cwd=ROOT,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def take(self) -> Figures:
        """Run the peer to its end and return its figures with the server's.

        Raises:
            RunError: it failed, was too slow, or not all bytes arrived.
        """
        server_cpu_s = self.server.cpu_s()
        process = self.start()
        try:
            said, complaint = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired as err:
            raise RunError(f"not done after {RUN_TIMEOUT_S} s") from err
        finally:
            end_group(process)
        if process.returncode:
            raise RunError(f"ended with {process.returncode}: {complaint.strip()[-600:]}")
        figures: Figures = json.loads(said.splitlines()[-1])
        stats = self.server.stats()
        figures |= {name: stats[name] for name in ("requests", "refused", "connections", "body_bytes", "sent_bytes")}
        figures["server_cpu_s"] = self.server.cpu_s() - server_cpu_s
        figures["kinds"] = {kind: count for kind, count in stats["kinds"].items() if count}
        return figures

    def check_whole(self, figures: Mapping[str, Any]) -> None:
        """Check that everything arrived; some clients lose files and end without an error.

        Raises:
            RunError: something did not.
        """
        if self.peer.is_vds:
            if figures["uploaded"] != self.tree.files:
                raise RunError(f"committed {figures['uploaded']} of {self.tree.files} files")
        elif figures["body_bytes"] < self.tree.bytes:
            raise RunError(f"{figures['body_bytes']} of {self.tree.bytes} bytes arrived")

    def _command(self) -> list[str]:
        """Return the command of the peer."""
        command = [str(python_of(self.peer)), "-m", f"benchmarks.peers.{self.peer.module}", "--url", self.server.account_url]
        command += ["--container", CONTAINER, "--source", str(self.tree.path), "--key", ACCOUNT_KEY]
        command += ["--workers", str(self.workers), "--variant", self.peer.variant]
        return [*command, "--ca", str(self.server.ca_path)] if self.server.ca_path else command

    def _environment(self) -> dict[str, str]:
        if not self.peer.is_vds:
            return os.environ | self.server.environment | tool_environment()
        # All that vds keeps on this machine goes to one place, and no store of the user's is found.
        private = {f"XDG_{name}_HOME": str(self.state) for name in ("DATA", "CACHE", "CONFIG", "STATE")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VDS_", "AZURE_"))}
        return kept | self.server.environment | private
