"""What is promised, looked at in every state."""

from __future__ import annotations

from collections.abc import Callable

from tests.protocol.play import Scenario
from tests.protocol.rebuild import LIVES, doomed_keys
from tests.protocol.records import is_diverged
from tests.protocol.uses import is_dead
from tests.protocol.world import NOWHERE, Index, Promise, State, contents_at, name_of

Check = Callable[[State], str | None]


def find_broken(scenario: Scenario) -> Check:
    """Return the function that names the first of a scenario's promises which a state breaks, or None."""
    checks = [CHECKS[name] for name in scenario.promises]

    def check(s: State) -> str | None:
        for one in checks:
            if (what := one(s)) is not None:
                return what
        return None

    return check


def _kept(s: State) -> list[Promise]:
    return [promise for promise in s.promises if promise.number not in s.expired]


def check_recoverable(s: State) -> str | None:
    """Every acknowledged version that is not expired is in the container: all records up to it, and all its bytes.

    Bytes under a key that the log names as deleted do not count, as a rebuild does not count them.
    """
    return _find_lost(s, doomed_keys(s.container))


def check_stored(s: State) -> str | None:
    """As `check_recoverable`, but for bytes under keys that the log names as deleted: a rebuild copies those it finds."""
    return _find_lost(s, set())


def _find_lost(s: State, doomed: set[int]) -> str | None:
    there = {c for key, body in enumerate(s.container.bodies) if body and key not in doomed for c in body.contents}
    journal = s.container.journal
    for promise in _kept(s):
        if any(record is None for record in journal[: promise.number]) or len(journal) < promise.number:
            return f"version {promise.number} was acknowledged, and a record up to it is not in the container"
        record = journal[promise.number - 1]
        if record is None or record.commit_id != promise.commit_id:
            return f"version {promise.number} was acknowledged, and the container holds another record of it"
        for path, content in promise.contents:
            if content not in there:
                return f"version {promise.number} was acknowledged, and the bytes of {path} ({name_of(content)}) are gone"
    return None


def find_serving(s: State) -> Index | None:
    """Return the index that serves the store, if there is one and it is not one that would be refused as too old."""
    for db in reversed(s.dbs):
        if db is not None and db.incarnation == s.container.incarnation:
            # Only an index that was put back from a copy may be another than the container tells of; a rebuilt one must not be.
            return None if db.life % LIVES and is_diverged(db, s.container) else db
    return None


def check_readable(s: State) -> str | None:
    """Every acknowledged version that is not expired reads back, through the index that serves the store."""
    db = find_serving(s)
    if db is None:
        return None
    for promise in _kept(s):
        number = promise.number
        if len(db.versions) < number or db.versions[number - 1].record.commit_id != promise.commit_id:
            return f"version {number} was acknowledged, and the index does not know it"
        if db.versions[number - 1].expired:
            return f"version {number} was acknowledged, and the index says that it is expired"
        if contents_at(db.entries, number) != promise.contents:
            return f"version {number} was acknowledged, and the index has other entries of it"
        for path, content in promise.contents:
            if (what := _find_unreadable(s, db, content)) is not None:
                return f"version {number} was acknowledged, and {path} ({name_of(content)}) {what}"
    return None


def _find_unreadable(s: State, db: Index, content: int) -> str | None:
    if db.objects[content] == NOWHERE:
        return "is placed nowhere"
    body = s.container.bodies[db.objects[content]]
    if body is None:
        return f"is placed in blob {db.objects[content]}, which is not there"
    if content not in body.contents:
        return f"is placed in blob {db.objects[content]}, which holds something else"
    return None


def check_held(s: State) -> str | None:
    """What a version needs is in a live blob: nothing that is used is condemned. The proof rests on it."""
    db = find_serving(s)
    if db is None:
        return None
    for entry in db.entries:
        place = db.objects[entry.content]
        if (place == NOWHERE or db.blobs[place].state != "live") and not is_dead(db.versions, entry):
            state = "nowhere" if place == NOWHERE else db.blobs[place].state
            return f"a version needs {entry.path} ({name_of(entry.content)}), whose blob {place} is {state}"
    return None


def check_spared(s: State) -> str | None:
    """Nobody who is alive loses what it is sending: for progress, where collectors can tell who is alive."""
    for db in s.dbs:
        for number, blob in enumerate(db.blobs if db else ()):
            owner = s.actors[blob.owner] if blob.owner != NOWHERE else None
            if blob.state == "deleting" and owner and owner.step.startswith("finish") and owner.mem[0] == number:
                return f"blob {number} is taken away from an upload that is alive"
    return None


def is_clean(s: State) -> bool:
    """Return whether no garbage is left: only what versions need is in the container, and no row waits for anything.

    But for a PUT that lands after the DELETE of its reaped key, and may do so at any time: `vds fsck` finds that.
    """
    db = find_serving(s)
    if db is None:
        return False
    used = {db.objects[entry.content] for entry in db.entries if not is_dead(db.versions, entry)}
    there = {key for key, body in enumerate(s.container.bodies) if body is not None and db.blobs[key].state != "deleted"}
    waits = {"pending", "condemned", "deleting"}
    return there == used and not any(blob.state in waits for blob in db.blobs)


CHECKS: dict[str, Check] = {
    "recoverable": check_recoverable,
    "stored": check_stored,
    "readable": check_readable,
    "held": check_held,
    "spared": check_spared,
}
