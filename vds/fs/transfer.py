"""Whole files of one version: into memory, or under names of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from vds.errors import DownloadError, VdsError, failures_message
from vds.files.folders import Folders
from vds.files.place import Target
from vds.model.entry import Entry
from vds.store import Version

LARGE_BYTES = 8 * 1024 * 1024
"""From this size on a file does not pass through memory whole; what is read ahead of it comes in parallel."""


class Placing(NamedTuple):
    """A file of a version, and the local name it is to get."""

    entry: Entry
    target: str


class GetPlan:
    """Stands in for a file system in fsspec's own `get`: takes down what is to be copied where, and moves nothing."""

    def __init__(self, file_system: Any) -> None:
        self.expand_path = file_system.expand_path
        self.isdir = file_system.isdir
        self.pairs: list[tuple[str, str]] = []

    def get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        """Take down one copy."""
        self.pairs.append((rpath, os.fspath(lpath)))


def read_files(version: Version, places: Sequence[str], *, is_strict: bool) -> dict[str, bytes | Exception]:
    """Return the bytes of each file, many read in one request; unless strict, what went wrong with it instead."""
    found: dict[str, bytes | Exception] = {}
    try:
        for entry, body in version.read_many(places):
            found[entry.path] = body
    except (VdsError, OSError):
        if is_strict:
            raise
        # Whose fault it was is found out one by one.
        for place in places:
            if place not in found:
                found[place] = _read(version, place)
    return found


def _read(version: Version, place: str) -> bytes | Exception:
    try:
        return version.read_bytes(place)
    except (VdsError, OSError) as err:
        return err


def place_files(version: Version, wanted: Sequence[Placing], root: str | None = None) -> None:
    """Copy files; each appears whole and checked, in place of the file that stood there.

    Args:
        version: to read from.
        wanted: what is to be where.
        root: below it no symlink is followed; None for the directory of each file.

    Raises:
        ConflictError: something that is not a regular file stands there, or on the way.
        DownloadError: this system, or vds itself, cannot have files of such names there.
        CorruptionError: stored bytes are not what they must be; as with all errors, files placed so far stay.
    """
    directories: dict[str, list[Placing]] = {}
    for entry, path in wanted:
        directory, name = split_target(path, root)
        directories.setdefault(directory, []).append(Placing(entry, name))
    for directory, placings in directories.items():
        small: dict[str, list[str]] = {}
        with Target(directory) as target:
            faults = target.find_unholdable(sorted({name for _, name in placings}))
            if faults:
                raise DownloadError(failures_message("placed here", faults), failures=faults, hint="choose another directory")
            for entry, name in placings:
                if entry.size_bytes < LARGE_BYTES:
                    small.setdefault(entry.path, []).append(name)
                else:
                    with version.open(entry.path) as file:
                        _place(target, name, entry, iter(partial(file.read, LARGE_BYTES), b""))
            for entry, body in version.read_many(small):
                for name in small[entry.path]:
                    _place(target, name, entry, [body])


def make_directory(path: str, root: str | None = None) -> None:
    """Make a directory; below `root` no symlink is followed.

    Raises:
        ConflictError: a file or a symlink stands there, or on the way.
    """
    directory, name = split_target(path, root)
    folders = Folders(directory)
    try:
        with folders.open(name, create=True):
            pass
    finally:
        folders.close()


def split_target(path: str, root: str | None) -> tuple[str, str]:
    """Return the directory that a target is placed in, `root` where it lies below that, and its place in there."""
    whole = os.path.abspath(path)
    if root is not None and (below := os.path.relpath(whole, root)) != os.curdir and not below.startswith(os.pardir):
        return root, below.replace(os.sep, "/")
    return os.path.split(whole)


def _place(target: Target, name: str, entry: Entry, chunks: Iterable[bytes]) -> None:
    target.place(name, chunks, mode=entry.mode, modified_ns=entry.modified_ns)
