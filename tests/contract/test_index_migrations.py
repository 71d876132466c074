"""Making and upgrading the tables: once, by many at once, and to the very schema that `vds.index.schema` declares."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests import services
from vds.errors import FormatError
from vds.index.database import Connection, Database
from vds.index.migrate import migrations_directory, upgrade
from vds.index.schema import REVISION, metadata
from vds.index.stores import check_revision, find_store

RACERS = 6
SERVICES = pytest.param("postgresql", marks=pytest.mark.services)


@pytest.fixture(params=["sqlite", SERVICES])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the url of a database without tables."""
    return f"sqlite:///{tmp_path}/index.sqlite" if request.param == "sqlite" else request.getfixturevalue("database_url")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = Database(url)
    yield made
    made.close()


def set_revision(database: Database, revision: str) -> None:
    database.run(lambda c: c.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'"))


def test_an_upgrade_says_what_it_did_and_is_idempotent(database: Database) -> None:
    assert upgrade(database) == (None, REVISION)
    assert upgrade(database) == (REVISION, REVISION)
    check_revision(database)


def test_many_may_upgrade_at_once(url: str) -> None:
    def one(_: int) -> tuple[str | None, str]:
        database = Database(url)
        try:
            return upgrade(database)
        finally:
            database.close()

    with ThreadPoolExecutor(RACERS) as pool:
        results = list(pool.map(one, range(RACERS)))
    assert sorted(results, key=str) == sorted([(None, REVISION)] + [(REVISION, REVISION)] * (RACERS - 1), key=str)


def test_the_newest_revision_is_the_one_this_program_asks_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [REVISION]
    assert script.get_bases() == ["0001"]


def test_migrations_make_what_the_schema_declares(database: Database) -> None:
    upgrade(database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def describe(database: Database) -> list[tuple[Any, ...]]:
    """Return every table, column, index and constraint as the database itself writes it, but for Alembic's own table."""
    with database.read() as connection:
        if database.is_sqlite:
            rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'")
            return sorted((row[0], row[1], *_clauses(row[2] or "")) for row in rows if "alembic" not in row[1])
        columns = connection.exec_driver_sql(
            "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, collation_name, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
        )
        indexes = connection.exec_driver_sql(
            "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )
        rules = connection.exec_driver_sql(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass"
        )
        return sorted((tuple(row) for rows in (columns, indexes, rules) for row in rows), key=str)


def _clauses(statement: str) -> list[str]:
    """Return the parts of a CREATE statement, sorted: the order in which constraints are written means nothing."""
    head, _, body = " ".join(statement.split()).partition("(")
    body, _, tail = body.rpartition(")")
    return [head, *sorted(part.strip() for part in body.split(", ")), tail]


def test_a_schema_made_from_scratch_is_the_migrated_one_on_sqlite(tmp_path: Path) -> None:
    migrated, scratch = Database(tmp_path / "migrated.sqlite"), Database(tmp_path / "scratch.sqlite")
    upgrade(migrated)
    scratch.run(metadata.create_all)
    assert [row[:2] for row in describe(migrated)] == [row[:2] for row in describe(scratch)]
    assert describe(migrated) == describe(scratch)
    migrated.close()
    scratch.close()


@pytest.mark.services
def test_a_schema_made_from_scratch_is_the_migrated_one_on_postgresql(postgres_url: str) -> None:
    with services.fresh_database(postgres_url) as first, services.fresh_database(postgres_url) as second:
        migrated, scratch = Database(first), Database(second)
        upgrade(migrated)
        scratch.run(metadata.create_all)
        scratch.run(lambda c: c.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)"))
        assert describe(migrated) == describe(scratch)
        migrated.close()
        scratch.close()


def test_an_index_of_the_first_revision_keeps_its_rows(database: Database) -> None:
    def first(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrations_directory()))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO store VALUES (7, 'uid', 'incarnation', 0, '', 0)")
        connection.exec_driver_sql("INSERT INTO blob VALUES (1, 7, 'packs/a', 'pending', NULL, NULL, 3, 0)")
        connection.exec_driver_sql(
            "INSERT INTO upload VALUES (3, 7, 'token', 1, 'open', 0, NULL, 'ada', '', '{}', 0, 'commit', 0, 0, 0)"
        )

    database.run(first)
    with pytest.raises(FormatError, match=f"at revision 0001, this program needs {REVISION}"):
        check_revision(database)
    assert upgrade(database) == ("0001", REVISION)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT key, fingerprint, moves FROM blob").all() == [("packs/a", None, 0)]
        assert connection.exec_driver_sql("SELECT token, process FROM upload").all() == [("token", "")]


def test_paths_sort_by_their_bytes_on_both(database: Database) -> None:
    upgrade(database)
    names = sorted(["a", "B", "é", "Z", "z/a", "z-a"], key=str.encode)
    with database.read() as connection:
        collation = "" if database.is_sqlite else ' COLLATE "C"'
        values = ", ".join(f"('{name}'{collation})" for name in reversed(names))
        rows = connection.exec_driver_sql(f"SELECT * FROM (VALUES {values}) AS v ORDER BY 1").scalars()
        assert list(rows) == names


def test_an_older_index_names_the_upgrade(database: Database) -> None:
    upgrade(database)
    set_revision(database, "0000")
    with pytest.raises(FormatError, match=f"at revision 0000, this program needs {REVISION}") as caught:
        check_revision(database)
    assert caught.value.hint == "vds index upgrade"


def test_a_newer_index_names_the_newer_program(database: Database) -> None:
    upgrade(database)
    set_revision(database, "9999")
    for look in (lambda: check_revision(database), lambda: upgrade(database)):
        with pytest.raises(FormatError, match="at revision 9999, newer than this program's") as caught:
            look()
        assert caught.value.hint == "pip install --upgrade vds"


def test_a_database_without_tables_names_the_upgrade(database: Database) -> None:
    if database.is_sqlite:
        upgrade(database)  # makes the file
        database.run(lambda c: c.exec_driver_sql("DROP TABLE alembic_version"))
    with pytest.raises(FormatError, match="has no tables yet") as caught:
        check_revision(database)
    assert caught.value.hint == "vds index upgrade"


def test_a_missing_table_is_a_question_of_format(database: Database) -> None:
    upgrade(database)
    database.run(lambda c: c.exec_driver_sql("DROP TABLE version"))
    database.run(lambda c: c.exec_driver_sql("ALTER TABLE store RENAME COLUMN uid TO uid2"))
    with pytest.raises(FormatError) as caught, database.read() as connection:
        connection.exec_driver_sql("SELECT 1 FROM version")
    assert caught.value.hint == "vds index upgrade"
    with pytest.raises(FormatError) as caught, database.read() as connection:
        find_store(connection, "x")
    assert caught.value.hint == "vds index upgrade"


def test_an_upgrade_that_fails_leaves_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Config, revision: str) -> None:
        connection = config.attributes["connection"]
        connection.exec_driver_sql("CREATE TABLE half_done (id INTEGER)")
        raise FormatError("no further")

    monkeypatch.setattr("vds.index.migrate.command.upgrade", fail)
    with pytest.raises(FormatError, match="no further"):
        upgrade(database)
    monkeypatch.undo()
    with pytest.raises(FormatError), database.read() as connection:
        connection.exec_driver_sql("SELECT 1 FROM half_done")
    assert upgrade(database) == (None, REVISION)
