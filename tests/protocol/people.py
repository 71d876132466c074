"""What people do: expire versions, undo that, copy an index and put an earlier copy back."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.play import Move, Step, Turn
from tests.protocol.records import add_store_record, flush, queued_log
from tests.protocol.uses import turn
from tests.protocol.world import NOWHERE, Actor, Entry, Index, put


def choose(t: Turn) -> Iterator[Move]:
    """One of the acts that are left to do, each once."""
    acts: tuple[str, ...] = t.mem
    for act in sorted(set(acts)):
        left = list(acts)
        left.remove(act)
        rest = tuple(left)
        if act.startswith("expire "):
            yield from _expire(t, int(act.partition(" ")[2]), rest)
        elif act == "undo":
            yield from _begin_undo(t, rest)
        elif act == "copy":
            yield t.go("copies the index", "choose", mem=rest, copy=t.db)
        elif act == "restore" and t.s.copy is not None:
            yield _restore(t, rest)


def _expire(t: Turn, number: int, rest: tuple[str, ...]) -> Iterator[Move]:
    """`vds.ops.expire`, in one transaction: the version's row, then the record. The newest version never expires.

    The record stays queued: whoever opens the store or collects puts it.
    """
    if number >= len(t.db.versions) or t.db.versions[number - 1].expired or t.lock([("version", number)]) is None:
        return
    versions = put(t.db.versions, number - 1, t.db.versions[number - 1]._replace(expired=True))
    db = add_store_record(t.db._replace(versions=versions), "expired", (number,))
    yield t.go(f"expires version {number}", "choose", mem=rest, db=db, expired=t.s.expired | {number})


def _begin_undo(t: Turn, rest: tuple[str, ...]) -> Iterator[Move]:
    """`vds.ops.uncollect`: list the blobs that hold what was set aside, and whatever else is condemned."""
    if not any(version.expired and not version.collected for version in t.db.versions):
        return
    places = {t.db.objects[entry.content] for entry in t.db.aside} - {NOWHERE}
    places |= {key for key, blob in enumerate(t.db.blobs) if blob.state == "condemned"}
    yield t.go(f"lists blobs {sorted(places)} for an undo", "undo", mem=(rest, tuple(sorted(places))))


def undo_hold(t: Turn) -> Iterator[Move]:
    """Lock those of them that are condemned or live, as a commit does, but for itself alone."""
    _, places = t.mem
    held = [place for place in places if t.db.blobs[place].state in ("condemned", "live")]
    # Where collectors take no turns there may be nothing to lock: something has to tell that a transaction is open.
    if (locks := t.lock([*turn(t), ("undo", 0), *(("blob", place) for place in held)])) is not None:
        yield t.go(f"holds {held}", "undo.judge", locks=locks)


def undo_judge(t: Turn) -> Iterator[Move]:
    """In a new statement: which versions can be had back? Those of which every object is in a blob that is held."""
    held = {lock.row[2] for lock in t.actor.locks if lock.row[0] == "blob"}

    def is_there(entry: Entry) -> bool:
        place = t.db.objects[entry.content]
        if t.rules.undo_checks == "live":
            return place != NOWHERE and (t.db.blobs[place].state == "live" or place in held)
        return place in held or t.rules.undo_checks == "no"

    gone = [entry for entry in t.db.aside if not is_there(entry)]
    numbers = tuple(
        number
        for number, version in enumerate(t.db.versions, 1)
        if version.expired and not version.collected and not any(e.first <= number < e.end for e in gone)
    )
    yield t.go(f"finds that versions {list(numbers)} can be had back", "undo.write", seen=(numbers,), locks=t.actor.locks)


def undo_write(t: Turn) -> Iterator[Move]:
    """The commit of an undo (`vds.index.uses.put_back`): blobs revived, entries back and counted, a record of it."""
    (numbers,) = t.seen
    rest, places = t.mem
    revivable = {"condemned"} if t.rules.revives_condemned_only else {"condemned", "deleting"}
    blobs = t.db.blobs
    for place in places:
        if blobs[place].state in revivable:
            blobs = put(blobs, place, blobs[place]._replace(state="live", checked=False))
    back = tuple(entry for entry in t.db.aside if any(entry.first <= number < entry.end for number in numbers))
    db = _put_back(t.db._replace(blobs=blobs), numbers, back)
    if not numbers:
        yield t.go("revives what is condemned", "choose", mem=rest, db=db)
        return
    db = add_store_record(db, "restored", numbers)
    yield t.go(f"takes back that {list(numbers)} expired", "undo.tell", mem=(numbers, rest), db=db)


def _put_back(db: Index, numbers: tuple[int, ...], back: tuple[Entry, ...]) -> Index:
    uses, versions = db.uses, db.versions
    for entry in back:
        if entry.first <= db.counted:
            uses = put(uses, entry.content, uses[entry.content] + 1)
    for number in numbers:
        versions = put(versions, number - 1, versions[number - 1]._replace(expired=False, aside=False))
    aside = tuple(entry for entry in db.aside if entry not in back)
    return db._replace(uses=uses, versions=versions, aside=aside, entries=tuple(sorted((*db.entries, *back))))


def undo_tell(t: Turn) -> Iterator[Move]:
    """`publish_store_record`: only when its record is in the container is the undo a promise."""
    numbers, rest = t.mem
    queued = queued_log(t.db)
    if queued and t.rules.undo_tells_log_first:
        yield from flush(t, queued[0], "undo.tell", "refused")
    else:
        yield t.go(f"is told that {list(numbers)} are there again", "choose", mem=rest, expired=t.s.expired - set(numbers))


def _restore(t: Turn, rest: tuple[str, ...]) -> Move:
    """Put the copy back in the place of the index. Whoever was at work on it is cut off; what they sent is still under way."""
    assert t.s.copy is not None
    what, after = t.go("puts the copy back", "choose", mem=rest)
    restored = t.s.copy._replace(life=t.db.life + 1)
    if not t.scenario.cuts_off:
        return what, after._replace(dbs=put(after.dbs, t.role.db, restored))
    actors = tuple(
        actor
        if role.db != t.role.db or j == t.i or actor.step in ("done", "open")
        else Actor(role.after_crash or "dead", given=actor.given)
        for j, (role, actor) in enumerate(zip(t.scenario.roles, after.actors, strict=True))
    )
    return what, after._replace(dbs=put(after.dbs, t.role.db, restored), actors=actors)


STEPS: dict[str, Step] = {
    "choose": choose,
    "undo": undo_hold,
    "undo.judge": undo_judge,
    "undo.write": undo_write,
    "undo.tell": undo_tell,
}
