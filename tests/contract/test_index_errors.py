"""What the database door makes of foreign errors, on both databases: constraint names, full disks, lost rights, dead servers."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests import services
from tests.unit.index.ledger import Ledger
from vds.errors import (
    AccessDeniedError,
    ConflictError,
    CorruptionError,
    FormatError,
    InvalidInputError,
    NoSpaceError,
    OutcomeUnknownError,
    UnavailableError,
)
from vds.index.database import Connection, Database
from vds.index.migrate import upgrade
from vds.index.schema import OPEN, metadata
from vds.index.stores import find_store
from vds.index.translate import _CONSTRAINTS, is_disconnect, is_retryable, translated

_numbers = itertools.count(1)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "index.sqlite")
    upgrade(made)
    yield made
    made.close()


def find_rule(name: str) -> tuple[sa.Table, list[str]]:
    """Return the table of a constraint or unique index, and its columns."""
    for table in metadata.tables.values():
        for rule in (*table.constraints, *table.indexes):
            if isinstance(rule, sa.PrimaryKeyConstraint | sa.UniqueConstraint | sa.Index) and rule.name == name:
                return table, [column.name for column in rule.columns]
    raise AssertionError(f"the schema has no {name}")


_FIXED = {"kind": "register", "end_version": OPEN}
_STATES = {"blob": "live", "part": "done", "upload": "open"}


def any_row(table: sa.Table, store_id: int) -> dict[str, object]:
    """Return a row of `table` that no other one equals in any column."""
    row: dict[str, object] = {}
    for column in table.columns:
        number = next(_numbers)
        if column.name == "store_id":
            row[column.name] = store_id
        elif column.name == "state":
            row[column.name] = _STATES[table.name]
        elif column.name in _FIXED and not (column.name == "kind" and table.name == "staged"):
            row[column.name] = _FIXED[column.name]
        elif isinstance(column.type, sa.LargeBinary):
            row[column.name] = number.to_bytes(32, "big")
        elif isinstance(column.type, sa.Text):
            row[column.name] = f"text-{number}"
        elif isinstance(column.type, sa.SmallInteger):
            row[column.name] = 1
        elif column.name != "id":
            row[column.name] = number
    return row


@pytest.mark.parametrize("name", sorted(_CONSTRAINTS))
def test_a_broken_rule_is_named_in_the_words_of_the_domain(database: Database, name: str) -> None:
    table, columns = find_rule(name)
    store_id = Ledger(database).store.id
    first, second = any_row(table, store_id), any_row(table, store_id)
    for column in columns:
        second[column] = first[column]

    def work(connection: Connection) -> None:
        connection.execute(table.insert(), first)
        connection.execute(table.insert(), second)

    with pytest.raises(ConflictError) as caught:
        database.run(work)
    assert caught.value.message == _CONSTRAINTS[name]
    assert isinstance(caught.value.__cause__, sa.exc.IntegrityError)


def test_any_other_broken_rule_is_a_conflict_too(database: Database) -> None:
    ledger = Ledger(database)
    with pytest.raises(ConflictError, match="the index refused a row"):
        ledger.set_blob_state(ledger.pending(1), "nonsense")


def test_nothing_of_a_transaction_that_failed_stays(database: Database) -> None:
    ledger = Ledger(database)

    def work(connection: Connection) -> None:
        connection.execute(metadata.tables["dataset"].insert(), any_row(metadata.tables["dataset"], ledger.store.id))
        raise UnavailableError("by hand")

    with pytest.raises(UnavailableError, match="by hand"):
        database.run(work)
    with database.read() as connection:
        rows = connection.exec_driver_sql(f"SELECT COUNT(*) FROM dataset WHERE store_id = {ledger.store.id}")
        assert rows.scalar_one() == 0


def test_a_lock_that_others_hold_is_waited_for_unseen(database: Database) -> None:
    """What the database undoes only because of others is run again, as often as it takes."""
    attempts = []

    def work(connection: Connection) -> str:
        attempts.append(1)
        if len(attempts) < 4:
            raise busy(database)
        return "done"

    assert database.run(work) == "done"
    assert len(attempts) == 4


def busy(database: Database) -> sa.exc.OperationalError:
    if database.is_sqlite:
        return sa.exc.OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))
    return sa.exc.OperationalError("UPDATE", {}, psycopg.errors.DeadlockDetected("deadlock detected"))


def test_retries_have_an_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []
    monkeypatch.setattr("vds.index.database.time.sleep", lambda seconds: None)

    def work(connection: Connection) -> None:
        attempts.append(1)
        raise busy(database)

    with pytest.raises(UnavailableError):
        database.run(work)
    assert len(attempts) == 21


class TestSqlite:
    def test_a_full_disk_is_no_space(self, sqlite: Database) -> None:
        def work(connection: Connection) -> None:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
            connection.exec_driver_sql("CREATE TABLE filler AS SELECT zeroblob(1000000) AS body")

        with pytest.raises(NoSpaceError, match="full") as caught:
            sqlite.run(work)
        assert "free space" in caught.value.hint

    def test_a_read_only_database_denies(self, sqlite: Database) -> None:
        reader = Database(sqlite.path, read_only=True)
        with reader.read() as connection:
            assert find_store(connection, "x") is None
        with pytest.raises(AccessDeniedError, match="readonly database") as caught:
            reader.run(lambda c: c.exec_driver_sql("DELETE FROM store"))
        assert "directory writable" in caught.value.hint
        reader.close()

    def test_a_missing_file_denies_a_reader(self, tmp_path: Path) -> None:
        reader = Database(tmp_path / "none.sqlite", read_only=True)
        with pytest.raises(AccessDeniedError, match="unable to open"), reader.read():
            pass
        assert not (tmp_path / "none.sqlite").exists()

    def test_a_file_that_is_no_database_is_corruption(self, tmp_path: Path) -> None:
        (tmp_path / "index.sqlite").write_bytes(b"this is no database, whatever its name says" * 100)
        database = Database(tmp_path / "index.sqlite")
        with pytest.raises(CorruptionError, match="not a database"), database.read():
            pass
        database.close()

    def test_what_it_promises_is_switched_on(self, sqlite: Database) -> None:
        with sqlite.read() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ["journal_mode", "synchronous", "foreign_keys"]
            }
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.services
class TestPostgresql:
    def test_a_read_only_transaction_denies(self, database_url: str) -> None:
        database = Database(database_url)
        upgrade(database)

        def work(connection: Connection) -> None:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            connection.exec_driver_sql("DELETE FROM store")

        with pytest.raises(AccessDeniedError, match="read-only") as caught:
            database.run(work)
        assert "primary" in caught.value.hint
        database.close()

    def test_a_wrong_password_denies_and_is_not_shown(self, database_url: str) -> None:
        wrong = sa.engine.make_url(database_url).set(password="not-the-password")
        database = Database(wrong.render_as_string(hide_password=False))
        with pytest.raises(AccessDeniedError) as caught, database.read():
            pass
        assert "not-the-password" not in f"{caught.value!r} {caught.value} {caught.value.hint} {database!r}"

    def test_a_missing_database_says_so(self, database_url: str) -> None:
        missing = sa.engine.make_url(database_url).set(database="vds_no_such_database")
        database = Database(missing.render_as_string(hide_password=False))
        with pytest.raises(UnavailableError, match="vds_no_such_database"), database.read():
            pass

    def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        database = Database(f"postgresql://vds:hidden@127.0.0.1:{services.free_port()}/x")
        with pytest.raises(UnavailableError, match="did not answer") as caught, database.read():
            pass
        assert "hidden" not in f"{caught.value!r} {caught.value}"

    def test_a_connection_lost_before_the_commit_changed_nothing(self, database_url: str) -> None:
        database, killer = Database(database_url), psycopg.connect(database_url, autocommit=True)
        upgrade(database)

        def work(connection: Connection) -> None:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'x'")
            killer.execute("SELECT pg_terminate_backend(%s)", (pid,))
            connection.exec_driver_sql("SELECT 1")

        with pytest.raises(UnavailableError):
            database.run(work)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() != "x"
        database.close()
        killer.close()

    def test_a_connection_lost_while_committing_is_an_unknown_outcome(self, database_url: str) -> None:
        database, killer = Database(database_url), psycopg.connect(database_url, autocommit=True)
        upgrade(database)

        def work(connection: Connection) -> None:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
            killer.execute("SELECT pg_terminate_backend(%s)", (pid,))

        with pytest.raises(OutcomeUnknownError, match="lost while committing") as caught:
            database.run(work, commit_id="the-commit")
        assert caught.value.commit_id == "the-commit"
        database.close()
        killer.close()


class TestAddresses:
    @pytest.mark.parametrize("text", ["mysql://host/db", "sqlite://", "sqlite:///:memory:", "no url", ""])
    def test_what_is_no_index_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidInputError):
            Database(text)

    def test_an_address_holds_no_secret(self) -> None:
        database = Database("postgresql://ada:s3cret@db.example:5433/vds?password=hid1&sslmode=require&options=-chid2")
        assert database.address == "postgresql://db.example:5433/vds?sslmode=require"
        assert "s3cret" not in repr(database)

    def test_a_file_is_named_by_its_whole_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert Database("sqlite:///index.sqlite").path == tmp_path / "index.sqlite"
        assert Database(tmp_path / "index.sqlite").address == f"sqlite:///{tmp_path}/index.sqlite"


class _Diagnosed(Exception):
    sqlstate: str | None = None


def _postgres_error(state: str | None, words: str = "server said so") -> sa.exc.DBAPIError:
    found = type("Error", (_Diagnosed,), {"sqlstate": state, "__module__": "psycopg.errors"})
    return sa.exc.DBAPIError("SELECT", {}, found(words))


def _sqlite_error(words: str) -> sa.exc.DBAPIError:
    return sa.exc.DBAPIError("SELECT", {}, sqlite3.OperationalError(words))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_postgres_error("28P01"), AccessDeniedError),
        (_postgres_error("42501"), AccessDeniedError),
        (_postgres_error("3D000"), UnavailableError),
        (_postgres_error("42P01"), FormatError),
        (_postgres_error("42703"), FormatError),
        (_postgres_error("53100"), NoSpaceError),
        (_postgres_error("25006"), AccessDeniedError),
        (_postgres_error("XX001"), CorruptionError),
        (_postgres_error("57P01"), UnavailableError),
        (_postgres_error("55P03"), UnavailableError),
        (_postgres_error(None, "password authentication failed for user"), AccessDeniedError),
        (_postgres_error(None, "connection refused"), UnavailableError),
        (_sqlite_error("database or disk is full"), NoSpaceError),
        (_sqlite_error("attempt to write a readonly database"), AccessDeniedError),
        (_sqlite_error("unable to open database file"), AccessDeniedError),
        (_sqlite_error("no such table: store"), FormatError),
        (_sqlite_error("database disk image is malformed"), CorruptionError),
        (_sqlite_error("disk I/O error"), UnavailableError),
        (_sqlite_error("something new"), UnavailableError),
        (sa.exc.TimeoutError("QueuePool limit"), UnavailableError),
    ],
)
def test_what_foreign_errors_mean(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, translated("ADDRESS"):
        raise error
    assert "ADDRESS" in str(caught.value)
    assert caught.value.__cause__ is error
    assert getattr(caught.value, "hint", "")


def test_which_errors_are_tried_again() -> None:
    checks: list[tuple[Callable[[Any], bool], Exception, bool]] = [
        (is_retryable, _postgres_error("40P01"), True),
        (is_retryable, _postgres_error("40001"), True),
        (is_retryable, _sqlite_error("database is locked"), True),
        (is_retryable, _postgres_error("57P01"), False),
        (is_retryable, ValueError("40P01"), False),
        (is_disconnect, _postgres_error("57P01"), True),
        (is_disconnect, _postgres_error("08006"), True),
        (is_disconnect, _postgres_error(None), True),
        (is_disconnect, _postgres_error("23505"), False),
        (is_disconnect, _sqlite_error("database is locked"), False),
        (is_disconnect, OSError("57P01"), False),
    ]
    assert [check(error) for check, error, _ in checks] == [expected for _, _, expected in checks]
