"""What came of files that were to be placed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from vds.errors import AccessDeniedError, NoSpaceError, UnavailableError, VdsError
from vds.files.placer import Stamp
from vds.model.entry import Entry

STOPS = (UnavailableError, AccessDeniedError, NoSpaceError)
"""What goes wrong with everything, and is no failure of one file."""


class PlacedFile(NamedTuple):
    """A file that stands in its place now, and by what it is known again, as `Stamp` has it."""

    entry: Entry
    modified_ns: int
    changed_ns: int
    inode: int

    @property
    def stamp(self) -> Stamp:
        """By what it is known again."""
        return Stamp(self.modified_ns, self.changed_ns, self.inode)


@dataclass
class Outcome:
    """What came of some files.

    Attributes:
        placed: those that stand in their place.
        failures: path → why not.
    """

    placed: list[PlacedFile] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def placed_bytes(self) -> int:
        """The bytes of what was placed."""
        return sum(file.entry.size_bytes for file in self.placed)

    def add(self, other: Outcome) -> None:
        """Take in what came of others."""
        self.placed.extend(other.placed)
        self.failures.update(other.failures)

    def fail(self, entries: Iterable[Entry], err: Exception) -> None:
        """Note that files could not be placed.

        Raises:
            UnavailableError, AccessDeniedError, NoSpaceError: when `err` is one of these.
        """
        if isinstance(err, STOPS):
            raise err
        reason = err.message if isinstance(err, VdsError) else f"cannot be written: {getattr(err, 'strerror', None) or err}"
        self.failures.update((entry.path, reason) for entry in entries)
