"""A process that reads a version without its index and says how much memory that took: see `tests.support` for its two sides.

Task: `small`, a store to begin with, and `large`, the one that counts; with `holds` it keeps all rows, as a worse program would.
"""

from __future__ import annotations

from pathlib import Path

from tests.integration.gauge import peak_bytes
from tests.support import say, take_task
from tests.unit.ops.crafted import NAME, body_of
from vds.files.replay import Replay
from vds.store.noindex import open_version


def main() -> int:
    task = take_task()
    open_version(task["small"], NAME)  # what the first one loads counts as the start
    if task["holds"]:
        real = Replay.rows
        Replay.rows = lambda replay: iter(list(real(replay)))  # type: ignore[assignment]
    start = peak_bytes()
    version = open_version(task["large"], NAME)
    grown = peak_bytes() - start
    last = Path(f"images/{(version.file_count - 1) // 1000:05d}/{version.file_count - 1:09d}.png").as_posix()
    say(grown_bytes=grown, file_count=version.file_count, is_whole=version.read_bytes(last) == body_of(version.file_count - 1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
