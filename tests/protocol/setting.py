"""Roles and histories: what a scenario begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.protocol import collector, naive, people, rebuild, repack, uses, writer
from tests.protocol.play import Move, Role, Scenario, Step, play
from tests.protocol.uses import count, is_dead
from tests.protocol.world import (
    NOWHERE,
    Actor,
    Blob,
    Body,
    Commit,
    Container,
    Index,
    LogRecord,
    Promise,
    State,
    Version,
    apply_changes,
    number_of,
    put,
)

PROGRAMS: dict[str, Step] = {
    **writer.STEPS,
    **collector.STEPS,
    **uses.STEPS,
    **repack.STEPS,
    **people.STEPS,
    **rebuild.STEPS,
    **naive.STEPS,
}

Changes = dict[str, str]
"""Path → content, by its letter."""

ALL = frozenset({"condemn", "delete", "reap", "set aside", "forget"})
"""What a collector does, but for repacking."""


def moves_of(scenario: Scenario) -> Callable[[State], Iterator[Move]]:
    """Return the function from a state of a scenario to what may happen next."""
    return play(scenario, PROGRAMS)


def writer_of(name: str, *keys: int, db: int = 0, step: str = "open", **changes: str) -> Role:
    """Return a writer of these paths, which may give out these keys; without one it gives up when it would have to send."""
    return Role(name, step, db, keys, _changes(changes))


def collector_of(name: str, *keys: int, db: int = 0, step: str = "guard", acts: frozenset[str] = ALL) -> Role:
    """Return a collector, which begins anew after a crash; one that begins at "run" has its guards behind it."""
    return Role(name, step, db, keys, acts=acts, after_crash=step)


def operator_of(name: str = "operator") -> Role:
    """Return a person."""
    return Role(name, "choose", after_crash=None)


def rebuild_of(name: str = "rebuild", *, db: int = 1) -> Role:
    """Return a rebuild, which makes this index."""
    return Role(name, "fence", db)


def begin(
    roles: tuple[Role, ...],
    *versions: Changes,
    blobs: tuple[str, ...],
    expired: tuple[int, ...] = (),
    condemned: tuple[int, ...] = (),
    acts: tuple[str, ...] = (),
) -> State:
    """Return a world with a history.

    Args:
        roles: who is there.
        versions: what each changed, from the first; all are acknowledged, and counted.
        blobs: what is stored, by key; the first blob that holds a content is its place.
        expired: versions that expired, and were set aside.
        condemned: keys of blobs that are condemned already.
        acts: what a person may do, each once.
    """
    promises = _promises(versions)
    named = [content for role in roles for _, content in role.changes] + [c for one in promises for _, c in one.contents]
    contents = 1 + max([*named, *map(number_of, "".join(blobs))])
    keys = 1 + max([len(blobs) - 1, *(key for role in roles for key in role.keys)])
    bodies = tuple(Body(tuple(map(number_of, text)), NOWHERE) for text in blobs)
    told = (LogRecord("expired", expired, 0),) if expired else ()
    db = _make_index(versions, expired, contents)._replace(
        objects=tuple(next((key for key, body in enumerate(bodies) if c in body.contents), NOWHERE) for c in range(contents)),
        uploads=("",) * len(roles),
        log=told,
    )
    rows = [
        Blob("condemned") if key in condemned else Blob("live", checked=all(db.uses[content] for content in body.contents))
        for key, body in enumerate(bodies)
    ]
    db = db._replace(blobs=(*rows, *[Blob()] * (keys - len(rows))))
    container = Container((*bodies, *[None] * (keys - len(bodies))), tuple(version.record for version in db.versions), told)
    actors = tuple(Actor(role.start, acts if role.start == "choose" else ()) for role in roles)
    dbs = (db, *[None] * max(role.db for role in roles))
    return State(dbs, None, container, frozenset(), actors, promises, frozenset(expired))


def _changes(changes: Changes) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((path, number_of(content)) for path, content in changes.items()))


def _promises(versions: tuple[Changes, ...]) -> tuple[Promise, ...]:
    files: Changes = {}
    promises = []
    for number, changes in enumerate(versions, 1):
        files = {**files, **changes}
        promises.append(Promise(number, -number, _changes(files)))
    return tuple(promises)


def _make_index(versions: tuple[Changes, ...], expired: tuple[int, ...], contents: int) -> Index:
    db = Index((), (), (), (), (), (), (0,) * contents, 0)
    for number, changes in enumerate(versions, 1):
        record = Commit(-number, _changes(changes))
        entries = apply_changes(db.entries, number, record.changes)
        db = db._replace(versions=(*db.versions, Version(record)), entries=entries)
    for number in expired:
        db = db._replace(versions=put(db.versions, number - 1, db.versions[number - 1]._replace(expired=True, aside=True)))
    dead = tuple(entry for entry in db.entries if is_dead(db.versions, entry))
    db = db._replace(entries=tuple(entry for entry in db.entries if entry not in dead), aside=dead)
    return count(db, len(versions))
