"""Datasets: their events, and the releases that those made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing

from vds.blobs.records import NUMBER_DIGITS, Found, Gap, number_in, read_events
from vds.index.rebuildrows import add_dataset, add_namespaces, find_namespaces, find_version_digest, set_heads
from vds.index.stores import find_namespace
from vds.model.event import DatasetEvent, Registered, event_key
from vds.model.moment import micros_of
from vds.model.ulid import ulid_ms
from vds.model.version import NO_PARENT, journal_key
from vds.ops.rebuilding import Making


def remake_datasets(making: Making) -> None:
    """Add every dataset with its events and releases, up to the first gap of each; every gap is reported."""
    making.progress.stage("reading datasets")
    making.sink.flush()  # the versions that are released are to be found
    with making.sink.database.read() as connection:
        namespaces = find_namespaces(connection, making.store_id)
    seen = set()
    with closing(read_events(making.blobs, making.uid)) as lines:
        for prefix, items in lines:
            seen.add(_remake_dataset(making, namespaces, prefix, items))
    for name, last in making.known.events.items():
        if last and name not in seen:
            _lose(making, _add(making, name, making.began_us), name, _cut(name, 0, last))
    making.sink.flush()


def _remake_dataset(making: Making, namespaces: dict[str, int], prefix: str, items: Iterable[Found[DatasetEvent] | Gap]) -> str:
    """Add one dataset and return its name; empty when nothing says it."""
    dataset_id, name, head, digest = 0, "", 0, NO_PARENT
    lost: Gap | None = None
    for item in items:
        if isinstance(item, Gap):
            if lost is None and number_in(item.key, prefix) is not None:
                lost = item
            else:
                making.report("events", item, name=name)
        elif lost is not None:
            name = name or item.record.dataset
        else:
            if not dataset_id:
                name = item.record.dataset
                dataset_id = _add(making, name, micros_of(item.record.created_at))
            _add_event(making, dataset_id, item)
            if item.record.registered is not None:
                _add_release(making, namespaces, dataset_id, item, item.record.registered)
            head, digest = item.record.number, item.digest
    if lost is None and making.known.events.get(name, 0) > head:
        lost = _cut(name, head, making.known.events[name])
    if lost is not None:
        dataset_id = dataset_id or (_add(making, name, making.began_us) if name else 0)
        _lose(making, dataset_id, name, lost)
    if dataset_id:
        making.sink.run(lambda connection: set_heads(connection, "dataset", [(dataset_id, head, digest)]))
    return name


def _cut(name: str, head: int, known: int) -> Gap:
    detail = f"the history ends with event {head}, and the index before knew event {known}"
    return Gap(event_key(name, head + 1), "missing", detail)


def _lose(making: Making, dataset_id: int, name: str, gap: Gap) -> None:
    making.lose("events", gap, owner_id=dataset_id, name=name, first=number_in(gap.key, gap.key[:-NUMBER_DIGITS]) or 0)


def _add(making: Making, name: str, created_us: int) -> int:
    making.count("datasets")
    return making.sink.run(lambda connection: add_dataset(connection, making.store_id, name, created_us))


def _add_event(making: Making, dataset_id: int, item: Found[DatasetEvent]) -> None:
    event = item.record
    row = (
        *(making.store_id, dataset_id, event.number, event.kind, event.tag, event.release, event.previous),
        *(event.author, event.reason, micros_of(event.created_at), item.digest, event.parent),
    )
    making.sink.add("tag_event", [row], weight_bytes=len(item.body))
    making.count("events")


def _add_release(
    making: Making, namespaces: dict[str, int], dataset_id: int, item: Found[DatasetEvent], registered: Registered
) -> None:
    event = item.record
    assert event.release is not None, "a registration has one"
    namespace_id = namespaces.get(registered.namespace) or _adopt(making, namespaces, registered)
    with making.sink.database.read() as connection:
        digest = find_version_digest(connection, making.store_id, namespace_id, registered.version)
    where = f"release {event.release} is of {registered.namespace_name}@{registered.version}"
    versions = [(registered.version, registered.version)]
    if digest is None:
        # The release's row is there all the same: who asks for it is told that the version is not. No other may get its number.
        gap = Gap(journal_key(registered.namespace, registered.version), "missing", f"{where}, which is not there")
        making.lose("journal", gap, owner_id=namespace_id, name=registered.namespace_name, first=registered.version)
    elif digest != registered.version_digest:
        making.report("events", Gap(item.key, "chain", f"{where}, which is another now"), name=event.dataset, versions=versions)
        return
    if not namespace_id:
        return
    row = (
        *(making.store_id, dataset_id, event.release, namespace_id, registered.version, registered.path, event.number),
        *(micros_of(event.created_at), event.author, registered.description),
        json.dumps(dict(registered.labels), sort_keys=True),
    )
    making.sink.add("release", [row], weight_bytes=len(item.body))


def _adopt(making: Making, namespaces: dict[str, int], registered: Registered) -> int:
    """Add a namespace of which nothing is left but that a version of it was released; 0 where its name is another's now."""
    uid, name = registered.namespace, registered.namespace_name
    with making.sink.database.read() as connection:
        is_taken = find_namespace(connection, making.store_id, name) is not None
    if is_taken:
        return 0
    row = (uid, name, ulid_ms(uid) * 1000)
    namespaces.update(making.sink.run(lambda connection: add_namespaces(connection, making.store_id, [row])))
    making.count("namespaces")
    return namespaces[uid]
