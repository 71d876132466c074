"""How not to do it: the name of a content is its key; what exists is not sent; what nothing refers to is deleted.

There is no age in a model: an upload may take longer than any age one could choose.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.network import delete_blob, put_blob, put_commit
from tests.protocol.play import Move, Step, Turn
from tests.protocol.world import ANY, Body, Commit, Promise, Version, apply_changes, contents_at


def look(t: Turn) -> Iterator[Move]:
    """Ask the container whether the content is there."""
    [(_, content)] = t.role.changes
    if t.s.container.bodies[content] is None:
        body = Body((content,), t.i)
        yield t.go("sends its content", "naive commit", container=put_blob(t.s.container, content, body))
    else:
        yield t.go("finds its content in the container, and does not send it", "naive commit")


def commit(t: Turn) -> Iterator[Move]:
    """Name it."""
    number, record = len(t.db.versions) + 1, Commit(t.i, t.role.changes)
    db = t.db._replace(versions=(*t.db.versions, Version(record)), entries=apply_changes(t.db.entries, number, t.role.changes))
    promise = Promise(number, t.i, contents_at(db.entries, number))
    yield t.go(
        f"commits version {number}",
        "done",
        db=db,
        container=put_commit(t.s.container, number, record),
        promises=tuple(sorted({*t.s.promises, promise})),
    )


def collect(t: Turn) -> Iterator[Move]:
    """List the container and delete what no version refers to."""
    used = {entry.content for entry in t.db.entries}
    for key, body in enumerate(t.s.container.bodies):
        if body is not None and key not in used:
            yield t.go(f"deletes key {key}, which no version uses", "naive", container=delete_blob(t.s.container, key, ANY))


STEPS: dict[str, Step] = {"naive look": look, "naive commit": commit, "naive": collect}
