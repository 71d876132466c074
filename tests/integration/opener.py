"""What workers do with a version or a transaction they were handed: imported by spawned ones, so it imports little."""

from __future__ import annotations

import os
import pickle
import sys

import vds
from tests.support import say, take_task


def read_pickled(pickled: bytes) -> tuple[int, str, int, str]:
    """Open a pickled version and return this process, the version's content digest, its files and the bytes of one."""
    version: vds.Version = pickle.loads(pickled)
    files = sum(1 for _ in version.entries())
    return os.getpid(), str(version.content_digest), files, version.read_text("small/007")


def write_part() -> None:
    """Join a transaction by its token and write one part of it, or commit it."""
    task = take_task()
    transaction = vds.join(task["token"])
    if task["part"] is None:
        result = transaction.commit(expected_parts=task["parts"])
        say(number=result.version.number, files=result.version.file_count)
        return
    with transaction.part(task["part"]) as part:
        for index in range(5):
            part.write_bytes(f"{task['part']}/{index}", f"{task['part']} {index}".encode())
        part.upload(task["directory"], task["part"], show_progress=False)
    say(part=task["part"])


if __name__ == "__main__":
    write_part()
    sys.exit(0)
