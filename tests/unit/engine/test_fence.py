"""The fence in the store's log: another index is noticed, also behind what is queued here, and before an acknowledgement."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import vds
from tests.support import list_keys, write_tree
from vds.engine import commit
from vds.engine.doors import Doors
from vds.engine.journal import add_store_record, check_store_fresh, publish, publish_store_record
from vds.errors import FormatError, OutcomeUnknownError
from vds.model.storelog import StoreRecord, store_key
from vds.store import Store

_numbers = count(1)
ULID = "01m8065kr4qmvkhy9wkt5d06gv"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with vds.connect(f"memory://fence-{next(_numbers)}", index=f"sqlite:///{tmp_path}/index.sqlite", create=True) as made:
        made.namespace("team/raw").upload(write_tree(tmp_path / "first", {"a": b"a"}), show_progress=False)
        yield made


def put_fence(doors: Doors) -> str:
    """Do what a rebuild does first, and return the key it took."""
    keys = list_keys(doors.blobs, "store/")
    last = StoreRecord.decode(doors.blobs.read_range(keys[-1]), keys[-1])
    fields = {"incarnation": ULID, "address": "embedded", "host": "h"}
    fence = StoreRecord(last.store, last.number + 1, last.digest, "index-replaced", last.created_at, fields)
    doors.blobs.put_if_absent(store_key(fence.number), fence.encode())
    return store_key(fence.number)


def test_a_fence_where_a_queued_record_would_go_is_seen(store: Store) -> None:
    """A look behind the queued record would find nothing."""
    doors = store._handle.doors
    check_store_fresh(doors)
    fields = {"keys": ["packs/00/x.pack"], "size_bytes": 1, "why": "gc", "author": "ada"}
    doors.index.run(lambda connection: add_store_record(connection, doors.store, "keys-deleting", fields))
    put_fence(doors)
    with pytest.raises(FormatError, match="older than its store"):
        check_store_fresh(doors)


def test_the_log_is_written_in_order(store: Store) -> None:
    doors = store._handle.doors
    fields = {"keys": ["packs/00/x.pack"], "size_bytes": 1, "why": "gc", "author": "ada"}
    added = [
        doors.index.run(lambda connection: add_store_record(connection, doors.store, "keys-deleting", fields)) for _ in range(3)
    ]
    publish_store_record(doors, added[1])
    assert list_keys(doors.blobs, "store/") == [store_key(number) for number in (1, 2, 3)]
    publish_store_record(doors, added[2])
    assert list_keys(doors.blobs, "store/") == [store_key(number) for number in (1, 2, 3, 4)]


def test_a_writer_looks_before_it_acknowledges(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = store._handle.doors
    acknowledge = commit._acknowledge

    def fence_first(*arguments: Any) -> None:
        acknowledge(*arguments)
        put_fence(doors)  # the journal record is there, and the index is replaced before anybody is told

    monkeypatch.setattr(commit, "_acknowledge", fence_first)
    with pytest.raises(OutcomeUnknownError, match="version 2 is written, but this index is older") as caught:
        store.namespace("team/raw").upload(write_tree(tmp_path / "second", {"b": b"b"}), show_progress=False)
    assert caught.value.commit_id
    with pytest.raises(FormatError, match="older than its store"):
        store.outcome(caught.value.commit_id)


def test_a_tag_is_not_acknowledged_either(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = store._handle.doors

    def fence_first(*arguments: Any, **options: Any) -> None:
        publish(*arguments, **options)
        put_fence(doors)

    monkeypatch.setattr("vds.ops.dataset.publish", fence_first)
    with pytest.raises(OutcomeUnknownError, match="event 1 of dataset 'customers' is written"):
        store.dataset("customers").register("team/raw@1")


def test_a_commit_that_the_index_forgot_is_not_acknowledged(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was put back to an earlier state between the commit and its answer."""
    doors = store._handle.doors
    acknowledge = commit._acknowledge

    def forget(*arguments: Any) -> None:
        acknowledge(*arguments)
        doors.index.run(lambda connection: connection.exec_driver_sql("DELETE FROM version WHERE number = 2"))

    monkeypatch.setattr(commit, "_acknowledge", forget)
    with pytest.raises(OutcomeUnknownError, match="the index knows it no more"):
        store.namespace("team/raw").upload(write_tree(tmp_path / "second", {"b": b"b"}), show_progress=False)
