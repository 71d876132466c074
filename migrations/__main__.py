"""Draft the next revision: what `vds/index/schema.py` has and the revisions so far do not.

    python -m migrations "add x"

The draft is made against a scratch SQLite database. Read it before committing it, then set REVISION in `vds/index/schema.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from vds.index.database import Database
from vds.index.migrate import upgrade
from vds.index.schema import REVISION


def main(arguments: list[str]) -> int:
    """Write the draft and return the exit status."""
    if len(arguments) != 1 or not arguments[0]:
        print('usage: python -m migrations "what it does"', file=sys.stderr)  # noqa: T201 - a tool for the command line
        return 2
    with tempfile.TemporaryDirectory(prefix="vds-migration-") as directory:
        path = Path(directory) / "index.sqlite"
        database = Database(path)
        upgrade(database)
        database.close()
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).resolve().parent))
        config.set_main_option("path_separator", "os")
        config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
        with sa.create_engine(f"sqlite:///{path}").connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, arguments[0], autogenerate=True, rev_id=f"{int(REVISION) + 1:04d}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
