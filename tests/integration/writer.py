"""A process that commits to one namespace: `python -m tests.integration.writer`, told what to do as `tests.support` says."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3

import vds
from tests.support import say, take_task, write_tree

PATHS = 6
LARGE_BYTES = 1024 * 1024 + 17  # an object of its own, not a member of a pack


def disjoint(task: dict[str, Any], turn: int) -> dict[str, bytes]:
    """Return files that no other writer and no other turn writes; the first turn has a large one."""
    name = task["name"]
    files = {f"{name}/{turn:03d}/{part}": f"{name} {turn} {part}\n".encode() * 40 for part in ("a", "b")}
    if turn == 0:
        files[f"{name}/large"] = (name.encode() * LARGE_BYTES)[:LARGE_BYTES]
    return files


def overlapping(task: dict[str, Any], turn: int) -> dict[str, bytes]:
    """Return files most of which all writers write, each with bytes of its own."""
    name = task["name"]
    left_out = (int(name[1:]) + turn) % PATHS
    files = {f"shared/{i}": f"{name} {turn} {i}\n".encode() * 60_000 for i in range(PATHS) if i != left_out}
    files["shared/large"] = (f"{name} {turn} ".encode() * LARGE_BYTES)[:LARGE_BYTES]
    return files


def contended(task: dict[str, Any], turn: int) -> dict[str, bytes]:
    """Return files of this turn, the same paths for all writers."""
    return {f"kept/{turn:02d}-{i}": f"{task['name']} {turn} {i}".encode() for i in range(3)}


def beside(task: dict[str, Any], turn: int) -> dict[str, bytes]:
    """Return one file inside the mirrored directory and one outside."""
    name = task["name"]
    return {f"mirrored/{name}-{turn}": f"in {name} {turn}".encode(), f"outside/{name}-{turn}": f"out {name} {turn}".encode()}


def mirrored(task: dict[str, Any], turn: int) -> dict[str, bytes]:
    """Return the whole of the mirrored directory in this turn."""
    return {f"own-{i}": f"mirror {turn} {i}".encode() for i in range(turn % 3 + 1)}


KINDS: dict[str, tuple[Callable[[dict[str, Any], int], dict[str, bytes]], dict[str, Any]]] = {
    "disjoint": (disjoint, {}),
    "overlapping": (overlapping, {}),
    "keep": (contended, {"overwrite": False}),
    "beside": (beside, {}),
    "mirror": (mirrored, {"mirror": True, "target_path": "mirrored"}),
}


def turns(task: dict[str, Any], work: Path) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """Yield a directory for each turn, and what is in it."""
    make, _ = KINDS[task["kind"]]
    for turn in range(task["commits"]):
        files = make(task, turn)
        yield write_tree(work / str(turn), files), files


def main() -> int:
    """Commit as often as asked, and say after each commit what was acknowledged."""
    with tempfile.TemporaryDirectory() as work:
        task = take_task()
        options = KINDS[task["kind"]][1]
        with vds.connect(task["url"], index=task["index"]) as store:
            namespace = store.namespace(task["namespace"])
            for directory, files in turns(task, Path(work)):
                result = namespace.upload(directory, show_progress=False, message=task["name"], **options)
                say(
                    number=result.version.number,
                    created=result.created,
                    content_digest=result.version.content_digest,
                    files={path: "b3:" + blake3(body).hexdigest() for path, body in files.items()},
                    uploaded=result.uploaded,
                    skipped=result.skipped,
                    changed_but_skipped=result.changed_but_skipped,
                    removed_paths=result.removed_paths,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
