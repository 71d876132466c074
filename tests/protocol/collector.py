"""A collector: guards, then in any order set aside, count, condemn, delete, reap, repack, forget; it may stop anywhere.

A real run goes through these in one order. The model allows every order and any number of runs, so that nothing rests on it; and
every grace is over at once, so that nothing rests on time.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.network import delete_blob, tidy
from tests.protocol.play import Move, Step, Turn
from tests.protocol.records import add_store_record, flush, is_diverged, is_fresh, queued_log
from tests.protocol.repack import begin_repack
from tests.protocol.uses import begin_count, begin_set_aside, count, is_used, turn, use_rows
from tests.protocol.world import ANY, NOWHERE, Index, Request, Version, objects_in, put


def guard(t: Turn) -> Iterator[Move]:
    """`vds.engine.guards.check_collectable`: flush everything, then hold the index against the container."""
    if t.role.db not in t.s.container.formats:
        return  # nothing names this index yet
    if t.db.incarnation == t.s.container.incarnation and t.db.queue and t.rules.checks_fresh != "no":
        yield from flush(t, t.db.queue[0], "guard", "refused")
    elif is_fresh(t):
        yield t.go("finds index and container to agree", "run")
    else:
        yield t.go("is refused: the index is older than its store", "refused")


def run(t: Turn) -> Iterator[Move]:
    """`vds.ops.collect.collect`: whatever there is to do, in any order."""
    for key, blob in enumerate(t.db.blobs):
        has_ended = blob.owner == NOWHERE or t.db.uploads[blob.owner] != "open"
        if blob.state == "live" and not blob.checked and has_ended and t.may("condemn"):
            yield from _begin(t, key, "condemn")
        elif blob.state == "condemned" and t.may("delete"):
            yield from _begin(t, key, "delete")
        elif blob.state == "deleting" and t.may("delete"):
            up_to = len(t.db.log) if t.rules.flushes_for_what_it_found else 0
            yield t.go(f"finds blob {key} deleting", "doom", mem=(key, up_to))
        elif blob.state == "pending" and has_ended and (t.may("reap") or t.may("reap the dead")):
            yield t.go(f"finds blob {key} abandoned", "reap", mem=(key, blob.owner))
    yield from _abort(t)
    if t.may("set aside"):
        yield from begin_count(t)
        yield from begin_set_aside(t)
    yield from _forget(t)
    if t.may("repack"):
        yield from begin_repack(t)


def _begin(t: Turn, key: int, step: str) -> Iterator[Move]:
    """`vds.index.collect.lock_blobs`: the first statement of `condemn` and of `begin_deleting`."""
    if step == "delete" and not t.rules.deletes_after_commit:
        yield from _send(t, key, "run", "before anything is committed")
    if not t.rules.judges_in_second_statement:
        is_dead = not any(is_used(t, content) for content in objects_in(t.db, key))
        if is_dead or step == "delete":
            yield t.go(f"finds blob {key} unused, and goes for its row", f"{step}.merged", mem=(key,))
        return
    if (locks := t.lock([*turn(t), ("blob", key)])) is not None:
        after = "delete.write" if step == "delete" and not t.rules.looks_again else f"{step}.judge"
        seen = (t.db.counted, False) if after == "delete.write" else ()
        yield t.go(f"holds blob {key}", after, mem=(key,), seen=seen, locks=locks)


def judge(t: Turn) -> Iterator[Move]:
    """`count_all_uses` and `measure_uses`, in new statements: what was committed meanwhile is seen."""
    (key,) = t.mem
    step = t.actor.step.partition(".")[0]
    locks = t.lock(use_rows(t))
    if locks is None:
        yield from t.wait("run")
        return
    used = any(is_used(t, content) for content in objects_in(t.db, key))
    seen = (len(t.db.versions), used)
    yield t.go(f"counts: blob {key} is {'' if used else 'not '}used", f"{step}.write", seen=seen, locks=locks)


def condemn_write(t: Turn) -> Iterator[Move]:
    """The commit of `vds.index.collect.condemn`."""
    (key,) = t.mem
    up_to, used = t.seen
    blob = t.db.blobs[key]
    after = blob._replace(checked=True) if used else blob._replace(state="condemned")
    db = count(t.db, up_to)
    what = f"leaves blob {key}, checked" if used else f"condemns blob {key}"
    yield t.go(what, "run", mem=(), db=db._replace(blobs=put(db.blobs, key, after)))


def condemn_merged(t: Turn) -> Iterator[Move]:
    """What one UPDATE with a sub-select does on PostgreSQL: it waits for the row, and looks again at the row alone."""
    (key,) = t.mem
    blob = t.db.blobs[key]
    if blob.state != "live":
        yield t.go(f"finds blob {key} not live any more", "run", mem=())
    elif t.lock([("blob", key)]) is not None:
        blobs = put(t.db.blobs, key, blob._replace(state="condemned"))
        yield t.go(f"condemns blob {key}", "run", mem=(), db=t.db._replace(blobs=blobs))


def delete_merged(t: Turn) -> Iterator[Move]:
    """Likewise for `deleting`; where nothing is looked at again, the state alone is believed."""
    (key,) = t.mem
    if t.db.blobs[key].state != "condemned":
        yield t.go(f"finds blob {key} not condemned any more", "run", mem=())
    elif t.lock([("blob", key)]) is not None:
        yield _go_deleting(t, t.db, key, f"moves blob {key} to deleting")


def delete_write(t: Turn) -> Iterator[Move]:
    """The commit of `begin_deleting`: deleting, nothing placed there any more, its key in the store's log."""
    (key,) = t.mem
    up_to, used = t.seen
    if used:
        yield t.go(f"finds blob {key} condemned and used, and leaves it", "run", mem=())
        return
    yield _go_deleting(t, count(t.db, up_to), key, f"moves blob {key} to deleting")


