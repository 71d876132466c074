"""How often each content is used: what collection counts, so that it costs what changed and not what is there.

`object_use` holds, for each content, how many rows of `entry` have it, among those that begin in a version that was counted
(`counted`, one number a namespace). Writers know nothing of it. A row comes into `entry` by a commit, once, and leaves it here
alone, when no version that is left needs it; both are counted in the transaction that sees them. What is in none of the counted
rows, and in none that came since, is used by nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import Connection

from vds.errors import CorruptionError
from vds.index.database import now_us
from vds.index.schema import OPEN

SLICE_ROWS = 100_000
"""How many entries one transaction counts, more only where a single version has more: on SQLite others wait for it."""

_ENTRY = "store_id, namespace_id, path, first_version, end_version, digest, size_bytes, mode, modified_ns"


@dataclass(frozen=True, slots=True)
class Gap:
    """Two neighbours among the versions that are left, with expired ones between them.

    An entry that begins after `low` and ends at `high` or before is in none that is left. `low` 0 is the empty version.
    """

    namespace_id: int
    low: int
    high: int


def plan_gaps(namespace_id: int, kept: Sequence[int], gone: Collection[int]) -> list[Gap]:
    """Return the gaps that the versions `gone` leave between those `kept`, which are ascending and end with the head."""
    gaps = []
    left = sorted(gone)
    low, position = 0, 0
    for high in kept:
        before = position
        while position < len(left) and left[position] < high:
            position += 1
        if position > before:
            gaps.append(Gap(namespace_id, low, high))
        low = high
    return gaps


def list_kept_numbers(connection: Connection, store_id: int, namespace_id: int) -> list[int]:
    """Return every version that has not expired, visible or not, ascending; served by pk_version."""
    rows = connection.execute(
        text("SELECT number FROM version WHERE store_id = :s AND namespace_id = :n AND expired_us IS NULL ORDER BY number"),
        {"s": store_id, "n": namespace_id},
    )
    return list(rows.scalars())


def list_uncounted(connection: Connection, store_id: int) -> list[tuple[int, int, int]]:
    """Return (namespace id, counted up to, head) of each namespace with versions that were not counted, by id."""
    rows = connection.execute(
        text(
            "SELECT n.id, COALESCE(c.number, 0) AS number, n.head FROM namespace n LEFT JOIN counted c"
            " ON c.store_id = n.store_id AND c.namespace_id = n.id"
            " WHERE n.store_id = :s AND n.head > COALESCE(c.number, 0) ORDER BY n.id"
        ),
        {"s": store_id},
    )
    return [(row.id, row.number, row.head) for row in rows]


def find_slice_end(connection: Connection, store_id: int, namespace_id: int, low: int, high: int) -> int:
    """Return up to which version to count in one transaction, after `low` and at most to `high`."""
    rows = connection.execute(
        text(
            "SELECT number, added + modified AS n FROM version WHERE store_id = :s AND namespace_id = :n"
            " AND number > :low AND number <= :high ORDER BY number LIMIT 1000"
        ),
        {"s": store_id, "n": namespace_id, "low": low, "high": high},
    )
    end, total = low + 1, 0
    for row in rows:
        total += row.n
        if total > SLICE_ROWS and row.number > low + 1:
            break
        end = row.number
    return end


TURN = 0
"""The namespace that is none: its row in `counted` is what collectors take turns at."""


def take_turn(connection: Connection, store_id: int) -> None:
    """Wait until no other collector counts, judges or moves anything, and keep the others waiting until the transaction ends.

    The first lock of every step of collection, before any blob: what one counts must not change under the hands of another. No
    writer ever waits for it. On SQLite whoever writes is alone anyway.
    """
    if connection.dialect.name == "sqlite":
        return
    ids = {"s": store_id, "n": TURN}
    connection.execute(
        text("INSERT INTO counted (store_id, namespace_id, number) VALUES (:s, :n, 0) ON CONFLICT DO NOTHING"), ids
    )
    connection.execute(text("SELECT number FROM counted WHERE store_id = :s AND namespace_id = :n FOR UPDATE"), ids)


def count_uses(connection: Connection, store_id: int, namespace_id: int, up_to: int) -> None:
    """Count the entries that begin in versions up to this one and were not counted before; served by ix_entry_first.

    Of two who count, the second finds nothing left.
    """
    take_turn(connection, store_id)
    ids = {"s": store_id, "n": namespace_id}
    connection.execute(
        text("INSERT INTO counted (store_id, namespace_id, number) VALUES (:s, :n, 0) ON CONFLICT DO NOTHING"), ids
    )
    low = connection.execute(text("SELECT number FROM counted WHERE store_id = :s AND namespace_id = :n"), ids).scalar_one()
    if low >= up_to:
        return
    _check_all_there(connection, {**ids, "low": low, "high": up_to})
    connection.execute(
        text(
            "INSERT INTO object_use (store_id, digest, uses) SELECT :s, digest, COUNT(*) FROM entry WHERE store_id = :s"
            " AND namespace_id = :n AND first_version > :low AND first_version <= :high GROUP BY digest ORDER BY digest"
            " ON CONFLICT (store_id, digest) DO UPDATE SET uses = object_use.uses + excluded.uses"
        ),
        {**ids, "low": low, "high": up_to},
    )
    connection.execute(
        text("UPDATE counted SET number = :high WHERE store_id = :s AND namespace_id = :n"), {**ids, "high": up_to}
    )


_OF = "FROM entry e WHERE e.store_id = :s AND e.namespace_id = :n"
_BEGUN = f"{_OF} AND e.first_version > :low AND e.first_version <= :high"
_ENDED = f"{_OF} AND e.end_version > :low AND e.end_version <= :high AND e.end_version < {OPEN} AND e.first_version <= :low"
_LOST = (
    " AND e.size_bytes > 0 AND NOT EXISTS (SELECT 1 FROM object o WHERE o.store_id = e.store_id AND o.digest = e.digest)"
    " AND NOT EXISTS (SELECT 1 FROM erased x WHERE x.store_id = e.store_id AND x.digest = e.digest)"
)


def _check_all_there(connection: Connection, binds: dict[str, int]) -> None:
    """Check that the entries about to be counted are as many and as large as their versions say, each with a place.

    An entry that was lost would make its content look unused. Served by ix_entry_first and ix_entry_end, as the counting is. What
    a version had whose entries were collected, or never made by a rebuild, nobody can tell.

    Raises:
        CorruptionError: they are not.
    """
    row = connection.execute(
        text(
            "SELECT h.file_count - COALESCE(l.file_count, 0) AS files, h.size_bytes - COALESCE(l.size_bytes, 0) AS size_bytes,"
            f" (SELECT COUNT(*) {_BEGUN} AND e.end_version > :high) - (SELECT COUNT(*) {_ENDED}) AS found,"
            f" (SELECT COALESCE(SUM(e.size_bytes), 0) {_BEGUN} AND e.end_version > :high)"
            f" - (SELECT COALESCE(SUM(e.size_bytes), 0) {_ENDED}) AS found_bytes,"
            f" (SELECT COUNT(*) {_BEGUN} {_LOST}) AS lost, COALESCE(h.collected_us, l.collected_us) AS collected_us"
            " FROM version h LEFT JOIN version l ON l.store_id = h.store_id AND l.namespace_id = h.namespace_id"
            " AND l.number = :low WHERE h.store_id = :s AND h.namespace_id = :n AND h.number = :high"
        ),
        binds,
    ).one()
    is_known = row.collected_us is None
    if row.lost or (is_known and (row.found, int(row.found_bytes)) != (row.files, row.size_bytes)):
        raise CorruptionError(
            f"from version {binds['low']} to {binds['high']} the index has {row.found} files more, their records say {row.files};"
            f" {row.lost} contents have no place: nothing is collected while that is so",
            hint="run: vds fsck --chain",
        )


def count_all_uses(connection: Connection, store_id: int) -> None:
    """Count whatever was committed and not counted yet, in the caller's transaction: few rows, when they were counted before."""
    for namespace_id, _, head in list_uncounted(connection, store_id):
        count_uses(connection, store_id, namespace_id, head)


