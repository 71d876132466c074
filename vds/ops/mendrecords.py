"""Write lost records and change lists again: out of the index, which has all that most of them say, or out of another container.

Only bytes with the digest that they must have are written; where nobody has them, nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from vds.blobs.objects import put_record, read_record
from vds.blobs.records import JOURNAL_PREFIX
from vds.engine.listspool import ListSpool
from vds.errors import CorruptionError, InvalidInputError, NotFoundError
from vds.index.damage import keep_blob
from vds.index.entries import At
from vds.index.inspect import ListOwner, find_list_owner, list_manifests, read_list_rows
from vds.index.manifests import read_manifest_rows
from vds.index.stores import find_store
from vds.model.claim import CLAIM_PREFIX, NamespaceClaim
from vds.model.event import EVENT_PREFIX
from vds.model.manifest import ChangeListEncoder, ChangeRow
from vds.model.moment import moment_of
from vds.model.storelog import STORE_PREFIX, StoreRecord, store_key
from vds.model.version import EVENT_CONTEXT, NO_PARENT, STORE_CONTEXT, VERSION_CONTEXT, ChangeListRef, record_digest
from vds.ops.checklines import Lines, event_line, list_lines, number_of, version_line
from vds.ops.findings import Inspection, Problem
from vds.ops.goodcopies import GoodCopies

MISSING = ("record-missing", "claim-missing")
DAMAGED = ("record-damaged", "claim-damaged", "claim-differs")
LISTS = ("blob-missing", "blob-differs", "blob-replaced", "list-damaged")


@dataclass(frozen=True, slots=True)
class Good:
    """A record's bytes, and where they come from."""

    body: bytes
    source: str


def mend_records(run: Inspection, copies: GoodCopies, *, replaces: bool) -> None:
    """Write records and claims that are missing again; with `replaces` also those that are damaged, which are deleted first."""
    problems = run.findings.of(*MISSING, *(DAMAGED if replaces else ()))
    if not problems:
        return
    finder = _Finder(run, copies, list_lines(run))
    # Of the store's log the last first: each is known by what its successor says of it.
    for problem in sorted(problems, key=lambda one: one.key, reverse=True):
        good = finder.find(problem.key)
        if good is None:
            continue
        if run.writes:
            if problem.kind in DAMAGED:
                delete_blob(run, problem.key)
            # A crash here leaves the record missing, which the same command mends.
            put_record(run.doors.blobs, problem.key, good.body)
        run.mend(problem, f"written again from {good.source}")


