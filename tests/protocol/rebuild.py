"""A rebuild of the index from the container alone, while whoever knows the old one goes on."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.play import Move, Step, Turn
from tests.protocol.records import first_hole, is_fence
from tests.protocol.uses import is_dead
from tests.protocol.world import (
    NOWHERE,
    Blob,
    Commit,
    Container,
    Entry,
    Index,
    LogRecord,
    State,
    Version,
    add,
    apply_changes,
    put,
)

LIVES = 50
"""What tells the records of a new index from those of an older one, however often that was restored."""


def fence(t: Turn) -> Iterator[Move]:
    """Take the next number of the store's log, and read the log; nobody appends to it for the old index from here on.

    The next number is the first one that is free. With `log_is_in_order` there is none behind it.
    """
    log = t.s.container.log
    if not t.rules.rebuild_fences:
        yield t.go("reads the store's log", "rebuild.read", mem=(log,))
        return
    place = first_hole(log) if t.rules.log_is_in_order else len(log)
    log = add(log, place, LogRecord("replaced", (t.role.db,), LIVES * t.role.db), None)
    container = t.s.container._replace(log=log)
    yield t.go(f"puts log/{place + 1}: the fence, and reads the log", "rebuild.read", mem=(log,), container=container)


def read(t: Turn) -> Iterator[Move]:
    """Read the journal, then list the blobs: every name's bytes were there before it, so none is missing from the list."""
    (log,) = t.mem
    if t.rules.rebuild_reads_names_first:
        yield t.go("reads the journal", "rebuild.read more", mem=(log, t.s.container.journal, None))
    else:
        yield t.go("lists the blobs", "rebuild.read more", mem=(log, None, t.s.container.bodies))


def read_more(t: Turn) -> Iterator[Move]:
    """Read the other of the two, and make the new index of it: nobody has opened it yet."""
    log, journal, bodies = t.mem
    container = t.s.container._replace(
        log=log,
        journal=t.s.container.journal if journal is None else journal,
        bodies=t.s.container.bodies if bodies is None else bodies,
    )
    doomed = doomed_keys(container) if t.rules.rebuild_believes_log else set()
    db = rebuild(container, doomed, t.role.db, t.s)
    yield t.go("makes a new index of it", "rebuild.look", mem=(len(log), len(t.s.container.formats)), db=db)


def look(t: Turn) -> Iterator[Move]:
    """`vds.ops.rebuild._name_index`: list the format records, look for a later fence, put the next format record if it is free.

    Listed after the look, they would hide that a rebuild which began later has come between and serves already.
    """
    own, formats = t.mem
    if len(t.s.container.formats) != formats and t.rules.rebuild_lists_formats_first:
        yield t.go("lists the format records again", "rebuild.look", mem=(own, len(t.s.container.formats)))
    elif any(is_fence(record) for record in t.s.container.log[own:]):
        yield t.go("finds that another rebuild began later, and stops", "done", mem=())
    else:
        yield t.go("finds no later fence", "rebuild.name")


def name(t: Turn) -> Iterator[Move]:
    """Put the format record: from then on the new index serves the store."""
    own, formats = t.mem
    if len(t.s.container.formats) != formats and t.rules.rebuild_lists_formats_first:
        yield t.go("finds that another format record was put", "rebuild.look", mem=(own, len(t.s.container.formats)))
        return
    container = t.s.container._replace(formats=(*t.s.container.formats, t.role.db))
    yield t.go("has the container name its index", "done", mem=(), container=container)


def rebuild(container: Container, doomed: set[int], incarnation: int, s: State) -> Index:
    """Return the index that the container describes.

    A real rebuild copies what is needed and is only under doomed keys. Here that never happens, as the search shows: it would
    leave an object placed nowhere.
    """
    assert s.dbs[0] is not None
    contents = len(s.dbs[0].objects)
    versions, entries = replay(container)
    blobs = [Blob()] * len(container.bodies)
    objects = [NOWHERE] * contents
    for key, body in enumerate(container.bodies):
        if body is None:
            continue
        # A key that is named as deleted and is still there is deleted again: whoever meant to may be gone.
        blobs[key] = Blob("deleting" if key in doomed else "live")
        for content in body.contents if key not in doomed else ():
            objects[content] = key if objects[content] == NOWHERE else objects[content]
    return Index(
        blobs=tuple(blobs),
        objects=tuple(objects),
        uploads=("",) * len(s.actors),
        entries=entries,
        aside=(),
        versions=versions,
        uses=(0,) * contents,
        counted=0,
        log=tuple(record for record in container.log if record is not None),
        incarnation=incarnation,
        life=LIVES * incarnation,
    )


def replay(container: Container) -> tuple[tuple[Version, ...], tuple[Entry, ...]]:
    """Return the versions that journal and log tell of, and the entries that those which are left need."""
    versions: tuple[Version, ...] = ()
    entries: tuple[Entry, ...] = ()
    for record in container.journal:
        if not isinstance(record, Commit):
            break  # what stands behind a hole was never acknowledged
        versions = (*versions, Version(record))
        entries = apply_changes(entries, len(versions), record.changes)
    for told in container.log:
        if told is not None and told.kind in ("expired", "restored"):
            for number in told.items:
                if number <= len(versions):
                    is_gone = told.kind == "expired"
                    gone = versions[number - 1]._replace(expired=is_gone, aside=is_gone, collected=is_gone)
                    versions = put(versions, number - 1, gone)
    return versions, tuple(entry for entry in entries if not is_dead(versions, entry))


def doomed_keys(container: Container) -> set[int]:
    """Return the keys that the log names as about to be deleted."""
    return {key for told in container.log if told is not None and told.kind == "deleting" for key in told.items}


STEPS: dict[str, Step] = {
    "fence": fence,
    "rebuild.read": read,
    "rebuild.read more": read_more,
    "rebuild.look": look,
    "rebuild.name": name,
}
