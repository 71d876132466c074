"""Hold the change lists of a namespace against its entries in the index.

What the lists since one version add up to must be the difference, in the index, between that version and a later one. It is
compared from each version that is left to the next, so every one of them is; lists of expired versions between two are added up
first, as the index no longer has their states. Where collection let older lists go, it begins with a checkpoint.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from vds.blobs.records import Found, open_changes
from vds.errors import CorruptionError, NotFoundError
from vds.index.database import Connection
from vds.index.entries import At, ChangeOfRow, EntryRow, find_entries, read_changes_between, read_entries
from vds.index.gaps import LostRow
from vds.index.inspect import IN_USE, ManifestRow, VersionFacts, find_base_checkpoint, find_blobs, list_manifests
from vds.index.stores import NamespaceRow
from vds.model.batch import batched
from vds.model.manifest import ChangeRow, ContentHasher
from vds.model.version import ChangeListRef, VersionRecord, journal_key
from vds.ops.findings import Inspection

FOLD_ROWS_MAX = 1_000_000
"""How many changed paths of expired versions are added up in memory, some 300 MB of them; beyond, one stretch is not compared."""

SHOWN_MAX = 3
_LOOKUP = 500
_MANIFEST_VERSIONS = 1000


@dataclass
class Differences:
    """Paths on which the lists and the index differ: how many, and the first of them."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, path: str, listed: ChangeRow | None, known: EntryRow | None) -> None:
        """Note one."""
        self.count += 1
        if len(self.shown) < SHOWN_MAX:
            self.shown.append(f"{path!r} is {_text(listed)} in the lists and {_text(known)} in the index")

    def __str__(self) -> str:
        more = f"; and {self.count - len(self.shown)} more" if self.count > len(self.shown) else ""
        return "; ".join(self.shown) + more


