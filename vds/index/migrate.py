"""Make and upgrade the tables of an index; Alembic is imported here alone."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.engine import Connection

from vds.errors import AccessDeniedError, FormatError
from vds.index.address import quoted
from vds.index.database import Database
from vds.index.schema import REVISION

_UPGRADE_LOCK = 0x76647301  # one number for all upgrades of vds indexes: they queue up on one database


def migrations_directory() -> Path:
    """Return where the revisions are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the index to this program's revision and return (revision before, revision after); idempotent.

    All of it happens in one transaction, and several processes may do it at once. A schema that the url names is made.

    Raises:
        FormatError: the index is newer than this program.
        AccessDeniedError: the role may not make the tables, or their schema, or does not own them; the hint says what helps.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")

    def work(connection: Connection) -> tuple[str | None, str]:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": _UPGRADE_LOCK})
        before = MigrationContext.configure(connection).get_current_revision()
        if before is not None and before > REVISION:
            raise FormatError(
                f"the index at {database.address} is at revision {before}, newer than this program's {REVISION}",
                hint="pip install --upgrade vds",
            )
        if before != REVISION:
            if not database.is_sqlite:
                _make_schema(connection, database) if before is None else _check_owner(connection, database)
            config.attributes["connection"] = connection
            command.upgrade(config, REVISION)
        return before, REVISION

    return database.run(work)


def _check_owner(connection: Connection, database: Database) -> None:
    row = connection.execute(
        text(
            "SELECT pg_get_userbyid(relowner) AS owner, pg_has_role(relowner, 'USAGE') AS is_mine, CURRENT_USER AS role"
            " FROM pg_class WHERE oid = CAST('alembic_version' AS regclass)"
        )
    ).one()
    if not row.is_mine:
        raise AccessDeniedError(
            f"role {row.role!r} may not change the tables of the index at {database.address}: {row.owner!r} owns them",
            hint=f"run vds index upgrade as {row.owner}",
        )


def _make_schema(connection: Connection, database: Database) -> None:
    """Make the schema of the tables if it is not there; ask for rights first, as a refusal would end the transaction."""
    row = connection.execute(
        text(
            "SELECT s.name, CURRENT_USER AS role, current_database() AS database, n.oid IS NOT NULL AS is_there,"
            " has_database_privilege(current_database(), 'CREATE') AS may_make, has_schema_privilege(n.oid, 'CREATE') AS may_fill"
            " FROM (SELECT COALESCE(CAST(:schema AS text), current_schema(), 'public') AS name) s"
            " LEFT JOIN pg_namespace n ON n.nspname = s.name"
        ),
        {"schema": database.schema},
    ).one()
    name, role = quoted(row.name), quoted(row.role)
    if not row.is_there and not row.may_make:
        raise AccessDeniedError(
            f"role {row.role!r} may not make schema {row.name!r} in the index at {database.address}",
            hint=f"run as the owner of database {row.database!r}: CREATE SCHEMA {name} AUTHORIZATION {role};",
        )
    if row.is_there and not row.may_fill:
        raise AccessDeniedError(
            f"role {row.role!r} may not make tables in schema {row.name!r} of the index at {database.address}",
            hint=f"run as the owner of the schema: GRANT USAGE, CREATE ON SCHEMA {name} TO {role};",
        )
    if not row.is_there:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
