"""What a check of the store finds: problems of known kinds, gathered while it runs.

A kind is a stable word for programs and says how bad it is: `damage` needs somebody, `garbage` is harmless and goes by itself or
with `vds gc`, a `note` only informs. Of each kind the first ten thousand are kept and all are counted: a container that is gone
must not fill the memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from vds.engine.doors import Doors
from vds.progress import Progress

Severity = Literal["damage", "garbage", "note"]

PROBLEMS_MAX = 10_000
"""How many problems of one kind are kept."""

TOUCHES_MAX = 100_000
"""How many files of versions are named, of all damaged objects together."""

KINDS: Mapping[str, tuple[Severity, str]] = {
    "record-missing": ("damage", "a record of a version, of a dataset's event or of the store's log is not in the container"),
    "record-damaged": ("damage", "the container holds other bytes than the record's"),
    "record-unknown": ("damage", "the container holds a record that the index does not know"),
    "record-differs": ("damage", "the index says other things than the record"),
    "line-broken": ("damage", "the index's own rows of versions or events are not the chain they must be"),
    "log-differs": ("damage", "the index and the store's log contradict each other"),
    "queue-damaged": ("damage", "a record that waits to be written is not the one its row names"),
    "claim-missing": ("damage", "nothing in the container gives a namespace's name to its id"),
    "claim-damaged": ("damage", "the claim of a name cannot be read"),
    "claim-differs": ("damage", "the claim of a name and the index contradict each other"),
    "format-damaged": ("damage", "an older format record cannot be read"),
    "list-missing": ("damage", "the index does not know where a version's change list is"),
    "list-damaged": ("damage", "a change list or checkpoint is not what its record says"),
    "entries-differ": ("damage", "the change lists add up to other files than the index has"),
    "totals-differ": ("damage", "a version's counts are not those of its files"),
    "content-differs": ("damage", "the content digest that was kept of a version is not that of its files"),
    "blob-missing": ("damage", "a blob that is in use is not there"),
    "blob-differs": ("damage", "a blob has another size than it was made with"),
    "blob-replaced": ("damage", "a blob is not the one that was made: what it holds is unknown until it is read (--full)"),
    "blob-doomed": ("damage", "a blob in use is named in the store's log as deleted: a rebuild would count it as gone"),
    "blob-mislabelled": ("damage", "what the container says of a blob is not which object it holds: a rebuild would not find it"),
    "object-damaged": ("damage", "an object's stored bytes are not what its digest names"),
    "object-unplaced": ("damage", "files of versions have a content that is stored nowhere"),
    "object-misplaced": ("damage", "the index says that an object is where it cannot be"),
    "checks-differ": ("damage", "the checks kept of an object's pieces are not those of its bytes"),
    "interval-overlap": ("damage", "a path has two files in one version"),
    "uses-differ": ("damage", "how often a content is used was counted wrong: collection would go wrong"),
    "set-aside-needed": ("damage", "files that a version needs were set aside as expired"),
    "release-lost": ("damage", "a dataset's release names a version that is not there"),
    "index-damaged": ("damage", "the database itself is damaged"),
    "rebuild-gap": ("damage", "the index was made from a container in which this was missing"),
    "blob-orphan": ("garbage", "a blob that the index does not know"),
    "blob-undeleted": ("garbage", "a blob that was deleted is still there; vds gc deletes it again"),
    "placement-stale": ("garbage", "the index places an object in a blob that is gone; no version needs it"),
    "blob-pending": ("note", "an upload has not ended, or was not cleaned up after"),
    "record-queued": ("note", "committed, and not yet written to the container"),
    "claim-unused": ("note", "a name was claimed, and nothing was written under it"),
    "key-foreign": ("note", "a blob whose key vds does not make"),
    "check-skipped": ("note", "something could not be looked at"),
}
"""Kind → how bad it is, and what it means."""

_REBUILD = "vds index rebuild"
_OBJECTS = "upload such a file again, or: vds fsck --repair-from DIR|URL"
_RECORDS = "vds fsck --repair, or --repair-from URL"
_REPLACE = "bring it back with the storage's soft delete or versioning, or: vds fsck --repair-from URL --replace-damaged"

HINTS: Mapping[str, str] = {
    **dict.fromkeys(("record-missing", "claim-missing"), _RECORDS),
    **dict.fromkeys(("record-damaged", "claim-damaged", "claim-differs", "list-damaged"), _REPLACE),
    **dict.fromkeys(("record-unknown", "record-differs", "line-broken", "log-differs", "list-missing"), _REBUILD),
    **dict.fromkeys(("entries-differ", "totals-differ", "object-misplaced", "interval-overlap", "uses-differ"), _REBUILD),
    **dict.fromkeys(("set-aside-needed", "release-lost", "index-damaged", "queue-damaged", "blob-doomed"), _REBUILD),
    **dict.fromkeys(("object-damaged", "object-unplaced"), _OBJECTS),
    **dict.fromkeys(
        ("blob-missing", "blob-differs", "rebuild-gap"), "bring it back with the storage's soft delete, or: " + _OBJECTS
    ),
    "blob-replaced": "vds fsck --full",
    "blob-undeleted": "vds gc --yes",
    "record-queued": "it goes out with the next write",
}
"""Kind → what to do."""


@dataclass(frozen=True, slots=True)
class Touch:
    """A file of some versions that has a damaged content.

    Attributes:
        last_version: the last that has it; None when the newest one does.
    """

    namespace: str
    path: str
    first_version: int
    last_version: int | None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that was found.

    Attributes:
        kind: one of `KINDS`.
        key: of the blob; for what is in the index alone, its namespace, dataset or table.
        digest: of the object, in hex after `b3:`; empty where it is about none.
        touches: the files that have a damaged object's content.
        releases: of datasets, that show one of these files: `customers:3`.
        tags: that show such a release: `customers:prod`.
        repaired: how it was mended; empty when it was not.
    """

    kind: str
    key: str = ""
    digest: str = ""
    detail: str = ""
    touches: tuple[Touch, ...] = ()
    releases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    repaired: str = ""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return KINDS[self.kind][0]


