"""How much is asked of the index, and in what order it serves: transactions, cursors, ranges, and the queue of a head."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.contract.test_index_races import Racer, Races, committing, races
from tests.unit.index.ledger import Ledger
from vds.errors import OutcomeUnknownError, UnavailableError, VdsError
from vds.index import database as database_module
from vds.index.cursors import BATCH_ROWS, fetch_batches, look_up_by_key, sent_together
from vds.index.database import Connection, Database
from vds.index.edits import remove_paths
from vds.index.entries import is_anything_at, measure, read_entries, read_page
from vds.index.plan import prefix_condition
from vds.index.queue import QueuedRecord, add_record, list_records
from vds.index.sql import text
from vds.index.stores import NamespaceRow

__all__ = ["races"]
POSTGRES = pytest.mark.services


def status_of(connection: Connection) -> int:
    raw: Any = connection.connection.driver_connection
    return int(raw.info.transaction_status)


class TestReading:
    def test_on_postgres_it_is_no_transaction_until_one_is_needed(self, database: Database) -> None:
        if database.is_sqlite:
            pytest.skip("SQLite sends nothing to begin one")
        with database.read() as connection:
            connection.exec_driver_sql("SELECT 1").one()
            assert status_of(connection) == psycopg.pq.TransactionStatus.IDLE
            look_up_by_key(connection)
            assert status_of(connection) == psycopg.pq.TransactionStatus.INTRANS
            assert connection.exec_driver_sql("SHOW enable_sort").scalar_one() == "off"
        with database.read() as connection:
            assert status_of(connection) == psycopg.pq.TransactionStatus.IDLE
        assert database.run(status_of) == psycopg.pq.TransactionStatus.IDLE  # nothing was asked in it yet

    def test_a_write_is_one_transaction_after_a_read_was_none(self, database: Database) -> None:
        class StopError(Exception):
            pass

        def work(connection: Connection) -> None:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'other'")
            raise StopError

        with database.read() as connection:
            before = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        with pytest.raises(StopError):
            database.run(work)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == before

    @pytest.mark.parametrize("count", [0, 1, BATCH_ROWS, BATCH_ROWS + 1])
    @pytest.mark.parametrize("is_told", [False, True])
    def test_batches_are_the_same_whether_told_how_many(self, database: Database, count: int, *, is_told: bool) -> None:
        numbers = (
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n <= :count) SELECT n FROM n WHERE n <= :count"
        )
        with database.read() as connection:
            batches = list(fetch_batches(connection, numbers, {"count": count}, rows_max=count if is_told else None))
        assert [row[0] for batch in batches for row in batch] == list(range(1, count + 1))
        assert all(batches)
        assert max(map(len, batches), default=0) <= BATCH_ROWS


@POSTGRES
class TestIdleConnections:
    @pytest.fixture
    def database(self, database_url: str) -> Database:
        return Database(database_url)

    def test_one_that_the_server_closed_is_replaced(self, database: Database, database_url: str) -> None:
        with database.read() as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with psycopg.connect(database_url, autocommit=True) as killer:
            assert killer.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() != pid
        database.close()

    def test_one_that_was_idle_for_long_is_asked(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        plain = database_module._answers

        def note(*given: Any) -> bool:
            asked.append(given)
            return plain(*given)

        monkeypatch.setattr(database_module, "_answers", note)
        for _ in range(3):
            with database.read() as connection:
                pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        assert asked == []
        monkeypatch.setattr(database_module, "ASK_AFTER_S", -1.0)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() == pid
        assert len(asked) == 1
        monkeypatch.setattr(database_module, "_answers", lambda *given: False)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() != pid
        database.close()


@POSTGRES
class TestSentTogether:
    """What nobody waits for between: in its order, and none after the first that fails."""

    @pytest.fixture
    def database(self, database_url: str) -> Database:
        database = Database(database_url)
        database.run(lambda c: c.exec_driver_sql("CREATE TABLE n (id integer PRIMARY KEY)"))
        return database

    @staticmethod
    def insert(connection: Connection, *numbers: int) -> None:
        with sent_together(connection):
            for number in numbers:
                connection.execute(text("INSERT INTO n VALUES (:n)"), {"n": number})

    def test_all_of_it_is_there(self, database: Database) -> None:
        database.run(lambda c: self.insert(c, 1, 2, 3))
        with database.read() as connection:
            assert list(connection.exec_driver_sql("SELECT id FROM n ORDER BY id").scalars()) == [1, 2, 3]
        database.close()

    def test_the_first_that_fails_is_told_and_nothing_is_committed(self, database: Database) -> None:
        with pytest.raises(VdsError, match="n_pkey") as caught:
            database.run(lambda c: self.insert(c, 1, 1, 2))
        assert not isinstance(caught.value, OutcomeUnknownError)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT COUNT(*) FROM n").scalar_one() == 0
        database.close()

    def test_a_connection_that_is_lost_meanwhile_is_told(self, database: Database, database_url: str) -> None:
        def work(connection: Connection) -> None:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            with psycopg.connect(database_url, autocommit=True) as killer:
                assert killer.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)
            self.insert(connection, 1, 2)

        with pytest.raises(UnavailableError):
            database.run(work)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT COUNT(*) FROM n").scalar_one() == 0
        database.close()


class TestBelow:
    FILES = ("raw", "raw!", "raw-2/a", "raw.txt", "raw0", "rawb/a")

    def test_only_what_is_the_path_or_below_it(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, dict.fromkeys(self.FILES, b"1"))
        ledger.write(namespace, {"raw": None, "raw/a": b"1", "raw/b/c": b"1"})
        with ledger.database.read() as connection:
            for number, expected in ((1, ["raw"]), (2, ["raw/a", "raw/b/c"])):
                at = ledger.at(namespace, number)
                assert [row.path for row in read_page(connection, at, "raw")] == expected
                assert [row.path for row in read_entries(connection, at, "raw")] == expected
                assert measure(connection, at, "raw") == (len(expected), len(expected))
                assert is_anything_at(connection, at, "raw")
                assert not is_anything_at(connection, at, "ra")

    def test_the_range_is_looked_up(self, database: Database) -> None:
        """Neither database goes through the namespace: the index is entered at the path, and left behind what is below it."""
        under, binds = prefix_condition("e.path", "b")
        values = ", ".join(f"{name} = {value!r}" for name, value in binds.items())
        assert values == "pfx = 'b', pfx_first = 'b/', pfx_end = 'b0'"
        for name, value in sorted(binds.items(), reverse=True):
            under = under.replace(f":{name}", f"'{value}'")
        live = "e.store_id = 1 AND e.namespace_id = 1 AND e.first_version + 0 <= 1 AND e.end_version > 1"
        question = f"SELECT e.path FROM entry e WHERE {live} AND {under} ORDER BY e.path"
        with database.read() as connection:
            look_up_by_key(connection)
            word = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            plan = " ".join(str(row[-1]) for row in connection.exec_driver_sql(f"{word} {question}"))
        bounds = ("path>?", "path<?") if database.is_sqlite else ("path >= 'b'", "path < 'b0'")
        assert all(bound in plan for bound in bounds), plan
        assert "Sort" not in plan
        assert "TEMP B-TREE" not in plan

    def test_removing_one_path_costs_that_path(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        if not ledger.database.is_sqlite:
            pytest.skip("SQLite counts the steps of its machine")
        ledger.write(namespace, {f"{number // 100:03}/{number:05}": b"1" for number in range(5_000)})
        writer = ledger.open(namespace)
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 100
            return 0

        def work(connection: Connection) -> int:
            raw: Any = connection.connection.driver_connection
            raw.set_progress_handler(step, 100)
            try:
                return remove_paths(connection, writer.area, 1, "025/02550")
            finally:
                raw.set_progress_handler(None, 0)

        assert ledger.database.run(work) == 1
        assert steps < 1_000  # a walk through them all takes fifty thousand


class TestQueuedRecords:
    def test_both_ends_bound_the_numbers(self, ledger: Ledger) -> None:
        for number in range(1, 6):
            record = QueuedRecord("version", 7, number, f"journal/{number}", b"x")
            ledger.database.run(lambda c, record=record: add_record(c, ledger.store.id, record))  # type: ignore[misc]
        with ledger.database.read() as connection:
            found = list_records(connection, ledger.store.id, "version", 7, 4, first=2)
        assert [record.number for record in found] == [2, 3, 4]


@POSTGRES
class TestTheQueueOfAHead:
    def test_those_who_wait_are_served_in_order(self, races: Races) -> None:
        ledger = races.ledger
        namespace = ledger.namespace()
        writers = [ledger.open(namespace) for _ in range(6)]
        for number, writer in enumerate(writers):
            ledger.stage(writer, {f"{number}": b"1"})
        first, *others = [committing(writer, ledger.plan(writer)) for writer in writers]
        leading = races.paused(first)
        waiting: list[Racer] = [races.blocked(work) for work in others]  # each waits before the next one comes
        made = [leading.let_go(), *[racer.join() for racer in waiting]]
        assert [one.number for one in made] == list(range(1, 7))
