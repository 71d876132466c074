"""Copy entries from any version into a namespace: promotion without moving a byte."""

from __future__ import annotations

from dataclasses import dataclass, field

from vds.engine.commit import CommitRequest
from vds.engine.doors import Doors
from vds.engine.session import Intent, Session, request
from vds.index.database import Connection
from vds.index.plan import Area, Left, SourceView, find_left, mark_changed, stage_copy, stage_removals
from vds.model.path import EntryPath


@dataclass
class CopyPlan:
    """Works out what a copy changes."""

    area: Area
    source: SourceView
    target: EntryPath
    mirror: bool
    left: Left = field(default_factory=Left)

    def stage(self, connection: Connection) -> None:
        """Stage the source's entries, once."""
        stage_copy(connection, self.area, self.source, self.target)

    def __call__(self, connection: Connection, base: int) -> None:
        """Flag the rows against `base`."""
        if self.mirror:
            stage_removals(connection, self.area, base, self.target)
        mark_changed(connection, self.area, base)
        self.left = find_left(connection, self.area, base, differing=False)

    def request(self, doors: Doors, opened: Session, intent: Intent) -> CommitRequest:
        """Return the commit of these rows."""
        if self.mirror:
            return request(doors, opened, intent, "copy", on_touched="exact", plan=self, prefix=self.target)
        return request(doors, opened, intent, "copy", on_touched="win", plan=self)
