"""What an index url may say, and what of it a store records."""

from __future__ import annotations

from pathlib import Path

import pytest

from vds.errors import InvalidInputError
from vds.index.address import quoted
from vds.index.database import Database, _session_options


class TestSchemas:
    @pytest.mark.parametrize("name", ["team_raw", "a", "_x1", "x" * 63, "public"])
    def test_names(self, name: str) -> None:
        database = Database(f"postgresql://ada:pw@host/vds?sslmode=require&schema={name}")
        assert database.schema == name
        assert database.address == f"postgresql://host/vds?schema={name}&sslmode=require"

    def test_none_is_none(self) -> None:
        assert Database("postgresql://host/vds").schema is None
        assert Database("postgresql://host/vds").address == "postgresql://host/vds"

    @pytest.mark.parametrize(
        "name",
        ["Team", "1a", "a-b", "a b", 'a"b', "a;b", "a.b", "ä", "pg_x", "information_schema", "x" * 64, "a\\b", "$user"],
    )
    def test_what_is_no_name(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match="cannot be the schema") as caught:
            Database(f"postgresql://host/vds?schema={name}")
        assert "?schema=" in caught.value.hint

    @pytest.mark.parametrize("query", ["schema=", "schema", "schema=&sslmode=require", "sslmode=require&schema="])
    def test_an_empty_one_is_not_as_good_as_none(self, query: str) -> None:
        with pytest.raises(InvalidInputError, match="an empty schema"):
            Database(f"postgresql://host/vds?{query}")

    def test_one_schema_only(self) -> None:
        with pytest.raises(InvalidInputError, match="more than one schema"):
            Database("postgresql://host/vds?schema=a&schema=b")

    def test_a_file_has_none(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="SQLite index has no schemas"):
            Database(f"sqlite:///{tmp_path}/index.sqlite?schema=a")
        assert Database(tmp_path / "index.sqlite").schema is None


def test_a_session_is_told_all_it_must_know() -> None:
    assert "search_path" not in _session_options(None, read_only=False)
    assert "read_only" not in _session_options("a", read_only=False)
    both = _session_options("a", read_only=True)
    assert '-c search_path="a"' in both
    assert "-c default_transaction_read_only=on" in both


@pytest.mark.parametrize(("name", "text"), [("a", '"a"'), ('o"b', '"o""b"'), ("a.b; --", '"a.b; --"')])
def test_names_are_quoted(name: str, text: str) -> None:
    assert quoted(name) == text
