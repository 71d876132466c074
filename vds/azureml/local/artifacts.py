"""What a run leaves beside its outputs: `outputs/`, `logs/`, what it printed, what it noted. Kept whatever became of it.

They are files of the namespace `azureml/artifacts`, below the id of their run. Notes (metrics, tags, properties) are lines of
JSON: those of the process that does the run in one file, those of any other process in a file of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vds.azureml.local.workdir import LOG, METRICS
from vds.errors import EntryNotFoundError, NotFoundError
from vds.store import Store, UploadResult, Version

NAMESPACE = "azureml/artifacts"
DIRECTORIES = ("outputs", "logs", os.path.dirname(LOG))

NoteKind: TypeAlias = Literal["name", "tag", "property"]
"""What a line tells of, by the word before the name: a metric, a tag, a property."""


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


def keep_text(store: Store, run: str, name: str, text: str) -> None:
    """Keep a text under a name."""
    with store.namespace(NAMESPACE).transaction(f"{name} of {run}") as tx:
        tx.write_text(f"{run}/{name}", text)


def find_artifacts(store: Store, run: str) -> Version | None:
    """Return what a run has left, seen from there; None when there is nothing."""
    try:
        return store.namespace(NAMESPACE).latest().at(run)
    except (NotFoundError, EntryNotFoundError):
        return None


def note_line(kind: NoteKind, name: str, value: Any) -> str:
    """Return the line that tells of something."""
    return json.dumps({kind: name, "value": value}) + "\n"


def is_notes(name: str) -> bool:
    """Return whether a file of a run holds notes."""
    stem, _, suffix = METRICS.partition(".")
    return name == METRICS or (name.startswith(f"{stem}-") and name.endswith(f".{suffix}"))


def read_notes(lines: Iterable[str], kind: NoteKind) -> dict[str, list[Any]]:
    """Return everything of one kind: name → its values, in the order they were noted."""
    found: dict[str, list[Any]] = {}
    for line in lines:
        if line.strip() and kind in (said := json.loads(line)):
            found.setdefault(said[kind], []).append(said["value"])
    return found


def _files(directory: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                yield path
