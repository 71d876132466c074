"""Which transactions have taken a time and are not over: what `vds now` waits for, and that nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.index.ledger import Ledger, commit_or_raise
from vds.blobs.memory import MemoryDriver
from vds.engine.doors import Doors
from vds.errors import UnavailableError
from vds.index.database import Connection, Database, now_us
from vds.index.datasets import NewRelease, add_release, lock_dataset, move_tag
from vds.index.migrate import upgrade
from vds.index.moments import check_primary, list_stamping, newest_us, stamp_us
from vds.index.queue import list_places
from vds.index.stores import NamespaceRow
from vds.index.versions import get_version
from vds.model.moment import micros_of
from vds.ops.now import now

TIMEOUT_S = 60.0


def stamping(ledger: Ledger) -> set[str]:
    with ledger.database.read() as connection:
        return list_stamping(connection, ledger.store.id)


def registering(ledger: Ledger, namespace: NamespaceRow) -> Callable[[Connection], object]:
    new = NewRelease(namespace.id, namespace.uid, namespace.name, 1, b"\0" * 32, "", "", {})

    def work(connection: Connection) -> object:
        dataset = lock_dataset(connection, ledger.store.id, "customers")
        dataset = add_release(connection, dataset, ledger.store.uid, new, "ada")
        return move_tag(connection, dataset, ledger.store.uid, "prod", 1, author="ada", reason="", expected=None)

    return work


@dataclass
class Paused:
    """A transaction in a thread of its own that stops before its COMMIT until it is let go."""

    database: Database
    work: Callable[[Connection], object]
    _reached: threading.Event = field(default_factory=threading.Event)
    _go: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Paused:
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self.database.run, self._attempt)
        assert self._reached.wait(TIMEOUT_S)
        return self

    def __exit__(self, *error: object) -> None:
        self.let_go()
        self._pool.shutdown()

    def let_go(self) -> None:
        self._go.set()
        self._done.result(TIMEOUT_S)

    def _attempt(self, connection: Connection) -> None:
        self.work(connection)
        self._reached.set()
        assert self._go.wait(TIMEOUT_S)


class TestBoth:
    def test_a_time_is_the_clocks(self, ledger: Ledger) -> None:
        before = ledger.database.run(now_us)
        stamped = ledger.database.run(lambda c: stamp_us(c, ledger.store.id))
        assert before <= stamped <= ledger.database.run(now_us)
        assert stamping(ledger) == set()

    def test_this_database_takes_writes(self, ledger: Ledger) -> None:
        with ledger.database.read() as connection:
            check_primary(connection)

    def test_the_newest_time(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        def newest() -> int:
            with ledger.database.read() as connection:
                return newest_us(connection, ledger.store.id)

        assert newest() == 0
        ledger.write(namespace, {"a": b"1"})
        with ledger.database.read() as connection:
            first = get_version(connection, ledger.now(namespace), 1).created_us
        assert newest() == first
        ledger.database.run(registering(ledger, namespace))
        tagged = newest()
        assert tagged > first
        other = ledger.namespace("other")
        ledger.write(other, {"a": b"1"})
        assert newest() > tagged

    def test_what_is_queued(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        def places() -> set[tuple[str, int, int]]:
            with ledger.database.read() as connection:
                return list_places(connection, ledger.store.id)

        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        ledger.commit(writer, ledger.plan(writer))
        assert places() == {("version", namespace.id, 1)}
        dataset: Any = ledger.database.run(registering(ledger, namespace))
        assert places() == {("version", namespace.id, 1), ("event", dataset.id, 1), ("event", dataset.id, 2)}
        ledger.flush(namespace)
        assert places() == {("event", dataset.id, 1), ("event", dataset.id, 2)}


@pytest.fixture
def postgres(database_url: str) -> Iterator[Ledger]:
    """A store in a database of this test alone."""
    database = Database(database_url)
    upgrade(database)
    yield Ledger(database)
    database.close()


def committing(ledger: Ledger, namespace: NamespaceRow) -> Callable[[Connection], object]:
    writer = ledger.open(namespace)
    ledger.stage(writer, {"a": b"1"})
    planned = ledger.plan(writer)
    return lambda connection: commit_or_raise(connection, writer, planned)


def doors_of(ledger: Ledger) -> Doors:
    return Doors(MemoryDriver("moments"), ledger.database, ledger.store)


@pytest.mark.services
class TestPostgres:
    def test_a_commit_shows_from_its_time_to_its_end(self, postgres: Ledger) -> None:
        commit = committing(postgres, postgres.namespace())
        assert stamping(postgres) == set()
        with Paused(postgres.database, commit) as paused:
            during = stamping(postgres)
            paused.let_go()
            assert (len(during), stamping(postgres)) == (1, set())

    def test_an_event_of_a_dataset_does_too(self, postgres: Ledger) -> None:
        namespace = postgres.namespace()
        postgres.write(namespace, {"a": b"1"})
        with Paused(postgres.database, registering(postgres, namespace)):
            assert len(stamping(postgres)) == 1
        assert stamping(postgres) == set()

    def test_other_stores_are_none_of_it(self, postgres: Ledger) -> None:
        other = Ledger(postgres.database)
        with Paused(postgres.database, lambda c: stamp_us(c, postgres.store.id)):
            assert stamping(other) == set()
            assert len(stamping(postgres)) == 1

    def test_no_moment_is_named_while_a_commit_that_may_be_older_is_under_way(
        self, postgres: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vds.ops.now.WAIT_S", 0.0)
        namespace = postgres.namespace()
        with Paused(postgres.database, committing(postgres, namespace)), pytest.raises(UnavailableError, match="under way"):
            now(doors_of(postgres))
        postgres.flush(namespace)
        assert micros_of(now(doors_of(postgres))) > newest_of(postgres, namespace)

    def test_the_commit_that_was_waited_for_is_part_of_it(self, postgres: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that ends between two looks: `now` finds it in the queue, and returns once it is visible."""
        namespace = postgres.namespace()
        with Paused(postgres.database, committing(postgres, namespace)) as paused:
            slept: list[float] = []

            def sleep(seconds: float) -> None:
                slept.append(seconds)
                paused.let_go()
                postgres.flush(namespace)

            monkeypatch.setattr("vds.ops.now.time.sleep", sleep)
            moment = now(doors_of(postgres))
        assert len(slept) == 1
        assert postgres.now(namespace).visible == 1
        assert newest_of(postgres, namespace) <= micros_of(moment)

    def test_nobody_waits_for_it(self, postgres: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        """While it waits for one commit, others begin and end."""
        first, second = postgres.namespace("first"), postgres.namespace("second")
        with Paused(postgres.database, committing(postgres, first)) as paused:

            def sleep(seconds: float) -> None:
                postgres.write(second, {"a": b"1"})
                paused.let_go()
                postgres.flush(first)

            monkeypatch.setattr("vds.ops.now.time.sleep", sleep)
            moment = now(doors_of(postgres))
        assert newest_of(postgres, first) <= micros_of(moment) < newest_of(postgres, second)


def newest_of(ledger: Ledger, namespace: NamespaceRow) -> int:
    row = ledger.now(namespace)
    with ledger.database.read() as connection:
        return get_version(connection, row, row.head).created_us


def test_on_sqlite_a_time_is_read_where_nobody_else_writes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ledger.database.is_sqlite:
        pytest.skip("PostgreSQL has several writers")
    asked: list[bool] = []

    def clock(connection: Connection) -> int:
        asked.append(bool(connection.get_execution_options().get("vds_write")))
        return now_us(connection)

    monkeypatch.setattr("vds.ops.now.now_us", clock)
    now(doors_of(ledger))
    assert asked == [True]