class Findings:
    """Problems as they are found; used by one thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self._kept: dict[tuple[str, str, str], Problem] = {}

    def add(self, kind: str, key: str = "", detail: str = "", *, digest: bytes = b"") -> None:
        """Note a problem; the same one found twice counts once."""
        assert kind in KINDS, kind
        problem = Problem(kind, key, _digest_text(digest), detail)
        place = _place_of(problem)
        if place in self._kept:
            return
        self.counts[kind] += 1
        if self.counts[kind] <= PROBLEMS_MAX:
            self._kept[place] = problem

    def restore(self, problems: Iterable[Problem], counts: Mapping[str, int]) -> None:
        """Take in what an earlier run found."""
        self.counts.update(counts)
        self._kept.update((_place_of(problem), problem) for problem in problems)

    def of(self, *kinds: str) -> list[Problem]:
        """Return what is kept of these kinds, in the order it was found."""
        return [problem for problem in self._kept.values() if problem.kind in kinds]

    def digests_of(self, kind: str) -> list[bytes]:
        """Return the raw digests of what is kept of a kind."""
        return [bytes.fromhex(problem.digest.removeprefix(_DIGEST_PREFIX)) for problem in self.of(kind) if problem.digest]

    def find(self, kind: str, key: str = "", *, digest: bytes = b"") -> Problem | None:
        """Return what is kept of one problem, or None."""
        return self._kept.get(_place_of(Problem(kind, key, _digest_text(digest))))

    def update(self, problem: Problem) -> None:
        """Put a problem of which more is known now in the place of the same one."""
        self._kept[_place_of(problem)] = problem

    def mend(self, kind: str, key: str = "", *, digest: bytes = b"", how: str) -> None:
        """Note that a problem which was found is mended; of one that was not found, nothing."""
        place = _place_of(Problem(kind, key, _digest_text(digest)))
        known = self._kept.get(place)
        is_counted = known is not None or self.counts[kind] > PROBLEMS_MAX
        if is_counted and (known is None or not known.repaired):
            self.mended[kind] += 1
        if known is not None:
            self._kept[place] = replace(known, repaired=known.repaired or how)

    @property
    def is_well(self) -> bool:
        """Whether nothing is damaged, or all of it was mended."""
        return all(self.counts[kind] <= self.mended[kind] for kind in self.counts if KINDS[kind][0] == "damage")

    def problems(self) -> Iterator[Problem]:
        """Yield what is kept: damage first, then by kind, key and digest."""
        order = list(KINDS)
        yield from sorted(self._kept.values(), key=lambda one: (order.index(one.kind), one.key, one.digest))


_DIGEST_PREFIX = "b3:"


def _digest_text(raw: bytes) -> str:
    # No `Digest`: in an index that is damaged it may have any length.
    return _DIGEST_PREFIX + raw.hex() if raw else ""


def _place_of(problem: Problem) -> tuple[str, str, str]:
    # Of a key or an object one problem of a kind is kept; what has neither is told apart by its text.
    return problem.kind, problem.key if not problem.digest else "", problem.digest or (problem.detail if not problem.key else "")


@dataclass
class Examined:
    """How much was looked at.

    Attributes:
        records: of versions, events and the store's log, that were read and held against the index.
        lists: change lists and checkpoints that were read.
        blobs: that were held against the index's rows.
        objects: whose bytes were read and hashed.
        size_bytes: of these.
    """

    records: int = 0
    lists: int = 0
    blobs: int = 0
    objects: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Inspection:
    """One check of a store: what it looks at, and what it has found so far.

    Attributes:
        writes: whether it may note damage in the index, and fill in what is missing there.
    """

    doors: Doors
    progress: Progress
    writes: bool
    findings: Findings = field(default_factory=Findings)
    examined: Examined = field(default_factory=Examined)

    def mend(self, problem: Problem, how: str) -> None:
        """Note that a problem was mended; where nothing is written, only how it could be."""
        if self.writes:
            digest = bytes.fromhex(problem.digest.removeprefix(_DIGEST_PREFIX))
            self.findings.mend(problem.kind, problem.key, digest=digest, how=how)
        else:
            self.findings.update(replace(problem, detail=f"{problem.detail}; it can be {how}".removeprefix("; ")))