class NamespaceLists:
    """The change lists of one namespace, taken in version by version; used by one thread.

    Args:
        run: the check.
        namespace: whose lists.
        lost: the gaps with which the index was made from the container, if it was.
        reads: read the lists, and hold what they add up to against the entries; otherwise only where they are is looked at.
    """

    def __init__(self, run: Inspection, namespace: NamespaceRow, lost: Iterable[LostRow], *, reads: bool) -> None:
        self._run = run
        self._namespace = namespace
        self._reads = reads
        self._lost = [row for row in lost if row.owner_id == namespace.id and row.kind == "changes"]
        self._manifests: dict[tuple[int, str], ManifestRow] = {}
        self._manifests_end = 0
        self._pending: list[tuple[int, ChangeListRef]] = []
        self._is_broken = False
        self._last: VersionFacts | None = None
        with run.doors.index.read() as connection:
            self._base = find_base_checkpoint(connection, run.doors.store.id, namespace.id)
        self._low = 0  # the last version that was compared, or the base before the first one is

    def take(self, facts: VersionFacts, found: Found[VersionRecord] | None) -> None:
        """Take in the next visible version, and its record where that is sound."""
        if facts.number != (self._last.number if self._last is not None else 0) + 1:
            self._is_broken = True  # versions are lost between the two
        self._last = facts
        changes = self._find_list(facts.number, found)
        is_after_base = self._base is None or facts.number > self._base.number
        if not self._reads:
            return
        if self._base is None or facts.number >= self._base.number:
            self._check_checkpoint(facts)
        if is_after_base and changes is not None:
            self._pending.append((facts.number, changes))
        elif is_after_base:
            self._is_broken = True
        if is_after_base and not facts.is_expired and not any(_covers(row, facts.number) for row in self._lost):
            self._compare(facts, None if found is None else found.record)

    def finish(self) -> None:
        """Look at the content digest that was kept of the newest version, if one was."""
        if self._reads and self._last is not None and self._last.content_digest is not None and not self._last.is_expired:
            self._check_content(self._last, self._last.content_digest)

    def _find_list(self, number: int, found: Found[VersionRecord] | None) -> ChangeListRef | None:
        """Return the change list of a version, which the index tells where the record does not."""
        row = self._manifest(number, "changes")
        if found is None:
            return None if row is None else ChangeListRef(row.digest, row.row_count, key=row.key)
        changes = found.record.changes
        if changes.key is not None and (self._base is None or number > self._base.number):
            self._check_place(number, changes.key, changes, row)
        return changes

    def _check_place(self, number: int, key: str, changes: ChangeListRef, row: ManifestRow | None) -> None:
        name = f"of {self._namespace.name}@{number}"
        if row is not None:
            if (row.key, row.digest, row.row_count) != (key, changes.digest, changes.count):
                self._run.findings.add("list-missing", key, f"{name}: the index has another list for it, {row.key!r}")
            elif row.state not in IN_USE:
                self._run.findings.add("list-missing", key, f"{name}: the index says that its blob is {row.state}")
            return
        with self._run.doors.index.read() as connection:  # before such rows were kept, the blob's own is all there is
            blob = find_blobs(connection, self._run.doors.store.id, [key]).get(key)
        if blob is None or blob.state not in IN_USE:
            self._run.findings.add("list-missing", key, f"{name}: {'no row' if blob is None else blob.state}")

    def _manifest(self, number: int, kind: str) -> ManifestRow | None:
        if number >= self._manifests_end:
            end = number + _MANIFEST_VERSIONS
            with self._run.doors.index.read() as connection:
                rows = list_manifests(connection, self._run.doors.store.id, self._namespace.id, number, end - 1)
            self._manifests = {(row.number, row.kind): row for row in rows}
            self._manifests_end = end
        return self._manifests.get((number, kind))

    def _check_checkpoint(self, facts: VersionFacts) -> None:
        """Read a checkpoint, and hold it against the entries of its version if that is left."""
        row = self._manifest(facts.number, "checkpoint")
        if row is None or row.state not in IN_USE:
            return
        self._run.examined.lists += 1
        try:
            with self._run.doors.index.read() as connection:
                rows = open_changes(self._run.doors.blobs, _ref(row))
                if facts.is_expired:
                    for _ in rows:
                        pass
                else:
                    self._tell(facts.number, compare_all(rows, read_entries(connection, self._at(facts.number))))
                    if self._base is not None and facts.number == self._base.number:
                        self._low = facts.number
        except CorruptionError as err:
            self._run.findings.add("list-damaged", row.key, err.message)
        except NotFoundError:
            pass  # it expired while it was looked at

    def _compare(self, facts: VersionFacts, record: VersionRecord | None) -> None:
        """Hold what the lists since the last comparison add up to against the index."""
        lists, self._pending = self._pending, []
        low, self._low = self._low, facts.number
        is_broken, self._is_broken = self._is_broken, False
        if is_broken:
            self._skip(facts, "a list before it could not be read")
            return
        try:
            with self._run.doors.index.read() as connection:
                if self._base is not None and low == 0:
                    rows = self._overlaid(self._base, lists)
                    entries = read_entries(connection, self._at(facts.number))
                    self._tell(facts.number, compare_all(rows, entries, is_exact=False))
                    return
                rows = self._rows(lists)
                step = _Step(connection, self._at(low), self._at(facts.number), is_exact=len(lists) == 1)
                self._tell(facts.number, step.compare(rows))
                if record is not None and len(lists) == 1 and step.counts != (record.added, record.modified, record.removed):
                    self._tell_counts(record, step.counts)
        except _ListError as err:
            self._run.findings.add("list-damaged", err.key, err.message)
        except _TooManyError:
            self._skip(facts, f"more than {FOLD_ROWS_MAX} changes of expired versions lie before it")
        except NotFoundError:
            pass  # it expired while it was looked at

    def _rows(self, lists: list[tuple[int, ChangeListRef]]) -> Iterator[ChangeRow]:
        if len(lists) == 1:
            return self._open(*lists[0])
        return iter(self._fold(lists))

    def _fold(self, lists: list[tuple[int, ChangeListRef]]) -> list[ChangeRow]:
        folded: dict[str, ChangeRow] = {}
        for number, changes in lists:
            for row in self._open(number, changes):
                folded[row.path] = row
                if len(folded) > FOLD_ROWS_MAX:
                    raise _TooManyError
        return [folded[path] for path in sorted(folded, key=str.encode)]

    def _overlaid(self, base: ManifestRow, lists: list[tuple[int, ChangeListRef]]) -> Iterator[ChangeRow]:
        """Yield the rows of a checkpoint with later lists laid over them, by path."""
        over = iter(self._fold(lists))
        row = next(over, None)
        for below in self._open(base.number, _ref(base)):
            while row is not None and row.path.encode() < below.path.encode():
                if row.digest is not None:
                    yield row
                row = next(over, None)
            if row is None or row.path != below.path:
                yield below
        while row is not None:
            if row.digest is not None:
                yield row
            row = next(over, None)

    def _open(self, number: int, changes: ChangeListRef) -> Iterator[ChangeRow]:
        self._run.examined.lists += 1
        self._run.progress.add(files=1)
        try:
            yield from open_changes(self._run.doors.blobs, changes)
        except CorruptionError as err:
            raise _ListError(changes.key or journal_key(self._namespace.uid, number), err.message) from err

    def _check_content(self, facts: VersionFacts, kept: bytes) -> None:
        hasher = ContentHasher()
        try:
            with self._run.doors.index.read() as connection:
                for row in read_entries(connection, self._at(facts.number)):
                    hasher.add(row.path, row.digest, row.mode)
        except NotFoundError:
            return  # it expired while it was looked at
        if hasher.digest() != kept:
            name = f"{self._namespace.name}@{facts.number}"
            self._run.findings.add(
                "content-differs", name, f"its files have b3:{hasher.digest().hex()}, kept was b3:{kept.hex()}"
            )

    def _tell(self, number: int, differences: Differences) -> None:
        if differences.count:
            self._run.findings.add("entries-differ", f"{self._namespace.name}@{number}", str(differences))

    def _tell_counts(self, record: VersionRecord, counts: tuple[int, int, int]) -> None:
        said = (record.added, record.modified, record.removed)
        name = f"{self._namespace.name}@{record.number}"
        detail = f"added, modified and removed are {said} in its record and {counts} in the index"
        self._run.findings.add("entries-differ", name, detail)

    def _skip(self, facts: VersionFacts, why: str) -> None:
        self._run.findings.add("check-skipped", f"{self._namespace.name}@{facts.number}", f"not compared with its lists: {why}")

    def _at(self, number: int) -> At:
        return At(self._namespace.store_id, self._namespace.id, number)


