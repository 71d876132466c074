"""The lines that give rights on a container: they run in a shell, name the container, and let no writer delete."""

from __future__ import annotations

import json
import shlex

import pytest

from vds.blobs.location import AzureLocation, parse_location
from vds.blobs.roles import az_lines
from vds.model.access import ACCESSES, Access

SCOPE = (
    "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.Storage/storageAccounts/acct"
    "/blobServices/default/containers/data"
)
_BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"


def lines(access: Access, principal: str = "bob", url: str = "az://data@acct/some/prefix") -> list[list[str]]:
    location = parse_location(url)
    assert isinstance(location, AzureLocation)
    return [shlex.split(line) for line in az_lines(access, principal, location)]


@pytest.mark.parametrize(
    ("access", "role"),
    [("reader", "Storage Blob Data Reader"), ("writer", "vds writer"), ("collector", "Storage Blob Data Contributor")],
)
def test_each_gets_its_role_on_the_container(access: Access, role: str) -> None:
    assert lines(access)[-1] == [
        *("az", "role", "assignment", "create", "--role", role, "--assignee", "PRINCIPAL", "--scope", SCOPE)
    ]


def test_a_writer_may_do_anything_with_blobs_but_delete_them() -> None:
    define, _ = lines("writer")
    assert define[:5] == ["az", "role", "definition", "create", "--role-definition"]
    role = json.loads(define[5])
    assert role["DataActions"] == [f"{_BLOBS}/read", f"{_BLOBS}/write", f"{_BLOBS}/add/action"]
    assert role["Actions"] == ["Microsoft.Storage/storageAccounts/blobServices/containers/read"]
    assert "delete" not in json.dumps([role["Actions"], role["DataActions"]]).lower()
    assert all(len(lines(access)) == 1 for access in ACCESSES if access != "writer")


@pytest.mark.parametrize(
    ("principal", "assignee"),
    [
        ("ada@example.com", "ada@example.com"),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("etl jobs", "PRINCIPAL"),
        ("$(rm -rf ~)@x", "$(rm -rf ~)@x"),
        ("o'brien@example.com", "o'brien@example.com"),
    ],
)
def test_a_name_that_azure_knows_is_used_and_quoted(principal: str, assignee: str) -> None:
    assert lines("reader", principal)[0][7] == assignee
