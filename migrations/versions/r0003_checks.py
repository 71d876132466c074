"""What a range of a large object is checked against, so that a small read of it need not read all.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "object_check",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("piece_bytes", sa.Integer(), nullable=False),
        sa.Column("checks", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_object_check_store_id"),
        sa.PrimaryKeyConstraint("store_id", "digest", name="pk_object_check"),
    )
