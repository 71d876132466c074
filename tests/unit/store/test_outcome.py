"""Lost answers and crashes around the commit: what is acknowledged is there, what is not can be asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vds
from tests.unit.store.conftest import CONNECT
from tests.unit.store.trees import WatchedDriver, files_of, write_tree
from vds.engine import commit as commit_module
from vds.engine import journal as journal_module
from vds.engine.journal import publish
from vds.errors import AccessDeniedError, NoSpaceError, NotFoundError, OutcomeUnknownError, UnavailableError
from vds.index.database import Connection, Database
from vds.store import Store

FILES = {"a": b"1", "d/b": b"2"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", FILES)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vds.engine.commit.time.sleep", lambda seconds: None)


class TestJournal:
    def test_a_version_without_its_record_is_not_acknowledged_and_not_visible(
        self, watched: Store, driver: WatchedDriver, tree: Path
    ) -> None:
        namespace = watched.namespace("made")
        namespace.upload(tree)
        driver.refused = "journal/"
        with pytest.raises(OutcomeUnknownError, match="journal record could not be written") as caught:
            namespace.upload(tree, "again")
        assert [version.number for version in namespace.log()] == [1]
        assert namespace.latest().number == 1
        with pytest.raises(NotFoundError):
            watched.get("made@2")
        with vds.connect(driver.url, read_only=True) as reader:  # readers never flush
            assert reader.namespace("made").latest().number == 1
            assert reader.outcome(caught.value.commit_id) is None
        driver.refused = ""
        with vds.connect(driver.url) as opener:
            assert opener.namespace("made").latest().number == 2
        found = watched.outcome(caught.value.commit_id)
        assert found is not None
        assert found.number == 2
        assert set(files_of(found)) == {"a", "d/b", "again/a", "again/d/b"}

    def test_asking_for_the_outcome_finishes_it(self, watched: Store, driver: WatchedDriver, tree: Path) -> None:
        driver.refused = "journal/"
        with pytest.raises(OutcomeUnknownError) as caught:
            watched.namespace("made").upload(tree)
        with pytest.raises(UnavailableError):
            watched.outcome(caught.value.commit_id)
        driver.refused = ""
        found = watched.outcome(caught.value.commit_id)
        assert found is not None
        assert files_of(found) == FILES
        assert watched.outcome("never") is None

    @pytest.mark.parametrize("error", [AccessDeniedError("no right"), NoSpaceError("full"), UnavailableError("away")])
    def test_whatever_stops_the_record_the_outcome_is_unknown(
        self, watched: Store, driver: WatchedDriver, tree: Path, error: Exception
    ) -> None:
        """The version is committed and will show when someone flushes: any other error would say that nothing happened."""

        def refuse(key: str, put: Callable[[], str]) -> str:
            if key.startswith("journal/"):
                raise error
            return put()

        driver._watch = refuse  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknownError) as caught:
            watched.namespace("made").upload(tree)
        del driver._watch
        found = watched.outcome(caught.value.commit_id)
        assert found is not None
        assert found.number == 1

    def test_a_record_whose_answer_was_lost_is_taken_up(self, watched: Store, driver: WatchedDriver, tree: Path) -> None:
        driver.answerless = "journal/"
        with pytest.raises(OutcomeUnknownError) as caught:
            watched.namespace("made").upload(tree)
        driver.answerless = ""
        found = watched.outcome(caught.value.commit_id)
        assert found is not None
        assert driver.puts["journal"] == 1

    def test_another_record_under_the_number_stops_the_namespace(
        self, watched: Store, driver: WatchedDriver, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watched.namespace("made").upload(tree)
        (first,) = [blob.key for blob in driver.list_blobs("journal/")]
        second = first[:-1] + "2"
        real = publish

        def late(*arguments: Any, **more: Any) -> None:
            driver.put_if_absent(second, b"another history")
            real(*arguments, **more)

        monkeypatch.setattr(commit_module, "publish", late)
        with pytest.raises(OutcomeUnknownError, match="exists with other bytes than ours") as caught:
            watched.namespace("made").upload(tree, "again")
        assert (caught.value.kind, caught.value.hint) == ("record-diverged", "run: vds fsck")
        assert driver.read_range(second) == b"another history"
        assert watched.namespace("made").latest().number == 1

    def test_a_dataset_shows_nothing_before_its_record(
        self, watched: Store, driver: WatchedDriver, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        version = watched.namespace("made").upload(tree).version
        driver.refused = "datasets/"
        with pytest.raises((UnavailableError, OutcomeUnknownError)):
            watched.dataset("ds").register(version, tags=["prod"])
        assert watched.datasets() == []
        with pytest.raises(NotFoundError):
            watched.get("ds:prod")
        driver.refused = ""
        monkeypatch.setattr(journal_module, "HELP_OTHERS_AFTER_S", 0)  # the records are of this call's own failed predecessor
        release = watched.dataset("ds").register(version, tags=["prod"])
        assert (release.number, watched.get("ds:prod").number) == (1, 1)


class TestLostPut:
    @pytest.mark.parametrize("prefix", ["packs/", "objects/"])
    def test_an_upload_whose_put_was_not_answered_can_be_made_again(
        self, watched: Store, driver: WatchedDriver, tmp_path: Path, prefix: str
    ) -> None:
        tree = write_tree(tmp_path / "both", {"small": b"s", "large": b"l" * (1 << 20)})
        driver.answerless = prefix
        with pytest.raises(UnavailableError):
            watched.namespace("made").upload(tree)
        assert watched.namespace("made").latest().number == 0
        assert watched.transactions() == []
        driver.answerless = ""
        assert set(files_of(watched.namespace("made").upload(tree).version)) == {"small", "large"}

    def test_a_put_that_is_refused_leaves_nothing(self, watched: Store, driver: WatchedDriver, tree: Path) -> None:
        driver.refused = "packs/"
        with pytest.raises(UnavailableError):
            watched.namespace("made").upload(tree)
        assert (watched.namespaces(), driver.puts) == ([], {})

    def test_a_name_whose_claim_was_not_answered_keeps_its_id(self, watched: Store, driver: WatchedDriver, tree: Path) -> None:
        driver.answerless = "namespaces/"
        with pytest.raises(UnavailableError):
            watched.namespace("team/new").upload(tree)
        driver.answerless = ""
        watched.namespace("team/new").upload(tree)
        assert len(list(driver.list_blobs("namespaces/"))) == 2  # this one, and the fixture's


class LosingDatabase(Database):
    """Loses the connection of its next commits after (or before) their COMMIT took effect."""

    lost = 0
    effective = True

    def run(self, work: Callable[[Connection], Any], *, commit_id: str = "") -> Any:
        if not commit_id or not self.lost:
            return super().run(work, commit_id=commit_id)
        self.lost -= 1
        if self.effective:
            super().run(work, commit_id=commit_id)
        raise OutcomeUnknownError("the connection was lost while committing", commit_id=commit_id)


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch, driver: WatchedDriver) -> type[LosingDatabase]:
    monkeypatch.setattr(CONNECT, "Database", LosingDatabase)
    monkeypatch.setattr(LosingDatabase, "lost", 0)
    monkeypatch.setattr(LosingDatabase, "effective", True)
    return LosingDatabase


class TestLostCommit:
    def index(self, store: Store) -> LosingDatabase:
        index = store._handle.doors.index
        assert isinstance(index, LosingDatabase)
        return index

    @pytest.mark.parametrize("effective", [True, False])
    @pytest.mark.parametrize("lost", [1, 3])
    def test_asking_again_returns_the_one_version(
        self, losing: type[LosingDatabase], watched: Store, tree: Path, lost: int, effective: bool
    ) -> None:
        index = self.index(watched)
        index.lost, index.effective = lost, effective
        result = watched.namespace("made").upload(tree)
        assert (result.created, result.version.number) == (True, 1)
        assert files_of(result.version) == FILES
        assert (index.lost, watched.namespace("made").latest().number) == (0, 1)

    def test_a_transaction_too(self, losing: type[LosingDatabase], watched: Store) -> None:
        self.index(watched).lost = 1
        with watched.namespace("made").transaction() as tx:
            tx.write_bytes("a", b"1")
        assert (tx.version.number, watched.namespace("made").latest().number) == (1, 1)

    def test_one_that_changed_nothing_too(self, losing: type[LosingDatabase], watched: Store, tree: Path) -> None:
        watched.namespace("made").upload(tree)
        self.index(watched).lost = 1
        result = watched.namespace("made").upload(tree)
        assert (result.created, result.version.number) == (False, 1)

    @pytest.mark.parametrize("effective", [True, False])
    def test_when_it_never_comes_back_the_outcome_can_be_asked_for(
        self, losing: type[LosingDatabase], watched: Store, tree: Path, effective: bool
    ) -> None:
        index = self.index(watched)
        index.lost, index.effective = 1000, effective
        with pytest.raises(OutcomeUnknownError) as caught:
            watched.namespace("made").upload(tree)
        index.lost = 0
        found = watched.outcome(caught.value.commit_id)
        assert (found.number if found else None) == (1 if effective else None)
        assert watched.namespace("made").latest().number == (1 if effective else 0)
