"""The races of a commit, on PostgreSQL: transactions on connections of their own, stopped before COMMIT, in both orders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, LiteralString

import psycopg
import pytest
from sqlalchemy import text

from tests.unit.index.ledger import Ledger, RolledBackError, Writer, commit_or_raise, digest_of, digests, members
from vds.blobs.memory import MemoryDriver
from vds.engine.doors import Doors
from vds.engine.namespaces import ensure_namespace
from vds.errors import ConflictError
from vds.index.commit import Committed, PlanAgain, Planned
from vds.index.database import Connection, Database
from vds.index.migrate import upgrade
from vds.index.needs import BlobsGone, Need
from vds.index.placements import finish_blob, revive_blobs
from vds.index.staging import end_upload
from vds.index.stores import NamespaceRow

pytestmark = pytest.mark.services
TIMEOUT_S = 60.0


class Racer:
    """One transaction in a thread of its own; with `pause` it stops before its COMMIT until it is let go."""

    def __init__(self, url: str, work: Callable[[Connection], Any], *, pause: bool = False) -> None:
        self._database = Database(url)
        self._work = work
        self._pid: Future[int] = Future()
        self._result: Future[Any] = Future()
        self._reached, self._go = threading.Event(), threading.Event()
        self.attempts = 0
        if not pause:
            self._go.set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        if pause:
            assert self._reached.wait(TIMEOUT_S)

    @property
    def pid(self) -> int:
        return self._pid.result(TIMEOUT_S)

    def let_go(self) -> Any:
        """Let it commit, and return what it returned; an outcome that had to be rolled back comes as a value."""
        self._go.set()
        return self.join()

    def join(self) -> Any:
        try:
            return self._result.result(TIMEOUT_S)
        except RolledBackError as err:
            return err.outcome
        finally:
            self._thread.join()
            self._database.close()

    def _run(self) -> None:
        try:
            self._result.set_result(self._database.run(self._attempt))
        except BaseException as err:  # noqa: BLE001 - handed to the test's own thread
            self._reached.set()
            self._result.set_exception(err)

    def _attempt(self, connection: Connection) -> Any:
        self.attempts += 1
        if not self._pid.done():
            self._pid.set_result(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        result = self._work(connection)
        self._reached.set()
        assert self._go.wait(TIMEOUT_S)
        return result


class Races:
    """Starts racers on one database and sees which of them wait for a lock."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._watch = psycopg.connect(url, autocommit=True)
        database = Database(url)
        upgrade(database)
        self.ledger = Ledger(database)

    def close(self) -> None:
        self._watch.close()
        self.ledger.database.close()

    def paused(self, work: Callable[[Connection], Any]) -> Racer:
        """Start a transaction and return once it has done everything but its COMMIT."""
        return Racer(self._url, work, pause=True)

    def blocked(self, work: Callable[[Connection], Any]) -> Racer:
        """Start a transaction and return once it waits for a lock that another one holds."""
        racer = Racer(self._url, work)
        self.wait_until_blocked(racer.pid)
        return racer

    def wait_until_blocked(self, pid: int) -> None:
        self._poll("SELECT 1 WHERE cardinality(pg_blocking_pids(%s)) > 0", pid)

    def wait_until_any_is_blocked(self) -> None:
        self._poll(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
            " AND cardinality(pg_blocking_pids(pid)) > 0",
            0,
        )

    def _poll(self, query: LiteralString, pid: int) -> None:
        ticks = threading.Event()
        for _ in range(int(TIMEOUT_S * 500)):
            if self._watch.execute(query, (pid,)).fetchone() is not None:
                return
            ticks.wait(0.002)  # lets the other thread run; nothing depends on how long
        raise AssertionError("nobody ever waited for a lock")


@pytest.fixture
def races(database_url: str) -> Iterator[Races]:
    made = Races(database_url)
    yield made
    made.close()


@pytest.fixture
def ledger(races: Races) -> Ledger:
    return races.ledger


def committing(writer: Writer, planned: Planned) -> Callable[[Connection], Committed]:
    return lambda connection: commit_or_raise(connection, writer, planned)


