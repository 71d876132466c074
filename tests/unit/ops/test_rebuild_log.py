"""The store's log in a rebuild: what it says, who is first with its next record, and who is fenced by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import vds
from tests.unit.ops.remade import Remade
from vds.blobs.driver import Buffer
from vds.blobs.memory import MemoryDriver
from vds.blobs.open import open_driver
from vds.engine.checkpoint import write_checkpoint
from vds.errors import BlobExistsError, ConflictError, CorruptionError, FormatError, NotFoundError, UnavailableError
from vds.index.database import Database
from vds.model.format import FormatRecord
from vds.model.storelog import StoreRecord
from vds.ops import rebuildlog
from vds.ops.open import find_format
from vds.ops.rebuild import NewIndex, rebuild
from vds.ops.rebuilding import RebuildReport
from vds.progress import SilentProgress


@pytest.fixture
def made() -> Iterator[Remade]:
    """A store whose log has three records: of two namespaces, and of a version that has expired."""
    remade = Remade()
    remade.commit("a", {"x": b"1"})
    remade.commit("a", {"x": b"2"})
    remade.commit("b", {"y": b"1"})
    remade.store.expire(["a@1"], dry_run=False)
    remade.store.dataset("d").register("b@1", tags=["t"])
    yield remade
    remade.store.close()


def newest_format(made: Remade) -> FormatRecord:
    record = find_format(made.blobs, read_only=True)
    assert record is not None
    return record


def rebuild_with(made: Remade, path: Path, progress: SilentProgress) -> RebuildReport:
    """Make the index anew where it is, telling `progress`."""
    made.store.close()
    database = Database(path)
    try:
        return rebuild(open_driver(made.url), newest_format(made), NewIndex(database, "embedded", "here"), progress)
    finally:
        database.close()


class AtStage(SilentProgress):
    """Does something when a stage begins, once."""

    def __init__(self, name: str, action: Callable[[], Any]) -> None:
        self._name = name
        self._action: Callable[[], Any] | None = action

    def stage(self, name: str, *, files: int | None = None, bytes: int | None = None) -> None:
        if name == self._name and self._action is not None:
            action, self._action = self._action, None
            action()


STAGES = ["reading the store's log", "listing blobs", "reading versions", "reading datasets", "looking for missing objects"]


def test_the_log_ends_with_the_new_index(made: Remade) -> None:
    before = newest_format(made)
    report = made.rebuild()
    key = made.keys("store/")[-1]
    record = StoreRecord.decode(made.blobs.read_range(key), key)
    assert (record.number, record.kind) == (4, "index-replaced")
    assert record.fields["incarnation"] == report.incarnation != before.incarnation
    assert record.fields["address"] == "embedded"
    assert newest_format(made).incarnation == report.incarnation
    assert made.keys("format/") == [f"format/{number:016d}" for number in (1, 2)]
    assert made.store._handle.doors.store.log_seq == 4
    made.commit("c", {"z": b"1"})  # its record follows
    assert made.keys("store/")[-1] == f"store/{5:016d}"
    assert made.rebuild().ok


def test_who_is_first_with_the_next_record_is_read(made: Remade, monkeypatch: pytest.MonkeyPatch) -> None:
    put = MemoryDriver.put_if_absent
    rivals = ["a@2 is the head", "another"]

    def put_after_a_rival(self: MemoryDriver, key: str, body: Buffer, metadata: Any = None) -> str:
        if key.startswith("store/") and rivals:
            rivals.pop()
            ours = StoreRecord.decode(bytes(body), key)
            fields = {"digest": "b3:" + "0" * 62 + f"{len(rivals):02d}", "author": "rival", "reason": "quicker"}
            theirs = StoreRecord(ours.store, ours.number, ours.parent, "object-erased", ours.created_at, fields)
            put(self, key, theirs.encode())
        return put(self, key, body, metadata)

    monkeypatch.setattr(MemoryDriver, "put_if_absent", put_after_a_rival)
    assert made.rebuild().ok
    assert made.keys("store/")[-1] == f"store/{6:016d}"
    doors = made.store._handle.doors
    with doors.index.read() as connection:
        count = connection.exec_driver_sql(f"SELECT COUNT(*) FROM erased WHERE store_id = {doors.store.id}").scalar_one()
    assert count == 2


def test_others_who_never_stop_are_given_up_on(made: Remade, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: MemoryDriver, key: str, body: Buffer, metadata: Any = None) -> str:
        raise BlobExistsError(key)

    monkeypatch.setattr(rebuildlog, "TRIES_MAX", 3)
    monkeypatch.setattr(MemoryDriver, "put_if_absent", refuse)
    with pytest.raises(UnavailableError, match="write to the store's log all the time"):
        made.rebuild()


@pytest.mark.parametrize("prefix", ["store/", "format/"])
def test_a_lost_answer_is_no_rival(made: Remade, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    put = MemoryDriver.put_if_absent

    def put_twice(self: MemoryDriver, key: str, body: Buffer, metadata: Any = None) -> str:
        etag = put(self, key, body, metadata)
        return put(self, key, body, metadata) if key.startswith(prefix) else etag

    monkeypatch.setattr(MemoryDriver, "put_if_absent", put_twice)
    assert made.rebuild().ok
    assert len(made.keys("format/")) == 2
    assert len(made.keys("store/")) == 4


@pytest.mark.parametrize("stage", STAGES)
def test_of_two_rebuilds_the_one_that_began_later_counts(made: Remade, stage: str) -> None:
    reports: list[RebuildReport] = []
    path = made.index
    with pytest.raises(ConflictError, match="another rebuild"):
        rebuild_with(made, path, AtStage(stage, lambda: reports.append(rebuild_with(made, path, SilentProgress()))))
    [report] = reports
    assert report.ok
    assert newest_format(made).incarnation == report.incarnation
    made.store = vds.connect(made.url)
    assert made.texts("a", 2) == {"x": b"2"}
    assert made.rebuild().ok


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_rebuild_leaves_that_did_not_finish_goes_with_the_next(made: Remade, stage: str) -> None:
    def fail() -> None:
        raise UnavailableError("pulled the plug")

    with pytest.raises(UnavailableError, match="pulled the plug"):
        rebuild_with(made, made.index, AtStage(stage, fail))
    assert made.rebuild().ok
    doors = made.store._handle.doors
    with doors.index.read() as connection:
        for table in ("store", "namespace", "version", "entry", "blob", "object", "dataset"):
            column = "id" if table == "store" else "store_id"
            ids = set(connection.exec_driver_sql(f"SELECT DISTINCT {column} FROM {table}").scalars())
            assert ids == {doors.store.id}, table


def test_before_the_fence_the_old_index_serves_and_after_it_nobody_writes(made: Remade) -> None:
    old = vds.connect(made.url)

    def fail() -> None:
        raise UnavailableError("pulled the plug")

    with pytest.raises(UnavailableError):
        rebuild_with(made, made.index, AtStage("listing blobs", fail))
    assert old.namespace("a").get(2).read_bytes("x") == b"2"  # who reads goes on
    with pytest.raises(FormatError, match="older than its store"):
        old.namespace("a").rollback(0)
    with pytest.raises(FormatError, match="older than its store"):
        old.gc(dry_run=False, show_progress=False)
    old.close()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_hole_in_the_log_is_a_gap_and_stops_collection_alone(made: Remade, number: int) -> None:
    made.remove(f"store/{number:016d}")
    report = made.rebuild()
    # A namespace that the log does not name is known by its claim. Of the last record only the index before knows.
    assert [gap.kind for gap in report.gaps] == ["log", "log"] if number < 3 else ["log"]
    assert {info.name for info in made.store.namespaces()} == {"a", "b"}
    assert made.keys("store/")[-1] == f"store/{4:016d}"
    assert made.texts("a", 2) == {"x": b"2"}
    assert made.texts("b", 1) == {"y": b"1"}
    made.commit("b", {"more": b"fine"})
    with pytest.raises(CorruptionError, match="gap"):
        made.store.gc(dry_run=False, show_progress=False)


def test_after_a_damaged_last_record_the_log_goes_on(made: Remade) -> None:
    made.replace(f"store/{3:016d}", lambda body: body[:-5])
    assert [gap.kind for gap in made.rebuild().gaps] == ["log"]
    assert made.texts("a", 1) == {"x": b"1"}  # nothing says any more that it had expired
    assert made.keys("store/")[-1] == f"store/{4:016d}"
    assert [gap.kind for gap in made.rebuild().gaps] == ["log"]


def test_a_claim_that_is_gone_is_reported(made: Remade) -> None:
    [first, _] = made.keys("namespaces/")
    made.remove(first)
    assert made.only(made.rebuild()).kind == "claim"
    made.commit("a", {"more": b"fine"})
    made.commit("b", {"more": b"fine"})


def test_a_claim_that_cannot_be_read_is_reported_too(made: Remade) -> None:
    made.replace(made.keys("namespaces/")[0], lambda body: b"?")
    assert [gap.kind for gap in made.rebuild().gaps] == ["claim", "claim"]


@pytest.mark.parametrize(("number", "tags"), [(1, None), (2, [])])
def test_a_gap_in_a_datasets_events_ends_what_is_visible_before_it(made: Remade, number: int, tags: list[str] | None) -> None:
    made.store.dataset("d").tag("t", "b@1", reason="again")  # nothing, as it stays
    made.store.dataset("d").untag("t")
    made.remove(made.keys("datasets/")[number - 1])
    report = made.rebuild()
    gap = made.only(report)
    assert (gap.kind, gap.name, gap.versions) == ("events", "d", ((number, None),))
    dataset = made.store.dataset("d")
    if tags is None:
        with pytest.raises(NotFoundError):
            dataset.tags()
    else:
        assert list(dataset.tags()) == tags
    events = made.keys("datasets/")
    with pytest.raises(CorruptionError, match=f"gap at event {number}"):
        dataset.register("a@2")
    if tags is not None:
        with pytest.raises(CorruptionError, match=f"gap at event {number}"):
            dataset.tag("u", 1)
    assert made.keys("datasets/") == events
    made.store.dataset("e").register("a@2")


def test_a_release_of_a_version_that_is_not_there_any_more(made: Remade) -> None:
    key = made.journal("b", 1)
    made.remove(key)
    made.forget_index()
    gap = made.only(made.rebuild())
    assert (gap.kind, gap.key, gap.name, gap.versions) == ("journal", key, "b", ((1, None),))
    assert gap.detail == "release 1 is of b@1, which is not there"
    with pytest.raises(NotFoundError):
        made.store.dataset("d").get(1)
    with pytest.raises(CorruptionError, match="gap at version 1"):  # or the release would show something else
        made.commit("b", {"y": b"2"})


def test_a_release_of_a_version_that_is_another_now_is_no_release(made: Remade) -> None:
    made.replace(made.journal("b", 1), lambda body: body.replace(b'"message":""', b'"message":"forged"'))
    gap = made.only(made.rebuild())
    assert (gap.kind, gap.name, gap.detail) == ("events", "d", "release 1 is of b@1, which is another now")
    with pytest.raises(NotFoundError):
        made.store.dataset("d").get(1)


@pytest.mark.parametrize("what", ["version", "event", "namespace", "dataset"])
def test_the_end_of_a_history_is_missed_by_what_the_index_before_knew(made: Remade, what: str) -> None:
    made.store.dataset("d").untag("t")
    keys = {
        "version": [made.journal("a", 2)],
        "event": made.keys("datasets/")[-1:],
        "namespace": [made.journal("b", 1), *made.keys("datasets/")],
        "dataset": made.keys("datasets/"),
    }
    for key in keys[what]:
        made.remove(key)
    first = [(gap.kind, gap.name, gap.versions) for gap in made.rebuild().gaps]
    assert (
        first
        == {
            "version": [("journal", "a", ((2, None),))],
            "event": [("events", "d", ((3, None),))],
            "namespace": [("journal", "b", ((1, None),)), ("events", "d", ((1, None),))],
            "dataset": [("events", "d", ((1, None),))],
        }[what]
    )
    again = [(gap.kind, gap.name, gap.versions) for gap in made.rebuild().gaps]
    assert again == first  # what was known is not forgotten
    kind, name, _ = first[0]
    write = partial(made.commit, name, {"z": b"z"}) if kind == "journal" else partial(made.store.dataset(name).register, "a@2")
    with pytest.raises(CorruptionError, match="gap"):
        write()


def test_an_expiry_or_a_checkpoint_tells_that_a_history_went_on(made: Remade) -> None:
    made.commit("b", {"y": b"2"})
    write_checkpoint(made.store._handle.doors, made.namespace("b"), 2)
    made.remove(made.journal("a", 2))  # the first one expired, so there was another
    made.remove(made.journal("b", 2))
    made.forget_index()
    found = {gap.name: (gap.kind, gap.versions) for gap in made.rebuild().gaps}
    assert found == {"a": ("journal", ((2, None),)), "b": ("journal", ((2, None),))}


def test_a_log_that_does_not_name_the_index_that_served_is_cut(made: Remade) -> None:
    assert made.rebuild().ok
    made.remove(made.keys("store/")[-1])
    made.forget_index()
    gap = made.only(made.rebuild())
    assert gap.kind == "log"
    assert "replaced the one before" in gap.detail


def test_a_record_that_arrives_late_is_written_after_by_nobody_and_read_by_the_next_rebuild(made: Remade) -> None:
    key = made.journal("b", 2)
    made.commit("b", {"y": b"late"})
    body = made.blobs.read_range(key)
    made.remove(key)  # its PUT is still on its way when the rebuild lists
    made.forget_index()
    assert made.rebuild().ok
    made.blobs.put_if_absent(key, body)
    with pytest.raises(FormatError, match="holds version 2 of 'b'"):
        made.commit("b", {"y": b"another"})
    assert made.rebuild().ok
    assert made.texts("b", 2) == {"y": b"late"}
    made.commit("b", {"y": b"another"})
