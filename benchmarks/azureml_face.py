"""Time `datastore.upload` of the AzureML names beside `namespace.upload`, which it calls: what the face itself costs.

    python -m benchmarks.azureml_face [--rounds 9] [--files 10000] [--keep]

Each upload goes to a new store with a new cache; they take turns, in an order drawn anew each round. The face prints to a
file. `--keep` writes benchmarks/results/azureml_face.json. Source and store are in the temporary directory: point TMPDIR at
memory to leave the disk out of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import vds
from benchmarks.embedded import RESULTS, make_tree
from vds.azureml.core import Workspace
from vds.store import Namespace, Store, UploadResult

Upload = Callable[[Store, Path], object]

BYTES_A_FILE = 10_000


def upload_by_namespace(store: Store, source: Path) -> object:
    """Upload as vds does."""
    return store.namespace("workspaceblobstore").upload(source, "raw")


def upload_by_face(store: Store, source: Path) -> object:
    """Upload as a script for AzureML does."""
    return Workspace().get_default_datastore().upload(str(source), "raw", overwrite=True)


def upload_by_face_keeping(store: Store, source: Path) -> object:
    """Upload as a script for AzureML does that says nothing of overwriting."""
    return Workspace().get_default_datastore().upload(str(source), "raw")


CONTENDERS: dict[str, Upload] = {
    "namespace.upload": upload_by_namespace,
    "datastore.upload overwrite=True": upload_by_face,
    "datastore.upload": upload_by_face_keeping,
}


def main(words: Sequence[str]) -> int:
    """Run all rounds, print the table and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.azureml_face", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--files", type=int, default=10_000, help="of 10 KB each")
    parser.add_argument("--keep", action="store_true", help="write the results file")
    options = parser.parse_args(words)
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    own: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="vds-bench-") as directory:
        source = make_tree(Path(directory) / "source", options.files)
        for number in range(options.rounds + 1):
            for name in random.Random(number).sample(list(CONTENDERS), len(CONTENDERS)):
                took, inner = time_upload(Path(directory) / "round", CONTENDERS[name], source)
                if number:  # the first round warms everything up
                    seconds[name].append(took)
                    own[name].append(took - inner)
            print(f"round {number} of {options.rounds} done", file=sys.stderr)
    report = summarize(seconds, own, options.files)
    print(json.dumps(report, indent=2))
    if options.keep:
        (RESULTS / "azureml_face.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


def time_upload(place: Path, upload: Upload, source: Path) -> tuple[float, float]:
    """Return the seconds of one upload to a store of its own, and those of them in `namespace.upload`."""
    with tempfile.TemporaryDirectory(prefix=place.name, dir=place.parent) as directory:
        os.environ["VDS_CACHE"], os.environ["VDS_STORE"] = f"{directory}/cache", f"{directory}/store"
        vds.connect(f"{directory}/store", create=True).close()
        with Workspace().store as store, open(f"{directory}/out", "w") as out, contextlib.redirect_stdout(out):
            store.namespaces()  # which opens it
            with inner_seconds() as inner:
                started = time.perf_counter()
                upload(store, source)
                return time.perf_counter() - started, sum(inner)


@contextlib.contextmanager
def inner_seconds() -> Iterator[list[float]]:
    """Fill the list that is yielded with the seconds of each `namespace.upload`."""
    found: list[float] = []
    real = Namespace.upload

    def timed(*args: Any, **more: Any) -> UploadResult:
        started = time.perf_counter()
        try:
            return real(*args, **more)
        finally:
            found.append(time.perf_counter() - started)

    with patch.object(Namespace, "upload", timed):
        yield found


def summarize(seconds: dict[str, list[float]], own: dict[str, list[float]], files: int) -> dict[str, object]:
    """Return medians, how long each took beside `namespace.upload` in the same rounds, and what it did outside of that itself.

    The last two are steady where other work on the machine makes whole uploads differ by tens of percent.
    """
    base = seconds["namespace.upload"]
    return {
        "what": f"{files} files of {BYTES_A_FILE} bytes to a store in a directory",
        "machine": {"python": platform.python_version(), "system": platform.system(), "processors": os.cpu_count()},
        "rounds": len(base),
        "results": {
            name: {
                "median_s": round(statistics.median(times), 4),
                "spread_s": [round(min(times), 4), round(max(times), 4)],
                "median_of_ratios": round(statistics.median(a / b for a, b in zip(times, base, strict=True)), 4),
                "ratio_of_medians": round(statistics.median(times) / statistics.median(base), 4),
                "own_s": round(statistics.median(own[name]), 4),
                "own_share": round(statistics.median(a / (b - a) for a, b in zip(own[name], times, strict=True)), 4),
            }
            for name, times in seconds.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
