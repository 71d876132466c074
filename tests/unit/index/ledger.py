"""A store in an index, driven by the index's own functions: stage, plan, commit, flush, read, each in one short call."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from blake3 import blake3

from vds.index.commit import Committed, CommitTerms, PlanAgain, Planned, commit_staged
from vds.index.conflicts import OnTouched
from vds.index.database import Connection, Database, now_us
from vds.index.entries import At, read_entries
from vds.index.needs import BlobsGone, list_needs
from vds.index.placements import add_pending_blob, finish_blob
from vds.index.plan import Area, count_changes, mark_changed, stage_removals, stage_restore
from vds.index.queue import list_records, remove_record
from vds.index.schema import staged
from vds.index.staging import REMOVED, WRITTEN, NewUpload, StagedRow, UploadRow, add_part, add_upload
from vds.index.stores import NamespaceRow, StoreRow, add_namespace, put_store, read_namespace
from vds.model.content import Member
from vds.model.entry import MODE_FILE
from vds.model.ulid import RANDOM_BYTES, new_ulid
from vds.model.version import ChangeListRef

Outcome = Committed | PlanAgain | BlobsGone
HOUR_US = 3600 * 1_000_000
_numbers = itertools.count(1)


def ulid(number: int) -> str:
    return new_ulid(number, bytes(RANDOM_BYTES))


def digest_of(body: bytes) -> bytes:
    return blake3(body).digest()


class RolledBackError(Exception):
    """Carries an outcome that must not be committed out of its transaction."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Writer:
    """One open upload, its main part, and the terms of its commit."""

    upload: UploadRow
    area: Area
    terms: CommitTerms


