"""The versions of each namespace: their rows, from their records, and where a replay of their contents can begin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from vds.blobs.driver import BlobDriver
from vds.blobs.records import JOURNAL_PREFIX, Found, Gap, list_claims, number_in, read_journal, read_journals
from vds.index.rebuildrows import ListRow, add_namespaces, set_heads
from vds.model.batch import batched
from vds.model.checkpoint import CheckpointKey, holds_everything
from vds.model.claim import NamespaceClaim
from vds.model.moment import micros_of
from vds.model.run import RUN_FIELD
from vds.model.ulid import is_ulid, ulid_ms
from vds.model.version import NO_PARENT, ChangeListRef, VersionRecord, journal_key
from vds.ops.rebuilding import Making
from vds.ops.rebuildlog import Expired, StoreLog

NAMESPACES_BATCH = 500
TAIL_BYTES_MAX = 16 * 1024 * 1024
"""What is kept of records that the replay reads again; beyond it they are fetched a second time."""
_STEP_BYTES = 500

Item: TypeAlias = Found[VersionRecord] | Gap


@dataclass(frozen=True, slots=True)
class Step:
    """What a replay needs to know of one version."""

    number: int
    changes: ChangeListRef
    added: int
    modified: int
    removed: int
    file_count: int
    size_bytes: int

    @classmethod
    def of(cls, record: VersionRecord) -> Step:
        """Return what a version's record says of it."""
        counts = (record.added, record.modified, record.removed, record.file_count, record.size_bytes)
        return cls(record.number, record.changes, *counts)

    @property
    def is_whole(self) -> bool:
        """Whether its change list names every file of the version."""
        return holds_everything(self.added, self.modified, self.file_count)


@dataclass
class Line:
    """The versions of one namespace, as far as they are visible.

    Attributes:
        id: of the namespace's row.
        expired: which of them have expired.
        head: the last one.
        whole: those whose change lists name every file, ascending.
        totals: files and bytes of the versions that have a checkpoint.
    """

    id: int
    uid: str
    name: str
    expired: Expired
    head: int = 0
    digest: bytes = NO_PARENT
    whole: list[int] = field(default_factory=list)
    totals: dict[int, tuple[int, int]] = field(default_factory=dict)
    _steps: list[Step] = field(default_factory=list)
    _steps_bytes: int = 0

    def take(self, item: Found[VersionRecord], lowest: int, *, has_checkpoint: bool) -> None:
        """Take in the next version.

        Args:
            item: its record.
            lowest: the lowest version that has not expired.
            has_checkpoint: whether there is a checkpoint of it.
        """
        step = Step.of(item.record)
        if step.is_whole:
            self.whole.append(step.number)
        if has_checkpoint:
            self.totals[step.number] = (step.file_count, step.size_bytes)
        if step.number <= lowest and (step.is_whole or has_checkpoint):
            self._steps, self._steps_bytes = [], 0  # the replay will begin here
        if self._steps_bytes <= TAIL_BYTES_MAX and (not self._steps or self._steps[-1].number == step.number - 1):
            self._steps.append(step)
            self._steps_bytes += _STEP_BYTES + len(step.changes.inline or b"")
        self.head, self.digest = step.number, item.digest

    @property
    def is_at_hand(self) -> bool:
        """Whether a replay from where it will begin makes no request."""
        steps = self._steps
        return bool(steps) and steps[-1].number == self.head and all(step.changes.key is None for step in steps)

    def steps(self, blobs: BlobDriver, store_uid: str, start: int) -> Iterator[Step]:
        """Yield the versions from `start` to the head; what was not kept is read again."""
        number = start
        if self._steps and self._steps[0].number <= start:
            for step in self._steps[start - self._steps[0].number :]:
                yield step
                number = step.number + 1
        if number > self.head:
            return
        with closing(read_journal(blobs, store_uid, self.uid, start=number, parent=None)) as items:
            for item in items:
                if isinstance(item, Found):
                    if item.record.number != number or number > self.head:
                        return
                    yield Step.of(item.record)
                    number += 1


def list_lines(making: Making, log: StoreLog, checkpoints: Mapping[str, Sequence[CheckpointKey]]) -> Iterator[Line]:
    """Add every namespace and its versions, and yield each with versions once their rows are gathered."""
    names = _Names(making, log)
    heads: list[tuple[int, int, bytes]] = []
    making.progress.stage("reading versions")
    with closing(read_journals(making.blobs, making.uid)) as lines:
        for uid, items in chain(lines, names.without_journal()):
            found = names.find(uid, items)
            if found is None:
                continue
            namespace_id, name, items = found
            line = Line(namespace_id, uid, name, log.expired.get(uid) or Expired())
            numbers = {key.number for key in checkpoints.get(uid, ())}
            if _read_versions(making, line, items, numbers):
                _check_end(making, line, numbers)
            heads.append((line.id, line.head, line.digest))
            if line.head:
                yield line
    for batch in batched(heads, NAMESPACES_BATCH):
        making.sink.run(lambda connection, rows=batch: set_heads(connection, "namespace", rows))  # type: ignore[misc]


