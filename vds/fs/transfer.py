"""Whole files of one version: into memory, or under names of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from vds.errors import VdsError
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


def place_files(version: Version, wanted: Sequence[Placing]) -> None:
    """Copy files; each appears whole and checked, in place of the file that stood there.

    Raises:
        ConflictError: something that is not a regular file stands there, or on the way.
        CorruptionError: stored bytes are not what they must be; as with all errors, files placed so far stay.
    """
    directories: dict[str, list[Placing]] = {}
    for placing in wanted:
        directories.setdefault(os.path.dirname(os.path.abspath(placing.target)), []).append(placing)
    for directory, placings in directories.items():
        small: dict[str, list[str]] = {}
        with Target(directory) as target:
            for entry, path in placings:
                if entry.size_bytes < LARGE_BYTES:
                    small.setdefault(entry.path, []).append(os.path.basename(path))
                else:
                    with version.open(entry.path) as file:
                        _place(target, os.path.basename(path), entry, iter(partial(file.read, LARGE_BYTES), b""))
            for entry, body in version.read_many(small):
                for name in small[entry.path]:
                    _place(target, name, entry, [body])


def _place(target: Target, name: str, entry: Entry, chunks: Iterable[bytes]) -> None:
    target.place(name, chunks, mode=entry.mode, modified_ns=entry.modified_ns)
