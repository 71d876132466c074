"""Which rights on the index each kind of role needs, and the SQL that grants them: those, and no more.

PostgreSQL takes a right to change a column for the right to lock a row of its table, so whoever locks has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vds.errors import InvalidInputError
from vds.index.address import DEFAULT_SCHEMA, IDENTIFIER_BYTES_MAX, quoted
from vds.index.schema import metadata
from vds.index.sweep import COUNTED_TABLES
from vds.model.access import Access

VERSION_TABLE = "alembic_version"
"""Says which revision the tables are at; everybody looks, only the owner changes it."""


@dataclass(frozen=True, slots=True)
class TableRights:
    """What may be done with one table beside reading it, which all may.

    Attributes:
        writer: as SQL has it; columns where not all may be changed.
        collector: what a collector may do that a writer may not.
    """

    writer: str = ""
    collector: str = ""


RIGHTS: Mapping[str, TableRights] = {
    "store": TableRights("UPDATE (log_seq, log_digest)"),  # never its incarnation: that is what fences an old index
    "namespace": TableRights("INSERT, UPDATE (head, head_digest)"),
    "version": TableRights("INSERT, UPDATE (content_digest)", "UPDATE (expired_us, set_aside_us, collected_us)"),
    "entry": TableRights("INSERT, UPDATE (end_version)", "DELETE"),
    # A writer takes back the intent to make a blob of which no byte was sent.
    "blob": TableRights("INSERT, UPDATE (state, size_bytes, etag, upload_id, changed_us, moves, is_checked), DELETE"),
    # What is erased while its bytes are on their way here is not placed.
    "object": TableRights("INSERT, UPDATE (blob_id, offset_bytes, length_bytes), DELETE"),
    "object_check": TableRights("INSERT", "DELETE"),
    "object_use": TableRights("", "INSERT, UPDATE (uses), DELETE"),
    "counted": TableRights("", "INSERT, UPDATE (number)"),
    "expired_entry": TableRights("", "INSERT, DELETE"),
    "manifest": TableRights("INSERT", "DELETE"),
    "erased": TableRights("", "INSERT"),  # for ever
    "gap": TableRights(),  # noted by a rebuild
    "damage": TableRights("INSERT, UPDATE (blob_id, detail), DELETE"),  # a new upload of the content heals it
    "run": TableRights("INSERT, UPDATE (status, heartbeat_us, ended_us, process, reused, error)"),
    "run_place": TableRights("INSERT"),
    "upload": TableRights("INSERT, UPDATE (state, heartbeat_us)"),
    "part": TableRights("INSERT, UPDATE (state, file_count, size_bytes), DELETE"),
    "staged": TableRights("INSERT, UPDATE, DELETE"),
    "dataset": TableRights("INSERT, UPDATE (head, head_digest)"),
    "release": TableRights("INSERT"),
    "tag_event": TableRights("INSERT"),
    "journal_queue": TableRights("INSERT, DELETE"),
}
"""Table → rights. A table that is not here is in no grant, and a test fails."""


def grant_sql(access: Access, role: str, *, database: str | None, schema: str | None) -> list[str]:
    """Return the statements that give a role its rights; to be run by the owner of the tables, in one transaction.

    They take nothing away, and may be run again.

    Args:
        access: what the role is for.
        role: its name in PostgreSQL.
        database: the name of the database; None where it is not known, and everybody may connect to it.
        schema: where the tables are; None for PostgreSQL's own default.

    Raises:
        InvalidInputError: it is no name for a role.
    """
    to = f" TO {quoted(_checked_role(role))};"
    place = quoted(schema or DEFAULT_SCHEMA)
    return [
        *([] if database is None else [f"GRANT CONNECT ON DATABASE {quoted(database)}{to}"]),
        f"GRANT USAGE ON SCHEMA {place}{to}",
        *(f"GRANT {rights} ON TABLE {_list(place, tables)}{to}" for rights, tables in _tables_by_rights(access).items()),
        *(f"GRANT USAGE ON SEQUENCE {_list(place, names)}{to}" for names in [_sequences(access)] if names),
    ]


def maintain_sql(role: str, *, schema: str | None) -> str:
    """Return the statement by which PostgreSQL 17 and later lets a role count rows after a large commit."""
    return f"GRANT MAINTAIN ON TABLE {_list(quoted(schema or DEFAULT_SCHEMA), COUNTED_TABLES)} TO {quoted(role)};"


def _list(place: str, names: Iterable[str]) -> str:
    return ", ".join(f"{place}.{quoted(name)}" for name in names)


def _tables_by_rights(access: Access) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"SELECT": [VERSION_TABLE]}
    for table in metadata.tables:
        found.setdefault(_rights_of(access, table), []).append(table)
    return found


def _rights_of(access: Access, table: str) -> str:
    rights = RIGHTS[table]
    wanted = {"reader": [], "writer": [rights.writer], "collector": [rights.writer, rights.collector]}[access]
    return ", ".join(["SELECT", *filter(None, wanted)])


def _sequences(access: Access) -> list[str]:
    """Return what numbers the rows of the tables that the role may insert into, by PostgreSQL's names for them."""
    return [
        f"{name}_{table.autoincrement_column.name}_seq"
        for name, table in metadata.tables.items()
        if table.autoincrement_column is not None and "INSERT" in _rights_of(access, name)
    ]


def _checked_role(role: str) -> str:
    if not role or not role.isprintable() or len(role.encode()) > IDENTIFIER_BYTES_MAX:
        raise InvalidInputError(
            f"{role!r} cannot be the name of a role", hint=f"1 to {IDENTIFIER_BYTES_MAX} bytes without control characters"
        )
    if role.lower() in ("public", "none"):
        raise InvalidInputError(f"{role!r} is no role of PostgreSQL: it would mean everybody, or nobody", hint="name a role")
    return role
