"""What an upload needs to continue an interrupted one, and a commit to be sure of its objects without looking at each again.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blob", sa.Column("fingerprint", sa.Text(), nullable=True))
    op.add_column("blob", sa.Column("moves", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        "ix_blob_fingerprint",
        "blob",
        ["store_id", "fingerprint"],
        sqlite_where=sa.text("fingerprint IS NOT NULL"),
        postgresql_where=sa.text("fingerprint IS NOT NULL"),
    )
    op.create_index(
        "ix_object_length",
        "object",
        ["store_id", "length_bytes"],
        sqlite_where=sa.text("length_bytes > 8388608"),
        postgresql_where=sa.text("length_bytes > 8388608"),
    )
    op.add_column("upload", sa.Column("process", sa.Text(), server_default=sa.text("''"), nullable=False))
