"""A process that uploads once and says how much memory that took: `python -m tests.integration.gauge`, as `tests.support` says.

Task: `directory`, and `url`; without a url the bytes go nowhere, which a store on a disk could not take.
"""

from __future__ import annotations

import importlib
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import vds
from tests.support import say, take_task, write_tree
from vds.blobs.driver import Buffer
from vds.blobs.memory import MemoryDriver

CONNECT = importlib.import_module("vds.store.connect")  # `vds.store.connect` is the function


class Sink(MemoryDriver):
    """Takes in blocks and forgets them; the blobs made of them are empty."""

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        assert len(body)

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        return self.put_if_absent(key, b"", metadata)


def peak_bytes() -> int:
    """Return how much memory this process ever had.

    On Linux not `ru_maxrss`: across fork and exec that begins with the memory of the parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, where alone this is reached


def main() -> int:
    task = take_task()
    if not task["url"]:
        sink = Sink("sink")
        CONNECT.open_driver = lambda url, credential=None: sink  # type: ignore[attr-defined]
    with TemporaryDirectory() as scratch, vds.connect(task["url"] or "memory://sink", create=True) as store:
        namespace = store.namespace("team/raw")
        # What the first upload loads counts as the start.
        namespace.upload(write_tree(Path(scratch), {"first": b"1"}), show_progress=False)
        before = peak_bytes()
        result = namespace.upload(task["directory"], show_progress=False)
        say(grown_bytes=peak_bytes() - before, uploaded=result.uploaded, bytes_sent=result.bytes_sent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
