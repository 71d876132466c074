"""Alembic's entry: runs the revisions on the connection that `vds.index.migrate` hands over, in one transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from vds.index.schema import metadata

connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_type=True,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite cannot alter most of a table in place
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
