"""Which random reads are made, the same for all who make them, and the check of what came."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import IO

from benchmarks.peers.measure import Figures, Job, counted

READ_BYTES = 64 << 10
SEED = 20_260_301


def choose_reads(job: Job) -> list[tuple[str, int]]:
    """Return (path below the source, offset) of every read: any file with equal chance, any offset of it."""
    chance = random.Random(SEED)
    files = [(path.relative_to(job.source).as_posix(), size_bytes) for path, _, size_bytes in job.files()]
    reads = []
    for _ in range(job.count):
        name, size_bytes = chance.choice(files)
        reads.append((name, chance.randrange(size_bytes - READ_BYTES)))
    return reads


def read_all(job: Job, figures: Figures, open_file: Callable[[str], IO[bytes]]) -> None:
    """Open each file on its first read, make all reads one after the other, and compare what came with the source."""
    reads = choose_reads(job)
    found = []
    files: dict[str, IO[bytes]] = {}
    with counted(job, figures):
        for name, offset_bytes in reads:
            file = files.get(name)
            if file is None:
                file = files[name] = open_file(name)
            file.seek(offset_bytes)
            found.append(file.read(READ_BYTES))
    for file in files.values():
        file.close()
    for (name, offset_bytes), body in zip(reads, found, strict=True):
        with (job.source / name).open("rb") as source:
            source.seek(offset_bytes)
            if source.read(READ_BYTES) != body:
                raise SystemExit(f"wrong bytes at {offset_bytes} of {name}")
