"""A writer: open, send, place, commit, publish, acknowledge."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.network import names
from tests.protocol.play import Move, Step, Turn
from tests.protocol.records import flush, is_diverged, is_fenced, is_fresh, queued_log
from tests.protocol.world import (
    ANY,
    NOWHERE,
    Blob,
    Body,
    Commit,
    Promise,
    Request,
    Version,
    apply_changes,
    contents_at,
    is_live,
    put,
)


def open_session(t: Turn) -> Iterator[Move]:
    """`vds.ops.open.open_doors` and `vds.engine.session`: flush what a crash left, hold the index against the container."""
    if t.role.db not in t.s.container.formats:
        return  # nothing names this index yet
    if t.rules.checks_fresh == "exact" and t.db.queue and t.db.incarnation == t.s.container.incarnation:
        yield from flush(t, t.db.queue[0], "open", "refused")
    elif is_fresh(t):
        yield t.go("opens a session", "look up", db=t.db._replace(uploads=put(t.db.uploads, t.i, "open")))
    else:
        yield t.go("is refused: the index is older than its store", "refused")


def look_up(t: Turn) -> Iterator[Move]:
    """`vds.engine.outbox.Outbox.find_new`, `add_pending_blobs`, and the PUT.

    The intent is written and the PUT sent in the step that looks: nothing that others do in between matters to them, as the key
    is fresh. A PUT under way that never lands stands for one that was never sent.
    """
    new = tuple(sorted({content for _, content in t.role.changes if not is_live(t.db, content)}))
    if not new:
        yield t.go("finds its contents in the store", "plan", mem=())
        return
    body = Body(new, t.i)
    if t.scenario.resumes:
        yield from _take_over(t, body)
    key = t.key
    if key is None:
        yield t.go("gives up", "dead", mem=())
        return
    if t.db.blobs[key].state not in ("", "deleted"):
        return  # only where keys are used again: it waits until nothing is there any more
    yield t.go(
        f"begins blob {key} and sends it ({names(body)})",
        "finish",
        mem=(key, body),
        given=t.actor.given + 1,
        db=t.db._replace(blobs=put(t.db.blobs, key, Blob("pending", t.i))),
        net=t.s.net | {Request("PUT", key, body, ANY, 1 + t.scenario.repeats)},
    )


def _take_over(t: Turn, body: Body) -> Iterator[Move]:
    """`vds.engine.resume.begin_large`: continue what an upload that fell silent left; the guarded UPDATE of its owner."""
    for key, blob in enumerate(t.db.blobs):
        if blob.state == "pending" and blob.owner != t.i and t.lock([("blob", key)]) is not None:
            yield t.go(
                f"takes blob {key} over and sends it ({names(body)})",
                "finish",
                mem=(key, body),
                db=t.db._replace(blobs=put(t.db.blobs, key, blob._replace(owner=t.i))),
                net=t.s.net | {Request("PUT", key, body, ANY, 1 + t.scenario.repeats)},
            )


def finish(t: Turn) -> Iterator[Move]:
    """`vds.index.placements.finish_blob`, its first statement: pending → live, if it is still this upload's."""
    key, body = t.mem
    blob = t.db.blobs[key]
    if blob.state != "pending" or blob.owner != t.i:
        yield t.go(f"is told that blob {key} is not its own any more", "look up", mem=())
        return
    found = t.s.container.bodies[key]
    if found is None:
        return  # the PUT has not landed, or its answer has not come
    if found.contents != body.contents:
        yield t.go(f"finds other bytes under key {key} than its own", "dead", mem=())
    elif (locks := t.lock([("blob", key)])) is not None:
        yield t.go(f"has its PUT answered, and holds blob {key}", "finish.place", locks=locks)


def finish_place(t: Turn) -> Iterator[Move]:
    """`_place_new`: INSERT … ON CONFLICT DO NOTHING waits for another who inserts the same."""
    _, body = t.mem
    new = tuple(content for content in body.contents if t.db.objects[content] == NOWHERE)
    if t.lock([("object", content) for content in body.contents]) is None:
        yield from t.wait("finish")
        return
    locks = t.lock([("object", content) for content in new])
    assert locks is not None
    after = "finish.write" if new == body.contents else "finish.taken"
    yield t.go("inserts its placements", after, seen=(new, ()), locks=locks)


