"""Open a store, or make a new one: the container says which index serves it, and only that index is accepted."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import fresh_ulid, read_record
from vds.engine.doors import Doors
from vds.engine.journal import check_store_fresh, find_outdated, flush_line, stale_index
from vds.errors import BlobExistsError, FormatError, InvalidInputError, NotFoundError
from vds.index.database import Database, now_us
from vds.index.stores import StoreRow, check_revision, find_store, put_store
from vds.model.format import FORMAT, FORMAT_PREFIX, FormatRecord, format_key
from vds.model.moment import moment_of
from vds.model.ref import format_moment
from vds.model.storelog import store_key

EMBEDDED = "embedded"


def find_format(blobs: BlobDriver, *, read_only: bool) -> FormatRecord | None:
    """Return what the container says of itself, or None when it is not a store.

    Raises:
        FormatError: it needs a newer vds.
        CorruptionError: its newest format record cannot be read.
    """
    try:
        found = list(blobs.list_blobs(FORMAT_PREFIX))  # as many as rebuilds and format upgrades: a handful
    except NotFoundError:
        return None  # no such container (yet)
    if not found:
        return None
    newest = found[-1]
    return FormatRecord.decode(read_record(blobs, newest.key, newest.size_bytes), newest.key, read_only=read_only)


def create_store(blobs: BlobDriver, make_index: Callable[[str], Database], address: str) -> FormatRecord:
    """Make the container a store, and return its format record; safe against others doing the same at this moment.

    Args:
        blobs: the container.
        make_index: gives the database for a store's id.
        address: how the store names that index.
    """
    blobs.create_container()
    uid = fresh_ulid()
    index = make_index(uid)
    from vds.index.migrate import upgrade  # here, since alembic takes a quarter of every start-up

    # The tables first, then the container's record: a crash between them leaves tables nobody refers to, and one after both
    # leaves a store that its own index adopts when it is next opened.
    try:
        upgrade(index)
        with index.read() as connection:
            created_us = now_us(connection)
    finally:
        index.close()  # whoever opens the store makes a door of its own
    record = FormatRecord(
        store=uid,
        format=FORMAT,
        min_reader=FORMAT,
        min_writer=FORMAT,
        min_collector=FORMAT,
        incarnation=fresh_ulid(),
        index=address,
        host=socket.gethostname() if address == EMBEDDED else "",
        created_at=format_moment(moment_of(created_us)),
    )
    try:
        blobs.put_if_absent(format_key(1), record.encode())
    except BlobExistsError:
        found = find_format(blobs, read_only=False)
        assert found is not None
        record = found  # another process made the store at this moment: it is theirs, and ours to open
    return record


def open_doors(blobs: BlobDriver, index: Database, record: FormatRecord, address: str, *, read_only: bool) -> Doors:
    """Open a store with the index that serves it; a writer also flushes what a crash left and refuses a stale index.

    Raises:
        FormatError: the index has another revision, is not this store's, or is older than it.
        UnavailableError: the index or the container does not answer.
    """
    try:
        check_revision(index)
        doors = Doors(blobs, index, _get_store(blobs, index, record, address, read_only=read_only), read_only)
        if doors.store.incarnation != record.incarnation:
            raise stale_index(f"its incarnation is {doors.store.incarnation}, the store's is {record.incarnation}")
        if not read_only:
            flush_line(doors)
            check_store_fresh(doors)
            doors = replace(doors, outdated=find_outdated(doors))
    except BaseException:
        index.close()
        raise
    return doors


def _get_store(blobs: BlobDriver, index: Database, record: FormatRecord, address: str, *, read_only: bool) -> StoreRow:
    with index.read() as connection:
        row = find_store(connection, record.store)
    if row is not None:
        return row
    _check_address(record, address)
    # The store's own index, but without it: made a moment ago, or lost since. Only an unused store tells them apart.
    if read_only or blobs.find_blob(store_key(1)) is not None:
        raise FormatError(
            f"the index at {index.address} does not know store {record.store}",
            hint="connect with the index that serves the store, or restore it from a backup",
        )
    return index.run(lambda connection: put_store(connection, record.store, record.incarnation))


def _check_address(record: FormatRecord, address: str) -> None:
    """Check that `address` is the index that serves the store: one store has one index.

    Raises:
        InvalidInputError: it is another one.
    """
    if address != record.index:
        raise other_index(record, address)


def other_index(record: FormatRecord, address: str) -> InvalidInputError:
    """Return the error for an index that is not the one which serves the store."""
    where = f"the embedded one on host {record.host!r}" if record.index == EMBEDDED else record.index
    return InvalidInputError(
        f"this store is served by another index: {where}, not {address}", hint="leave index out: the store names its own"
    )


def not_a_store(url: str) -> NotFoundError:
    """Return the error for a container that is not a store."""
    return NotFoundError(f"{url} is not a vds store", hint=f"vds init {url}")
