"""What is to be run for whom: SQL for PostgreSQL, az lines for Azure, and what counts where neither knows roles."""

from __future__ import annotations

import pytest

from vds.errors import InvalidInputError
from vds.model.access import ACCESSES, Access
from vds.ops.grants import Grants, plan_grants

POSTGRES = "postgresql://owner:s3cret@db.example/vds?schema=team_raw"
AZURE = "az://data@acct"


def plan(access: Access = "reader", url: str = AZURE, index: str = POSTGRES) -> Grants:
    return plan_grants(access, "bob", url, index)


@pytest.mark.parametrize("access", ACCESSES)
def test_a_team_gets_both(access: Access) -> None:
    found = plan(access)
    assert (found.access, found.role, found.index) == (access, "bob", "postgresql://db.example/vds?schema=team_raw")
    assert found.sql[0] == 'GRANT CONNECT ON DATABASE "vds" TO "bob";'
    assert found.az
    assert "s3cret" not in repr(found)
    assert any("vds index upgrade" in note for note in found.notes)


@pytest.mark.parametrize("index", ["embedded", "sqlite:////data/index.sqlite"])
def test_a_file_knows_no_roles(index: str) -> None:
    for access in ACCESSES:
        found = plan(access, "./store", index)
        assert (found.sql, found.az) == ([], [])
        assert index in found.notes[0]
    assert "in its directory" in plan("reader", "./store", index).notes[1]
    assert "can also collect" in plan("writer", "./store", index).notes[1]


@pytest.mark.parametrize("url", ["./store", "file:///data/store", "memory://x"])
def test_a_directory_is_a_matter_of_the_file_system(url: str) -> None:
    assert plan("reader", url).az == []
    assert "read files" in plan("reader", url).notes[-1]
    assert "delete" in plan("writer", url).notes[-1]


def test_an_emulator_has_one_key() -> None:
    assert plan("writer", "azurite://data").az == []
    assert "emulator" in plan("writer", "azurite://data").notes[-1]


def test_what_reaches_further_than_the_store_is_said() -> None:
    assert any("all of container 'data'" in note for note in plan("reader", "az://data@acct/team").notes)
    assert not any("all of container" in note for note in plan("reader").notes)
    assert any("overwrites" in note for note in plan("writer").notes)


def test_an_entra_role_is_made_by_its_administrator() -> None:
    on_azure = plan("reader", AZURE, "postgresql://team.postgres.database.azure.com/vds")
    assert any("pgaadauth_create_principal" in note for note in on_azure.notes)
    assert not any("pgaadauth_create_principal" in note for note in plan().notes)


def test_who_writes_may_count_rows() -> None:
    wanted = 'GRANT MAINTAIN ON TABLE "team_raw"."entry", "team_raw"."object", "team_raw"."staged" TO "bob";'
    assert [any(wanted in note for note in plan(access).notes) for access in ACCESSES] == [False, True, True]


def test_bad_names_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="cannot be the name of a role"):
        plan_grants("reader", "", AZURE, POSTGRES)
    with pytest.raises(InvalidInputError, match="does not parse"):
        plan("reader", AZURE, "postgresql://host:port/vds")