@dataclass
class Ledger:
    """One store of a database, which may hold others."""

    database: Database
    store: StoreRow = field(init=False)

    def __post_init__(self) -> None:
        number = next(_numbers)
        self.store = self.database.run(lambda c: put_store(c, ulid(number), f"incarnation-{number}"))

    def namespace(self, name: str = "team/raw") -> NamespaceRow:
        return self.database.run(lambda c: add_namespace(c, self.store.id, ulid(next(_numbers)), name, now_us(c)))

    def now(self, namespace: NamespaceRow) -> NamespaceRow:
        with self.database.read() as connection:
            return read_namespace(connection, namespace.id)

    def put_blob(self, upload_id: int, *bodies: bytes) -> int:
        """Make a live blob that holds these objects, and return its id."""
        blob_id = self.pending(upload_id)
        assert self.database.run(lambda c: finish_blob(c, self.store.id, blob_id, upload_id, 1, "etag", members(*bodies)))
        return blob_id

    def pending(self, upload_id: int) -> int:
        return self.database.run(lambda c: add_pending_blob(c, self.store.id, f"objects/{next(_numbers)}", upload_id))

    def blob_state(self, blob_id: int) -> str:
        with self.database.read() as connection:
            return str(connection.exec_driver_sql(f"SELECT state FROM blob WHERE id = {int(blob_id)}").scalar_one())

    def set_blob_state(self, blob_id: int, state: str) -> None:
        self.database.run(lambda c: c.exec_driver_sql(f"UPDATE blob SET state = '{state}' WHERE id = {int(blob_id)}"))

    def open(self, namespace: NamespaceRow, on_touched: OnTouched = "win", **terms: object) -> Writer:
        token = f"token-{next(_numbers)}"
        commit_id = ulid(next(_numbers))
        new = NewUpload(token, namespace.id, self.now(namespace).head, None, "ada", "", "{}", False, commit_id, HOUR_US)

        def work(connection: Connection) -> tuple[UploadRow, int]:
            upload = add_upload(connection, self.store.id, new)
            return upload, add_part(connection, self.store.id, upload.id, "")

        upload, part_id = self.database.run(work)
        made = CommitTerms(upload.id, self.store.uid, upload.commit_id, "upload", "ada", "", {}, {}, on_touched)
        return Writer(upload, Area(self.store.id, namespace.id, part_id), replace(made, **terms))  # type: ignore[arg-type]

    def stage(self, writer: Writer, files: Mapping[str, bytes | None], *, read: Sequence[str] = (), place: bool = True) -> None:
        """Stage files (None: a removal), their objects placed in a blob of their own unless told otherwise."""
        bodies = {body for body in files.values() if body}
        if place and bodies:
            self.put_blob(writer.upload.id, *sorted(bodies))
        rows = [staged_row(writer.area, path, body, was_read=path in read) for path, body in files.items()]
        self.database.run(lambda c: self.database.insert_rows(c, staged, rows))

    def plan(self, writer: Writer, base: int | None = None, *, keep_existing: bool = False, mirror: str | None = None) -> Planned:
        head = self.now_of(writer).head if base is None else base

        def work(connection: Connection) -> Planned:
            if mirror is not None:
                stage_removals(connection, writer.area, head, mirror)
            mark_changed(connection, writer.area, head, keep_existing=keep_existing)
            return Planned(head, count_changes(connection, writer.area, head), NO_LIST)

        return self.database.run(work)

    def plan_listed(self, writer: Writer) -> Planned:
        """Plan as the engine does, the blobs listed before the commit."""
        planned = self.plan(writer)
        with self.database.read() as connection:
            return replace(planned, needs=list_needs(connection, writer.area))

    def plan_restore(self, writer: Writer, target: int, base: int | None = None, prefix: str = "") -> Planned:
        head = self.now_of(writer).head if base is None else base

        def work(connection: Connection) -> Planned:
            stage_restore(connection, writer.area, head, target, prefix)
            return Planned(head, count_changes(connection, writer.area, head), NO_LIST)

        return self.database.run(work)

    def now_of(self, writer: Writer) -> NamespaceRow:
        with self.database.read() as connection:
            return read_namespace(connection, writer.area.namespace_id)

    def commit(self, writer: Writer, planned: Planned) -> Outcome:
        try:
            return self.database.run(lambda c: commit_or_raise(c, writer, planned))
        except RolledBackError as err:
            return err.outcome

    def write(self, namespace: NamespaceRow, files: Mapping[str, bytes | None], **terms: object) -> int:
        """Make and flush one version, alone, and return its number."""
        writer = self.open(namespace, **terms)  # type: ignore[arg-type]
        self.stage(writer, files)
        outcome = self.commit(writer, self.plan(writer))
        assert isinstance(outcome, Committed), outcome
        self.flush(namespace)
        return outcome.number

    def flush(self, namespace: NamespaceRow) -> None:
        """Act as if every queued record were in the container now."""
        with self.database.read() as connection:
            records = list_records(connection, self.store.id, "version", namespace.id)
        for record in records:
            self.flush_one(namespace, record.number)

    def flush_one(self, namespace: NamespaceRow, number: int) -> None:
        with self.database.read() as connection:
            (record,) = [r for r in list_records(connection, self.store.id, "version", namespace.id) if r.number == number]
        self.database.run(lambda c: remove_record(c, self.store.id, record))

    def at(self, namespace: NamespaceRow, number: int) -> At:
        return At(self.store.id, namespace.id, number)

    def files(self, namespace: NamespaceRow, number: int, path: str = "") -> dict[str, bytes]:
        """Return path → raw digest of a version."""
        with self.database.read() as connection:
            return {row.path: row.digest for row in read_entries(connection, self.at(namespace, number), path)}


NO_LIST = ChangeListRef(digest_of(b""), 0, inline=b"")


def commit_or_raise(connection: Connection, writer: Writer, planned: Planned) -> Committed:
    outcome = commit_staged(connection, writer.area, planned, writer.terms)
    if not isinstance(outcome, Committed):
        raise RolledBackError(outcome)
    return outcome


def members(*bodies: bytes) -> list[Member]:
    offset = 0
    made = []
    for body in bodies:
        made.append(Member(digest_of(body), offset, len(body)))
        offset += len(body)
    return made


def staged_row(area: Area, path: str, body: bytes | None, *, was_read: bool = False, part_id: int | None = None) -> StagedRow:
    part = area.part_id if part_id is None else part_id
    if body is None:
        return (area.store_id, part, path, REMOVED, 1, int(was_read), None, 0, 0, 0)
    return (area.store_id, part, path, WRITTEN, 1, int(was_read), digest_of(body), len(body), MODE_FILE, 0)


def digests(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return path → raw digest, as `Ledger.files` reads it back."""
    return {path: digest_of(body) for path, body in files.items()}
