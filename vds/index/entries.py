"""Reading the entries of a version, and the changes between two.

A version that has expired loses its entries some time later, maybe at this moment. So each function here looks, after it has
read, whether the version is still there, and raises NotFoundError when it is not: a torn list is never taken for a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from vds.index.cursors import BATCH_ROWS, fetch_all, fetch_batches, hold_together, look_up_by_key
from vds.index.expiry import check_kept
from vds.index.plan import Area, prefix_condition, touched_sql
from vds.index.schema import OPEN
from vds.index.sql import text
from vds.model.batch import batched
from vds.model.entry import EntryRow as EntryRow
from vds.model.entry import NumberedRow
from vds.model.path import range_below

_COLUMNS = "e.path, e.digest, e.size_bytes, e.mode, e.modified_ns"
# The sum keeps both databases from ix_entry_first, which would have to be sorted: see `vds.index.plan`.
_LIVE = "e.store_id = :s AND e.namespace_id = :n AND e.first_version + 0 <= :v AND e.end_version > :v"


class ChangeOfRow(NamedTuple):
    """One path that differs between two versions: before and after, at most one of them None."""

    path: str
    before: EntryRow | None
    after: EntryRow | None


class At(NamedTuple):
    """A version of a namespace."""

    store_id: int
    namespace_id: int
    number: int

    def binds(self, **more: Any) -> dict[str, Any]:
        """Return the values every statement here binds."""
        return {"s": self.store_id, "n": self.namespace_id, "v": self.number, **more}


PAGE_ROWS = 4096


def read_page(connection: Connection, at: At, path: str = "", after: str = "", *, limit: int = PAGE_ROWS) -> list[EntryRow]:
    """Return the next entries that are `path` or below it and sort after `after`, at most `limit`, by path.

    A version never changes, so pages read on different connections fit together: nobody holds one while a slow reader thinks.
    """
    under, binds = prefix_condition("e.path", path)
    statement = f"SELECT {_COLUMNS} FROM entry e WHERE {_LIVE} AND {under} AND e.path > :after ORDER BY e.path LIMIT :limit"
    rows = fetch_all(connection, statement, at.binds(after=after, limit=limit, **binds))
    check_kept(connection, *at)
    return list(map(EntryRow._make, rows))


def count_closed(connection: Connection, at: At) -> list[tuple[int, int]]:
    """Return (version that had written them, how many) of the entries that this version replaced or removed, newest first.

    Served by ix_entry_end: it costs the changes, not the files.
    """
    statement = (
        "SELECT first_version, COUNT(*) FROM entry WHERE store_id = :s AND namespace_id = :n AND end_version = :v"
        f" AND end_version < {OPEN} GROUP BY first_version ORDER BY first_version DESC"
    )
    rows = [(int(number), int(count)) for number, count in fetch_all(connection, statement, at.binds())]
    check_kept(connection, *at)
    return rows


def read_entries(connection: Connection, at: At, path: str = "") -> Iterator[EntryRow]:
    """Yield the entries that are `path` or below it, by path, a few thousand at a time; served by pk_entry."""
    look_up_by_key(connection)
    under, binds = prefix_condition("e.path", path)
    rows = connection.execution_options(stream_results=True, yield_per=PAGE_ROWS).execute(
        text(f"SELECT {_COLUMNS} FROM entry e WHERE {_LIVE} AND {under} ORDER BY e.path"), at.binds(**binds)
    )
    for found, digest, size_bytes, mode, modified_ns in rows:
        yield EntryRow(found, bytes(digest), size_bytes, mode, modified_ns)
    check_kept(connection, *at)


def read_placed_entries(connection: Connection, at: At) -> Iterator[NumberedRow]:
    """Yield all entries of a version, by path, each with where its bytes lie; served by pk_entry and pk_object."""
    look_up_by_key(connection)
    for rows in fetch_batches(connection, _PLACED, at.binds()):
        for path, digest, size_bytes, mode, modified_ns, blob_id, offset_bytes in rows:
            yield NumberedRow(EntryRow(path, digest, size_bytes, mode, modified_ns), blob_id, offset_bytes or 0)
    check_kept(connection, *at)


_PLACED = (
    f"SELECT {_COLUMNS}, o.blob_id, o.offset_bytes FROM entry e"
    # One of another length cannot be it: as if there were none.
    " LEFT JOIN object o ON o.store_id = e.store_id AND o.digest = e.digest AND o.length_bytes = e.size_bytes"
    f" WHERE {_LIVE} ORDER BY e.path"
)


ViewRow = tuple[str, bytes, int, int]
"""path, digest, size_bytes, mode"""


def read_view_page(connection: Connection, area: Area, version: int, prefix: str, after: str) -> list[ViewRow]:
    """Return the next entries of a version below `prefix`, by path, behind `after`: at most 4 096, none at the end.

    For those who look at every file of a version. Each page is a statement of its own, a range of pk_entry: who takes hours over
    a version holds no snapshot open. What a version holds never changes, so the pages fit together.
    """
    look_up_by_key(connection)
    first, end = range_below(prefix) if prefix else ("", "")
    binds = area.binds(0, v=version, after=max(after, first), end=end)
    below = " AND e.path < :end" if prefix else ""
    return fetch_all(connection, f"{_VIEW} AND e.path > :after{below} ORDER BY e.path LIMIT {BATCH_ROWS}", binds)


def find_view_row(connection: Connection, area: Area, version: int, path: str) -> ViewRow | None:
    """Return the entry with exactly this path, or None."""
    rows = fetch_all(connection, f"{_VIEW} AND e.path = :path", area.binds(0, v=version, path=path))
    return rows[0] if rows else None


_VIEW = f"SELECT e.path, e.digest, e.size_bytes, e.mode FROM entry e WHERE {_LIVE}"


def find_entries(connection: Connection, at: At, paths: Iterable[str]) -> dict[str, EntryRow]:
    """Return the entries with exactly these paths, 500 a query; those that are not there are left out."""
    statement = text(f"SELECT {_COLUMNS} FROM entry e WHERE {_LIVE} AND e.path IN :paths").bindparams(
        bindparam("paths", expanding=True)
    )
    found: dict[str, EntryRow] = {}
    for batch in batched(paths, 500):
        for path, digest, size_bytes, mode, modified_ns in connection.execute(statement, at.binds(paths=batch)):
            found[path] = EntryRow(path, bytes(digest), size_bytes, mode, modified_ns)
    check_kept(connection, *at)
    return found


def measure(connection: Connection, at: At, path: str = "") -> tuple[int, int]:
    """Return how many entries are at or below `path`, and their bytes."""
    under, binds = prefix_condition("e.path", path)
    row = connection.execute(
        text(f"SELECT COUNT(*), COALESCE(SUM(e.size_bytes), 0) FROM entry e WHERE {_LIVE} AND {under}"), at.binds(**binds)
    ).one()
    check_kept(connection, *at)
    return int(row[0]), int(row[1])


def is_anything_at(connection: Connection, at: At, path: str) -> bool:
    """Return whether `path` is a file or a directory of the version."""
    under, binds = prefix_condition("e.path", path)
    row = connection.execute(text(f"SELECT 1 FROM entry e WHERE {_LIVE} AND {under} LIMIT 1"), at.binds(**binds)).one_or_none()
    check_kept(connection, *at)
    return row is not None


def read_changes_between(connection: Connection, before: At, after: At, path: str = "") -> Iterator[ChangeOfRow]:
    """Yield what differs from `before` to `after`, by path.

    Within one namespace it costs the changes between; across namespaces, a walk through both.
    """
    if before.namespace_id == after.namespace_id:
        yield from _changes_within(connection, before, after, path)
        return
    yield from merge_changes(read_entries(connection, before, path), read_entries(connection, after, path))


def _changes_within(connection: Connection, before: At, after: At, path: str) -> Iterator[ChangeOfRow]:
    low, high = sorted((before.number, after.number))
    under, binds = prefix_condition("t.path", path)
    hold_together(connection)
    rows = connection.execution_options(stream_results=True, yield_per=4096).execute(
        text(
            "SELECT t.path, a.digest, a.size_bytes, a.mode, a.modified_ns, b.digest, b.size_bytes, b.mode, b.modified_ns"
            f" FROM ({touched_sql('entry')}) t"
            " LEFT JOIN entry a ON a.store_id = :s AND a.namespace_id = :n AND a.path = t.path"
            " AND a.first_version <= :v AND a.end_version > :v"
            " LEFT JOIN entry b ON b.store_id = :s AND b.namespace_id = :n AND b.path = t.path"
            " AND b.first_version <= :w AND b.end_version > :w"
            f" WHERE {under} AND (a.path IS NOT NULL OR b.path IS NOT NULL) ORDER BY t.path"
        ),
        before.binds(w=after.number, low=low, high=high, **binds),
    )
    for found, *columns in rows:
        old, new = _row(found, columns[:4]), _row(found, columns[4:])
        if not _is_same(old, new):
            yield ChangeOfRow(found, old, new)
    check_kept(connection, *before)
    check_kept(connection, *after)


def _row(path: str, columns: list[Any]) -> EntryRow | None:
    return None if columns[0] is None else EntryRow(path, bytes(columns[0]), *columns[1:])


def merge_changes(before: Iterable[EntryRow], after: Iterable[EntryRow]) -> Iterator[ChangeOfRow]:
    """Yield what differs between two sorted runs of entries, holding one of each at a time."""
    left, right = iter(before), iter(after)
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.path.encode() < new.path.encode()):
            assert old is not None
            yield ChangeOfRow(old.path, old, None)
            old = next(left, None)
        elif old is None or new.path.encode() < old.path.encode():
            yield ChangeOfRow(new.path, None, new)
            new = next(right, None)
        else:
            if not _is_same(old, new):
                yield ChangeOfRow(old.path, old, new)
            old, new = next(left, None), next(right, None)


def _is_same(old: EntryRow | None, new: EntryRow | None) -> bool:
    if old is None or new is None:
        return old is new
    return old.digest == new.digest and old.size_bytes == new.size_bytes and old.mode == new.mode