def finish_taken(t: Turn) -> Iterator[Move]:
    """`find_placements`, and `_replace_stale` up to its locks: of what is placed elsewhere, which blobs are going?"""
    _, body = t.mem
    placed, _ = t.seen
    others = [(content, t.db.objects[content]) for content in body.contents if content not in placed]
    stale = [(content, old) for content, old in others if old != NOWHERE and t.db.blobs[old].state != "live"]
    if not stale:
        yield t.go("adopts the placements of others", "finish.write", seen=(placed, ()), locks=t.actor.locks)
        return
    locks = t.lock([("blob", old) for _, old in stale])
    if locks is None:
        yield from t.wait("finish")
        return
    yield t.go("holds the blobs of stale placements", "finish.move", seen=(placed, tuple(stale)), locks=locks)


def finish_move(t: Turn) -> Iterator[Move]:
    """The rest of `_replace_stale`, in new statements: only what is placed in a blob that is still going is moved."""
    placed, stale = t.seen
    moved = tuple((content, old) for content, old in stale if t.db.blobs[old].state != "live" and t.db.objects[content] == old)
    yield t.go("moves stale placements to its blob", "finish.write", seen=(placed, moved), locks=t.actor.locks)


def finish_write(t: Turn) -> Iterator[Move]:
    """The commit of `finish_blob`: a blob that got no placement is condemned at once."""
    key, _ = t.mem
    placed, moved = t.seen
    objects, blobs = t.db.objects, t.db.blobs
    for content in (*placed, *(content for content, _ in moved)):
        objects = put(objects, content, key)
    for old in {old for _, old in moved}:
        blobs = put(blobs, old, blobs[old]._replace(moves=blobs[old].moves + 1, checked=False))
    state = "live" if placed or moved else "condemned"
    blobs = put(blobs, key, blobs[key]._replace(state=state))
    yield t.go(f"finishes blob {key}: {state}", "plan", mem=(), db=t.db._replace(blobs=blobs, objects=objects))


def plan(t: Turn) -> Iterator[Move]:
    """`vds.index.needs.list_needs`: one statement, outside of every lock; None when something is not live."""
    places = {t.db.objects[content] for _, content in t.role.changes}
    if NOWHERE in places or any(t.db.blobs[place].state != "live" for place in places):
        yield t.go("lists its needs: something is not live", "commit", mem=(None,))
        return
    needs = tuple(sorted((place, t.db.blobs[place].moves) for place in places))
    yield t.go(f"lists its needs: {needs}", "commit", mem=(needs,))


def commit(t: Turn) -> Iterator[Move]:
    """`vds.index.commit.commit_staged`: the upload's row, then `hold_needs`, or `hold_all` when nothing was listed."""
    (needs,) = t.mem
    if t.db.uploads[t.i] != "open":
        yield t.go("is told that its upload was aborted", "dead", mem=())
        return
    if needs is None:
        places = sorted({t.db.objects[content] for _, content in t.role.changes} - {NOWHERE})
        live = [place for place in places if t.db.blobs[place].state == "live"]
        if (locks := t.lock([("upload", t.i)], [("blob", place) for place in live])) is not None:
            yield t.go(f"holds its upload and blobs {live}", "commit.again", seen=(tuple(live),), locks=locks)
        return
    blobs = t.db.blobs
    is_as_listed = all(
        blobs[place].state == "live" and (blobs[place].moves == moves or not t.rules.commit_checks_moves)
        for place, moves in needs
    )
    if not is_as_listed:
        yield t.go("finds that a blob it needs is not as listed, and plans again", "plan", mem=())
    elif (locks := t.lock([("upload", t.i)], [("blob", place) for place, _ in needs if t.rules.commit_holds_needs])) is not None:
        yield t.go("holds its upload and what it needs", "commit.write", locks=locks)


def commit_again(t: Turn) -> Iterator[Move]:
    """The new statements of `hold_all`: is everything in the blobs that are held?"""
    (held,) = t.seen
    going = {"deleting", "deleted"} if t.rules.revives_condemned_only else {"deleted"}
    outside: set[int] = set()
    is_missing = False
    for _, content in t.role.changes:
        place = t.db.objects[content]
        if place == NOWHERE or t.db.blobs[place].state in going:
            is_missing = True
        elif place not in held:
            outside.add(place)
    if not outside and not is_missing:
        yield t.go("finds all it needs in what it holds", "commit.write", locks=t.actor.locks)
    else:
        yield t.go(f"needs blobs {sorted(outside)} too", "revive", mem=(tuple(sorted(outside)), is_missing))


