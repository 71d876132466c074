"""A run pinned with VDS_AS_OF: every ref that can move stays where it was, in every way to ask; writes do not look at it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import vds
from tests.unit.store.trees import WatchedDriver, files_of, write_tree
from vds.errors import AccessDeniedError, InvalidInputError, NotFoundError, OutcomeUnknownError, UnavailableError
from vds.index.database import Database
from vds.index.database import now_us as read_clock
from vds.index.moments import check_primary
from vds.model.ref import format_moment
from vds.store import Store

OLD, NEW = b"old", b"new"
WAYS: dict[str, Callable[[Store], vds.store.Version]] = {
    "get NS": lambda store: store.get("team/raw"),
    "get NS@latest": lambda store: store.get("team/raw@latest"),
    "get uri": lambda store: store.get("vds://team/raw@latest/d").at(""),
    "namespace.latest": lambda store: store.namespace("team/raw").latest(),
    "namespace.get": lambda store: store.namespace("team/raw").get("latest"),
    "get DS:TAG": lambda store: store.get("customers:prod"),
    "get DS:latest": lambda store: store.get("customers:latest"),
    "dataset.latest": lambda store: store.dataset("customers").latest(),
    "dataset.get": lambda store: store.dataset("customers").get("prod"),
    "dataset.get latest": lambda store: store.dataset("customers").get("latest"),
}


def write(store: Store, tree: Path, body: bytes) -> int:
    """Make a version that holds `body`, release it and let the tag show it; returns its number."""
    number = store.namespace("team/raw").upload(write_tree(tree, {"d/a": body}), show_progress=False).version.number
    store.dataset("customers").register(f"team/raw@{number}", tags=["prod"])
    return number


@pytest.fixture
def pinned(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose version 2 and release 2 came before the moment, and 3 after it."""
    write(store, tmp_path / "tree", b"first")
    write(store, tmp_path / "tree", OLD)
    moment = store.now()
    write(store, tmp_path / "tree", NEW)
    monkeypatch.setenv("VDS_AS_OF", format_moment(moment))
    return store


