"""Inputs that a script must not change: the modes of files hold nobody who is root, as scripts in containers often are.

The files of an input are shared: by the steps of a submission, and with the cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Seen = tuple[int, int, int]


@dataclass
class Watch:
    """What files were like when a step began; nothing is looked at where modes hold this process's user."""

    _seen: dict[Path, dict[str, Seen]] = field(default_factory=dict)

    @classmethod
    def begin(cls, places: Iterable[Path]) -> Watch:
        """Look at the files of some directories, or at files."""
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        return cls({place: dict(_look(place)) for place in places} if is_root else {})

    def find_changed(self) -> list[tuple[Path, str]]:
        """Return (place, path of a file) of each place where something is not as it was, with one file each."""
        changed = []
        for place, before in self._seen.items():
            now = dict(_look(place))
            different = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
            if different:
                changed.append((place, different[0]))
        return changed


def _look(place: Path) -> Iterator[tuple[str, Seen]]:
    if place.is_file():
        yield str(place), _stat(str(place))
    for folder, _, names in os.walk(place):
        for name in names:
            path = os.path.join(folder, name)
            yield path, _stat(path)


def _stat(path: str) -> Seen:
    found = os.lstat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns
