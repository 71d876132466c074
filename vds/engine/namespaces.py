"""Find a namespace, or make it on its first write."""

from __future__ import annotations

from vds.blobs.objects import fresh_ulid, read_record
from vds.engine.doors import Doors
from vds.engine.journal import AddedRecord, add_store_record, check_serving
from vds.errors import BlobExistsError, ConflictError, NotFoundError
from vds.index.database import Connection
from vds.index.stores import NamespaceRow, add_namespace, find_namespace, lock_store
from vds.model.claim import NamespaceClaim


def get_namespace(doors: Doors, name: str) -> NamespaceRow:
    """Return the namespace called `name`.

    Raises:
        NotFoundError: there is none.
        FormatError: the index was replaced by another one.
    """
    with doors.index.read() as connection:
        row = find_namespace(connection, doors.store.id, name)
    if row is None:
        check_serving(doors)
        raise NotFoundError(f"no namespace {name!r} in this store", hint="vds ls")
    return row


def ensure_namespace(doors: Doors, name: str) -> tuple[NamespaceRow, AddedRecord | None]:
    """Return the namespace called `name`, made if it is not there, and the record of its making, for publishing.

    One name has one id for ever: it is claimed in the container before the index learns of it, so that two indexes, or a crash
    in between, cannot give it two.

    Raises:
        ConflictError: a namespace exists whose name differs only in case.
        FormatError: the index was replaced by another one.
    """
    with doors.index.read() as connection:
        row = find_namespace(connection, doors.store.id, name)
    record = None
    if row is None:
        check_serving(doors)
        uid = _claim_name(doors, name)
        row, record = doors.index.run(lambda connection: _add(connection, doors, name, uid))
    if row.name != name:
        raise ConflictError(f"namespace {row.name!r} exists, {name!r} differs from it only in case", hint=f"write to {row.name}")
    return row, record


def _claim_name(doors: Doors, name: str) -> str:
    """Return the id that the container holds for this name, claiming a new one if it holds none."""
    claim = NamespaceClaim(fresh_ulid(), name)
    try:
        doors.blobs.put_if_absent(claim.key, claim.encode())
    except BlobExistsError:
        claim = NamespaceClaim.decode(read_record(doors.blobs, claim.key), claim.key)
        if claim.name != name:
            raise ConflictError(
                f"namespace {claim.name!r} exists, {name!r} differs from it only in case", hint=f"write to {claim.name}"
            ) from None
    return claim.namespace


def _add(connection: Connection, doors: Doors, name: str, uid: str) -> tuple[NamespaceRow, AddedRecord | None]:
    lock_store(connection, doors.store.id)  # of two makers of one name, the second waits here and then sees the first one's row
    row = find_namespace(connection, doors.store.id, name)
    if row is not None:
        return row, None
    record = add_store_record(connection, doors.store, "namespace-created", {"namespace": uid, "name": name})
    # The record's own time, so that an index made from the container says the same.
    return add_namespace(connection, doors.store.id, uid, name, record.created_us), record
