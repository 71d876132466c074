"""Undo: rollback to an earlier version, revert of one version, undo of one run. Each makes a new version; history stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vds.engine.commit import CommitRequest
from vds.engine.doors import Doors
from vds.engine.session import Intent, Session, request
from vds.errors import ConflictError
from vds.index.conflicts import find_touched
from vds.index.database import Connection
from vds.index.datasets import tags_showing
from vds.index.plan import Area, Left, find_left, mark_changed, stage_restore
from vds.index.stores import NamespaceRow
from vds.index.undo import stage_undo


@dataclass
class RollbackPlan:
    """Works out what makes a namespace equal to an earlier version under a path."""

    area: Area
    target: int
    prefix: str
    left: Left = field(default_factory=Left)

    def __call__(self, connection: Connection, base: int) -> None:
        """Stage the difference from `base`."""
        stage_restore(connection, self.area, base, self.target, self.prefix)
        self.left = find_left(connection, self.area, base, differing=False)

    def request(self, doors: Doors, opened: Session, intent: Intent) -> CommitRequest:
        """Return the commit: the result equals the target exactly, whatever others commit meanwhile."""
        return request(doors, opened, intent, "rollback", on_touched="exact", plan=self, prefix=self.prefix)


@dataclass
class RevertPlan:
    """Works out what undoes exactly one version's changes."""

    area: Area
    number: int
    left: Left = field(default_factory=Left)

    def __call__(self, connection: Connection, base: int) -> None:
        """Stage the state before the version for each path it changed.

        Raises:
            ConflictError: a later version changed such a path again.
        """
        stage_restore(connection, self.area, self.number, self.number - 1, "")
        touched = find_touched(connection, self.area, self.number, base)
        if touched.paths:
            raise ConflictError(
                f"{touched.paths[0]!r} was changed again after version {self.number}",
                paths=touched.paths,
                versions=touched.versions,
                hint="revert the later versions first, or roll back with --path",
            )
        mark_changed(connection, self.area, base)
        self.left = find_left(connection, self.area, base, differing=False)

    def request(self, doors: Doors, opened: Session, intent: Intent) -> CommitRequest:
        """Return the commit: any later change to one of its paths is a conflict."""
        return request(doors, opened, intent, "revert", on_touched="conflict", plan=self)


@dataclass
class UndoPlan:
    """Works out what a namespace would be without the writes of some runs; what others wrote since stays."""

    area: Area
    runs: Sequence[str]
    left: Left = field(default_factory=Left)

    def __call__(self, connection: Connection, base: int) -> None:
        """Stage the state before the runs of each path that they were the last to change."""
        stage_undo(connection, self.area, base, self.runs)
        self.left = find_left(connection, self.area, base, differing=False)

    def request(self, doors: Doors, opened: Session, intent: Intent) -> CommitRequest:
        """Return the commit: whatever others commit meanwhile is looked at."""
        return request(doors, opened, intent, "rollback", on_touched="exact", plan=self, prefix="")


@dataclass(frozen=True, slots=True)
class TagLeftBehind:
    """A dataset tag that still shows what was undone.

    Attributes:
        tag: `DATASET:TAG`.
        release: the release it shows.
        command: what moves it to the version that undid it.
    """

    tag: str
    release: int
    version: int
    command: str


def find_tags_left(doors: Doors, namespace: NamespaceRow, undone_first: int, undone_end: int, now_at: int) -> list[TagLeftBehind]:
    """Return the tags that show a version in [`undone_first`, `undone_end`), each with the command that moves it to `now_at`."""
    with doors.index.read() as connection:
        found = tags_showing(connection, doors.store.id, namespace.id, undone_first, undone_end)
    return [
        TagLeftBehind(
            tag=f"{dataset}:{tag}",
            release=release.number,
            version=release.version,
            command=f"vds tag {dataset}:{tag} {namespace.name}@{now_at}" + (f"/{release.path}" if release.path else ""),
        )
        for dataset, tag, release in found
    ]
