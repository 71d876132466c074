"""Say which rights a reader, a writer or a collector of a store needs, in the index and in the container."""

from __future__ import annotations

from dataclasses import dataclass

from vds.blobs.location import AZURITE_ACCOUNT, AzureLocation, parse_location
from vds.blobs.roles import WRITER_ROLE, az_lines
from vds.index.address import parse_url, public_address, schema_of
from vds.index.grants import grant_sql, maintain_sql
from vds.index.login import find_scope
from vds.model.access import Access


@dataclass(frozen=True, slots=True)
class Grants:
    """What is to be run, and by whom.

    Attributes:
        index: the address of the index, without any secret.
        sql: statements for the owner of the index's tables; empty where it is a file.
        az: commands for who may assign roles in the container's account; empty where it is in none.
        notes: what else is to be known, a sentence each.
    """

    access: Access
    role: str
    index: str
    sql: list[str]
    az: list[str]
    notes: list[str]


def plan_grants(access: Access, role: str, container_url: str, index: str) -> Grants:
    """Return what gives `role` its rights. Nothing is asked of the container or the database.

    Args:
        access: what the role is for.
        role: its name in PostgreSQL.
        container_url: of the store.
        index: the url of its index; anything else than one of PostgreSQL is a file.

    Raises:
        InvalidInputError: it is no name for a role.
    """
    address, sql, notes = _index(access, role, index)
    az, more = _container(access, role, container_url)
    return Grants(access, role, address, sql, az, [*notes, *more])


def _index(access: Access, role: str, text: str) -> tuple[str, list[str], list[str]]:
    url = parse_url(text) if "://" in text else None
    if url is None or url.get_backend_name() == "sqlite":
        notes = [f"the index ({text}) is a SQLite file, which knows no roles: the rights to its file are what counts"]
        if access == "reader":
            notes.append("SQLite writes beside a file to read it, so a reader must be able to write in its directory")
        else:
            notes.append("whoever can write that file can also collect: for separate rights use PostgreSQL")
        return text, [], notes
    schema = schema_of(url)
    notes = [
        "the SQL is for the owner of the tables; it is to be run again after vds index upgrade or rebuild: new tables have no"
        " rights"
    ]
    if find_scope(url) is not None:
        notes.append(
            "the role of a person or a managed identity is made before, by an Entra administrator of the server, in database"
            " postgres: SELECT * FROM pgaadauth_create_principal('NAME', false, false);"
        )
    if access != "reader":
        notes.append(
            "from PostgreSQL 17 on this lets the role count rows after a large commit, which the server else does a minute"
            f" later: {maintain_sql(role, schema=schema)}"
        )
    return public_address(url), grant_sql(access, role, database=url.database or None, schema=schema), notes


def _container(access: Access, role: str, url: str) -> tuple[list[str], list[str]]:
    location = parse_location(url)
    if not isinstance(location, AzureLocation):
        if access == "reader":
            return [], [f"at {url} a reader needs the right to read files and directories"]
        return [], [f"at {url} a {access} needs the right to write in the directories, which is the right to delete there, too"]
    if location.account == AZURITE_ACCOUNT:
        return [], ["the container is in an emulator, whose one key may do everything"]
    notes = ["in the az lines, fill in SUBSCRIPTION and GROUP of the account, and PRINCIPAL: an object or application id"]
    if location.prefix:
        notes.append(f"the store is the prefix {location.prefix!r}: the rights reach all of container {location.container!r}")
    if access == "writer":
        notes.append(f"{WRITER_ROLE!r} is defined once; the right to write a blob overwrites, too: turn on versioning")
    if access == "reader":
        notes.append("vds share needs the role 'Storage Blob Delegator' on the whole account, too")
    return az_lines(access, role, location), notes
