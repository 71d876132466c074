"""Any sequence of commits, from any base, against plain dicts: entries, diffs, logs and counts at every version."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.unit.index.ledger import Ledger, digest_of
from vds.errors import ConflictError
from vds.index.commit import Committed
from vds.index.database import Database
from vds.index.entries import measure, read_changes_between, read_entries
from vds.index.plan import find_clashes
from vds.index.schema import OPEN
from vds.index.stores import NamespaceRow
from vds.index.versions import get_version, list_versions

# Neighbours of "/" in byte order, a clash of file and directory, and names beyond ASCII.
PATHS = ["a", "a/b", "a/b/c", "a-", "a0", "b", "b/x", "b.x", "é/ü", "😀"]
BODIES = [b"", b"1", b"22", b"333"]
PREFIXES = ["", "a", "a/b", "b", "é", "none"]
Files = dict[str, bytes]

edits = st.dictionaries(st.sampled_from(PATHS), st.none() | st.sampled_from(BODIES), min_size=1, max_size=5)


@dataclass(frozen=True)
class Step:
    """One commit, or (target) one return to an earlier version."""

    edit: dict[str, bytes | None]
    age: int  # how many versions old its base is
    target: int | None


steps = st.builds(Step, edits, st.integers(0, 2), st.none() | st.integers(0, 5))


def is_sound(files: Files) -> bool:
    return not any(other.startswith(path + "/") for path in files for other in files)


def below(files: Files, prefix: str) -> Files:
    return {path: body for path, body in files.items() if not prefix or path == prefix or path.startswith(prefix + "/")}


def apply(files: Files, edit: dict[str, bytes | None]) -> Files:
    after = {path: body for path, body in files.items() if path not in edit}
    return {**after, **{path: body for path, body in edit.items() if body is not None}}


class Model:
    """The index and a list of dicts, one a version, driven by the same steps."""

    def __init__(self, database: Database) -> None:
        self.ledger = Ledger(database)
        self.namespace = self.ledger.namespace()
        self.versions: list[Files] = [{}]

    def take(self, step: Step) -> None:
        if step.target is not None:
            self.restore(step.target % len(self.versions))
        else:
            self.write(step.edit, max(0, len(self.versions) - 1 - step.age))

    def write(self, edit: dict[str, bytes | None], base: int) -> None:
        """Commit an edit that was planned against an older version, planning again when it is asked for."""
        ledger = self.ledger
        writer = ledger.open(self.namespace)
        ledger.stage(writer, edit)
        wanted = apply(self.versions[-1], edit)
        while True:
            planned = ledger.plan(writer, base)
            with ledger.database.read() as connection:
                clashes = find_clashes(connection, writer.area, base)
            if clashes:
                assert not is_sound(apply(self.versions[base], edit))
                return
            try:
                outcome = ledger.commit(writer, planned)
            except ConflictError:
                assert not is_sound(wanted)
                return
            if isinstance(outcome, Committed):
                break
            base = len(self.versions) - 1
        self.note(outcome, wanted)

    def restore(self, target: int) -> None:
        writer = self.ledger.open(self.namespace, "exact", prefix="")
        outcome = self.ledger.commit(writer, self.ledger.plan_restore(writer, target))
        assert isinstance(outcome, Committed)
        self.note(outcome, self.versions[target])

    def note(self, outcome: Committed, wanted: Files) -> None:
        self.ledger.flush(self.namespace)
        before = self.versions[-1]
        assert outcome.created is (wanted != before)
        if outcome.created:
            self.versions.append(wanted)
        assert outcome.number == len(self.versions) - 1
        assert is_sound(wanted)


def check(model: Model) -> None:
    ledger, namespace = model.ledger, model.ledger.now(model.namespace)
    versions = model.versions
    assert namespace.visible == namespace.head == len(versions) - 1
    with ledger.database.read() as connection:
        for number, files in enumerate(versions):
            at = ledger.at(namespace, number)
            found = [(row.path, row.digest) for row in read_entries(connection, at)]
            assert found == [(path, digest_of(files[path])) for path in sorted(files, key=str.encode)]
            row = get_version(connection, namespace, number)
            assert (row.file_count, row.size_bytes) == (len(files), sum(map(len, files.values())))
            for prefix in PREFIXES:
                part = below(files, prefix)
                assert measure(connection, at, prefix) == (len(part), sum(map(len, part.values())))
        for base, before in enumerate(versions):
            for number, after in enumerate(versions):
                changes = read_changes_between(connection, ledger.at(namespace, base), ledger.at(namespace, number))
                assert [change.path for change in changes] == differing(before, after)
        for prefix in PREFIXES:
            logged = [row.number for row in list_versions(connection, namespace, path=prefix)]
            numbers = range(len(versions) - 1, 0, -1)
            assert logged == [n for n in numbers if below(versions[n], prefix) != below(versions[n - 1], prefix)]
    check_intervals(ledger, namespace)


def differing(before: Files, after: Files) -> list[str]:
    return sorted((path for path in {*before, *after} if before.get(path) != after.get(path)), key=str.encode)


def check_intervals(ledger: Ledger, namespace: NamespaceRow) -> None:
    """No two intervals of a path overlap, and two that meet differ: an entry that did not change was not closed."""
    with ledger.database.read() as connection:
        rows = connection.execute(
            text(
                "SELECT path, first_version, end_version, digest FROM entry WHERE store_id = :s AND namespace_id = :n"
                " ORDER BY path, first_version"
            ),
            {"s": ledger.store.id, "n": namespace.id},
        ).all()
    for left, right in pairwise(rows):
        if left.path == right.path:
            assert left.end_version <= right.first_version
            assert left.end_version != right.first_version or bytes(left.digest) != bytes(right.digest)
    assert all(row.first_version < row.end_version for row in rows)
    assert all(row.end_version == OPEN or row.end_version <= namespace.head for row in rows)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(plan=st.lists(steps, min_size=1, max_size=8))
def test_every_version_reads_as_the_model_says(database: Database, plan: list[Step]) -> None:
    model = Model(database)
    for step in plan:
        model.take(step)
    check(model)