def delete_blob(run: Inspection, key: str) -> None:
    """Delete what stands under a key, as it is now."""
    blob = run.doors.blobs.find_blob(key)
    if blob is not None:
        run.doors.blobs.delete_blob(key, blob.etag)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds the bytes that must stand under a record's key."""

    run: Inspection
    copies: GoodCopies
    lines: Lines

    def find(self, key: str) -> Good | None:
        """Return them, or None when nobody has them."""
        number = number_of(key)
        if key.startswith(CLAIM_PREFIX):
            return self._find_claim(key)
        if key.startswith(JOURNAL_PREFIX) and number:
            return self._find_version(key, number)
        if key.startswith(EVENT_PREFIX) and number:
            return self._find_event(key, number)
        if key.startswith(STORE_PREFIX) and number:
            return self._find_log_record(key, number)
        return None

    def _find_claim(self, key: str) -> Good | None:
        claims = (NamespaceClaim(row.uid, row.name) for row in self.lines.namespaces.values())
        return next((Good(claim.encode(), "the index") for claim in claims if claim.key == key), None)

    def _find_version(self, key: str, number: int) -> Good | None:
        store = self.run.doors.store
        namespace = self.lines.namespaces.get(key.split("/")[1])
        if namespace is None:
            return None
        with self.run.doors.index.read() as connection:
            page = version_line(store.uid, namespace).page(connection, number - 1)
            if not page or page[0].number != number:
                return None
            manifests = list_manifests(connection, store.id, namespace.id, number, number)
            listed = next((row for row in manifests if row.kind == "changes"), None)
            if listed is not None:
                changes = ChangeListRef(listed.digest, listed.row_count, key=listed.key)
            else:
                changes = _inline(read_list_rows(connection, store.id, namespace.id, number))
        record = replace(page[0].record, changes=changes)
        return self._choose(key, VERSION_CONTEXT, page[0].digest, record.encode)

    def _find_event(self, key: str, number: int) -> Good | None:
        dataset = self.lines.datasets.get(key[: key.rindex("/") + 1])
        if dataset is None:
            return None
        with self.run.doors.index.read() as connection:
            page = event_line(self.run.doors.store.uid, dataset).page(connection, number - 1)
        if not page or page[0].number != number:
            return None
        return self._choose(key, EVENT_CONTEXT, page[0].digest, page[0].record.encode)

    def _find_log_record(self, key: str, number: int) -> Good | None:
        """Find a record of the store's log: the one after it says what digest it has, and the index that of the last."""
        doors = self.run.doors
        with doors.index.read() as connection:
            store = find_store(connection, doors.store.uid)
        if store is None or number > store.log_seq:
            return None
        after, before = self._read_log(number + 1), self._read_log(number - 1)
        digest = store.log_digest if number == store.log_seq else after.parent if after is not None else None
        parent = NO_PARENT if number == 1 else before.digest if before is not None else None
        if digest is None:
            return None
        for row in self.lines.namespaces.values() if parent is not None else ():
            created = {"namespace": row.uid, "name": row.name}
            record = StoreRecord(store.uid, number, parent or b"", "namespace-created", moment_of(row.created_us), created)
            if record.digest == digest:
                return Good(record.encode(), "the index")
        return self._copied(key, STORE_CONTEXT, digest)

    def _read_log(self, number: int) -> StoreRecord | None:
        key = store_key(number)
        try:
            return StoreRecord.decode(read_record(self.run.doors.blobs, key), key)
        except (NotFoundError, CorruptionError):
            return None

    def _choose(self, key: str, context: str, digest: bytes, make: Callable[[], bytes]) -> Good | None:
        """Return a record with this digest: the one that the index makes, or else a copy's."""
        try:
            body = make()
        except InvalidInputError:  # longer than a record may be: it is not this one
            body = b""
        return Good(body, "the index") if record_digest(context, body) == digest else self._copied(key, context, digest)

    def _copied(self, key: str, context: str, digest: bytes) -> Good | None:
        body = self.copies.find_record(key, lambda found: record_digest(context, found) == digest)
        return None if body is None else Good(body, "a copy")


def _inline(rows: Iterator[ChangeRow]) -> ChangeListRef:
    encoder = ChangeListEncoder()
    data = b"".join(encoder.frames(rows))
    return ChangeListRef(encoder.digest, encoder.count, inline=data)


def mend_lists(run: Inspection, copies: GoodCopies, *, replaces: bool) -> None:
    """Write change lists and checkpoints again, under their own keys, as records name them."""
    for problem in run.findings.of(*LISTS):
        if not problem.key.startswith(("changes/", "checkpoints/")) or problem.repaired:
            continue
        with run.doors.index.read() as connection:
            owner = find_list_owner(connection, run.doors.store.id, problem.key)
        if owner is not None and (problem.kind == "blob-missing" or replaces):
            _mend_list(run, copies, problem, owner)


def _mend_list(run: Inspection, copies: GoodCopies, problem: Problem, owner: ListOwner) -> None:
    for source, fill in (("the index", _fill_from_index), ("a copy", _fill_from_copy)):
        with ListSpool() as spool:
            fill(run, copies, problem.key, owner, spool)
            if (spool.digest, spool.count) != (owner.digest, owner.row_count):
                continue
            if run.writes:
                delete_blob(run, problem.key)
                sent = spool.put(run.doors.blobs, problem.key, owner.blob_id)
                run.doors.index.run(lambda connection: keep_blob(connection, sent.blob_id, sent.size_bytes, sent.etag))  # noqa: B023
        for kind in LISTS:  # one list may have several faults
            if (known := run.findings.find(kind, problem.key)) is not None:
                run.mend(known, f"written again from {source}")
        return


def _fill_from_index(run: Inspection, copies: GoodCopies, key: str, owner: ListOwner, spool: ListSpool) -> None:
    at = At(run.doors.store.id, owner.namespace_id, owner.number)
    with run.doors.index.read() as connection:
        rows = read_manifest_rows(connection, at) if owner.kind == "checkpoint" else read_list_rows(connection, *at)
        spool.fill(rows)


def _fill_from_copy(run: Inspection, copies: GoodCopies, key: str, owner: ListOwner, spool: ListSpool) -> None:
    rows = copies.open_list(ChangeListRef(owner.digest, owner.row_count, key=key))
    try:
        spool.fill(rows or ())
    except CorruptionError:
        return  # what came so far has another digest