def list_expired_uncollected(connection: Connection, store_id: int) -> dict[int, list[int]]:
    """Return, by namespace, the expired versions whose entries were not set aside yet; served by ix_version_expired."""
    rows = connection.execute(
        text(
            "SELECT namespace_id, number FROM version WHERE store_id = :s AND expired_us IS NOT NULL AND collected_us IS NULL"
            " AND set_aside_us IS NULL ORDER BY namespace_id, number"
        ),
        {"s": store_id},
    )
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(row.namespace_id, []).append(row.number)
    return found


def find_oldest_base(connection: Connection, store_id: int, namespace_id: int) -> int:
    """Return the oldest version that an open upload of a namespace began from; without one, a number above all."""
    found = connection.execute(
        text("SELECT MIN(base) FROM upload WHERE store_id = :s AND namespace_id = :n AND state = 'open'"),
        {"s": store_id, "n": namespace_id},
    ).scalar_one_or_none()
    return OPEN if found is None else int(found)


def set_aside(connection: Connection, store_id: int, gaps: Sequence[Gap], numbers: Sequence[int]) -> int:
    """Take the entries that no version is left to need out of `entry`, and return how many; the blobs they used get looked at.

    Args:
        connection: of the caller's transaction.
        store_id: of the store.
        gaps: of one namespace; everything in them was counted.
        numbers: the expired versions that made them.

    Raises:
        CorruptionError: more of a content would go than was counted; nothing is changed.
    """
    take_turn(connection, store_id)
    namespace_id = gaps[0].namespace_id
    moment = connection.execute(
        text("SELECT COALESCE(MAX(set_aside_us), 0) FROM expired_entry WHERE store_id = :s"), {"s": store_id}
    ).scalar_one()
    binds = {"s": store_id, "n": namespace_id, "t": max(now_us(connection), moment + 1)}  # it names the rows of this call
    moved = 0
    for gap in gaps:
        window = {**binds, "low": gap.low, "high": gap.high}
        moved += connection.execute(
            text(f"INSERT INTO expired_entry ({_ENTRY}, set_aside_us) SELECT {_ENTRY}, :t FROM entry WHERE {_DEAD}"), window
        ).rowcount
        connection.execute(text(f"DELETE FROM entry WHERE {_DEAD}"), window)
    _uncount(connection, binds)
    for number in numbers:
        connection.execute(
            text(
                "UPDATE version SET set_aside_us = :t WHERE store_id = :s AND namespace_id = :n AND number = :v"
                " AND expired_us IS NOT NULL AND set_aside_us IS NULL"
            ),
            {**binds, "v": number},
        )
    return moved