def commit_write(t: Turn) -> Iterator[Move]:
    """The rest of `commit_staged`, from the lock of the head on: the version, its entries, its record in the queue.

    One step: who holds the head changes it alone. The PUT of the record is sent at once; see `look_up` on that.
    """
    number = len(t.db.versions) + 1
    record = Commit(t.i, t.role.changes)
    db = t.db._replace(
        versions=(*t.db.versions, Version(record)),
        entries=apply_changes(t.db.entries, number, t.role.changes),
        queue=tuple(sorted((*t.db.queue, ("journal", number)))),
        uploads=put(t.db.uploads, t.i, "committed"),
    )
    promise = Promise(number, t.i, contents_at(db.entries, number))
    net = t.s.net | {Request("JOURNAL", number, record, ANY, 1)}
    yield t.go(f"commits version {number} and sends its record", "publish", mem=(promise,), db=db, net=net)


def revive(t: Turn) -> Iterator[Move]:
    """`vds.index.placements.revive_blobs`, in a transaction of its own; what is gone is sent again."""
    outside, is_missing = t.mem
    if t.lock([("blob", place) for place in outside]) is None:
        return
    blobs, revived = t.db.blobs, []
    for place in outside:
        if blobs[place].state == "condemned" or (blobs[place].state == "deleting" and not t.rules.revives_condemned_only):
            blobs = put(blobs, place, blobs[place]._replace(state="live", checked=False))
            revived.append(place)
    after = "look up" if is_missing else "plan"
    yield t.go(f"revives blobs {revived}", after, mem=(), db=t.db._replace(blobs=blobs))


def publish(t: Turn) -> Iterator[Move]:
    """`vds.engine.journal.publish`: its own record at once, then those before it, if they stay away."""
    (promise,) = t.mem
    number = promise.number
    mine = ("journal", number)
    if mine in t.db.queue:
        if len(t.s.container.journal) >= number and t.s.container.journal[number - 1] is not None:
            yield from flush(t, mine, "publish", "asks")
        return
    earlier = [item for item in t.db.queue if item[0] == "journal" and item < mine]
    if t.rules.look == "flush":
        earlier += queued_log(t.db)
    if earlier:
        yield from flush(t, earlier[0], "publish", "asks")
    elif is_fenced(t):
        yield t.go("finds the fence of a rebuild, and does not acknowledge", "asks")
    elif t.rules.looks_again_at_index and not _is_known(t, promise):
        yield t.go("finds that its index is not what it was, and does not acknowledge", "dead", mem=())
    else:
        yield from _acknowledge(t, promise, "acknowledges")


def ask_outcome(t: Turn) -> Iterator[Move]:
    """`store.outcome(commit_id)`, after an unknown outcome: visible in the index it knows."""
    if not t.mem or any(item[0] == "journal" and item[1] <= t.mem[0].number for item in t.db.queue):
        return
    if t.rules.look == "flush" and (queued := queued_log(t.db)):
        yield from flush(t, queued[0], "asks", "refused")
    elif not (t.rules.outcome_looks and is_fenced(t)):
        yield from _acknowledge(t, t.mem[0], "is told by its index that there is")


def _is_known(t: Turn, promise: Promise) -> bool:
    versions = t.db.versions
    is_there = promise.number <= len(versions) and versions[promise.number - 1].record.commit_id == promise.commit_id
    return is_there and not is_diverged(t.db, t.s.container)


def _acknowledge(t: Turn, promise: Promise, how: str) -> Iterator[Move]:
    yield t.go(f"{how} version {promise.number}", "done", mem=(), promises=tuple(sorted({*t.s.promises, promise})))


STEPS: dict[str, Step] = {
    "open": open_session,
    "look up": look_up,
    "finish": finish,
    "finish.place": finish_place,
    "finish.taken": finish_taken,
    "finish.move": finish_move,
    "finish.write": finish_write,
    "plan": plan,
    "commit": commit,
    "commit.again": commit_again,
    "commit.write": commit_write,
    "revive": revive,
    "publish": publish,
    "asks": ask_outcome,
}