class _ListError(Exception):
    """A change list that cannot be believed."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.message = message


class _TooManyError(Exception):
    """More rows than are added up in memory."""


class _Step:
    """Compares one list with what changed in the index from one version to a later one."""

    def __init__(self, connection: Connection, low: At, high: At, *, is_exact: bool) -> None:
        self._connection = connection
        self._low = low
        self._high = high
        self._is_exact = is_exact  # the times of files are compared too: a list says those of its own changes
        self._differences = Differences()
        self._added = self._modified = self._removed = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many paths were added, modified and removed, by the index."""
        return self._added, self._modified, self._removed

    def compare(self, rows: Iterator[ChangeRow]) -> Differences:
        for batch in batched(self._unmatched(rows), _LOOKUP):
            # What changed nothing, since another commit had done the same, may be in a list: then it holds already.
            known = find_entries(self._connection, self._high, [row.path for row in batch])
            for row in batch:
                if not _holds(row, known.get(row.path)):
                    self._differences.add(row.path, row, known.get(row.path))
        return self._differences

    def _unmatched(self, rows: Iterator[ChangeRow]) -> Iterator[ChangeRow]:
        """Yield the rows of which the index knows no change; the others are compared with it."""
        row = next(rows, None)
        with closing(self._changes()) as changes:
            for change in changes:
                path = change.path.encode()
                while row is not None and row.path.encode() < path:
                    yield row
                    row = next(rows, None)
                if row is None or row.path != change.path:
                    self._differences.add(change.path, None, change.after)
                    continue
                self._match(row, change)
                row = next(rows, None)
        while row is not None:
            yield row
            row = next(rows, None)

    def _changes(self) -> Generator[ChangeOfRow, None, None]:
        yield from read_changes_between(self._connection, self._low, self._high)

    def _match(self, row: ChangeRow, change: ChangeOfRow) -> None:
        is_same_time = not self._is_exact or change.after is None or change.after.modified_ns == row.modified_ns
        if not _holds(row, change.after) or not is_same_time:
            self._differences.add(change.path, row, change.after)
        if change.before is None:
            self._added += 1
        elif change.after is None:
            self._removed += 1
        else:
            self._modified += 1


def compare_all(rows: Iterator[ChangeRow], entries: Iterator[EntryRow], *, is_exact: bool = True) -> Differences:
    """Compare all files of a version in lists with those in the index, both by path; with `is_exact` their times too."""
    differences = Differences()
    row = next(rows, None)
    for entry in entries:
        path = entry.path.encode()
        while row is not None and row.path.encode() < path:
            differences.add(row.path, row, None)
            row = next(rows, None)
        if row is None or row.path != entry.path:
            differences.add(entry.path, None, entry)
            continue
        if not _holds(row, entry) or (is_exact and row.modified_ns != entry.modified_ns):
            differences.add(entry.path, row, entry)
        row = next(rows, None)
    while row is not None:
        differences.add(row.path, row, None)
        row = next(rows, None)
    return differences


def _holds(row: ChangeRow, entry: EntryRow | None) -> bool:
    if entry is None:
        return row.digest is None
    return (row.digest, row.size_bytes, row.mode) == (entry.digest, entry.size_bytes, entry.mode)


def _text(row: ChangeRow | EntryRow | None) -> str:
    if row is None or row.digest is None:
        return "not there"
    return f"b3:{row.digest.hex()} of {row.size_bytes} bytes, mode {row.mode}, mtime {row.modified_ns}"


def _ref(row: ManifestRow) -> ChangeListRef:
    return ChangeListRef(row.digest, row.row_count, key=row.key)


def _covers(row: LostRow, number: int) -> bool:
    return row.first_number <= number <= row.last_number
