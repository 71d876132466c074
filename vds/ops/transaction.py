"""Several changes as one version, by one writer or by many: each is all or nothing, and nothing shows before the commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vds.blobs.driver import Buffer
from vds.engine.commit import CommitRequest
from vds.engine.doors import Doors
from vds.engine.send import Sender
from vds.engine.session import Intent, Session, request
from vds.errors import ConflictError, EntryNotFoundError, InvalidInputError
from vds.index.conflicts import find_touched
from vds.index.database import Connection
from vds.index.edits import copy_own_paths, put_row, remove_paths
from vds.index.plan import Area, SourceView, mark_changed, stage_copy
from vds.index.staging import (
    WRITTEN,
    PartRow,
    UploadRow,
    add_part,
    drop_part,
    finish_part,
    get_open_upload,
    heartbeat,
    list_parts,
    merge_parts,
    move_rows,
)
from vds.model.entry import MODE_FILE
from vds.model.path import EntryPath, is_under

SCRATCH = ".scratch"
"""The name of a part that one operation fills and then moves into the transaction whole."""


def apply_scratch(doors: Doors, opened: Session, fill: Callable[[int], None]) -> None:
    """Let `fill` stage rows in a part of their own, then move them into the session's; an error leaves the session as it was."""
    scratch = doors.index.run(lambda connection: add_part(connection, doors.store.id, opened.upload.id, SCRATCH))
    try:
        fill(scratch)
    except BaseException:
        doors.index.run(lambda connection: drop_part(connection, doors.store.id, scratch))
        raise

    def work(connection: Connection) -> None:
        get_open_upload(connection, doors.store.id, opened.upload.token)
        move_rows(connection, doors.store.id, scratch, opened.part_id)
        heartbeat(connection, opened.upload.id)

    doors.index.run(work)


def write_bytes(doors: Doors, opened: Session, sender: Sender, path: EntryPath, body: Buffer, modified_ns: int) -> None:
    """Stage a file with this content."""
    put_digest(doors, opened, path, sender.send_bytes(body), len(body), modified_ns)


def put_digest(doors: Doors, opened: Session, path: EntryPath, digest: bytes, size_bytes: int, modified_ns: int) -> None:
    """Stage a file whose bytes are on their way already."""
    row = (doors.store.id, opened.part_id, path, WRITTEN, 1, 0, digest, size_bytes, MODE_FILE, modified_ns)

    def work(connection: Connection) -> None:
        get_open_upload(connection, doors.store.id, opened.upload.token)
        put_row(connection, row)

    doors.index.run(work)


def copy(doors: Doors, opened: Session, source: SourceView, target: EntryPath) -> None:
    """Stage the entries of a version at `target`."""
    area = opened.area

    def fill(scratch: int) -> None:
        into = Area(area.store_id, area.namespace_id, scratch)
        doors.index.run(lambda connection: stage_copy(connection, into, source, target))

    apply_scratch(doors, opened, fill)


def delete(doors: Doors, opened: Session, path: EntryPath, *, missing_ok: bool) -> int:
    """Stage the removal of a file, or of a directory with all below it, and return how many files that is.

    Raises:
        EntryNotFoundError: there is nothing at `path`, and that was not said to be fine.
    """

    def work(connection: Connection) -> int:
        upload = get_open_upload(connection, doors.store.id, opened.upload.token)
        return remove_paths(connection, opened.area, upload.base, path)

    count = doors.index.run(work)
    if not count and not missing_ok:
        raise _nothing_at(opened, path)
    return count


def move(doors: Doors, opened: Session, source: EntryPath, target: EntryPath) -> int:
    """Stage the renaming of a file or directory, and return how many files that is.

    What was moved counts as read: if others change it before the commit, the commit is a conflict.

    Raises:
        EntryNotFoundError: there is nothing at `source`.
        InvalidInputError: one of the two lies inside the other.
    """
    if is_under(source, target) or is_under(target, source):
        raise InvalidInputError(f"cannot move {source!r} to {target!r}: one lies inside the other")

    def work(connection: Connection) -> int:
        upload = get_open_upload(connection, doors.store.id, opened.upload.token)
        scratch = add_part(connection, doors.store.id, upload.id, SCRATCH)
        count = copy_own_paths(connection, opened.area, upload.base, source, target, scratch)
        remove_paths(connection, opened.area, upload.base, source, was_read=True)
        move_rows(connection, doors.store.id, scratch, opened.part_id)
        return count

    count = doors.index.run(work)
    if not count:
        raise _nothing_at(opened, source)
    return count


