"""Downloads from a datastore, with the SDK's rules for names: a prefix of text, and whole paths below the target."""

from __future__ import annotations

import glob
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vds.azureml.faces import DatastoreFace
from vds.azureml.globs import clean_path
from vds.azureml.notices import say, write_lines
from vds.azureml.plainpart import download_blobs
from vds.azureml.selection import PATTERNS_A_CALL, Selection, VersionPart, find_latest
from vds.store import Version

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Download:
    """What a script asked for.

    Attributes:
        target: the local directory.
        prefix: of the paths.
        overwrite: replace what is there.
        show_progress: print lines.
    """

    target: str
    prefix: str
    overwrite: bool
    show_progress: bool


def download_files(datastore: DatastoreFace, asked: Download) -> int:
    """Copy files of the newest version; returns how many.

    Raises:
        DownloadError: some could not be written; each is whole or absent.
        NoSpaceError: the disk has too little room; nothing was written.
    """
    os.makedirs(asked.target, exist_ok=True)
    prefix = clean_prefix(asked.prefix)
    version = find_latest(datastore)
    names = [] if version is None else list(names_under(version, prefix))
    plain = [] if names else datastore.vds_plain(prefix)
    names = names or [blob.name for blob in plain]
    tell_of_directories(names, prefix)
    wanted = without_existing(names, asked)
    if wanted and plain:
        chosen = set(wanted)
        download_blobs(datastore, [(blob, Path(asked.target) / blob.name) for blob in plain if blob.name in chosen])
    elif wanted and version is not None:
        _fetch(version, prefix, wanted, is_all=len(wanted) == len(names), target=Path(asked.target))
        _record(datastore, version, prefix)
    if asked.show_progress:
        write_lines(download_lines(names, {*wanted}))
    return len(wanted)


def clean_prefix(prefix: str) -> str:
    """Return a prefix as paths begin; what leads it is dropped, a slash at its end stays."""
    clean = clean_path(prefix, "prefix")
    return f"{clean}/" if clean and prefix.endswith(("/", "\\")) else clean


def names_under(version: Version, prefix: str) -> Iterator[str]:
    """Yield the paths that begin with a text, by path; it costs the files of the directory in it."""
    directory = prefix.rpartition("/")[0]
    for entry in version.entries(directory):
        if entry.path.startswith(prefix):
            yield entry.path


def tell_of_directories(names: Sequence[str], prefix: str) -> None:
    """Say so when a prefix that names no whole directory took files of several."""
    if not prefix or prefix.endswith("/"):
        return
    start = prefix.rfind("/") + 1
    tops = sorted({name[: name.find("/", start)] for name in names if "/" in name[start:]})
    if len(tops) > 1:
        say(f"prefix {prefix!r} is the begin of several directories, and files of all of them came: {', '.join(tops[:5])}")


def without_existing(names: Sequence[str], asked: Download) -> list[str]:
    """Return the paths to be fetched; those that are there and stay are logged, as the SDK does."""
    if asked.overwrite:
        return list(names)
    wanted = []
    for name in names:
        place = os.path.join(asked.target, name)
        if os.path.lexists(place):
            _log.warning("Path already exists. Skipping download for %s", place)
        else:
            wanted.append(name)
    return wanted


def download_lines(names: Sequence[str], wanted: set[str]) -> Iterator[str]:
    """Yield what the SDK prints of a download."""
    total, come = len(names), []
    for name in names:
        if name in wanted:
            come.append((name, total))
        else:
            total -= 1
    for count, (name, of) in enumerate(come, 1):
        yield f"Downloading {name}"
        yield f"Downloaded {name}, {count} files out of an estimated total of {of}"


def _fetch(version: Version, prefix: str, wanted: Sequence[str], *, is_all: bool, target: Path) -> None:
    directory, _, rest = prefix.rpartition("/")
    view = version.at(directory) if directory else version
    place = target / directory
    if is_all:
        view.download(place, allow_patterns=f"{glob.escape(rest)}*" if rest else None, show_progress=False)
        return
    start = len(directory) + 1 if directory else 0
    names = (glob.escape(name[start:]) for name in wanted)
    while chunk := list(itertools.islice(names, PATTERNS_A_CALL)):
        view.download(place, allow_patterns=chunk, show_progress=False)


def _record(datastore: DatastoreFace, version: Version, prefix: str) -> None:
    directory = prefix.rpartition("/")[0]
    view = version.at(directory) if directory else version
    store = datastore.workspace.store
    Selection(store, [VersionPart(store, view)]).record(datastore.name)
