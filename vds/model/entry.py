"""One file of a version, and what changed between two versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from vds.model.digest import Digest
from vds.model.path import EntryPath

MODE_FILE = 0o644
MODE_EXECUTABLE = 0o755


class EntryRow(NamedTuple):
    """One file of a version, as indexes hold it: the path is that of the whole version, the digest raw."""

    path: str
    digest: bytes
    size_bytes: int
    mode: int
    modified_ns: int


class NumberedRow(NamedTuple):
    """One file of a version, and where its bytes lie: in the blob of this number; None when they lie nowhere."""

    entry: EntryRow
    blob: int | None
    offset_bytes: int


ChangeKind = Literal["added", "modified", "removed"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a version.

    Attributes:
        path: relative to the view the entry was read through.
        digest: the name of its bytes.
        size_bytes: how many they are.
        mode: 0o755 when any executable bit was set, else 0o644; nothing else of a mode is kept.
        modified_ns: the file's mtime in nanoseconds since 1970; in no digest and no comparison.
    """

    path: EntryPath
    digest: Digest
    size_bytes: int
    mode: int
    modified_ns: int

    @property
    def is_executable(self) -> bool:
        """Whether the file may be run."""
        return self.mode == MODE_EXECUTABLE


@dataclass(frozen=True, slots=True)
class Change:
    """An entry added, removed or modified between two versions.

    Attributes:
        path: relative to the view that was compared.
        before: None when the entry was added.
        after: None when it was removed.
    """

    path: EntryPath
    before: Entry | None
    after: Entry | None

    @property
    def kind(self) -> ChangeKind:
        """`added`, `modified` or `removed`."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "modified"
