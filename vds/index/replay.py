"""Entries made again out of change lists: the same intervals that the commits made.

A batch is some versions, or a part of one that is large, and costs its rows: what is open at their paths is looked up, and the
intervals are worked out here. An interval in which no version is left is not written. Only who makes an index anew uses this: no
one else writes to the store's rows meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.engine import Connection

from vds.index.cursors import driver, fetch_all, look_up_by_key
from vds.index.database import now_us
from vds.index.schema import OPEN
from vds.model.batch import batched
from vds.model.manifest import ChangeRow

LOOKUP_BATCH = 500

EntryTuple = tuple[int, int, str, int, int, bytes, int, int, int]
"""store_id, namespace_id, path, first_version, end_version, digest, size_bytes, mode, modified_ns: the table's column order."""


class Space(NamedTuple):
    """The entries of one namespace."""

    store_id: int
    namespace_id: int


class Change(NamedTuple):
    """One row of the change list of a version."""

    path: str
    number: int
    row: ChangeRow


class State(NamedTuple):
    """What a path holds, and since which version."""

    first_version: int
    digest: bytes
    size_bytes: int
    mode: int
    modified_ns: int


@dataclass(slots=True)
class Delta:
    """What one version changes."""

    added: int = 0
    modified: int = 0
    removed: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Intervals:
    """What a batch does to the entries.

    Attributes:
        begun: intervals to be added, ended ones too.
        ended: (end, path) of intervals that are there and open.
        deltas: by version.
    """

    begun: list[EntryTuple] = field(default_factory=list)
    ended: list[tuple[int, str]] = field(default_factory=list)
    deltas: dict[int, Delta] = field(default_factory=dict)


def plan_intervals(
    space: Space, changes: Sequence[Change], states: Mapping[str, State], is_kept: Callable[[int, int], bool]
) -> Intervals:
    """Work out what a batch does; a row that says what is so already changes nothing.

    Args:
        space: whose entries.
        changes: sorted by path and version.
        states: what is open at their paths.
        is_kept: whether a version from the first up to, and without, the second is left.
    """
    plan = Intervals()
    for path, rows in groupby(changes, key=lambda change: change.path):
        earlier = states.get(path)
        state = earlier
        for _, number, row in rows:
            if _says_the_same(state, row):
                continue
            delta = plan.deltas.get(number)
            if delta is None:
                delta = plan.deltas[number] = Delta()
            if state is not None:
                delta.size_bytes -= state.size_bytes
                if state is earlier:
                    plan.ended.append((number, path))
                elif is_kept(state.first_version, number):
                    plan.begun.append((*space, path, state.first_version, number, *state[1:]))
            if row.digest is None:
                delta.removed += 1
                state = None
                continue
            if state is None:
                delta.added += 1
            else:
                delta.modified += 1
            delta.size_bytes += row.size_bytes
            state = State(number, row.digest, row.size_bytes, row.mode, row.modified_ns)
        if state is not None and state is not earlier:
            plan.begun.append((*space, path, state.first_version, OPEN, *state[1:]))
    return plan


def _says_the_same(state: State | None, row: ChangeRow) -> bool:
    """Return whether a row changes nothing, as commits decide it: the time of a file is no change."""
    if state is None or row.digest is None:
        return state is None and row.digest is None
    return state.digest == row.digest and state.size_bytes == row.size_bytes and state.mode == row.mode


def first_entries(space: Space, number: int, rows: Iterable[ChangeRow]) -> list[EntryTuple]:
    """Return the entries of a version that is all there is, from its whole list: the short way of `plan_intervals`."""
    store_id, namespace_id = space
    return [
        (store_id, namespace_id, path, number, OPEN, digest, size_bytes, mode, modified_ns)
        for path, digest, size_bytes, mode, modified_ns in rows
        if digest is not None
    ]


def find_states(connection: Connection, space: Space, paths: Iterable[str]) -> dict[str, State]:
    """Return what is open at these paths; served by uq_entry_open."""
    columns = "path, first_version, digest, size_bytes, mode, modified_ns"
    mine = f"store_id = {space.store_id} AND namespace_id = {space.namespace_id} AND end_version = {OPEN}"
    found: dict[str, State] = {}
    look_up_by_key(connection)
    for batch in batched(paths, LOOKUP_BATCH):
        if connection.dialect.name == "sqlite":
            marks = ", ".join(
                "?" * LOOKUP_BATCH
            )  # one text for all, so that it is prepared once; the last path again is harmless
            values: list[Any] = [*batch, *batch[-1:] * (LOOKUP_BATCH - len(batch))]
            rows = fetch_all(connection, f"SELECT {columns} FROM entry WHERE {mine} AND path IN ({marks})", values)
        else:
            rows = fetch_all(connection, f"SELECT {columns} FROM entry WHERE {mine} AND path = ANY(%s::text[])", [batch])
        for path, *state in rows:
            found[path] = State._make(state)
    return found


