"""Who wins: what others committed since a plan's base, held against what the operation allows.

| operation | someone since touched a path of ours | someone changed others under our prefix |
|---|---|---|
| `win`: upload, copy, transaction | ours stands (but a path that was read: a conflict) | kept |
| `skip`: upload(overwrite=False) | planned again: theirs stays | kept |
| `exact`: mirror, rollback | planned again: the result equals the source | planned again, and removed |
| `conflict`: revert | a conflict | kept |

A file where the other side has a directory is a conflict in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from vds.errors import ConflictError
from vds.index.plan import Area, distinct_ancestors, prefix_condition, touched_sql
from vds.index.schema import OPEN
from vds.index.sql import text
from vds.index.stores import NamespaceRow
from vds.model.batch import batched

PATHS_SHOWN_MAX = 100

OnTouched = Literal["win", "skip", "exact", "conflict"]
"""What an operation does about a path of its own that someone changed since its base."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operation allows; `prefix` is where an `exact` one must equal its source."""

    on_touched: OnTouched
    prefix: str | None = None


def judge_touched(
    connection: Connection, area: Area, base: int, head: NamespaceRow, rules: Rules
) -> Literal["fine", "recount", "again"]:
    """Hold what was committed in (base, head] against what the operation allows.

    Returns `fine` when it alters nothing, `recount` when ours stands over changes of others, `again` when the plan must be made
    again.

    Raises:
        ConflictError: the operation does not allow it.
    """
    window = {"low": base, "high": head.head}
    versions = range(base + 1, head.head + 1)[:PATHS_SHOWN_MAX]
    ours = _overlap(connection, area, window)
    if ours and (read := _overlap(connection, area, window, "s.was_read = 1")):
        raise ConflictError(
            f"{read[0]!r} was changed by others after this transaction read it",
            paths=read,
            versions=versions,
            hint="begin the transaction again",
        )
    if rules.on_touched == "exact" and find_touched_under(connection, area, base, head.head, rules.prefix or ""):
        return "again"
    if ours and rules.on_touched == "conflict":
        raise ConflictError(
            f"{ours[0]!r} was changed again by a later version", paths=ours, versions=versions, hint=f"vds log {head.name}"
        )
    if ours and rules.on_touched == "skip":
        return "again"
    if clashes := _clashes_with_touched(connection, area, window):
        raise ConflictError(
            f"{clashes[0]!r} is a file on one side and a directory on the other",
            paths=clashes,
            versions=versions,
            hint="upload to another place with target_path",
        )
    if not ours:
        return "fine"
    # Rows that equalled the base are not in the change list: if others changed such a path, ours must win there too.
    unlisted = _overlap(connection, area, window, "s.changed = 0")
    return "again" if unlisted else "recount"


def find_touched_under(connection: Connection, area: Area, low: int, high: int, prefix: str) -> bool:
    """Return whether anyone changed a path at or under `prefix` in the versions (`low`, `high`]; costs those changes at most."""
    under, binds = prefix_condition("t.path", prefix)
    touched = text(f"SELECT 1 FROM ({touched_sql('entry')}) t WHERE {under} LIMIT 1")
    return connection.execute(touched, area.binds(0, low=low, high=high, **binds)).one_or_none() is not None


@dataclass(frozen=True, slots=True)
class Touched:
    """Staged paths that others changed, and the versions that did."""

    paths: list[str]
    versions: list[int]


def find_touched(connection: Connection, area: Area, low: int, high: int, which: str = "1 = 1") -> Touched:
    """Return which staged paths changed in (`low`, `high`], the first hundred, and in which versions."""
    window = {"low": low, "high": high}
    paths = _overlap(connection, area, window, which)
    if not paths:
        return Touched([], [])
    statement = text(
        "SELECT first_version FROM entry WHERE store_id = :s AND namespace_id = :n AND path IN :paths AND first_version > :low"
        " AND first_version <= :high UNION SELECT end_version FROM entry WHERE store_id = :s AND namespace_id = :n"
        " AND path IN :paths AND end_version > :low AND end_version <= :high"
    ).bindparams(bindparam("paths", expanding=True))
    versions = connection.execute(statement, area.binds(0, **window, paths=paths)).scalars()
    return Touched(paths, sorted(versions))


def _overlap(connection: Connection, area: Area, window: dict[str, int], which: str = "1 = 1") -> list[str]:
    """Return staged paths that others changed in the window, the first hundred."""
    return list(
        connection.execute(
            text(
                f"SELECT s.path FROM ({touched_sql('entry')}) t JOIN staged s ON s.store_id = :s AND s.part_id = :p"
                f" AND s.path = t.path WHERE {which} ORDER BY s.path LIMIT {PATHS_SHOWN_MAX}"
            ),
            area.binds(0, **window),
        ).scalars()
    )


def _clashes_with_touched(connection: Connection, area: Area, window: dict[str, int]) -> list[str]:
    """Return paths others wrote in the window that are a directory of ours, or a file where we have a directory.

    What ours removes is no part of the result, and clashes with nothing.
    """
    added = (
        f"SELECT e.path FROM entry e WHERE e.store_id = :s AND e.namespace_id = :n AND e.first_version > :low"
        f" AND e.end_version = {OPEN} AND NOT EXISTS (SELECT 1 FROM staged r WHERE r.store_id = :s AND r.part_id = :p"
        " AND r.path = e.path AND r.kind = 2)"
    )
    theirs = connection.execute(
        text(
            f"SELECT t.path, EXISTS (SELECT 1 FROM staged s WHERE s.store_id = :s AND s.part_id = :p AND s.path >= t.path || '/'"
            f" AND s.path < t.path || '0' AND s.kind = 1 AND s.changed = 1) AS is_above FROM ({added}) t ORDER BY t.path"
        ),
        area.binds(0, **window),
    ).all()
    found = [row.path for row in theirs if row.is_above]
    ours = text(
        "SELECT path FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1 AND changed = 1 AND path IN :paths"
    ).bindparams(bindparam("paths", expanding=True))
    for batch in batched(distinct_ancestors(row.path for row in theirs), 500):
        found.extend(connection.execute(ours, area.binds(0, paths=batch)).scalars())
    return sorted(set(found))[:PATHS_SHOWN_MAX]
