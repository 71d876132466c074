"""One schema a store on PostgreSQL: it is made, migrated and used alone, and stores of one database do not see each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import vds
import vds.index.database
from tests.contract.test_moments import Paused
from tests.support import read_version, write_tree
from tests.unit.index.ledger import Ledger
from vds.errors import AccessDeniedError, FormatError, InvalidInputError
from vds.index.database import Database
from vds.index.migrate import upgrade
from vds.index.moments import list_stamping, stamp_us
from vds.index.schema import REVISION, metadata, staged
from vds.index.stores import check_revision
from vds.index.sweep import count_rows

pytestmark = pytest.mark.services


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the database's owner, for what only that one may do."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def in_schema(url: str, name: str) -> str:
    return f"{url}?schema={name}"


def login(owner: psycopg.Connection[Any], url: str, name: str, *grants: str) -> str:
    """Make a role that may do no more than everybody, and what is granted; return the url it logs in with."""
    role = f"{name}_{urlsplit(url).path[-8:]}"
    owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
    for grant in grants:
        owner.execute(grant.replace("ROLE", role).encode())
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}:pw@{parts.hostname}:{parts.port}").geturl()


def tables(owner: psycopg.Connection[Any], schema: str) -> set[str]:
    return {row[0] for row in owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,))}


class TestMaking:
    def test_an_upgrade_makes_the_schema_and_all_its_tables_in_it(
        self, database_url: str, owner: psycopg.Connection[Any]
    ) -> None:
        database = Database(in_schema(database_url, "team_raw"))
        with pytest.raises(FormatError, match="has no tables yet"):
            check_revision(database)
        assert upgrade(database) == (None, REVISION)
        assert upgrade(database) == (REVISION, REVISION)
        check_revision(database)
        assert tables(owner, "team_raw") == {*metadata.tables, "alembic_version"}
        assert tables(owner, "public") == set()
        with database.read() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
            assert compare_metadata(context, metadata) == []
        database.close()

    def test_an_index_elsewhere_in_the_database_is_not_taken_for_it(
        self, database_url: str, owner: psycopg.Connection[Any]
    ) -> None:
        for url in (database_url, in_schema(database_url, "a"), in_schema(database_url, "b")):
            database = Database(url)
            assert upgrade(database) == (None, REVISION)
            database.close()
        assert tables(owner, "public") == tables(owner, "a") == tables(owner, "b")

    def test_a_role_that_may_not_make_it_is_told_what_to_run(self, database_url: str, owner: psycopg.Connection[Any]) -> None:
        database = Database(in_schema(login(owner, database_url, "maker"), "team_raw"))
        with pytest.raises(AccessDeniedError, match="may not make schema 'team_raw'") as caught:
            upgrade(database)
        assert tables(owner, "team_raw") == set()
        owner.execute(caught.value.hint.partition(": ")[2].encode())
        assert upgrade(database) == (None, REVISION)
        database.close()

    @pytest.mark.parametrize("schema", ["team_raw", "public"])
    def test_a_role_that_may_not_fill_it_is_told_what_to_run(
        self, database_url: str, owner: psycopg.Connection[Any], schema: str
    ) -> None:
        owner.execute("CREATE SCHEMA IF NOT EXISTS team_raw")
        url = login(owner, database_url, "filler", f"GRANT USAGE ON SCHEMA {schema} TO ROLE")
        database = Database(url if schema == "public" else in_schema(url, schema))
        with pytest.raises(AccessDeniedError, match=f"may not make tables in schema '{schema}'") as caught:
            upgrade(database)
        owner.execute(caught.value.hint.partition(": ")[2].encode())
        assert upgrade(database) == (None, REVISION)
        database.close()

    def test_a_role_that_may_not_use_it_is_told_of_the_grants(self, database_url: str, owner: psycopg.Connection[Any]) -> None:
        made = Database(in_schema(database_url, "team_raw"))
        upgrade(made)
        made.close()
        database = Database(in_schema(login(owner, database_url, "nobody"), "team_raw"))
        for _ in range(2):  # a connection that was refused is not kept for the next one
            with pytest.raises(AccessDeniedError, match="may not use schema 'team_raw'") as caught:
                check_revision(database)
            assert "vds index grants" in caught.value.hint
        database.close()


class TestSeeing:
    def test_a_connection_sees_nothing_but_it(self, database_url: str, owner: psycopg.Connection[Any]) -> None:
        owner.execute("CREATE TABLE public.stray (id int)")
        owner.execute("CREATE SCHEMA team_raw")
        database = Database(in_schema(database_url, "team_raw"))
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT current_schemas(false)::text").scalar_one() == "{team_raw}"
        with pytest.raises(FormatError), database.read() as connection:
            connection.exec_driver_sql("SELECT * FROM stray")
        database.close()

    def test_a_setting_lost_on_the_way_is_an_error_and_never_another_schema(
        self, database_url: str, owner: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owner.execute("CREATE SCHEMA team_raw")
        monkeypatch.setattr(vds.index.database, "_session_options", lambda schema, read_only: "")
        database = Database(in_schema(database_url, "team_raw"))
        with pytest.raises(InvalidInputError, match=r"sees schema .*public, not 'team_raw'"), database.read():
            pass
        database.close()

    def test_bulk_rows_and_counts_go_there(self, database_url: str, owner: psycopg.Connection[Any]) -> None:
        """COPY and ANALYZE name tables by themselves."""
        databases = [Database(in_schema(database_url, name)) for name in ("a", "b")]
        for database in databases:
            upgrade(database)
        row = (1, 1, "a.txt", 1, 1, 0, b"\0" * 32, 5, 0o644, 0)
        databases[0].run(lambda c: databases[0].insert_rows(c, staged, [row]))
        databases[0].run(count_rows)
        assert [owner.execute(f"SELECT count(*) FROM {name}.staged".encode()).fetchone() for name in "ab"] == [(1,), (0,)]
        for database in databases:
            database.close()

    def test_a_time_taken_in_one_is_not_waited_for_in_the_other(self, database_url: str) -> None:
        """Advisory locks belong to the database, and the first store of each schema has the same row."""
        ledgers = []
        for name in ("a", "b"):
            database = Database(in_schema(database_url, name))
            upgrade(database)
            ledgers.append(Ledger(database))
        first, second = ledgers
        assert first.store.id == second.store.id
        with Paused(first.database, lambda c: stamp_us(c, first.store.id)):
            seen = [len(_stamping(ledger)) for ledger in ledgers]
        assert (seen, _stamping(first)) == ([1, 0], set())
        for ledger in ledgers:
            ledger.database.close()


def _stamping(ledger: Ledger) -> set[str]:
    with ledger.database.read() as connection:
        return list_stamping(connection, ledger.store.id)


class TestStores:
    def test_two_stores_of_one_database_do_not_see_each_other(self, database_url: str, tmp_path: Path) -> None:
        indexes = [in_schema(database_url, name) for name in ("a", "b")]
        stores = [vds.connect(tmp_path / f"s{n}", index=index, create=True) for n, index in enumerate(indexes)]
        for number, store in enumerate(stores):
            result = store.namespace("team/raw").upload(write_tree(tmp_path / f"t{number}", {"a.txt": b"%d" % number}))
            store.dataset("customers").register(result.version)
        for number, store in enumerate(stores):
            assert store.namespace("team/raw").latest().number == 1
            assert read_version(store.get("team/raw@1")) == {"a.txt": b"%d" % number}
            assert [row.name for row in store.datasets()] == ["customers"]
            assert store.now()
            store.close()

    def test_the_schema_is_part_of_the_address_that_a_store_records(
        self, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGPASSWORD", str(urlsplit(database_url).password))
        monkeypatch.setenv("PGUSER", str(urlsplit(database_url).username))
        with vds.connect(tmp_path / "s", index=in_schema(database_url, "team_raw"), create=True) as store:
            store.namespace("team/raw").upload(write_tree(tmp_path / "t", {"a.txt": b"a"}))
            assert store.index.endswith("?schema=team_raw")
        with vds.connect(tmp_path / "s") as again:
            assert read_version(again.get("team/raw")) == {"a.txt": b"a"}
        assert vds.upgrade_index(tmp_path / "s") == (REVISION, REVISION)

    def test_another_schema_is_another_index(self, database_url: str, tmp_path: Path) -> None:
        vds.connect(tmp_path / "s", index=in_schema(database_url, "a"), create=True).close()
        vds.connect(tmp_path / "other", index=in_schema(database_url, "b"), create=True).close()
        for index in (in_schema(database_url, "b"), in_schema(database_url, "c"), database_url):
            with pytest.raises((InvalidInputError, FormatError), match=r"served by another index|has no tables yet"):
                vds.connect(tmp_path / "s", index=index)
