"""An index that is made anew from its container says what the old one said: on both databases, over every driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

import vds
from tests.logicaldump import Dump, dump_intervals, dump_store
from tests.richstore import fill_store
from tests.support import SERVICES, Place, make_place
from tests.unit.ops.remade import Remade
from vds.engine.checkpoint import write_checkpoint
from vds.engine.journal import add_store_record, publish_store_record
from vds.errors import CorruptionError, FormatError, InvalidInputError, NotFoundError
from vds.index import rebuild as index_rebuild
from vds.index import rebuildsink
from vds.index.schema import OPEN
from vds.ops import rebuildentries
from vds.ops.rebuilding import RebuildReport

PLACES = [
    "directory+sqlite",
    pytest.param("memory+postgresql", marks=SERVICES),
    pytest.param("azurite+postgresql", marks=SERVICES),
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """A place for a store, of each kind."""
    return make_place(request.param, request)


def rebuild(place: Place, *, index: str | None = None) -> RebuildReport:
    """Make the index anew and check that nothing was missing."""
    report = vds.rebuild_index(place.url, index=index or place.index, show_progress=False)
    assert report.gaps == ()
    assert report.ok
    return report


def check_readable(store: vds.Store) -> None:
    """Read every file of every version that there is."""
    for info in store.namespaces():
        for version in store.namespace(info.name).log():
            assert version.verify().failures == {}, version.uri


def shrink(store: vds.Store) -> None:
    """Let versions expire, collect their bytes, and erase an object."""
    store.expire(["team/raw@2", "team/raw@4", "team/raw@5", "runs/x@1", "runs/x@2", "runs/x@3"], dry_run=False, reason="old")
    store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    entry = store.namespace("team/raw").get(1).entry("a.txt")
    store.erase(entry.digest, reason="personal", dry_run=False, show_progress=False)


def check_same(before: Dump, after: Dump) -> None:
    """Hold two dumps against each other, part by part: the whole would be too long to read."""
    for what in before:
        if what != "namespaces":
            assert after[what] == before[what], what
    assert list(after["namespaces"]) == list(before["namespaces"])
    for name, namespace in before["namespaces"].items():
        for number, version in namespace["versions"].items():
            assert after["namespaces"][name]["versions"][number] == version, f"{name}@{number}"
        assert after["namespaces"][name] == namespace, name


def test_all_is_there_again_down_to_the_intervals(place: Place, tmp_path: Path) -> None:
    with place.connect(create=True) as store:
        fill_store(store, tmp_path)
        before, intervals = dump_store(store), dump_intervals(store)
        assert before["lists"]  # a change list had a blob of its own
        incarnation = store._handle.doors.store.incarnation
    report = rebuild(place)
    assert report.incarnation != incarnation
    assert report.versions == sum(namespace["head"] for namespace in before["namespaces"].values())
    with place.connect() as store:
        check_same(before, dump_store(store))
        assert dump_intervals(store) == intervals
        check_readable(store)
        for version in store.namespace("team/raw").log():
            assert store.outcome(version.commit_id) == version
        with store.namespace("team/raw").transaction("and on it goes") as tx:
            tx.write_text("after.txt", "the rebuild")
        again = dump_store(store)
    rebuild(place)
    with place.connect() as store:
        check_same(again, dump_store(store))


def test_what_expired_and_what_was_erased_stays_so(place: Place, tmp_path: Path) -> None:
    with place.connect(create=True) as store:
        fill_store(store, tmp_path)
        shrink(store)
        before = dump_store(store)
        assert before["erased"]
        assert "expired" in before["namespaces"]["team/raw"]["versions"][2]["error"]
    rebuild(place)
    with place.connect() as store:
        check_same(before, dump_store(store))
        with pytest.raises(NotFoundError, match="erased"):
            store.namespace("team/raw").get(1).read_bytes("a.txt")
        collected = store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
        assert collected.deleted == 0  # all that is left is needed
        check_same(before, dump_store(store))


@pytest.mark.parametrize("place", ["directory+sqlite", pytest.param("memory+postgresql", marks=SERVICES)], indirect=True)
def test_an_index_can_be_made_elsewhere(place: Place, tmp_path: Path) -> None:
    with place.connect(create=True) as old:
        old_dump = partial(dump_store, old)
        fill_store(old, tmp_path)
        before = old_dump()
        other = f"sqlite:///{tmp_path / 'new' / 'index.sqlite'}"
        report = rebuild(place, index=other)
        assert report.index == other
        with vds.connect(place.url) as store:
            assert store.index == other
            check_same(before, dump_store(store))
        # Whoever had the store open reads on, and writes no more: nothing of it reaches the container.
        check_same(before, old_dump())
        with pytest.raises(FormatError, match="older than its store"):
            write_late(old)
    with pytest.raises((InvalidInputError, FormatError), match=r"another index|older than its store"):
        vds.connect(place.url, index=place.index or "embedded")
    with vds.connect(place.url) as store:
        check_same(before, dump_store(store))
        write_late(store)


def write_late(store: vds.Store) -> None:
    """Commit something."""
    with store.namespace("team/raw").transaction("late") as tx:
        tx.write_text("late.txt", "later")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=SERVICES)])
def remade(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remade]:
    """A store in memory, on either database, of which a few rows count as many."""
    monkeypatch.setattr(rebuildentries, "BATCH_ROWS", 3)
    monkeypatch.setattr(rebuildsink, "ROWS_MAX", 10)
    monkeypatch.setattr(index_rebuild, "DROP_ROWS_SQLITE", 2)
    monkeypatch.setattr(index_rebuild, "DROP_ROWS_POSTGRES", 2)
    made = Remade(request.getfixturevalue("database_url") if request.param == "postgresql" else None)
    for number in range(1, 9):
        made.commit(
            "a", {f"{path}": b"%d" % (path * number) for path in range(number, 3 * number)}, removed=REMOVED.get(number, ())
        )
    yield made
    made.store.close()


REMOVED = {3: ("1",), 5: ("3", "4"), 7: ("7",)}


def test_piece_by_piece_it_comes_to_the_same(remade: Remade) -> None:
    before, intervals = dump_store(remade.store), dump_intervals(remade.store)
    assert remade.rebuild().gaps == ()
    check_same(before, dump_store(remade.store))
    assert dump_intervals(remade.store) == intervals


@pytest.mark.parametrize("numbers", [(2, 4, 5, 6), (1, 2, 3), (1, 3, 4, 7), range(1, 8)])
def test_intervals_in_which_no_version_is_left_are_not_there(remade: Remade, numbers: Iterable[int]) -> None:
    remade.store.expire([f"a@{number}" for number in numbers], dry_run=False)
    remade.store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    before, intervals = dump_store(remade.store), dump_intervals(remade.store)
    assert remade.rebuild().gaps == ()
    check_same(before, dump_store(remade.store))
    assert dump_intervals(remade.store) == intervals


def test_from_a_checkpoint_on_it_is_the_same(remade: Remade) -> None:
    assert write_checkpoint(remade.store._handle.doors, remade.namespace("a"), 4)
    remade.store.expire(["a@1", "a@2", "a@3", "a@6"], dry_run=False)
    remade.store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    before = dump_store(remade.store)
    assert remade.rebuild().gaps == ()
    check_same(before, dump_store(remade.store))


def test_a_list_that_turns_out_to_be_wrong_leaves_no_trace(remade: Remade) -> None:
    """Its rows were written, piece by piece, before its end was reached."""
    intervals = [row for row in dump_intervals(remade.store) if row[2] < 8]
    remade.replace(remade.journal("a", 8), lambda body: body.replace(b'"removed":0', b'"removed":1'))
    gap = remade.only(remade.rebuild())
    assert (gap.kind, gap.versions) == ("changes", ((8, None),))
    ended = {OPEN: 8}
    assert dump_intervals(remade.store) == sorted([*row[:3], ended.get(row[3], row[3]), *row[4:]] for row in intervals)
    with pytest.raises(CorruptionError, match="lost"):
        list(remade.store.namespace("a").latest().entries())


def test_what_is_only_in_a_blob_that_is_being_deleted_is_copied(remade: Remade) -> None:
    doors = remade.store._handle.doors
    keys = remade.keys("packs/")
    fields = {"keys": keys, "size_bytes": 1, "why": "gc", "author": "me"}
    publish_store_record(
        doors, doors.index.run(lambda connection: add_store_record(connection, doors.store, "keys-deleting", fields))
    )
    before = dump_store(remade.store)
    report = remade.rebuild()
    assert report.gaps == ()
    assert report.copied == report.objects > 10
    for key in keys:
        remade.remove(key)
    check_same(before, dump_store(remade.store))
    check_readable(remade.store)
    assert remade.rebuild().copied == 0
    check_readable(remade.store)