def _nothing_at(opened: Session, path: str) -> EntryNotFoundError:
    name = opened.namespace.name
    return EntryNotFoundError(f"no file or directory {path!r} in this transaction on {name!r}", hint=f"vds ls -R {name}")


def begin_part(doors: Doors, upload: UploadRow, name: str) -> int:
    """Open a part; it counts only after `end_part`."""
    check_part_name(name)

    def work(connection: Connection) -> int:
        get_open_upload(connection, doors.store.id, upload.token)
        return add_part(connection, doors.store.id, upload.id, name)

    return doors.index.run(work)


def check_part_name(name: str) -> None:
    """Check that `name` may name a part.

    Raises:
        InvalidInputError: it is empty, too long, not text, or begins with a dot.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 200 or name.startswith(".") or not name.isprintable():
        raise InvalidInputError(f"{name!r} is not a part name", hint="for example shard-03")


def end_part(doors: Doors, upload: UploadRow, part_id: int, name: str) -> None:
    """Make a part count, in place of an earlier one of its name.

    Raises:
        ConflictError: the transaction ended meanwhile.
    """

    def work(connection: Connection) -> None:
        locked = get_open_upload(connection, doors.store.id, upload.token)
        finish_part(connection, doors.store.id, locked, part_id, name)
        heartbeat(connection, locked.id)

    doors.index.run(work)


def abandon_part(doors: Doors, part_id: int) -> None:
    """Forget a part that did not end; an earlier one of its name still counts."""
    doors.index.run(lambda connection: drop_part(connection, doors.store.id, part_id))


def parts(doors: Doors, upload: UploadRow) -> Sequence[PartRow]:
    """Return the named parts that count."""
    with doors.index.read() as connection:
        return list_parts(connection, doors.store.id, upload.id)


def gather(doors: Doors, opened: Session, expected_parts: int | None) -> Session:
    """Return the session over all rows of the transaction, its own and those of every part.

    Raises:
        ConflictError: two parts differ over a path, or there are not as many parts as expected.
    """

    def work(connection: Connection) -> int:
        store_id, upload_id = doors.store.id, opened.upload.id
        upload = get_open_upload(connection, store_id, opened.upload.token)
        named = list_parts(connection, store_id, upload_id)
        if expected_parts is not None and len(named) != expected_parts:
            names = ", ".join(part.name for part in named[:20]) or "none"
            raise ConflictError(
                f"the transaction has {len(named)} parts, expected {expected_parts}: {names}",
                hint="wait for the missing workers, or commit with the number there is",
            )
        if not named:
            return opened.part_id
        merged = add_part(connection, store_id, upload_id, SCRATCH)
        merge_parts(connection, store_id, [PartRow(opened.part_id, "", 0, 0, upload.created_us), *named], merged)
        return merged

    return replace(opened, part_id=doors.index.run(work))


@dataclass(frozen=True, slots=True)
class TransactionPlan:
    """Flags a transaction's rows; what it read must still be as it was when it began."""

    area: Area
    began_at: int

    def __call__(self, connection: Connection, base: int) -> None:
        """Flag the rows against `base`.

        Raises:
            ConflictError: others changed what this transaction read.
        """
        touched = find_touched(connection, self.area, self.began_at, base, "s.was_read = 1")
        if touched.paths:
            raise ConflictError(
                f"{touched.paths[0]!r} was changed by others after this transaction read it",
                paths=touched.paths,
                versions=touched.versions,
                hint="begin the transaction again",
            )
        mark_changed(connection, self.area, base)

    def request(self, doors: Doors, opened: Session, intent: Intent) -> CommitRequest:
        """Return the commit of these rows."""
        return request(doors, opened, intent, "transaction", on_touched="win", plan=self)
