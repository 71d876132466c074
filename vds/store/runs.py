"""Runs as they are told: what one read, what it wrote, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from vds.index.runs import PlaceRow
from vds.model.moment import moment_of
from vds.model.ref import version_uri
from vds.model.run import RUN_FIELD, RunKind, RunStatus
from vds.ops.restore import TagLeftBehind
from vds.ops.runs import RunFacts


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A version that a run read or put out, seen from a path.

    Attributes:
        name: what the run calls it.
        asked: of an input, the ref as it was given; of an output, the local path that it was written to.
    """

    name: str
    namespace: str
    number: int
    path: str
    asked: str

    @property
    def uri(self) -> str:
        """`vds://NAMESPACE@NUMBER/PATH`."""
        return version_uri(self.namespace, self.number, self.path)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run: one execution of a program, or a step of one.

    Attributes:
        kind: `run`, `pipeline` or `step`.
        status: `abandoned` when whoever ran it is gone, or was not heard of for a minute. None: this store does not know the run,
            but for what its versions say of it.
        parent: the run it belongs to; empty for none.
        params: what it was given.
        provenance: machine, user, command, code, environment.
        inputs: what it read, as versions.
        outputs: what it put out under a name.
        written: every version it wrote, outputs or not, as `NAMESPACE@NUMBER`.
        key_parts: of a step: each thing its result depends on, and the digest of that.
        reused: the run whose outputs these are, when nothing had to be run.
        error: how it failed.
    """

    id: str
    name: str
    kind: RunKind
    status: RunStatus | None
    parent: str
    author: str
    started_at: datetime
    ended_at: datetime | None
    params: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[RunPlace, ...] = ()
    outputs: tuple[RunPlace, ...] = ()
    written: tuple[str, ...] = ()
    key_parts: Mapping[str, str] = field(default_factory=dict)
    reused: str = ""
    error: str = ""

    def output(self, name: str) -> RunPlace | None:
        """Return an output by its name, or None."""
        return next((place for place in self.outputs if place.name == name), None)


@dataclass(frozen=True, slots=True)
class Undone:
    """What the undoing of a run does to one namespace.

    Attributes:
        undone: the versions that the run wrote.
        number: of the version that is without them; the newest one where nothing was left to undo.
        created: whether it was made; for a dry run, always False.
        restored: files that are as they were before.
        removed: files that were taken away.
    """

    namespace: str
    undone: tuple[int, ...]
    number: int
    created: bool
    restored: int
    removed: int


@dataclass(frozen=True, slots=True)
class TagMove:
    """A dataset tag that shows what a run wrote.

    Attributes:
        tag: `DATASET:TAG`.
        before: the release it showed.
        after: the release it shows then; None: it is taken away, as it never showed another one.
    """

    tag: str
    before: int
    after: int | None


@dataclass(frozen=True, slots=True)
class RunUndoReport:
    """What undoing a run does, or would do.

    Attributes:
        run: its id.
        namespaces: those it wrote to.
        readers: the runs that read what it wrote: their results may be wrong too.
        tags: dataset tags that showed what it wrote.
        tags_left_behind: tags that show later versions of others, which contain what it wrote; each with what moves it.
        dry_run: whether nothing was done.
    """

    run: str
    namespaces: tuple[Undone, ...]
    readers: tuple[RunInfo, ...]
    tags: tuple[TagMove, ...]
    tags_left_behind: tuple[TagLeftBehind, ...]
    dry_run: bool


def run_info(facts: RunFacts) -> RunInfo:
    """Return a run as it is told."""
    row = facts.row
    return RunInfo(
        id=row.uid,
        name=row.name,
        kind=row.kind,
        status=facts.status,
        parent=row.parent,
        author=row.author,
        started_at=moment_of(row.started_us),
        ended_at=None if row.ended_us is None else moment_of(row.ended_us),
        params=row.params,
        provenance=row.provenance,
        inputs=tuple(map(run_place, facts.inputs)),
        outputs=tuple(map(run_place, facts.outputs)),
        written=tuple(f"{name}@{number}" for name, number in facts.written),
        key_parts=row.key_parts,
        reused=row.reused,
        error=row.error,
    )


def run_place(row: PlaceRow) -> RunPlace:
    """Return what a run read or wrote, as it is told."""
    return RunPlace(row.name, row.namespace, row.number, row.path, row.asked)


def unknown_run(uid: str, author: str, created_at: datetime, provenance: Mapping[str, str]) -> RunInfo:
    """Return what a version says of its run, which the store does not know."""
    known = {name: value for name, value in provenance.items() if name != RUN_FIELD}
    return RunInfo(uid, known.get("command", uid), "run", None, "", author, created_at, None, provenance=known)