def end_intervals(connection: Connection, space: Space, ended: Sequence[tuple[int, str]]) -> None:
    """End the open intervals of paths, given as (end, path); served by uq_entry_open."""
    if not ended:
        return
    mine = f"store_id = {space.store_id} AND namespace_id = {space.namespace_id} AND end_version = {OPEN}"
    look_up_by_key(connection)
    with driver(connection) as raw:
        if connection.dialect.name == "sqlite":
            raw.executemany(f"UPDATE entry SET end_version = ? WHERE {mine} AND path = ?", ended)
            return
        # One statement a version and no join: as long as PostgreSQL has not counted the rows, it might join by looking at all.
        by_version: dict[int, list[str]] = {}
        for number, path in ended:
            by_version.setdefault(number, []).append(path)
        for number, paths in by_version.items():
            raw.execute(f"UPDATE entry SET end_version = {number} WHERE {mine} AND path = ANY(%s::text[])", (paths,))


def end_all(connection: Connection, space: Space, number: int) -> None:
    """End every open interval at a version: what follows is not known."""
    connection.execute(
        text(f"UPDATE entry SET end_version = :v WHERE store_id = :s AND namespace_id = :n AND end_version = {OPEN}"),
        {"s": space.store_id, "n": space.namespace_id, "v": number},
    )


def undo_version(connection: Connection, space: Space, number: int) -> int:
    """Take back what was written of the last version, and return how many entries that were; served by ix_entry_end."""
    dropped = drop_begun(connection, space, number)
    connection.execute(
        text(
            f"UPDATE entry SET end_version = {OPEN} WHERE store_id = :s AND namespace_id = :n AND end_version = :v"
            f" AND end_version < {OPEN}"
        ),
        {"s": space.store_id, "n": space.namespace_id, "v": number},
    )
    return dropped


def begin_later(connection: Connection, space: Space, number: int, paths: Sequence[str]) -> None:
    """Let the open intervals of these paths begin at a version, and not one before it."""
    mine = f"store_id = {space.store_id} AND namespace_id = {space.namespace_id} AND first_version + 0 = {number - 1}"
    look_up_by_key(connection)
    with driver(connection) as raw:
        if connection.dialect.name == "sqlite":
            raw.executemany(f"UPDATE entry SET first_version = {number} WHERE {mine} AND path = ?", [(path,) for path in paths])
        else:
            raw.execute(f"UPDATE entry SET first_version = {number} WHERE {mine} AND path = ANY(%s::text[])", (list(paths),))


def drop_begun(connection: Connection, space: Space, number: int) -> int:
    """Delete the intervals that begin with a version, and return how many; served by ix_entry_first."""
    return connection.execute(
        text("DELETE FROM entry WHERE store_id = :s AND namespace_id = :n AND first_version = :v"),
        {"s": space.store_id, "n": space.namespace_id, "v": number},
    ).rowcount


def drop_dead(connection: Connection, space: Space, gaps: Iterable[tuple[int, int]]) -> int:
    """Delete the intervals that begin after the first and end at the second or before, for each of these pairs of versions."""
    dropped = 0
    for low, high in gaps:
        dropped += connection.execute(
            text(
                "DELETE FROM entry WHERE store_id = :s AND namespace_id = :n AND end_version > :low AND end_version <= :high"
                f" AND end_version < {OPEN} AND first_version > :low"
            ),
            {"s": space.store_id, "n": space.namespace_id, "low": low, "high": high},
        ).rowcount
    return dropped


def mark_lost(connection: Connection, space: Space, first: int, last: int) -> None:
    """Say of versions that have not expired that their entries are lost: no read takes what is left of them for all."""
    connection.execute(
        text(
            "UPDATE version SET set_aside_us = :now, collected_us = :now WHERE store_id = :s AND namespace_id = :n"
            " AND number >= :first AND number <= :last AND expired_us IS NULL"
        ),
        {"s": space.store_id, "n": space.namespace_id, "first": first, "last": last, "now": now_us(connection)},
    )
