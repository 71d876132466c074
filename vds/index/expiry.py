"""Versions whose names go: which there are, what holds them, and marking them.

The row of an expired version stays, and says since when; what only such versions held is set aside and later collected by
`vds.index.uses` and `vds.index.collect`. The newest visible version never expires, nor anything after it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from vds.errors import FormatError, NotFoundError
from vds.index.datasets import list_datasets, list_tags
from vds.index.gaps import lost_error
from vds.index.stores import NamespaceRow
from vds.model.batch import batched
from vds.model.moment import moment_of
from vds.model.ref import format_moment
from vds.model.retention import Dated

NUMBERS_BATCH = 1000


def list_kept(connection: Connection, namespace: NamespaceRow) -> list[Dated]:
    """Return the visible versions that have not expired, ascending; served by pk_version."""
    rows = connection.execute(
        text(
            "SELECT number, created_us FROM version WHERE store_id = :s AND namespace_id = :n AND number <= :visible"
            " AND expired_us IS NULL ORDER BY number"
        ),
        {"s": namespace.store_id, "n": namespace.id, "visible": namespace.visible},
    )
    return [Dated(row.number, moment_of(row.created_us)) for row in rows]


def list_released(connection: Connection, namespace: NamespaceRow) -> set[int]:
    """Return the versions that a release of any dataset names; served by ix_release_namespace."""
    rows = connection.execute(
        text("SELECT DISTINCT version FROM release WHERE store_id = :s AND namespace_id = :n"),
        {"s": namespace.store_id, "n": namespace.id},
    )
    return set(rows.scalars())


def list_tagged(connection: Connection, namespace: NamespaceRow) -> set[int]:
    """Return the versions that a tag of any dataset shows now, visible or about to be."""
    shown: set[int] = set()
    for dataset, _ in list(list_datasets(connection, namespace.store_id)):
        releases = sorted(set(list_tags(connection, dataset, up_to=dataset.head).values()))
        if releases:
            rows = connection.execute(_VERSIONS_OF, {"s": namespace.store_id, "d": dataset.id, "n": namespace.id, "r": releases})
            shown.update(rows.scalars())
    return shown


_VERSIONS_OF = text(
    "SELECT version FROM release WHERE store_id = :s AND dataset_id = :d AND namespace_id = :n AND number IN :r"
).bindparams(bindparam("r", expanding=True))


@dataclass(frozen=True, slots=True)
class Holders:
    """What keeps versions from expiring: `released` those that a policy may not take, `tagged` those that a tag shows."""

    released: Collection[int]
    tagged: Collection[int]


def lock_kept(connection: Connection, namespace: NamespaceRow, numbers: Sequence[int]) -> list[int]:
    """Lock the rows of these versions and return those that have not expired, ascending.

    Whoever registers one of them holds its row, shared: what holds a version is to be looked at after this, in a new statement.
    """
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    statement = text(
        "SELECT number FROM version WHERE store_id = :s AND namespace_id = :n AND number IN :numbers AND expired_us IS NULL"
        f" ORDER BY number{lock}"
    ).bindparams(bindparam("numbers", expanding=True))
    found: list[int] = []
    for batch in batched(sorted(numbers), NUMBERS_BATCH):
        rows = connection.execute(statement, {"s": namespace.store_id, "n": namespace.id, "numbers": batch})
        found.extend(rows.scalars())
    return found


def mark_expired(connection: Connection, namespace: NamespaceRow, numbers: Sequence[int], expired_us: int) -> None:
    """Say that these versions have expired; their rows are locked."""
    statement = text(
        "UPDATE version SET expired_us = :t WHERE store_id = :s AND namespace_id = :n AND number IN :numbers"
        " AND expired_us IS NULL"
    ).bindparams(bindparam("numbers", expanding=True))
    for batch in batched(numbers, NUMBERS_BATCH):
        connection.execute(statement, {"t": expired_us, "s": namespace.store_id, "n": namespace.id, "numbers": batch})


def check_kept(connection: Connection, store_id: int, namespace_id: int, number: int) -> None:
    """Check that a version is there and has not expired; served by pk_version.

    To be called after its entries were read, as they may be going meanwhile.

    Raises:
        NotFoundError: it has expired.
        FormatError: the index had it, and has it no more: it was put back to an earlier state while it was in use.
        CorruptionError: the container did not say what is in it when the index was made from it.
    """
    if number == 0:
        return
    row = connection.execute(
        text("SELECT expired_us, collected_us FROM version WHERE store_id = :s AND namespace_id = :n AND number = :v"),
        {"s": store_id, "n": namespace_id, "v": number},
    ).one_or_none()
    if row is None:
        raise FormatError(
            f"this index is older than its store: it knew version {number} and does not now", hint="vds index rebuild"
        )
    if row.expired_us is not None:
        name = connection.execute(text("SELECT name FROM namespace WHERE id = :n"), {"n": namespace_id}).scalar_one()
        raise expired_error(name, number, row.expired_us)
    if row.collected_us is not None:
        raise lost_error(connection, store_id, namespace_id, number)


def expired_error(name: str, number: int, expired_us: int) -> NotFoundError:
    """Return the error for a version that has expired."""
    return NotFoundError(
        f"version {number} of {name!r} was expired on {format_moment(moment_of(expired_us))}",
        hint=f"vds log {name}; vds gc --undo brings it back as long as nothing of it was deleted",
    )


def hold_kept(connection: Connection, store_id: int, namespace_id: int, number: int) -> None:
    """Lock a version against its expiry, shared, until the transaction ends.

    Raises:
        NotFoundError: it has expired.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(
            text("SELECT number FROM version WHERE store_id = :s AND namespace_id = :n AND number = :v FOR SHARE"),
            {"s": store_id, "n": namespace_id, "v": number},
        )
    check_kept(connection, store_id, namespace_id, number)  # a new statement: it sees what the lock waited for
