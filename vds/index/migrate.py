"""Make and upgrade the tables of an index; Alembic is imported here alone."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.engine import Connection

from vds.errors import FormatError
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

    All of it happens in one transaction, and several processes may do it at once.

    Raises:
        FormatError: the index is newer than this program.
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
            config.attributes["connection"] = connection
            command.upgrade(config, REVISION)
        return before, REVISION

    return database.run(work)
