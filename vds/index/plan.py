"""What a commit would change, worked out against one base and outside every lock.

Each function here reads the namespace as it was at version `base`, which no later commit alters, and writes only the staged rows
of one part. A plan can therefore be made again, against a newer base, as often as others get in first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import TextClause, bindparam
from sqlalchemy.engine import Connection

from vds.index.cursors import fetch_batches, look_up_by_key
from vds.index.expiry import check_kept
from vds.index.schema import OPEN
from vds.index.sql import text
from vds.model.batch import batched
from vds.model.manifest import ChangeRow
from vds.model.path import PATH_BYTES_MAX, ancestors, entry_path, range_below

CLASHES_SHOWN_MAX = 100

# The sum keeps both databases from walking ix_entry_first, where all of a large first version is "not after the base".
_LIVE = "e.store_id = :s AND e.namespace_id = :n AND e.first_version + 0 <= :base AND e.end_version > :base"

# A subquery a row: as an anti-join PostgreSQL, which knows nothing yet of these rows, might look at all of them for each. Without
# a LIMIT: for the first row of many it would walk through a shorter index. Paths are unique, so there is one row at most.
_NOT_REMOVED = "(SELECT 1 FROM staged r WHERE r.store_id = :s AND r.part_id = :p AND r.path = e.path AND r.kind = 2) IS NULL"


@dataclass(frozen=True, slots=True)
class Area:
    """The rows a plan works on: one part, against one namespace."""

    store_id: int
    namespace_id: int
    part_id: int

    def binds(self, base: int, **more: Any) -> dict[str, Any]:
        """Return the values every statement here binds."""
        return {"s": self.store_id, "n": self.namespace_id, "p": self.part_id, "base": base, **more}


@dataclass(frozen=True, slots=True)
class Counts:
    """What the changed rows of a part do to the version they are applied to."""

    added: int
    modified: int
    removed: int
    size_delta_bytes: int

    @property
    def total(self) -> int:
        """How many paths change."""
        return self.added + self.modified + self.removed


def mark_changed(connection: Connection, area: Area, base: int, *, keep_existing: bool = False) -> None:
    """Flag the staged rows that differ from `base`; with `keep_existing`, only those whose path is not there at all.

    Rows are staged as changed, and only those that are not are written again: none in a first upload.
    """
    look_up_by_key(connection)
    same = "" if keep_existing else " AND e.digest = staged.digest AND e.size_bytes = staged.size_bytes AND e.mode = staged.mode"
    found = f"(SELECT 1 FROM entry e WHERE {_LIVE} AND e.path = staged.path"
    connection.execute(
        text(
            "UPDATE staged SET changed = 1 - changed WHERE store_id = :s AND part_id = :p AND changed <> CASE"
            f" WHEN kind = 1 THEN CASE WHEN {found}{same}) IS NULL THEN 1 ELSE 0 END"
            f" ELSE CASE WHEN {found}) IS NULL THEN 0 ELSE 1 END END"
        ),
        area.binds(base),
    )


def stage_removals(connection: Connection, area: Area, base: int, prefix: str) -> None:
    """Stage the removal of every path of `base` under `prefix` that the part does not write; earlier removals are dropped."""
    look_up_by_key(connection)
    connection.execute(text("DELETE FROM staged WHERE store_id = :s AND part_id = :p AND kind = 2"), area.binds(base))
    under, binds = prefix_condition("e.path", prefix)
    connection.execute(
        text(
            "INSERT INTO staged SELECT e.store_id, :p, e.path, 2, 1, 0, NULL, 0, 0, 0 FROM entry e"
            f" WHERE {_LIVE} AND {under} AND (SELECT 1 FROM staged t WHERE t.store_id = :s AND t.part_id = :p"
            " AND t.path = e.path) IS NULL"
        ),
        area.binds(base, **binds),
    )


def stage_restore(connection: Connection, area: Area, base: int, target: int, prefix: str) -> None:
    """Stage what turns `base` into `target` under `prefix`, in place of all rows of the part; costs the changes between."""
    connection.execute(text("DELETE FROM staged WHERE store_id = :s AND part_id = :p"), area.binds(base))
    low, high = sorted((base, target))
    under, binds = prefix_condition("t.path", prefix)
    touched = touched_sql("entry")
    connection.execute(
        text(
            "INSERT INTO staged SELECT :s, :p, t.path, CASE WHEN w.path IS NULL THEN 2 ELSE 1 END, 1, 0, w.digest,"
            " COALESCE(w.size_bytes, 0), COALESCE(w.mode, 0), COALESCE(w.modified_ns, 0)"
            f" FROM ({touched}) t"
            " LEFT JOIN entry w ON w.store_id = :s AND w.namespace_id = :n AND w.path = t.path"
            " AND w.first_version <= :target AND w.end_version > :target"
            " LEFT JOIN entry e ON e.store_id = :s AND e.namespace_id = :n AND e.path = t.path"
            " AND e.first_version <= :base AND e.end_version > :base"
            f" WHERE {under} AND (w.path IS NOT NULL OR e.path IS NOT NULL)"
            " AND (w.path IS NULL OR e.path IS NULL OR w.digest <> e.digest OR w.size_bytes <> e.size_bytes OR w.mode <> e.mode)"
        ),
        area.binds(base, target=target, low=low, high=high, **binds),
    )
    check_kept(connection, area.store_id, area.namespace_id, target)


def stage_copy(connection: Connection, area: Area, source: SourceView, target: str) -> None:
    """Stage every entry of a version under a path, as seen from there, below `target`."""
    under, binds = prefix_condition("e.path", source.path)
    # substr counts characters, and so does Python's len.
    cut = len(source.path) + 2 if source.path else 1
    relative = f"CASE WHEN e.path = :src THEN :leaf ELSE substr(e.path, {cut}) END" if source.path else "e.path"
    placed = f"CAST(:target AS TEXT) || {relative}" if target else relative
    connection.execute(
        text(
            f"INSERT INTO staged SELECT e.store_id, :p, {placed}, 1, 1, 0, e.digest, e.size_bytes, e.mode, e.modified_ns"
            " FROM entry e WHERE e.store_id = :s AND e.namespace_id = :sn AND e.first_version + 0 <= :v AND e.end_version > :v"
            f" AND {under}"
        ),
        area.binds(
            0,
            sn=source.namespace_id,
            v=source.number,
            src=source.path,
            leaf=source.path.rpartition("/")[2],
            target=target + "/",
            **binds,
        ),
    )
    check_kept(connection, area.store_id, source.namespace_id, source.number)
    check_placed_paths(connection, area)


def check_placed_paths(connection: Connection, area: Area) -> None:
    """Check the names that a copy or move made by putting a path below another one.

    Each half was checked by itself, so only the whole can be too long; a path of 1 024 bytes has at least 256 characters.

    Raises:
        InvalidInputError: one is longer than a path may be; the caller's transaction is undone.
    """
    long_paths = connection.execute(
        text("SELECT path FROM staged WHERE store_id = :s AND part_id = :p AND length(path) > :limit ORDER BY path"),
        area.binds(0, limit=PATH_BYTES_MAX // 4),
    )
    for path in long_paths.scalars():
        entry_path(path)


@dataclass(frozen=True, slots=True)
class SourceView:
    """A version of any namespace, seen from a path."""

    namespace_id: int
    number: int
    path: str


def count_changes(connection: Connection, area: Area, base: int) -> Counts:
    """Count what the flagged rows change against `base`."""
    look_up_by_key(connection)
    row = connection.execute(
        text(
            "SELECT COALESCE(SUM(CASE WHEN s.kind = 1 AND e.path IS NULL THEN 1 ELSE 0 END), 0),"
            " COALESCE(SUM(CASE WHEN s.kind = 1 AND e.path IS NOT NULL THEN 1 ELSE 0 END), 0),"
            " COALESCE(SUM(CASE WHEN s.kind = 2 THEN 1 ELSE 0 END), 0),"
            " COALESCE(SUM(s.size_bytes), 0) - COALESCE(SUM(e.size_bytes), 0)"
            f" FROM staged s LEFT JOIN entry e ON {_LIVE} AND e.path = s.path"
            " WHERE s.store_id = :s AND s.part_id = :p AND s.changed = 1"
        ),
        area.binds(base),
    ).one()
    return Counts(int(row[0]), int(row[1]), int(row[2]), int(row[3]))


def read_changes(connection: Connection, area: Area, count: int | None = None) -> Iterator[ChangeRow]:
    """Yield the flagged rows by path, a few thousand at a time: the change list of the version to be; `count` of them."""
    statement = (  # the row of a removal has no digest, and zeros for the rest
        "SELECT path, digest, size_bytes, mode, modified_ns FROM staged"
        " WHERE store_id = :s AND part_id = :p AND changed = 1 ORDER BY path"
    )
    for rows in fetch_batches(connection, statement, area.binds(0), rows_max=count):
        yield from map(ChangeRow._make, rows)


@dataclass(frozen=True, slots=True)
class Left:
    """What a plan leaves as it was, and what it takes away.

    Attributes:
        skipped: how many written paths stay as the base has them.
        differing: those of them whose contents differ from what was to be written.
        removed: paths that go; the first ten thousand.
    """

    skipped: int = 0
    differing: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def find_left(connection: Connection, area: Area, base: int, *, differing: bool) -> Left:
    """Return what the flagged rows of a part leave alone and take away; `differing` asks for those paths too."""
    skipped = connection.execute(
        text("SELECT COUNT(*) FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1 AND changed = 0"), area.binds(base)
    ).scalar_one()
    removed = connection.execute(
        text(
            "SELECT path FROM staged WHERE store_id = :s AND part_id = :p AND kind = 2 AND changed = 1 ORDER BY path LIMIT 10000"
        ),
        area.binds(base),
    )
    return Left(int(skipped), tuple(_find_differing(connection, area, base)) if differing else (), tuple(removed.scalars()))


def _find_differing(connection: Connection, area: Area, base: int) -> Iterator[str]:
    look_up_by_key(connection)
    yield from connection.execute(
        text(
            f"SELECT s.path FROM staged s LEFT JOIN entry e ON {_LIVE} AND e.path = s.path"
            " WHERE s.store_id = :s AND s.part_id = :p AND s.kind = 1 AND s.changed = 0"
            " AND (e.digest <> s.digest OR e.mode <> s.mode) ORDER BY s.path"
        ),
        area.binds(base),
    ).scalars()


def find_clashes(connection: Connection, area: Area, base: int, count: int | None = None) -> list[str]:
    """Return paths that would be a file in one place and a directory in another: `a` against `a/b`.

    Looks at what the part writes, `count` paths, against itself and against what `base` holds and the part does not remove.
    """
    look_up_by_key(connection)
    found = _find_files_above(connection, area, base, _staged_paths(connection, area, count))
    return sorted({*found, *(_find_files_over(connection, area, base) if base else ())})


def _find_files_over(connection: Connection, area: Area, base: int) -> Iterator[str]:
    """Yield staged files that are directories of `base`."""
    yield from connection.execute(
        text(
            "SELECT s.path FROM staged s WHERE s.store_id = :s AND s.part_id = :p AND s.kind = 1 AND s.changed = 1"
            f" AND (SELECT 1 FROM entry e WHERE {_LIVE} AND e.path >= s.path || '/' AND e.path < s.path || '0'"
            f" AND {_NOT_REMOVED} ORDER BY e.path LIMIT 1) = 1 ORDER BY s.path LIMIT {CLASHES_SHOWN_MAX}"
        ),
        area.binds(base),
    ).scalars()


def _staged_paths(connection: Connection, area: Area, count: int | None) -> Iterator[str]:
    statement = "SELECT path FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1 AND changed = 1 ORDER BY path"
    for rows in fetch_batches(connection, statement, area.binds(0), rows_max=count):
        yield from (path for (path,) in rows)


def _find_files_above(connection: Connection, area: Area, base: int, paths: Iterable[str]) -> list[str]:
    """Return the directories of `paths` that are files: staged ones, or live ones that are not being removed."""
    statement = _files_among(connection)
    found: list[str] = []
    for batch in batched(distinct_ancestors(paths), 500):
        found.extend(connection.execute(statement, area.binds(base, paths=batch)).scalars())
        if len(found) >= CLASHES_SHOWN_MAX:
            break
    return found


def _files_among(connection: Connection) -> TextClause:
    """Return the SELECT of those `:paths` that are files: staged, or live and not being removed."""
    if connection.dialect.name == "sqlite":
        return text(
            "SELECT path FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1 AND path IN :paths"
            f" UNION SELECT e.path FROM entry e WHERE {_LIVE} AND e.path IN :paths AND {_NOT_REMOVED}"
        ).bindparams(bindparam("paths", expanding=True))
    return text(  # a list of hundreds looks dearer to PostgreSQL than all entries, as long as it does not know how many those are
        'SELECT a.path FROM (SELECT path COLLATE "C" AS path FROM unnest(CAST(:paths AS TEXT[])) AS path) a WHERE'
        " (SELECT 1 FROM staged t WHERE t.store_id = :s AND t.part_id = :p AND t.kind = 1 AND t.path = a.path) = 1"
        f" OR (SELECT 1 FROM entry e WHERE {_LIVE} AND e.path = a.path AND {_NOT_REMOVED}) = 1"
    )


def distinct_ancestors(paths: Iterable[str]) -> Iterator[str]:
    """Yield each directory above sorted `paths` once: all that lies below one directory comes in one run."""
    previous: list[str] = []
    directory = ""
    for path in paths:
        if directory == (directory := path.rpartition("/")[0]):
            continue  # most files lie beside the one before
        above = ancestors(path)
        yield from (directory for depth, directory in enumerate(above) if previous[depth : depth + 1] != [directory])
        previous = above


def touched_sql(table: str) -> str:
    """Return the SELECT of paths whose state changed in (`:low`, `:high`]; served by ix_entry_first and ix_entry_end."""
    return (
        f"SELECT path FROM {table} WHERE store_id = :s AND namespace_id = :n AND first_version > :low AND first_version <= :high"
        f" UNION SELECT path FROM {table} WHERE store_id = :s AND namespace_id = :n AND end_version > :low"
        f" AND end_version <= :high AND end_version < {OPEN}"
    )


def prefix_condition(column: str, prefix: str) -> tuple[str, dict[str, str]]:
    """Return the condition that `column` is `prefix` or lies below it, and its values; a range, so that an index serves it.

    One range, and what does not belong left out of it: `raw-2` lies between `raw` and `raw/a`. Of a path or a range SQLite, and
    PostgreSQL where it looks up by key, would go through the whole namespace.
    """
    if not prefix:
        return "1 = 1", {}
    first, end = range_below(prefix)
    return (
        f"({column} >= :pfx AND {column} < :pfx_end AND ({column} = :pfx OR {column} >= :pfx_first))",
        {"pfx": prefix, "pfx_first": first, "pfx_end": end},
    )
