"""Datasets: their events, and the releases that those made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing

from vds.blobs.records import JOURNAL_PREFIX, Found, Gap, number_in, read_events
from vds.index.rebuildrows import add_dataset, add_namespaces, find_namespaces, find_version_digest, set_heads
from vds.index.stores import find_namespace
from vds.model.event import DatasetEvent, Registered
from vds.model.moment import micros_of
from vds.model.ulid import ulid_ms
from vds.model.version import NO_PARENT
from vds.ops.rebuilding import Making


def remake_datasets(making: Making) -> None:
    """Add every dataset with its events and releases, up to the first gap of each; every gap is reported."""
    making.progress.stage("reading datasets")
    making.sink.flush()  # the versions that are released are to be found
    with making.sink.database.read() as connection:
        namespaces = find_namespaces(connection, making.store_id)
    with closing(read_events(making.blobs, making.uid)) as lines:
        for prefix, items in lines:
            _remake_dataset(making, namespaces, prefix, items)
    making.sink.flush()


def _remake_dataset(making: Making, namespaces: dict[str, int], prefix: str, items: Iterable[Found[DatasetEvent] | Gap]) -> None:
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
    if lost is not None:
        dataset_id = dataset_id or (_add(making, name, making.began_us) if name else 0)
        making.lose("events", lost, owner_id=dataset_id, name=name, first=number_in(lost.key, prefix) or 0)
    if dataset_id:
        making.sink.run(lambda connection: set_heads(connection, "dataset", [(dataset_id, head, digest)]))


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
    if digest != registered.version_digest:
        # Its row is there all the same: who asks for the release is told that the version is not.
        what = "is not there" if digest is None else "has another digest"
        where = f"{registered.namespace_name}@{registered.version}"
        gap = Gap(item.key, "chain", f"release {event.release} is of {where}, which {what}")
        making.report("events", gap, name=event.dataset, versions=[(registered.version, registered.version)])
    if not namespace_id:
        return
    row = (
        *(making.store_id, dataset_id, event.release, namespace_id, registered.version, registered.path, event.number),
        *(micros_of(event.created_at), event.author, registered.description),
        json.dumps(dict(registered.labels), sort_keys=True),
    )
    making.sink.add("release", [row], weight_bytes=len(item.body))


def _adopt(making: Making, namespaces: dict[str, int], registered: Registered) -> int:
    """Add a namespace of which nothing is left but that it had a version; 0 where its name is another's now."""
    uid, name = registered.namespace, registered.namespace_name
    gap = Gap(f"{JOURNAL_PREFIX}{uid}/", "missing", f"version {registered.version} was released, and no version is there")
    with making.sink.database.read() as connection:
        is_taken = find_namespace(connection, making.store_id, name) is not None
    if is_taken:
        making.report("journal", gap, name=name)
        return 0
    row = (uid, name, ulid_ms(uid) * 1000)
    namespaces.update(making.sink.run(lambda connection: add_namespaces(connection, making.store_id, [row])))
    making.count("namespaces")
    making.lose("journal", gap, owner_id=namespaces[uid], name=name, first=1)
    return namespaces[uid]
