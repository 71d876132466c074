"""What a run leaves beside its outputs: `outputs/`, `logs/`, what it printed, what it measured. Kept whatever became of it.

They are files of the namespace `azureml/artifacts`, below the id of their run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vds.azureml.local.workdir import LOG, METRICS
from vds.errors import EntryNotFoundError, NotFoundError
from vds.store import Store, UploadResult, Version

NAMESPACE = "azureml/artifacts"
DIRECTORIES = ("outputs", "logs", os.path.dirname(LOG))


def collect(store: Store, run: str, directory: Path, *, only_logs: bool = False) -> UploadResult | None:
    """Keep what a run has left in a directory by now; None when that is nothing.

    Raises:
        UploadError: some files could not be read; none was kept.
    """
    names = DIRECTORIES[1:] if only_logs else DIRECTORIES
    files = sorted(path for name in names for path in _files(directory / name))
    files += [path for path in (directory / METRICS,) if path.is_file()]
    if not files:
        return None
    return store.namespace(NAMESPACE).upload_files(files, directory, run, show_progress=False, message=f"artifacts of {run}")


def keep_file(store: Store, run: str, name: str, source: Path) -> None:
    """Keep one file, or all of a directory, under a name."""
    namespace = store.namespace(NAMESPACE)
    message = f"{name} of {run}"
    if source.is_dir():
        namespace.upload(source, f"{run}/{name}", show_progress=False, message=message)
        return
    with namespace.transaction(message) as tx, tx.open(f"{run}/{name}") as target, source.open("rb") as body:
        while piece := body.read(1024 * 1024):
            target.write(piece)


def find_artifacts(store: Store, run: str) -> Version | None:
    """Return what a run has left, seen from there; None when there is nothing."""
    try:
        return store.namespace(NAMESPACE).latest().at(run)
    except (NotFoundError, EntryNotFoundError):
        return None


def read_metrics(lines: Iterator[str]) -> dict[str, Any]:
    """Return the metrics of a run: name → value, or the list of values where it was logged more than once."""
    found: dict[str, list[Any]] = {}
    for line in lines:
        if line.strip():
            said = json.loads(line)
            found.setdefault(said["name"], []).append(said["value"])
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _files(directory: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                yield path
