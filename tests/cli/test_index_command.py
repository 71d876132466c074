"""`vds index`: what is printed for each kind of role, and that nothing is asked of the database for it."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tests.cli.conftest import Cli
from vds.index.schema import REVISION

# Neither of the two answers: a call to either would be an error, and take a while.
STORE = ("--store", "az://data@nosuchaccount0000", "--index", "postgresql://owner:s3cret@db.invalid/vds?schema=team_raw")


def test_sql_first_then_the_lines_for_azure(vds: Cli) -> None:
    outcome = vds.ok("index", "grants", "reader", "training jobs", *STORE)
    sql, az = outcome.out.split("\n\n")
    assert sql.splitlines()[0] == "BEGIN;"
    assert sql.splitlines()[1:3] == [
        'GRANT CONNECT ON DATABASE "vds" TO "training jobs";',
        'GRANT USAGE ON SCHEMA "team_raw" TO "training jobs";',
    ]
    assert sql.splitlines()[-1] == "COMMIT;"
    assert shlex.split(az)[:6] == ["az", "role", "assignment", "create", "--role", "Storage Blob Data Reader"]
    assert "note: the SQL is for the owner" in outcome.err
    assert "s3cret" not in outcome.out + outcome.err


def test_quiet_is_sql_and_nothing_else(vds: Cli) -> None:
    outcome = vds.ok("index", "grants", "writer", "etl", "-q", *STORE)
    lines = outcome.out.splitlines()
    assert (lines[0], lines[-1], outcome.err) == ("BEGIN;", "COMMIT;", "")
    assert all(re.fullmatch(r'GRANT [A-Z].* TO "etl";', line) for line in lines[1:-1])


@pytest.mark.parametrize("access", ["reader", "writer", "collector"])
def test_json_has_all_of_it(vds: Cli, access: str) -> None:
    document = vds.ok("index", "grants", access, "o'brien", "--json", *STORE).document
    assert list(document) == ["access", "role", "index", "sql", "az", "notes"]
    assert (document["access"], document["role"]) == (access, "o'brien")
    assert document["index"] == "postgresql://db.invalid/vds?schema=team_raw"
    assert document["sql"][0] == 'GRANT CONNECT ON DATABASE "vds" TO "o\'brien";'
    assert document["az"]
    assert document["notes"]
    assert "s3cret" not in json.dumps(document)


def test_a_store_on_this_machine_says_what_counts_instead(vds: Cli) -> None:
    vds.ok("init", "./store")
    outcome = vds.ok("index", "grants", "collector", "ada")
    assert outcome.out == ""
    assert "SQLite file, which knows no roles" in outcome.err
    assert "right to delete there, too" in outcome.err
    document = vds.ok("index", "grants", "reader", "ada", "--json").document
    assert (document["index"], document["sql"], document["az"]) == ("embedded", [], [])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("grants", "owner", "ada"), 2, "'owner' is not one of"),
        (("grants", "reader", "", *STORE), 2, "cannot be the name of a role"),
        (("grants", "reader", "ada"), 3, "no store is configured"),
        (("grants", "reader", "ada", "--store", "./nothing"), 3, "is not a vds store"),
        (("grants", "reader", "ada", *STORE[:3], "postgresql://h/db?schema=No"), 2, "cannot be the schema"),
    ],
)
def test_what_goes_wrong_says_so(vds: Cli, arguments: tuple[str, ...], code: int, words: str) -> None:
    outcome = vds("index", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert words in outcome.err


def test_an_upgrade_of_what_is_new_does_nothing(vds: Cli) -> None:
    vds.ok("init", "./store")
    assert vds.ok("index", "upgrade").out == f"the index is at {REVISION} already\n"
    assert vds.ok("index", "upgrade", "--json").document == {"before": REVISION, "after": REVISION}