def staged_pair(
    ledger: Ledger, namespace: NamespaceRow, ours: dict[str, bytes | None], theirs: dict[str, bytes | None], **terms: Any
) -> tuple[tuple[Writer, Planned], tuple[Writer, Planned]]:
    """Stage two commits and plan both against the same base."""
    first, second = ledger.open(namespace, **terms), ledger.open(namespace, **terms)
    ledger.stage(first, ours)
    ledger.stage(second, theirs)
    return (first, ledger.plan(first)), (second, ledger.plan(second))


class TestTwoCommits:
    @pytest.mark.parametrize("swap", [False, True])
    def test_disjoint_writers_never_see_an_error(self, races: Races, ledger: Ledger, swap: bool) -> None:
        namespace = ledger.namespace()
        pair = staged_pair(ledger, namespace, {"a": b"1"}, {"b": b"2"})
        first, second = reversed(pair) if swap else pair
        leading = races.paused(committing(*first))
        waiting = races.blocked(committing(*second))
        assert leading.let_go().number == 1
        assert waiting.join().number == 2
        assert ledger.files(namespace, 2) == digests({"a": b"1", "b": b"2"})
        assert len(ledger.files(namespace, 1)) == 1

    @pytest.mark.parametrize("swap", [False, True])
    def test_of_two_writers_of_one_path_the_later_one_wins_whole(self, races: Races, ledger: Ledger, swap: bool) -> None:
        namespace = ledger.namespace()
        bodies: tuple[bytes, bytes] = (b"2", b"1") if swap else (b"1", b"2")
        pair = staged_pair(ledger, namespace, {"a": b"1", "x": b"x"}, {"a": b"2", "y": b"y"})
        first, second = reversed(pair) if swap else pair
        leading = races.paused(committing(*first))
        waiting = races.blocked(committing(*second))
        assert leading.let_go().counts.added == 2
        late = waiting.join()
        assert (late.number, late.counts.added, late.counts.modified) == (2, 1, 1)
        assert ledger.files(namespace, 1)["a"] == digests({"a": bodies[0]})["a"]
        assert ledger.files(namespace, 2) == digests({"a": bodies[1], "x": b"x", "y": b"y"})

    def test_a_writer_that_keeps_existing_files_plans_again(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        first, second = staged_pair(ledger, namespace, {"a": b"1"}, {"a": b"2"}, on_touched="skip")
        leading = races.paused(committing(*first))
        waiting = races.blocked(committing(*second))
        leading.let_go()
        assert isinstance(waiting.join(), PlanAgain)
        assert ledger.now(namespace).head == 1

    def test_an_expected_parent_is_judged_after_the_wait(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        first, second = staged_pair(ledger, namespace, {"a": b"1"}, {"b": b"2"}, expected_parent=0)
        leading = races.paused(committing(*first))
        waiting = races.blocked(committing(*second))
        leading.let_go()
        with pytest.raises(ConflictError, match="is at version 1, expected 0") as caught:
            waiting.join()
        assert caught.value.versions == (1,)

    def test_file_and_directory_of_one_name_are_refused_after_the_wait(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        first, second = staged_pair(ledger, namespace, {"a": b"1"}, {"a/b": b"2"})
        leading = races.paused(committing(*first))
        waiting = races.blocked(committing(*second))
        leading.let_go()
        with pytest.raises(ConflictError, match="a file on one side and a directory on the other"):
            waiting.join()


_SELECT = text("SELECT id FROM blob WHERE id = :b AND state = 'live' FOR UPDATE")
_CONDEMN = text(
    "UPDATE blob SET state = 'condemned' WHERE id = :b AND state = 'live' AND NOT EXISTS (SELECT 1 FROM object o"
    " JOIN entry e ON e.store_id = o.store_id AND e.digest = o.digest WHERE o.blob_id = :b)"
)


def condemning(blob_id: int) -> Callable[[Connection], int]:
    """Return what a collector does: lock first, and look for references only in a statement that begins after the wait."""

    def work(connection: Connection) -> int:
        if connection.execute(_SELECT, {"b": blob_id}).one_or_none() is None:
            return 0
        return connection.execute(_CONDEMN, {"b": blob_id}).rowcount

    return work


class TestCommitAndCollector:
    def test_a_blob_the_commit_took_first_is_not_condemned(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        blob_id = ledger.put_blob(writer.upload.id, b"1")
        ledger.stage(writer, {"a": b"1"}, place=False)
        leading = races.paused(committing(writer, ledger.plan(writer)))
        collector = races.blocked(condemning(blob_id))
        assert leading.let_go().number == 1
        assert collector.join() == 0
        assert ledger.blob_state(blob_id) == "live"

    def test_a_blob_condemned_after_it_was_listed_has_the_commit_planned_again(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        blob_id = ledger.put_blob(writer.upload.id, b"1")
        ledger.stage(writer, {"a": b"1"}, place=False)
        planned = ledger.plan_listed(writer)
        collector = races.paused(condemning(blob_id))
        waiting = races.blocked(committing(writer, planned))
        assert collector.let_go() == 1
        assert waiting.join() == PlanAgain()
        again = ledger.plan_listed(writer)
        assert again.needs is None
        assert ledger.commit(writer, again) == BlobsGone(condemned=(blob_id,), missing=())

    def test_a_blob_listed_and_then_locked_is_not_condemned(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        blob_id = ledger.put_blob(writer.upload.id, b"1")
        ledger.stage(writer, {"a": b"1"}, place=False)
        leading = races.paused(committing(writer, ledger.plan_listed(writer)))
        collector = races.blocked(condemning(blob_id))
        assert leading.let_go().number == 1
        assert collector.join() == 0

    def test_a_blob_condemned_first_sends_the_commit_back_and_is_revived(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        blob_id = ledger.put_blob(writer.upload.id, b"1")
        ledger.stage(writer, {"a": b"1"}, place=False)
        planned = ledger.plan(writer)
        collector = races.paused(condemning(blob_id))
        waiting = races.blocked(committing(writer, planned))
        assert collector.let_go() == 1
        assert waiting.join() == BlobsGone(condemned=(blob_id,), missing=())
        assert ledger.database.run(lambda c: revive_blobs(c, [blob_id])) == 1
        assert isinstance(ledger.commit(writer, planned), Committed)
        assert ledger.blob_state(blob_id) == "live"

    def test_a_blob_that_is_being_deleted_is_named_as_lost(self, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        blob_id = ledger.put_blob(writer.upload.id, b"1")
        ledger.stage(writer, {"a": b"1"}, place=False)
        ledger.set_blob_state(blob_id, "deleting")
        outcome = ledger.commit(writer, ledger.plan(writer))
        assert outcome == BlobsGone(condemned=(blob_id,), missing=(digests({"a": b"1"})["a"],))
        assert ledger.database.run(lambda c: revive_blobs(c, [blob_id])) == 0


def moving(old: int, new: int) -> Callable[[Connection], int]:
    """Return what moves placements: both blob rows held, then the rows of the objects."""

    def work(connection: Connection) -> int:
        connection.execute(
            text("SELECT id FROM blob WHERE id = :old OR id = :new ORDER BY id FOR UPDATE"), {"old": old, "new": new}
        )
        connection.execute(text("UPDATE blob SET moves = moves + 1 WHERE id = :old"), {"old": old})
        return connection.execute(
            text("UPDATE object SET blob_id = :new WHERE blob_id = :old"), {"old": old, "new": new}
        ).rowcount

    return work


class TestMovedPlacement:
    def test_a_placement_that_moved_during_the_wait_sends_the_commit_back(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        old, new = ledger.put_blob(writer.upload.id, b"1"), ledger.put_blob(writer.upload.id, b"other")
        ledger.stage(writer, {"a": b"1"}, place=False)
        planned = ledger.plan(writer)
        mover = races.paused(moving(old, new))
        waiting = races.blocked(committing(writer, planned))
        assert mover.let_go() == 1
        assert waiting.join() == BlobsGone(condemned=(new,), missing=())
        assert isinstance(ledger.commit(writer, planned), Committed)

    def test_one_that_moved_after_it_was_listed_has_the_commit_planned_again(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        old, new = ledger.put_blob(writer.upload.id, b"1"), ledger.put_blob(writer.upload.id, b"other")
        ledger.stage(writer, {"a": b"1"}, place=False)
        planned = ledger.plan_listed(writer)
        mover = races.paused(moving(old, new))
        waiting = races.blocked(committing(writer, planned))
        assert mover.let_go() == 1
        assert waiting.join() == PlanAgain()
        again = ledger.plan_listed(writer)
        assert again.needs == (Need(new, 0),)
        assert isinstance(ledger.commit(writer, again), Committed)

    @pytest.mark.parametrize("is_listed", [False, True])
    def test_a_placement_cannot_move_under_a_commit(self, races: Races, ledger: Ledger, is_listed: bool) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        old, new = ledger.put_blob(writer.upload.id, b"1"), ledger.put_blob(writer.upload.id, b"other")
        ledger.stage(writer, {"a": b"1"}, place=False)
        leading = races.paused(committing(writer, ledger.plan_listed(writer) if is_listed else ledger.plan(writer)))
        mover = races.blocked(moving(old, new))
        assert leading.let_go().number == 1
        assert mover.join() == 1


class TestTwoUploads:
    def test_the_same_objects_in_opposite_order_never_deadlock(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        ours, theirs = ledger.open(namespace), ledger.open(namespace)
        mine, other = ledger.pending(ours.upload.id), ledger.pending(theirs.upload.id)
        objects = members(b"1", b"2", b"3")
        leading = races.paused(lambda c: finish_blob(c, ledger.store.id, mine, ours.upload.id, 3, "e", objects))
        waiting = races.blocked(lambda c: finish_blob(c, ledger.store.id, other, theirs.upload.id, 3, "e", objects[::-1]))
        assert leading.let_go() is True
        assert waiting.join() is True
        assert (leading.attempts, waiting.attempts) == (1, 1)
        assert (ledger.blob_state(mine), ledger.blob_state(other)) == ("live", "condemned")

    def test_both_place_objects_in_one_order_whatever_order_they_have_them_in(self, races: Races, ledger: Ledger) -> None:
        """A third one holds the middle object, so that both are stopped half-way, each holding what it placed so far."""
        namespace = ledger.namespace()
        low, middle, high = sorted((b"1", b"2", b"3"), key=digest_of)
        third, ours, theirs = (ledger.open(namespace).upload.id for _ in range(3))
        stopper, mine, other = ledger.pending(third), ledger.pending(ours), ledger.pending(theirs)
        store_id = ledger.store.id
        stopping = races.paused(lambda c: finish_blob(c, store_id, stopper, third, 1, "e", members(middle)))
        first = races.blocked(lambda c: finish_blob(c, store_id, mine, ours, 3, "e", members(low, middle, high)))
        second = races.blocked(lambda c: finish_blob(c, store_id, other, theirs, 3, "e", members(high, middle, low)))
        assert stopping.let_go() is True
        assert (first.join(), second.join()) == (True, True)
        assert (first.attempts, second.attempts) == (1, 1)  # no deadlock, not even one that was retried
        assert [ledger.blob_state(blob_id) for blob_id in (stopper, mine, other)] == ["live", "live", "condemned"]

    def test_the_loser_keeps_its_blob_when_something_in_it_is_new(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        ours, theirs = ledger.open(namespace), ledger.open(namespace)
        mine, other = ledger.pending(ours.upload.id), ledger.pending(theirs.upload.id)
        leading = races.paused(lambda c: finish_blob(c, ledger.store.id, mine, ours.upload.id, 1, "e", members(b"1")))
        waiting = races.blocked(lambda c: finish_blob(c, ledger.store.id, other, theirs.upload.id, 2, "e", members(b"1", b"2")))
        leading.let_go()
        assert waiting.join() is True
        assert (ledger.blob_state(mine), ledger.blob_state(other)) == ("live", "live")


def ending(ledger: Ledger, writer: Writer) -> Callable[[Connection], bool]:
    return lambda connection: end_upload(connection, ledger.store.id, writer.upload.id, "aborted")


class TestOneTransactionTwice:
    def test_an_abort_that_comes_second_changes_nothing(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        leading = races.paused(committing(writer, ledger.plan(writer)))
        waiting = races.blocked(ending(ledger, writer))
        assert leading.let_go().number == 1
        assert waiting.join() is False
        assert ledger.files(namespace, 1) == digests({"a": b"1"})

    def test_a_commit_that_comes_second_is_a_conflict(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        planned = ledger.plan(writer)
        leading = races.paused(ending(ledger, writer))
        waiting = races.blocked(committing(writer, planned))
        assert leading.let_go() is True
        with pytest.raises(ConflictError, match="aborted meanwhile"):
            waiting.join()
        assert ledger.now(namespace).head == 0

    def test_two_holders_who_commit_at_once_get_one_version(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        planned = ledger.plan(writer)
        leading = races.paused(committing(writer, planned))
        waiting = races.blocked(committing(writer, planned))
        made = leading.let_go()
        again = waiting.join()
        assert (again.number, again.created) == (made.number, True) == (1, True)
        assert ledger.now(namespace).head == 1

    def test_two_holders_who_change_nothing_make_no_version(self, races: Races, ledger: Ledger) -> None:
        namespace = ledger.namespace()
        ledger.write(namespace, {"a": b"1"})
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        planned = ledger.plan(writer)
        leading = races.paused(committing(writer, planned))
        waiting = races.blocked(committing(writer, planned))
        outcomes = [leading.let_go(), waiting.join()]
        assert [(outcome.number, outcome.created) for outcome in outcomes] == [(1, False), (1, False)]


class TestDeadlock:
    def test_the_database_door_runs_the_victim_again_unseen(self, races: Races, ledger: Ledger) -> None:
        first, second = ledger.namespace("first"), ledger.namespace("second")
        one_holds, other_holds = threading.Event(), threading.Event()
        mark = text("UPDATE namespace SET created_us = created_us + 1 WHERE id = :id")

        def crossing(mine: int, yours: int, holding: threading.Event, held: threading.Event) -> Callable[[Connection], str]:
            def work(connection: Connection) -> str:
                connection.execute(mark, {"id": mine})
                holding.set()
                assert held.wait(TIMEOUT_S)
                connection.execute(mark, {"id": yours})
                return "done"

            return work

        one = Racer(races._url, crossing(first.id, second.id, one_holds, other_holds))
        other = Racer(races._url, crossing(second.id, first.id, other_holds, one_holds))
        assert (one.join(), other.join()) == ("done", "done")
        assert sorted([one.attempts, other.attempts]) == [1, 2]
        assert ledger.now(first).created_us == first.created_us + 2


class PausingDatabase(Database):
    """Stops the first transaction before its COMMIT until it is let go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reached, self.go = threading.Event(), threading.Event()

    def run(self, work: Callable[[Connection], Any], *, commit_id: str = "") -> Any:
        def paused(connection: Connection) -> Any:
            result = work(connection)
            self.reached.set()
            assert self.go.wait(TIMEOUT_S)
            return result

        return super().run(paused, commit_id=commit_id)


class TestOneNameTwice:
    def test_a_namespace_made_by_two_at_once_has_one_id(self, races: Races, ledger: Ledger) -> None:
        blobs = MemoryDriver("one-name-twice-" + ledger.store.uid + str(id(races)))
        blobs.create_container()
        slow = PausingDatabase(races._url)
        results: list[Any] = []
        leading = threading.Thread(target=lambda: results.append(ensure_namespace(Doors(blobs, slow, ledger.store), "team/raw")))
        leading.start()
        assert slow.reached.wait(TIMEOUT_S)
        doors = Doors(blobs, Database(races._url), ledger.store)
        waiting = threading.Thread(target=lambda: results.append(ensure_namespace(doors, "team/raw")))
        waiting.start()
        races.wait_until_any_is_blocked()
        slow.go.set()
        leading.join(TIMEOUT_S)
        waiting.join(TIMEOUT_S)
        slow.close()
        doors.index.close()
        (one, made_one), (other, made_other) = results
        assert (one.id, one.uid) == (other.id, other.uid)
        assert [made.queued.number for made in (made_one, made_other) if made is not None] == [1]