class _Names:
    """The namespaces: their ids here, and their names."""

    def __init__(self, making: Making, log: StoreLog) -> None:
        self._making = making
        self._claims: dict[str, str] = {}
        with closing(list_claims(making.blobs)) as claims:
            for claim in claims:
                if isinstance(claim, Gap):
                    making.report("claim", claim)
                else:
                    self._claims[claim.namespace] = claim.name
        self._known: dict[str, tuple[int, str]] = {}
        self._seen: set[str] = set()
        self._folded: set[str] = set()
        for batch in batched(sorted(log.namespaces.items()), NAMESPACES_BATCH):
            self._add([(uid, name, created_us) for uid, (name, created_us) in batch])
        for uid, (name, _) in log.namespaces.items():
            if self._claims.get(uid) != name:
                gap = Gap(NamespaceClaim(uid, name).key, "missing", f"nothing keeps the name {name!r} for {uid}")
                making.report("claim", gap, name=name)

    def _add(self, rows: Sequence[tuple[str, str, int]]) -> None:
        rows = [row for row in rows if self._is_free(row[1])]
        if rows:
            ids = self._making.sink.run(lambda connection: add_namespaces(connection, self._making.store_id, rows))
            self._known.update((uid, (ids[uid], name)) for uid, name, _ in rows)
            self._making.count("namespaces", len(rows))

    def _is_free(self, name: str) -> bool:
        folded = name.casefold()
        is_free = folded not in self._folded
        self._folded.add(folded)
        return is_free

    def find(self, uid: str, items: Iterator[Item]) -> tuple[int, str, Iterator[Item]] | None:
        """Return id and name of a namespace, and its records; one that the store's log does not name gets the name it claims."""
        self._seen.add(uid)
        if uid not in self._known:
            first = next(items, None)
            items = chain([] if first is None else [first], items)
            name = self._claims.get(uid) or (first.record.namespace_name if isinstance(first, Found) else None)
            if name is None and uid in self._making.known.versions:
                name, _ = self._making.known.versions[uid]
            gap = Gap(f"{JOURNAL_PREFIX}{uid}/", "missing", "the store's log does not say whose versions these are")
            self._making.report("log", gap, name=name or "")
            if name is not None and is_ulid(uid):
                self._add([(uid, name, ulid_ms(uid) * 1000)])
        known = self._known.get(uid)
        return None if known is None else (*known, items)

    def without_journal(self) -> Iterator[tuple[str, Iterator[Item]]]:
        """Yield the namespaces that were not asked for, and should have been there, without records; to be begun at the end."""
        with_versions = [uid for uid, (_, last) in self._making.known.versions.items() if last]
        for uid in dict.fromkeys([*self._known, *with_versions]):
            if uid not in self._seen:
                yield uid, iter(())


def _read_versions(making: Making, line: Line, items: Iterable[Item], checkpoints: set[int]) -> bool:
    """Gather the rows of the versions up to the first gap, and return whether there is none; all gaps are reported."""
    lowest = line.expired.lowest_left()
    is_over = False
    for item in items:
        if isinstance(item, Found) and item.record.namespace_name != line.name:
            item = Gap(item.key, "damaged", f"it is of namespace {item.record.namespace_name!r}, not {line.name!r}")
        if isinstance(item, Gap):
            number = number_in(item.key, f"{JOURNAL_PREFIX}{line.uid}/")
            if is_over or number is None:
                making.report("journal", item, name=line.name)
            else:
                making.lose("journal", item, owner_id=line.id, name=line.name, first=number)
                is_over = True
        elif not is_over:
            line.take(item, lowest, has_checkpoint=item.record.number in checkpoints)
            _add_version(making, line, item)
    return not is_over


def _check_end(making: Making, line: Line, checkpoints: set[int]) -> None:
    """Look whether anything says that the line went on: nothing in it vouches for its last record."""
    evidence = [
        (max(checkpoints, default=0), "there is a checkpoint of version"),
        (line.expired.highest() + 1 if line.expired.highest() else 0, "versions expired, which leaves at least version"),
        (making.known.versions.get(line.uid, ("", 0))[1], "the index before knew version"),
    ]
    last, why = max(evidence)
    if last > line.head:
        gap = Gap(journal_key(line.uid, line.head + 1), "missing", f"the history ends with version {line.head}, and {why} {last}")
        making.lose("journal", gap, owner_id=line.id, name=line.name, first=line.head + 1)


def _add_version(making: Making, line: Line, item: Found[VersionRecord]) -> None:
    record = item.record
    expired_us = line.expired.find(record.number)
    gone_us = None if expired_us is None else making.began_us
    row = (
        *(making.store_id, line.id, record.number, item.digest, record.parent, record.commit_id, micros_of(record.created_at)),
        *(record.operation, record.author, record.message),
        json.dumps(dict(record.labels), sort_keys=True),
        json.dumps(dict(record.provenance), sort_keys=True),
        *(record.added, record.modified, record.removed, record.file_count, record.size_bytes),
        *(None, expired_us, gone_us, gone_us, record.provenance.get(RUN_FIELD)),
    )
    making.sink.add("version", [row], weight_bytes=len(item.body))
    making.count("versions")
    changes = record.changes
    if changes.key is not None:
        making.note_list(ListRow(line.id, record.number, "changes", changes.key, changes.digest, changes.count))
