"""Making a new pack of what is used of one: copy, switch, condemn (`vds.ops.repacking`, `vds.index.collect.switch_members`)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.network import names
from tests.protocol.play import Move, Step, Turn
from tests.protocol.uses import count, is_used, turn, use_rows
from tests.protocol.world import ANY, Blob, Body, Request, objects_in, put


def begin_repack(t: Turn) -> Iterator[Move]:
    """Read what is used of a pack, write the intent of a new one down and send it; see `tests.protocol.writer.look_up`."""
    new = t.key
    if new is None:
        return
    for old, blob in enumerate(t.db.blobs):
        members = objects_in(t.db, old)
        used = tuple(content for content in members if is_used(t, content))
        body = t.s.container.bodies[old]
        if blob.state != "live" or not 0 < len(used) < (0 if body is None else len(body.contents)):
            continue
        copy = Body(used, t.i)
        db = t.db._replace(blobs=put(t.db.blobs, new, Blob("pending", t.i)), uploads=put(t.db.uploads, t.i, "open"))
        yield t.go(
            f"copies {names(copy)} of pack {old} to blob {new}",
            "switch",
            mem=(old, new, copy),
            given=t.actor.given + 1,
            db=db,
            net=t.s.net | {Request("PUT", new, copy, ANY, 1 + t.scenario.repeats)},
        )


def switch(t: Turn) -> Iterator[Move]:
    """The first statements of `switch_members`: lock both packs, by id."""
    old, new, _ = t.mem
    if t.s.container.bodies[new] is None and t.db.blobs[new].state == "pending":
        return  # the PUT has not landed, or its answer has not come
    if (locks := t.lock([*turn(t), ("blob", old), ("blob", new)])) is not None:
        yield t.go(f"holds packs {old} and {new}", "switch.judge", locks=locks)


def switch_judge(t: Turn) -> Iterator[Move]:
    """`count_all_uses` and `list_used_members`, in new statements: was everything copied that is used now?"""
    old, new, copy = t.mem
    locks = t.lock(use_rows(t))
    if locks is None:
        yield from t.wait("switch")
        return
    blob = t.db.blobs[new]
    used = [content for content in objects_in(t.db, old) if is_used(t, content)]
    is_copied = set(used) <= set(copy.contents) or not t.rules.switch_checks_used
    is_ours = blob.state == "pending" and blob.owner == t.i
    can = is_ours and is_copied and t.db.blobs[old].state == "live"
    what = "finds that all of it was copied" if can else "finds that it must leave the pack as it is"
    yield t.go(what, "switch.write", seen=(len(t.db.versions), can, is_ours), locks=locks)


def switch_write(t: Turn) -> Iterator[Move]:
    """The commit of `switch_members`: placements move, the old pack loses them, and is condemned."""
    old, new, copy = t.mem
    up_to, can, is_ours = t.seen
    db = count(t.db, up_to)
    blobs, objects = db.blobs, db.objects
    if can:
        objects = tuple(new if place == old and c in copy.contents else place for c, place in enumerate(objects))
        blobs = put(blobs, old, blobs[old]._replace(state="condemned", moves=blobs[old].moves + 1))
        blobs = put(blobs, new, blobs[new]._replace(state="live"))
    elif is_ours:
        blobs = put(blobs, new, blobs[new]._replace(state="condemned"))
    db = db._replace(blobs=blobs, objects=objects, uploads=put(db.uploads, t.i, "aborted"))
    yield t.go(f"switches to pack {new}" if can else "drops its copy", "run", mem=(), db=db)


STEPS: dict[str, Step] = {"switch": switch, "switch.judge": switch_judge, "switch.write": switch_write}
