"""What collectors count, and what they set aside (`vds.index.uses`)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.play import Move, Row, Step, Turn
from tests.protocol.world import NOWHERE, OPEN, Entry, Index, Version, name_of, put


def turn(t: Turn) -> list[Row]:
    """Return the row that a transaction which judges what is used locks before all others."""
    return [("turn", 0)] if t.rules.collectors_take_turns else []


def use_rows(t: Turn) -> list[Row]:
    """Return the rows of `object_use` and `counted` that counting locks; who has the turn meets nobody there."""
    if t.rules.collectors_take_turns or not (contents := {entry.content for entry in uncounted(t.db)}):
        return []
    return [("counted", 0), *(("use", content) for content in sorted(contents))]


def uncounted(db: Index) -> list[Entry]:
    """Return the entries that `object_use` does not know of."""
    return [entry for entry in db.entries if entry.first > db.counted]


def is_used(t: Turn, content: int) -> bool:
    """Return whether an entry has a content, counted or not."""
    return t.db.uses[content] > 0 or any(entry.content == content for entry in uncounted(t.db))


def count(db: Index, up_to: int) -> Index:
    """`count_uses`: take in the entries that begin in versions up to this one."""
    uses = db.uses
    for entry in db.entries:
        if db.counted < entry.first <= up_to:
            uses = put(uses, entry.content, uses[entry.content] + 1)
    return db._replace(uses=uses, counted=max(db.counted, up_to))


def is_dead(versions: tuple[Version, ...], entry: Entry) -> bool:
    """Return whether no version that is left has an entry; the newest version never expires."""
    return entry.end != OPEN and all(version.expired for version in versions[entry.first - 1 : entry.end - 1])


def begin_set_aside(t: Turn) -> Iterator[Move]:
    """`set_aside`, its first statements: the turn, then what only expired versions held, and what nobody would use any more."""
    db = t.db
    numbers = [n for n, v in enumerate(db.versions, 1) if v.expired and not v.aside and n <= db.counted]
    locks = t.lock([*turn(t), *(("version", number) for number in numbers)]) if numbers else None
    if locks is None:
        return
    dead = tuple(entry for entry in db.entries if entry.first <= db.counted and is_dead(db.versions, entry))
    unused = tuple(c for c, n in enumerate(db.uses) if n and n == sum(entry.content == c for entry in dead))
    what = f"finds that versions {numbers} expired, and entries {[show(entry) for entry in dead]} with them"
    yield t.go(what, "aside.write", seen=(tuple(numbers), dead, unused), locks=locks)


def aside_write(t: Turn) -> Iterator[Move]:
    """The commit of `set_aside`: entries move, uses go down, the blobs they were in are to be looked at."""
    numbers, dead, unused = t.seen
    db = t.db
    touched = {db.objects[content] for content in unused} - {NOWHERE}
    rows: list[Row] = [("blob", place) for place in sorted(touched)]
    if not t.rules.collectors_take_turns:
        rows += [("use", entry.content) for entry in dead]
    if t.lock(rows) is None:
        yield from t.wait("run")
        return
    uses, versions, blobs = db.uses, db.versions, db.blobs
    for entry in dead:
        # The row of a content that was found unused is deleted, whatever was counted while this waited for it.
        left = 0 if entry.content in unused else uses[entry.content] - 1
        uses = put(uses, entry.content, left)
    for number in numbers:
        versions = put(versions, number - 1, versions[number - 1]._replace(aside=True))
    for place in touched:
        blobs = put(blobs, place, blobs[place]._replace(checked=False))
    after = db._replace(
        entries=tuple(entry for entry in db.entries if entry not in dead),
        aside=tuple(sorted((*db.aside, *dead))),
        uses=uses,
        versions=versions,
        blobs=blobs,
    )
    yield t.go(f"sets {[show(entry) for entry in dead]} aside", "run", db=after)


def show(entry: Entry) -> str:
    """Return an entry as it stands in a trace."""
    end = "" if entry.end == OPEN else str(entry.end - 1)
    return f"{entry.path}={name_of(entry.content)} in {entry.first}..{end}"


def begin_count(t: Turn) -> Iterator[Move]:
    """`vds.ops.collect._count`: a transaction that only counts."""
    locks = t.lock([*turn(t), *use_rows(t)]) if t.db.counted < len(t.db.versions) else None
    if locks is not None:
        yield t.go("begins to count", "count.write", seen=(len(t.db.versions),), locks=locks)


def count_write(t: Turn) -> Iterator[Move]:
    """The commit of `count_uses`."""
    (up_to,) = t.seen
    yield t.go(f"has counted up to version {up_to}", "run", db=count(t.db, up_to))


STEPS: dict[str, Step] = {"aside.write": aside_write, "count.write": count_write}