class TestReading:
    @pytest.mark.parametrize("way", WAYS)
    def test_every_ref_that_moves_stays_at_the_moment(self, pinned: Store, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert WAYS[way](pinned).number == 2
        monkeypatch.delenv("VDS_AS_OF")
        assert WAYS[way](pinned).number == 3

    @pytest.mark.parametrize("ref", ["team/raw", "team/raw@latest~1", "customers:prod", "customers:latest"])
    def test_what_is_pinned_so_says_it(self, pinned: Store, ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
        found = pinned.resolve(ref)
        assert (found.pinned, found.number) == (True, 1 if "~" in ref else 2)
        monkeypatch.delenv("VDS_AS_OF")
        assert not pinned.resolve(ref).pinned

    def test_what_is_fixed_means_what_it_means(self, pinned: Store) -> None:
        latest = pinned.get("team/raw@3")
        for ref in ("team/raw@v3", f"team/raw@{latest.digest}", "customers:3", f"team/raw@{format_moment(latest.created_at)}"):
            assert pinned.get(ref) == latest
        assert pinned.get("team/raw@3~1").number == 2
        assert pinned.dataset("customers").get(3) == latest

    def test_a_moment_of_its_own_that_is_to_come_is_refused(self, pinned: Store) -> None:
        later = format_moment(datetime.now(UTC) + timedelta(days=1))
        for ref in (f"team/raw@{later}", f"customers:prod@{later}"):
            with pytest.raises(InvalidInputError, match="still to come"):
                pinned.get(ref)

    def test_what_came_later_is_not_there_and_the_hint_says_why(self, pinned: Store, tmp_path: Path) -> None:
        pinned.namespace("team/later").upload(write_tree(tmp_path / "later", {"x": b"1"}), show_progress=False)
        pinned.dataset("customers").tag("stage", 3)
        for ref in ("team/later", "team/later@latest", "customers:stage", "nobody:prod"):
            with pytest.raises(NotFoundError) as caught:
                pinned.get(ref)
            assert "VDS_AS_OF pins this run" in caught.value.hint
        assert pinned.get("team/later@1").number == 1

    def test_a_namespace_without_a_version_then_is_not_version_0(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.namespace("team/new").transaction().abort()  # it exists, and nothing was committed
        monkeypatch.setenv("VDS_AS_OF", format_moment(store.now()))
        with pytest.raises(NotFoundError, match="had no version at"):
            store.get("team/new")

    def test_before_the_first_version_there_is_version_0(self, pinned: Store) -> None:
        assert pinned.get("team/raw@latest~2").number == 0
        with pytest.raises(NotFoundError):
            pinned.get("team/raw@latest~3")


class TestWriting:
    def test_an_upload_lays_its_files_over_the_newest_version(self, pinned: Store, tmp_path: Path) -> None:
        result = pinned.namespace("team/raw").upload(write_tree(tmp_path / "more", {"b": b"b"}), show_progress=False)
        assert result.version.number == 4
        assert files_of(result.version) == {"d/a": NEW, "b": b"b"}
        assert files_of(pinned.get("team/raw@4")) == {"d/a": NEW, "b": b"b"}
        assert pinned.namespace("team/raw").latest().number == 2

    def test_a_transaction_begins_at_the_newest_version(self, pinned: Store) -> None:
        with pinned.namespace("team/raw").transaction() as tx:
            tx.write_bytes("b", b"b")
        assert files_of(tx.version) == {"d/a": NEW, "b": b"b"}

    def test_a_tag_is_moved_from_where_it_is(self, pinned: Store) -> None:
        assert pinned.dataset("customers").tag("prod", 1, expected=3).number == 1
        assert pinned.dataset("customers").history("prod")[0].previous == 3

    def test_the_source_of_a_copy_is_read_as_of_the_moment(self, pinned: Store) -> None:
        assert files_of(pinned.namespace("team/copy").copy("team/raw").version) == {"d/a": OLD}
        assert pinned.dataset("customers").tag("stage", "latest").number == 2

    @pytest.mark.parametrize("text", ["", "soon"])
    def test_a_bad_moment_is_no_obstacle_to_them(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setenv("VDS_AS_OF", text)
        assert write(store, tmp_path / "tree", NEW) == 1


class TestTheVariable:
    @pytest.mark.parametrize("text", ["", "soon", "2026-03-01", "2026-03-01T12:00", "latest", "12"])
    def test_what_is_no_moment(self, pinned: Store, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("VDS_AS_OF", text)
        for ref in ("team/raw", "customers:prod"):
            with pytest.raises(InvalidInputError, match="VDS_AS_OF is"):
                pinned.get(ref)
        assert pinned.get("team/raw@3").number == 3

    def test_one_that_is_to_come_pins_nothing(self, pinned: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([1_000_000, 1_000_001])
        monkeypatch.setenv("VDS_AS_OF", "1970-01-01T00:00:01Z")
        monkeypatch.setattr("vds.engine.resolve.now_us", lambda connection: next(clock))
        monkeypatch.setattr("vds.index.versions._number_at", lambda *arguments: 2)
        with pytest.raises(InvalidInputError, match="still to come"):
            pinned.get("team/raw")
        assert pinned.get("team/raw").number == 2  # a microsecond later


class TestNow:
    def test_it_has_what_was_acknowledged_and_not_what_follows(self, store: Store, tmp_path: Path) -> None:
        for turn in range(5):
            number = write(store, tmp_path / "tree", str(turn).encode())
            moment = store.now()
            assert store.get(f"team/raw@{format_moment(moment)}").number == number
            assert store.get(f"customers:prod@{format_moment(moment)}").number == number
            assert store.resolve(f"customers:prod@{format_moment(moment)}").pinned

    def test_an_empty_store_has_a_moment_too(self, store: Store) -> None:
        first, second = store.now(), store.now()
        assert first.tzinfo == UTC
        assert first <= second

    def test_a_store_open_for_reading_has_it_too(self, disk_store: Store, tmp_path: Path) -> None:
        number = write(disk_store, tmp_path / "tree", NEW)
        with vds.connect(disk_store.url, read_only=True) as reader:
            assert reader.get(f"team/raw@{format_moment(reader.now())}").number == number

    def test_a_clock_that_was_set_back_is_waited_for(self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        number = write(store, tmp_path / "tree", NEW)
        newest = store.get("team/raw").created_at
        readings = iter([1, 2, 3])
        monkeypatch.setattr("vds.ops.now.time.sleep", lambda seconds: None)
        monkeypatch.setattr("vds.ops.now.now_us", lambda connection: next(readings, None) or read_clock(connection))
        moment = store.now()
        assert moment > newest
        assert store.get(f"team/raw@{format_moment(moment)}").number == number

    def test_but_not_for_ever(self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(store, tmp_path / "tree", NEW)
        monkeypatch.setattr("vds.ops.now.WAIT_S", 0.0)
        monkeypatch.setattr("vds.ops.now.now_us", lambda connection: 1)
        with pytest.raises(UnavailableError, match="behind its newest version"):
            store.now()

    def test_a_standby_is_refused(self) -> None:
        class Standby:
            class dialect:
                name = "postgresql"

            def exec_driver_sql(self, statement: str) -> Standby:
                assert statement == "SELECT pg_is_in_recovery()"
                return self

            def scalar_one(self) -> bool:
                return True

        with pytest.raises(AccessDeniedError, match="read-only copy"):
            check_primary(Standby())  # type: ignore[arg-type]


class TestRecordsUnderWay:
    @pytest.fixture
    def stuck(self, watched: Store, driver: WatchedDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        """A store with a committed version whose record a crash kept out of the container."""
        watched.namespace("made").upload(write_tree(tmp_path / "tree", {"a": OLD}), show_progress=False)
        driver.refused = "journal/"
        with pytest.raises(OutcomeUnknownError):
            watched.namespace("made").upload(write_tree(tmp_path / "tree", {"a": NEW}), show_progress=False)
        monkeypatch.setattr("vds.ops.now.HELP_OTHERS_AFTER_S", 0.0)
        monkeypatch.setattr("vds.ops.now.WAIT_S", 0.0)
        return watched

    def test_who_may_write_writes_them(self, stuck: Store, driver: WatchedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        driver.refused = ""
        monkeypatch.setattr("vds.ops.now.WAIT_S", 10.0)
        moment = stuck.now()
        assert stuck.get(f"made@{format_moment(moment)}").number == 2

    def test_no_moment_is_named_while_they_cannot_be_written(self, stuck: Store) -> None:
        with pytest.raises(UnavailableError, match="refused by the test"):
            stuck.now()

    def test_who_reads_only_waits_and_says_what_helps(self, stuck: Store, driver: WatchedDriver) -> None:
        driver.refused = ""
        with vds.connect(stuck.url, read_only=True) as reader:
            with pytest.raises(UnavailableError, match="1 committed records are not in the container yet") as caught:
                reader.now()
            assert "vds now" in caught.value.hint
            assert reader.get("made").number == 1
            stuck.outcome("none")  # writes what is queued
            assert reader.get(f"made@{format_moment(reader.now())}").number == 2


def test_only_the_place_of_the_writer_is_taken(disk_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store open for reading makes no connection that may write but the one that reads the clock."""
    made: list[Path] = []

    def open_counted(path: Path) -> Database:
        made.append(path)
        return Database(path)

    monkeypatch.setattr("vds.ops.now.Database", open_counted)
    disk_store.now()
    assert made == []
    with vds.connect(disk_store.url, read_only=True) as reader:
        reader.now()
    assert len(made) == 1