# Served by ix_entry_end: it costs what changed between the two versions that are left.
_DEAD = "store_id = :s AND namespace_id = :n AND end_version > :low AND end_version <= :high AND first_version > :low"

_GONE = (
    "(SELECT digest, COUNT(*) AS n FROM expired_entry WHERE store_id = :s AND namespace_id = :n AND set_aside_us = :t"
    " GROUP BY digest)"
)


def _uncount(connection: Connection, binds: dict[str, int]) -> None:
    wrong = connection.execute(
        text(
            f"SELECT g.digest FROM {_GONE} g LEFT JOIN object_use u ON u.store_id = :s AND u.digest = g.digest"
            " WHERE u.uses IS NULL OR u.uses < g.n LIMIT 1"
        ),
        binds,
    ).one_or_none()
    if wrong is not None:
        raise CorruptionError(
            f"object b3:{bytes(wrong.digest).hex()} was counted less often than it is used", hint="run: vds fsck --structure"
        )
    unused = f"SELECT g.digest FROM {_GONE} g JOIN object_use u ON u.store_id = :s AND u.digest = g.digest AND u.uses = g.n"
    connection.execute(
        text(
            "UPDATE blob SET is_checked = 0 WHERE state = 'live' AND id IN"
            f" (SELECT o.blob_id FROM object o WHERE o.store_id = :s AND o.digest IN ({unused}))"
        ),
        binds,
    )
    connection.execute(text(f"DELETE FROM object_use WHERE store_id = :s AND digest IN ({unused})"), binds)
    connection.execute(
        text(
            f"UPDATE object_use SET uses = uses - (SELECT g.n FROM {_GONE} g WHERE g.digest = object_use.digest)"
            f" WHERE store_id = :s AND digest IN (SELECT g.digest FROM {_GONE} g)"
        ),
        binds,
    )


def list_set_aside(connection: Connection, store_id: int) -> Iterator[tuple[int, list[int]]]:
    """Yield each namespace with its expired versions that can be restored: their entries are all still there."""
    rows = connection.execute(
        text(
            "SELECT namespace_id, number FROM version WHERE store_id = :s AND expired_us IS NOT NULL AND collected_us IS NULL"
            " ORDER BY namespace_id, number"
        ),
        {"s": store_id},
    ).all()
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(row.namespace_id, []).append(row.number)
    yield from found.items()


def put_back(connection: Connection, store_id: int, namespace_id: int) -> int:
    """Put the entries of a namespace that were set aside back, count them, and return how many those are."""
    take_turn(connection, store_id)
    ids = {"s": store_id, "n": namespace_id}
    mine = "FROM expired_entry WHERE store_id = :s AND namespace_id = :n"
    connection.execute(
        text(
            f"INSERT INTO object_use (store_id, digest, uses) SELECT :s, digest, COUNT(*) {mine} GROUP BY digest ORDER BY digest"
            " ON CONFLICT (store_id, digest) DO UPDATE SET uses = object_use.uses + excluded.uses"
        ),
        ids,
    )
    moved = connection.execute(text(f"INSERT INTO entry ({_ENTRY}) SELECT {_ENTRY} {mine}"), ids).rowcount
    connection.execute(text(f"DELETE {mine}"), ids)
    connection.execute(
        text(
            "UPDATE version SET expired_us = NULL, set_aside_us = NULL WHERE store_id = :s AND namespace_id = :n"
            " AND expired_us IS NOT NULL AND collected_us IS NULL"
        ),
        ids,
    )
    return moved


def collect_entries(connection: Connection, store_id: int, before_us: int) -> list[int]:
    """Delete for good what was set aside up to a moment, with the versions it belonged to; return the namespaces of those."""
    take_turn(connection, store_id)
    binds = {"s": store_id, "t": before_us, "now": now_us(connection)}
    which = "store_id = :s AND expired_us IS NOT NULL AND collected_us IS NULL AND set_aside_us <= :t"
    touched = connection.execute(text(f"SELECT DISTINCT namespace_id FROM version WHERE {which} ORDER BY namespace_id"), binds)
    namespace_ids = list(touched.scalars())
    connection.execute(text(f"UPDATE version SET collected_us = :now WHERE {which}"), binds)
    connection.execute(text("DELETE FROM expired_entry WHERE store_id = :s AND set_aside_us <= :t"), binds)
    return namespace_ids
