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


def read_counted(pickled: bytes) -> tuple[int, int, list[str]]:
    """Read a pickled version as a loader does; return this process, the bytes read, and the SQLite files that were opened."""
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "sqlite3.connect" else None)
    version: vds.Version = pickle.loads(pickled)
    count = sum(len(body) for _, body in version.stream(shard=(0, 2), shuffle_seed=1))
    count += len(version.read_bytes("small/007")) + len(version.read_bytes("large", 500_000, 100))
    count += sum(len(body) for _, body in version.read_many(["small/001", "small/002"]))
    with version.open("large") as file:
        file.seek(-10, os.SEEK_END)
        count += len(file.read())
    count += sum(entry.size_bytes for entry in version.entries("small")) + version.file_count + len(version.children())
    return os.getpid(), count, opened


def read_through_fsspec(pickled: bytes) -> tuple[bytes, list[str]]:
    """Read through a pickled fsspec file system; return a file's bytes, and the SQLite files that were opened."""
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "sqlite3.connect" else None)
    system = pickle.loads(pickled)
    body: bytes = system.cat_file("customers:prod/small/007")
    assert system.info("customers:prod/large")["size"] == len(system.open("customers:prod/large").read())
    return body, opened


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
