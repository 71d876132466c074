"""Requests on their way to the container: each may land late, again, or never; its sender may be gone by then.

The service is what `vds.blobs.driver` promises: put if absent and delete are atomic, and a read sees what was written before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.world import ANY, Body, Commit, Container, Index, LogRecord, Request, State, add, name_of, put

Item = tuple[str, int]
"""A line of records, "log" or "journal", and a number."""


def land(s: State, *, is_tidy: bool) -> Iterator[tuple[str, State]]:
    """Yield the landing of each request under way; `is_tidy` drops those that can change nothing any more."""
    for request in s.net:
        container, what = _take_in(s.container, request)
        net = s.net - {request}
        if request.left > 1:
            net |= {request._replace(left=request.left - 1)}
        yield f"(network) {what}", s._replace(container=container, net=tidy(net, container) if is_tidy else net)


def _take_in(container: Container, request: Request) -> tuple[Container, str]:
    if request.kind == "PUT":
        assert isinstance(request.body, Body)
        return put_blob(container, request.key, request.body), f"PUT of key {request.key} ({names(request.body)}) lands"
    if request.kind == "DELETE":
        return delete_blob(container, request.key, request.etag), f"DELETE of key {request.key} lands"
    assert isinstance(request.body, Commit)
    return put_commit(container, request.key, request.body), f"PUT of journal/{request.key} lands"


def put_blob(container: Container, key: int, body: Body) -> Container:
    """Put a blob if its key is free."""
    if container.bodies[key] is not None:
        return container
    return container._replace(bodies=put(container.bodies, key, body))


def delete_blob(container: Container, key: int, etag: int) -> Container:
    """Delete a blob if it is there and, where an etag is given, is the one that was written with it."""
    body = container.bodies[key]
    if body is None or etag not in (ANY, body.etag):
        return container
    return container._replace(bodies=put(container.bodies, key, None))


def put_commit(container: Container, number: int, record: Commit) -> Container:
    """Put a record of the journal if its number is free."""
    if number <= len(container.journal) and container.journal[number - 1] is not None:
        return container
    return container._replace(journal=add(container.journal, number - 1, record, None))


def tidy(net: frozenset[Request], container: Container) -> frozenset[Request]:
    """Return the requests that can still change something, given that no key is used twice."""
    coming = {request.key for request in net if request.kind == "PUT"}
    return frozenset(r for r in net if r.kind != "DELETE" or container.bodies[r.key] is not None or r.key in coming)


def names(body: Body) -> str:
    """Return the contents of a body, as they are shown."""
    return "".join(map(name_of, body.contents))


def find_ours(db: Index, item: Item) -> Commit | LogRecord:
    """Return the record that the index would write under a number."""
    line, number = item
    return db.log[number - 1] if line == "log" else db.versions[number - 1].record


def find_theirs(container: Container, item: Item) -> Commit | LogRecord | None:
    """Return the record that the container holds under a number."""
    line, number = item
    records = container.log if line == "log" else container.journal
    return records[number - 1] if number <= len(records) else None


def put_record(container: Container, item: Item, record: Commit | LogRecord) -> Container:
    """Put a record if its number is free."""
    if isinstance(record, Commit):
        return put_commit(container, item[1], record)
    if find_theirs(container, item) is not None:
        return container
    return container._replace(log=add(container.log, item[1] - 1, record, None))


def publish_all(s: State, place: int) -> State:
    """Put every queued record of an index, for scenarios in which their way to the container makes no difference."""
    db, container = s.dbs[place], s.container
    assert db is not None
    for item in db.queue:
        container = put_record(container, item, find_ours(db, item))
    net = frozenset(request for request in s.net if request.kind != "JOURNAL")
    return s._replace(dbs=put(s.dbs, place, db._replace(queue=())), container=container, net=net)
