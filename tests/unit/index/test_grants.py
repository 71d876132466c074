"""Which rights are granted: each table has its own, no more than there are columns, and enough for every statement of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

import vds.index
from vds.errors import InvalidInputError
from vds.index.grants import RIGHTS, TableRights, grant_sql
from vds.index.schema import metadata
from vds.index.sweep import COUNTED_TABLES
from vds.model.access import ACCESSES, Access

_RIGHT = re.compile(r"(INSERT|DELETE|UPDATE)(?: \(([a-z_, ]+)\))?")
_WRITES = re.compile(r"\b(?:(INSERT) (?:\{[^}]*\} )?INTO|(UPDATE)(?: \{[^}]*\})?|(DELETE) FROM) ([a-z_]+)\b(?! *=)")
_OWNERS_MODULES = ("rebuild", "replay")
_FOR_THE_OWNER = {("INSERT", "store"), ("INSERT", "gap")}
"""What is done when a store is made or its index rebuilt: by these modules, and where others serve that too."""


def rights(text: str) -> dict[str, set[str]]:
    """Return right → columns, none for all of them."""
    assert re.fullmatch(rf"(?:{_RIGHT.pattern}(?:, |$))*", text), text
    return {match[1]: set(match[2].split(", ")) if match[2] else set() for match in _RIGHT.finditer(text)}


def sql(access: Access, role: str = "bob", schema: str | None = None) -> str:
    return "\n".join(grant_sql(access, role, database="vds", schema=schema))


def granted(access: Access, table: str) -> str:
    """Return what one table's own statement grants."""
    found = [line for line in sql(access).splitlines() if f'"public"."{table}"' in line and " ON TABLE " in line]
    assert len(found) == 1, found
    return found[0].partition("GRANT ")[2].partition(" ON ")[0]


def test_every_table_has_its_rights() -> None:
    assert set(RIGHTS) == set(metadata.tables)
    assert set(COUNTED_TABLES) <= set(metadata.tables)
    assert get_args(Access) == ACCESSES


def test_a_table_without_rights_is_no_silent_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vds.index.grants.RIGHTS", {name: TableRights() for name in RIGHTS if name != "entry"})
    with pytest.raises(KeyError, match="entry"):
        sql("writer")


@pytest.mark.parametrize("table", sorted(RIGHTS))
def test_columns_are_those_of_the_table(table: str) -> None:
    for text in (RIGHTS[table].writer, RIGHTS[table].collector):
        for columns in rights(text).values():
            assert columns <= {column.name for column in metadata.tables[table].columns}


def test_no_key_can_be_changed_but_of_rows_that_count_for_nothing() -> None:
    for table, of_table in RIGHTS.items():
        keys = {column.name for column in metadata.tables[table].primary_key}
        for text in (of_table.writer, of_table.collector):
            columns = rights(text).get("UPDATE")
            assert columns is None or table == "staged" or (columns and not columns & keys), table


def test_a_reader_reads_and_nothing_else() -> None:
    lines = [line for line in sql("reader").splitlines() if " ON TABLE " in line]
    assert all(line.startswith("GRANT SELECT ON TABLE ") for line in lines)
    assert " ON SEQUENCE " not in sql("reader")
    assert {name for line in lines for name in re.findall(r'"public"\."(\w+)"', line)} == {*metadata.tables, "alembic_version"}


def test_what_only_collectors_and_owners_may_do() -> None:
    assert granted("writer", "object_use") == "SELECT"
    assert "DELETE" not in granted("writer", "entry") + granted("writer", "version") + granted("writer", "object_check")
    assert "expired_us" not in granted("writer", "version")
    for access in ACCESSES:
        assert granted(access, "alembic_version") == "SELECT"
        assert "incarnation" not in sql(access)
        assert "DELETE" not in granted(access, "version") + granted(access, "erased") + granted(access, "tag_event")


def test_a_collector_is_a_writer_too() -> None:
    for table in metadata.tables:
        assert granted("collector", table).startswith(granted("writer", table))


def test_rights_are_enough_for_every_statement() -> None:
    """By table and verb; that the columns are enough is for those who run the statements, in `tests/contract/test_rights.py`."""
    wanted = set()
    for path in Path(vds.index.__path__[0]).glob("*.py"):
        if path.stem.startswith(_OWNERS_MODULES):
            continue
        for insert, update, delete, table in _WRITES.findall(re.sub(r'"\s*f?"', "", path.read_text(encoding="utf-8"))):
            if table in metadata.tables:
                wanted.add((insert or update or delete, table))
    assert {("INSERT", "entry"), ("UPDATE", "entry"), ("DELETE", "staged"), ("DELETE", "journal_queue")} <= wanted
    missing = {(verb, table) for verb, table in wanted if verb not in granted("collector", table)}
    assert missing == _FOR_THE_OWNER


class TestNames:
    @pytest.mark.parametrize("role", ['o"brien', "o'brien", "Ada", "ada@example.com", "a; DROP TABLE entry", "ö" * 31, "x" * 63])
    def test_any_name_is_quoted(self, role: str) -> None:
        quoted = '"' + role.replace('"', '""') + '"'
        assert all(line.endswith(f" TO {quoted};") for line in sql("collector", role).splitlines())

    @pytest.mark.parametrize("role", ["", "x" * 64, "ö" * 32, "a\nb", "a\0b", "public", "PUBLIC", "none"])
    def test_what_is_no_role_is_refused(self, role: str) -> None:
        with pytest.raises(InvalidInputError) as caught:
            sql("reader", role)
        assert caught.value.hint

    def test_the_schema_and_the_database_are_named(self) -> None:
        lines = grant_sql("writer", "bob", database='od"d', schema="team_raw")
        assert lines[:2] == ['GRANT CONNECT ON DATABASE "od""d" TO "bob";', 'GRANT USAGE ON SCHEMA "team_raw" TO "bob";']
        assert '"public"' not in "".join(lines)
        assert '"team_raw"."blob_id_seq"' in lines[-1]

    def test_a_database_that_is_not_named_is_left_out(self) -> None:
        assert "DATABASE" not in "".join(grant_sql("reader", "bob", database=None, schema=None))
