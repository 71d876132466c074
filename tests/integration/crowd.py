"""A process of many writers, each a thread: `python -m tests.integration.crowd`, told what to do as `tests.support` says."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from blake3 import blake3

import vds
from tests.support import say, take_task


def write(store: vds.Store, task: dict[str, Any], writer: int, start: threading.Barrier) -> list[dict[str, Any]]:
    """Commit as often as asked, each time one file that nobody else writes, and return what was acknowledged."""
    namespace = store.namespace(task["namespace"])
    acknowledged = []
    start.wait()
    for turn in range(task["commits"]):
        path, body = f"{writer:02}/{turn}", f"{writer} {turn}".encode()
        with namespace.transaction() as tx:
            tx.write_bytes(path, body)
        acknowledged.append({"number": tx.version.number, "files": {path: f"b3:{blake3(body).hexdigest()}"}})
    return acknowledged


def main() -> int:
    """Let all writers of this process go at once; one that fails ends it with an error."""
    task = take_task()
    writers = task["writers"]
    start = threading.Barrier(len(writers))
    with vds.connect(task["url"], index=task["index"]) as store, ThreadPoolExecutor(len(writers)) as pool:
        for acknowledged in pool.map(lambda writer: write(store, task, writer, start), writers):
            for one in acknowledged:
                say(**one)
    return 0


if __name__ == "__main__":
    sys.exit(main())
