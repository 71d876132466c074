"""What all parts of a rebuild share: where its rows go, and what it found missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from vds.blobs.driver import BlobDriver
from vds.blobs.records import Gap
from vds.index.gaps import LostKind, LostRow, put_gaps
from vds.index.rebuild import Known
from vds.index.rebuildrows import ListRow, add_manifests
from vds.index.rebuildsink import Sink
from vds.index.schema import OPEN
from vds.progress import Progress

GAPS_SHOWN_MAX = 1000
"""How many gaps a report holds; all are counted."""
PATHS_SHOWN_MAX = 100
LISTS_BATCH = 1000

COUNTED = ("namespaces", "versions", "entries", "datasets", "events", "blobs", "objects", "copied")

GapKind = Literal["log", "claim", "journal", "changes", "checkpoint", "events", "run", "blob", "object"]


@dataclass(frozen=True, slots=True)
class RebuildGap:
    """Something the container no longer says, or says wrongly.

    Attributes:
        kind: `log` a record of the store's log · `claim` a namespace's name · `journal` a version's record, it and those after it
            are not visible · `changes` a change list, the files of `versions` are not known · `checkpoint` one that cannot be
            used · `events` a dataset's event, it and those after it are not visible · `run` a run's record · `blob` a blob of
            which nothing says what it holds · `object` files of `versions` whose bytes are nowhere.
        key: of the blob; of an object its digest.
        detail: what is wrong.
        name: of the namespace or dataset; empty where there is none.
        versions: first and last of each range of versions (of events, for a dataset) that it costs; None: all that follow.
        paths: of files it costs, the first hundred.
    """

    kind: GapKind
    key: str
    detail: str
    name: str = ""
    versions: tuple[tuple[int, int | None], ...] = ()
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild made, and what it could not.

    Attributes:
        store: the store's id.
        index: the address of the index that serves the store from now on.
        incarnation: of that index.
        moved_aside: where the file of a damaged index was moved; None when there was none.
        versions: those whose names are there, expired ones too.
        entries: rows that hold the files of versions.
        objects: placed contents.
        copied: objects whose only blob was being deleted, and that were copied.
        gap_count: how many gaps there are; `gaps` holds the first thousand.
    """

    store: str
    index: str
    incarnation: str
    moved_aside: str | None
    namespaces: int
    versions: int
    entries: int
    datasets: int
    events: int
    blobs: int
    objects: int
    copied: int
    seconds: float
    gap_count: int = 0
    gaps: tuple[RebuildGap, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the container said everything."""
        return not self.gap_count


@dataclass
class Findings:
    """The gaps that a rebuild has come upon."""

    count: int = 0
    gaps: list[RebuildGap] = field(default_factory=list)

    def add(self, gap: RebuildGap) -> None:
        """Take in one gap."""
        self.count += 1
        if len(self.gaps) < GAPS_SHOWN_MAX:
            self.gaps.append(gap)


@dataclass
class Making:
    """A rebuild under way.

    Attributes:
        uid: the store's id.
        known: what the index before knew to be there.
        began_us: when it began, by the database's clock.
        counts: by the fields of the report.
    """

    blobs: BlobDriver
    sink: Sink
    uid: str
    known: Known
    progress: Progress
    began_us: int
    findings: Findings = field(default_factory=Findings)
    counts: dict[str, int] = field(default_factory=dict)
    _lists: list[ListRow] = field(default_factory=list)

    @property
    def store_id(self) -> int:
        """The id of the store's row."""
        return self.sink.store_id

    def count(self, what: str, number: int = 1) -> None:
        """Count something that was made."""
        self.counts[what] = self.counts.get(what, 0) + number

    def counted(self) -> dict[str, int]:
        """Return how much was made, by the fields of the report."""
        return {what: self.counts.get(what, 0) for what in COUNTED}

    def report(
        self,
        kind: GapKind,
        gap: Gap,
        *,
        name: str = "",
        versions: Iterable[tuple[int, int | None]] = (),
        paths: Iterable[str] = (),
    ) -> None:
        """Report a gap."""
        self.findings.add(RebuildGap(kind, gap.key, gap.detail, name, tuple(versions), tuple(paths)[:PATHS_SHOWN_MAX]))

    def lose(self, kind: LostKind, gap: Gap, *, owner_id: int = 0, name: str = "", first: int = 0, last: int = OPEN) -> None:
        """Report a gap that costs versions or events, and have the index remember it."""
        self.report(kind, gap, name=name, versions=[(first, None if last == OPEN else last)] if first else ())
        row = LostRow(gap.key, kind, owner_id, first, last, gap.detail)
        self.sink.run(lambda connection: put_gaps(connection, self.store_id, [row], self.began_us))

    def note_list(self, row: ListRow) -> None:
        """Gather which blob holds a list of a version."""
        self._lists.append(row)
        if len(self._lists) >= LISTS_BATCH:
            self.flush_lists()

    def flush_lists(self) -> None:
        """Write which blobs hold lists, of those that are there."""
        rows, self._lists = self._lists, []
        self.sink.run(lambda connection: add_manifests(connection, self.store_id, rows))
