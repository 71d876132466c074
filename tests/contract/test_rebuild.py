"""An index that is made anew from its container says what the old one said: on both databases, over every driver."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import vds
from tests.logicaldump import Dump, dump_intervals, dump_store
from tests.richstore import fill_store
from tests.support import SERVICES, Place, make_place
from vds.errors import FormatError, InvalidInputError, NotFoundError
from vds.ops.rebuilding import RebuildReport

PLACES = [
    "memory+sqlite",
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
    with pytest.raises((InvalidInputError, FormatError), match="another index|older than its store"):
        vds.connect(place.url, index=place.index or "embedded")
    with vds.connect(place.url) as store:
        check_same(before, dump_store(store))
        write_late(store)


def write_late(store: vds.Store) -> None:
    """Commit something."""
    with store.namespace("team/raw").transaction("late") as tx:
        tx.write_text("late.txt", "later")
