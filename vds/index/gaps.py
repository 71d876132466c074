"""What an index does not know because the container it was made from did not say it any more.

A gap is not an error of the index: it is what a rebuild found missing. It stands until another rebuild finds the container whole.
Nothing follows a gap at the end of a line, or a history would get a second continuation, and nothing is collected while there is
any: what the lost records name would look unused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.engine import Connection, Row

from vds.errors import CorruptionError
from vds.index.schema import OPEN
from vds.index.sql import text
from vds.index.stores import NamespaceRow

LostKind = Literal["journal", "changes", "events", "log"]


@dataclass(frozen=True, slots=True)
class LostRow:
    """One gap.

    Attributes:
        key: of the blob that is gone or damaged.
        kind: what went with it: `journal` versions, `changes` the entries of versions, `events` of a dataset, `log` records.
        owner_id: the namespace or dataset; 0 for the store.
        first_number: of what is lost.
        last_number: likewise; `OPEN` when all that follows is.
    """

    key: str
    kind: LostKind
    owner_id: int
    first_number: int
    last_number: int
    detail: str


def put_gaps(connection: Connection, store_id: int, rows: Sequence[LostRow], found_us: int) -> None:
    """Note gaps; again is harmless."""
    if rows:
        connection.execute(
            text(
                "INSERT INTO gap (store_id, key, kind, owner_id, first_number, last_number, detail, found_us)"
                " VALUES (:s, :key, :kind, :owner, :first, :last, :detail, :now) ON CONFLICT DO NOTHING"
            ),
            [
                {
                    "s": store_id,
                    "key": row.key,
                    "kind": row.kind,
                    "owner": row.owner_id,
                    "first": row.first_number,
                    "last": row.last_number,
                    "detail": row.detail,
                    "now": found_us,
                }
                for row in rows
            ],
        )


def list_gaps(connection: Connection, store_id: int) -> list[LostRow]:
    """Return all gaps, by key."""
    rows = connection.execute(text("SELECT * FROM gap WHERE store_id = :s ORDER BY key"), {"s": store_id})
    return [_lost(row) for row in rows]


def check_no_gap(connection: Connection, store_id: int) -> None:
    """Check that nothing is lost: before anything is taken away because nobody names it.

    Raises:
        CorruptionError: something is.
    """
    row = connection.execute(text("SELECT * FROM gap WHERE store_id = :s ORDER BY key LIMIT 1"), {"s": store_id}).one_or_none()
    if row is not None:
        raise CorruptionError(f"the index was made from a container with gaps, {row.key!r} is one: {row.detail}", hint=HINT)


def check_line_whole(connection: Connection, namespace: NamespaceRow) -> None:
    """Check that a namespace may be written to: that its line does not end in a gap.

    Raises:
        CorruptionError: it does, or what its head holds is lost.
    """
    row = _find_last(connection, namespace.store_id, namespace.id, ("journal", "changes"), namespace.head)
    if row is not None:
        raise CorruptionError(
            f"nothing can be written to namespace {namespace.name!r}, whose history has a gap at version {row.first_number}:"
            f" {row.detail}",
            hint=HINT,
        )


def check_events_whole(connection: Connection, store_id: int, dataset_id: int, name: str) -> None:
    """Check that a dataset may be written to.

    Raises:
        CorruptionError: its events end in a gap.
    """
    row = _find_last(connection, store_id, dataset_id, ("events",), 0)
    if row is not None:
        raise CorruptionError(
            f"nothing can be recorded for dataset {name!r}, whose history has a gap at event {row.first_number}: {row.detail}",
            hint=HINT,
        )


def lost_error(connection: Connection, store_id: int, namespace_id: int, number: int) -> CorruptionError:
    """Return the error for a version whose entries are lost."""
    row = connection.execute(
        text(
            "SELECT n.name, g.detail FROM namespace n LEFT JOIN gap g ON g.store_id = n.store_id AND g.owner_id = n.id"
            " AND g.kind = 'changes' AND g.first_number <= :v AND g.last_number >= :v WHERE n.id = :n ORDER BY g.first_number"
        ),
        {"n": namespace_id, "v": number},
    ).first()
    name, detail = (row.name, row.detail or "what it holds is not known") if row is not None else ("", "")
    return CorruptionError(f"the list of files of version {number} of {name!r} is lost: {detail}", hint=HINT)


def _find_last(connection: Connection, store_id: int, owner_id: int, kinds: Sequence[str], head: int) -> LostRow | None:
    rows = connection.execute(
        text("SELECT * FROM gap WHERE store_id = :s AND owner_id = :o AND last_number >= :head ORDER BY first_number"),
        {"s": store_id, "o": owner_id, "head": max(head, 1)},
    )
    return next((_lost(row) for row in rows if row.kind in kinds), None)


def _lost(row: Row[Any]) -> LostRow:
    return LostRow(row.key, row.kind, row.owner_id, row.first_number, row.last_number, row.detail)


def is_endless(row: LostRow) -> bool:
    """Return whether all that follows is lost."""
    return row.last_number == OPEN


HINT = "bring that blob back from a copy or an undelete, then run: vds index rebuild"
