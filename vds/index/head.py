"""The head of a namespace, locked, with all that a commit has to know of it: everybody else who commits waits meanwhile.

So it is asked in one request, and what the lock waited for is seen: on PostgreSQL a statement that follows the lock sees what was
committed before that was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy.engine import Connection

from vds.index.cursors import sent_together
from vds.index.database import now_sql
from vds.index.moments import stamp_sql
from vds.index.plan import Area, touched_sql
from vds.index.schema import OPEN
from vds.index.stores import NAMESPACE_SQL, NamespaceRow, namespace_of, read_namespace


@dataclass(frozen=True, slots=True)
class Head:
    """A namespace whose head is held until the transaction ends.

    Attributes:
        stamp_us: the time of what this transaction records; see `vds.index.moments`.
        file_count: of its newest version, like the two that follow.
        is_base_lost: it can no longer be told what changed since the base, as entries of it were set aside.
        is_start_lost: likewise since the version that the upload began from.
        is_untouched: nothing that was committed since the base has to do with what is staged; False: that is to be looked at.
    """

    namespace: NamespaceRow
    stamp_us: int
    file_count: int
    size_bytes: int
    created_us: int
    is_base_lost: bool
    is_start_lost: bool
    is_untouched: bool


def lock_head(connection: Connection, area: Area, base: int, began_at: int, *, looks: bool) -> Head:
    """Lock the head of a namespace, after all other locks, and return what is to be known of it.

    Args:
        area: with the rows that are staged.
        base: what they were planned against.
        began_at: the version that the upload began from.
        looks: look for what was committed since and touches them; it costs a few lookups for each of the staged rows.

    Raises:
        FormatError: there is no such namespace any more: the index was put back to an earlier state while it was in use.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    binds = area.binds(base, began=began_at, low=base, high=OPEN - 1)
    with sent_together(connection) as batch:
        if not is_sqlite:
            # Those who wait for a row that changes are all woken at each change, in no order. Here each is, when it is its turn.
            batch.add("SELECT pg_advisory_xact_lock(CAST(CAST('namespace'::regclass AS oid) AS int), :n)", binds)
        stamped = batch.add(f"SELECT {now_sql(connection)}" if is_sqlite else stamp_sql(":s"), binds)
        asked = batch.add(_head_sql(is_sqlite, looks), binds)
    if not asked.rows:
        read_namespace(connection, area.namespace_id)  # which says what that means
    [(stamp_us,)], [row] = stamped.rows, asked.rows
    *namespace, file_count, size_bytes, created_us, is_base_lost, is_start_lost, is_touched = row
    return Head(
        namespace_of(namespace),
        int(stamp_us),
        file_count or 0,
        size_bytes or 0,
        created_us or 0,
        bool(is_base_lost),
        bool(is_start_lost),
        looks and not is_touched,
    )


_CHANGED = "s.store_id = :s AND s.part_id = :p AND s.kind = 1 AND s.changed = 1"
_THEIRS = f"e.store_id = :s AND e.namespace_id = :n AND e.first_version > :base AND e.end_version = {OPEN}"

# A path of ours, a file of theirs above one of ours, a file of ours above one of theirs.
_TOUCHED = (
    f"EXISTS (SELECT 1 FROM ({touched_sql('entry')}) t JOIN staged s ON s.store_id = :s AND s.part_id = :p AND s.path = t.path)"
    f" OR EXISTS (SELECT 1 FROM entry e JOIN staged s ON {_CHANGED} AND s.path >= e.path || '/' AND s.path < e.path || '0'"
    f" WHERE {_THEIRS}) OR EXISTS (SELECT 1 FROM staged s WHERE {_CHANGED} AND EXISTS (SELECT 1 FROM entry e WHERE {_THEIRS}"
    " AND e.path >= s.path || '/' AND e.path < s.path || '0'))"
)


@lru_cache(4)
def _head_sql(is_sqlite: bool, looks: bool) -> str:
    # The base is looked at after the entries, or in the same moment, as here: what is set aside later was seen.
    lost = (
        "EXISTS (SELECT 1 FROM version b WHERE b.store_id = :s AND b.namespace_id = :n AND b.number = :{0}"
        " AND b.set_aside_us IS NOT NULL)"
    )
    touched = f"namespace.head > :base AND ({_TOUCHED})" if looks else "NULL"
    columns = (
        f"{NAMESPACE_SQL}, p.file_count, p.size_bytes, p.created_us, {lost.format('base')}, {lost.format('began')}, {touched}"
    )
    parent = "p.store_id = namespace.store_id AND p.namespace_id = namespace.id AND p.number = namespace.head"
    lock = "" if is_sqlite else " FOR UPDATE OF namespace"
    return f"SELECT {columns} FROM namespace LEFT JOIN version p ON {parent} WHERE namespace.id = :n{lock}"
