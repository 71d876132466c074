"""The queue of records, the fences in the store's log, and holding an index against the container (`vds.engine.journal`)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.network import Item, find_ours, find_theirs, put_record
from tests.protocol.play import Move, Turn
from tests.protocol.world import Commit, Container, Index, LogRecord


def add_store_record(db: Index, kind: str, items: tuple[int, ...]) -> Index:
    """Append to the store's log, in the transaction that does what the record says (`vds.engine.journal.add_store_record`)."""
    record = LogRecord(kind, items, db.life)
    return db._replace(log=(*db.log, record), queue=tuple(sorted((*db.queue, ("log", len(db.log) + 1)))))


def flush(t: Turn, item: Item, again: str, refused: str) -> Iterator[Move]:
    """Put one queued record, or take it out of the queue when it is there (`vds.engine.journal._flush`)."""
    ours, theirs = find_ours(t.db, item), find_theirs(t.s.container, item)
    name = "/".join(map(str, item))
    if theirs is None:
        yield t.go(f"puts {name}: {show(ours)}", again, container=put_record(t.s.container, item, ours))
    elif theirs == ours:
        yield t.go(
            f"takes {name} out of the queue", again, db=t.db._replace(queue=tuple(one for one in t.db.queue if one != item))
        )
    else:
        yield t.go(f"finds another record under {name} than its own, and stops", refused, mem=())


def show(record: Commit | LogRecord) -> str:
    """Return a record as it stands in a trace."""
    if isinstance(record, Commit):
        return f"commit {record.commit_id}"
    return f"{record.kind} {','.join(map(str, record.items))}"


def queued_log(db: Index) -> list[Item]:
    """Return the queued records of the store's log, in order."""
    return [item for item in db.queue if item[0] == "log"]


def is_fresh(t: Turn) -> bool:
    """Return whether the index may be written with: it serves the container and is not older than it.

    "exact": nothing is queued, so that every record the index knows was put as its own, and nothing stands behind the last.
    "next": the container holds nothing under the next numbers (`check_store_fresh` and `check_namespace_fresh`, alone).
    """
    db, container = t.db, t.s.container
    if t.rules.checks_fresh == "no":
        return True
    if db.incarnation != container.incarnation:
        return False
    if t.rules.checks_fresh == "next":
        ends = (("log", len(db.log) + 1), ("journal", len(db.versions) + 1))
        return all(find_theirs(container, end) is None for end in ends)
    return not db.queue and len(container.log) <= len(db.log) and len(container.journal) <= len(db.versions)


def is_diverged(db: Index, container: Container) -> bool:
    """Return whether the container holds a record that is not the index's own."""
    ours = (db.log, tuple(version.record for version in db.versions))
    theirs = (container.log, container.journal)
    return any(
        record is not None and (place >= len(own) or own[place] != record)
        for own, line in zip(ours, theirs, strict=True)
        for place, record in enumerate(line)
    )


def is_fenced(t: Turn) -> bool:
    """Return whether a writer that looks before it acknowledges finds that another index was put in the place of its own.

    "walk": from the last record that is its index's own to the first that is absent. "next": whether there is one after the last
    that its index knows; but what its index counts there may never have come to the container.
    """
    log, ours = t.s.container.log, t.db.log
    if t.rules.look == "walk":
        end = first_hole(log)
        return any(is_fence(log[place]) for place in range(end) if place >= len(ours) or log[place] != ours[place])
    return t.rules.look in ("next", "flush") and len(ours) < len(log)


def is_fence(record: LogRecord | None) -> bool:
    """Return whether a record of the store's log says that another index serves it from there on."""
    return record is not None and record.kind == "replaced"


def first_hole(log: tuple[LogRecord | None, ...]) -> int:
    """Return the place of the first record that is missing."""
    return next((place for place, record in enumerate(log) if record is None), len(log))