def _go_deleting(t: Turn, db: Index, key: int, what: str) -> Move:
    blob = db.blobs[key]
    forgets = t.rules.revives_condemned_only
    objects = tuple(NOWHERE if place == key and forgets else place for place in db.objects)
    db = db._replace(blobs=put(db.blobs, key, blob._replace(state="deleting")), objects=objects)
    db = add_store_record(db, "deleting", (key,))
    return t.go(what, "doom", mem=(key, len(db.log) if t.rules.deletes_after_record else 0), db=db)


def doom(t: Turn) -> Iterator[Move]:
    """`vds.ops.deleting`: the row was seen to be `deleting`; then its record and all before it go out; then the DELETE."""
    key, up_to = t.mem
    if queued := [item for item in queued_log(t.db) if item[1] <= up_to]:
        yield from flush(t, queued[0], "doom", "refused")
        if not t.rules.log_is_in_order and len(queued) > 1:
            yield from flush(t, queued[-1], "doom", "refused")
        return
    if t.rules.looks_again_at_index and not (t.db.blobs[key].state == "deleting" and not is_diverged(t.db, t.s.container)):
        yield t.go(f"finds that its index does not say that blob {key} is deleting, and stops", "refused", mem=())
        return
    yield from _send(t, key, "run", "")
    etag = _etag_of(t, key)
    container = delete_blob(t.s.container, key, etag)
    blob, net = t.db.blobs[key], t.s.net
    blobs = put(t.db.blobs, key, blob._replace(state="deleted")) if blob.state == "deleting" else t.db.blobs
    if t.scenario.repeats:
        net |= {Request("DELETE", key, None, etag, t.scenario.repeats)}
    if t.rules.keys_are_fresh:
        net = tidy(net, container)
    # A crash between the two is the same as a DELETE that is under way, lands, and is never answered.
    yield t.go(f"deletes key {key}, and notes it", "run", mem=(), db=t.db._replace(blobs=blobs), container=container, net=net)


def _send(t: Turn, key: int, after: str, when: str) -> Iterator[Move]:
    """Send a DELETE that is not answered: it lands later, or never."""
    request = Request("DELETE", key, None, _etag_of(t, key), 1 + t.scenario.repeats)
    if t.s.container.bodies[key] is not None and request not in t.s.net:
        yield t.go(f"sends DELETE of key {key} {when}".strip(), after, mem=(), net=t.s.net | {request})


def _etag_of(t: Turn, key: int) -> int:
    """Return the condition of a DELETE. Where keys are fresh there is one etag a key, and the condition says nothing."""
    return t.db.blobs[key].owner if t.rules.deletes_conditionally and not t.rules.keys_are_fresh else ANY


def _abort(t: Turn) -> Iterator[Move]:
    """`vds.index.collect.abort_silent_uploads`: whoever is slow may be taken for dead; a guarded UPDATE of the upload."""
    for j, state in enumerate(t.db.uploads):
        is_silent = t.may("reap") or (t.may("reap the dead") and t.s.actors[j].step == "dead")
        if state == "open" and is_silent and t.lock([("upload", j)]) is not None:
            yield t.go(f"aborts the upload of actor {j}", "run", db=t.db._replace(uploads=put(t.db.uploads, j, "aborted")))


def reap(t: Turn) -> Iterator[Move]:
    """`vds.index.collect.reap`: pending → deleting, if it is still pending and still that upload's."""
    key, owner = t.mem
    blob = t.db.blobs[key]
    is_pending = blob.state == "pending" or not t.rules.reap_checks_state
    is_owners = blob.owner == owner or not t.rules.reap_checks_owner
    if not (is_pending and is_owners):
        yield t.go(f"finds blob {key} taken into use", "run", mem=())
    elif t.lock([("blob", key)]) is not None:
        yield _go_deleting(t, t.db, key, f"reaps blob {key}")


def _forget(t: Turn) -> Iterator[Move]:
    """`vds.index.uses.collect_entries`: what was set aside goes for good; each version whenever its grace is over."""
    if not t.may("forget") or t.lock(turn(t)) is None:
        return
    for place, version in enumerate(t.db.versions):
        if not version.aside or version.collected:
            continue
        versions = put(t.db.versions, place, version._replace(collected=True))
        aside = tuple(e for e in t.db.aside if _can_return(versions, e.first, e.end))
        yield t.go(f"forgets version {place + 1} for good", "run", db=t.db._replace(versions=versions, aside=aside))


def _can_return(versions: tuple[Version, ...], first: int, end: int) -> bool:
    return any(version.expired and not version.collected for version in versions[first - 1 : end - 1])


STEPS: dict[str, Step] = {
    "guard": guard,
    "run": run,
    "condemn.judge": judge,
    "condemn.write": condemn_write,
    "condemn.merged": condemn_merged,
    "delete.judge": judge,
    "delete.write": delete_write,
    "delete.merged": delete_merged,
    "doom": doom,
    "reap": reap,
}
