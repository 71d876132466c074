"""What undoes the writes of one run in a namespace, as rows of a part."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from vds.index.expiry import check_kept
from vds.index.plan import Area
from vds.index.schema import OPEN
from vds.index.sql import text


def stage_undo(connection: Connection, area: Area, base: int, runs: Sequence[str]) -> None:
    """Stage what each path was before these runs changed it, in place of all rows of the part.

    For each path that they touched, that is the state after its last change which is not theirs. Where somebody has written it
    since, or put it back, that is what it is now. It costs the changes of those paths.

    Raises:
        NotFoundError: a version that such a state is of has expired and was collected.
    """
    own = {f"r{place}": run for place, run in enumerate(runs)}
    binds = area.binds(base, **own)
    ours = _WRITTEN.format(runs=", ".join(f":{name}" for name in own))
    connection.execute(text("DELETE FROM staged WHERE store_id = :s AND part_id = :p"), binds)
    connection.execute(text(_STAGE.format(ours=ours)), binds)
    numbers = set(connection.execute(text(ours), binds).scalars())
    for number in sorted(numbers):  # afterwards: they may be going meanwhile
        if number - 1 not in numbers:
            check_kept(connection, area.store_id, area.namespace_id, number - 1)


_WRITTEN = "SELECT number FROM version WHERE store_id = :s AND namespace_id = :n AND run IN ({runs}) AND number <= :base"
_MINE = "e.store_id = :s AND e.namespace_id = :n"
_STAGE = f"""
WITH ours AS ({{ours}}),
touched AS (
    SELECT e.path FROM ours JOIN entry e ON {_MINE} AND e.first_version = ours.number
    UNION
    SELECT e.path FROM ours JOIN entry e ON {_MINE} AND e.end_version = ours.number AND e.end_version < {OPEN}
),
moves AS (
    SELECT t.path, e.first_version AS number FROM touched t JOIN entry e ON {_MINE} AND e.path = t.path
    WHERE e.first_version <= :base
    UNION
    SELECT t.path, e.end_version FROM touched t JOIN entry e ON {_MINE} AND e.path = t.path WHERE e.end_version <= :base
),
undone AS (
    SELECT m.path, MAX(CASE WHEN ours.number IS NULL THEN m.number ELSE 0 END) AS before FROM moves m
    LEFT JOIN ours ON ours.number = m.number
    GROUP BY m.path
)
INSERT INTO staged SELECT :s, :p, u.path, CASE WHEN w.path IS NULL THEN 2 ELSE 1 END, 1, 0, w.digest,
    COALESCE(w.size_bytes, 0), COALESCE(w.mode, 0), COALESCE(w.modified_ns, 0)
FROM undone u
LEFT JOIN entry w ON w.store_id = :s AND w.namespace_id = :n AND w.path = u.path
    AND w.first_version <= u.before AND w.end_version > u.before
LEFT JOIN entry e ON {_MINE} AND e.path = u.path AND e.first_version <= :base AND e.end_version > :base
WHERE (w.path IS NOT NULL OR e.path IS NOT NULL)
    AND (w.path IS NULL OR e.path IS NULL OR w.digest <> e.digest OR w.size_bytes <> e.size_bytes OR w.mode <> e.mode)
"""
