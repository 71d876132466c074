"""Runs: what they read and wrote, and which run wrote a version.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_HAS_RUN = sa.text("run IS NOT NULL")
_HAS_KEY = sa.text("key <> ''")


def upgrade() -> None:
    op.add_column("version", sa.Column("run", sa.Text(), nullable=True))
    op.create_index("ix_version_run", "version", ["store_id", "run"], sqlite_where=_HAS_RUN, postgresql_where=_HAS_RUN)
    _create_run()
    _create_run_place()


def _bytewise() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def _create_run() -> None:
    op.create_table(
        "run",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("uid", _bytewise(), nullable=False),
        sa.Column("parent", _bytewise(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", _bytewise(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("key_parts", sa.Text(), nullable=False),
        sa.Column("reused", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_run_store_id"),
        sa.CheckConstraint("status IN ('running', 'completed', 'failed', 'canceled')", name=op.f("ck_run_status")),
        sa.CheckConstraint("kind IN ('run', 'pipeline', 'step')", name=op.f("ck_run_kind")),
        sa.PrimaryKeyConstraint("store_id", "uid", name="pk_run"),
    )
    op.create_index("ix_run_name", "run", ["store_id", "name", "uid"])
    op.create_index("ix_run_parent", "run", ["store_id", "parent", "uid"])
    op.create_index("ix_run_key", "run", ["store_id", "key", "uid"], sqlite_where=_HAS_KEY, postgresql_where=_HAS_KEY)


def _create_run_place() -> None:
    op.create_table(
        "run_place",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run", _bytewise(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("namespace_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("path", _bytewise(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_run_place_store_id"),
        sa.CheckConstraint("kind IN ('input', 'output')", name=op.f("ck_run_place_kind")),
        sa.PrimaryKeyConstraint("store_id", "run", "kind", "seq", name="pk_run_place"),
    )
    op.create_index("ix_run_place_version", "run_place", ["store_id", "namespace_id", "number"])
