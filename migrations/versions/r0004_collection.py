"""What collection keeps of versions, entries and blobs, and what is erased or damaged.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UNCHECKED = sa.text("is_checked = 0 AND state = 'live'")
_MOVING = sa.text("state IN ('pending', 'condemned', 'deleting')")
_EXPIRED = sa.text("expired_us IS NOT NULL AND collected_us IS NULL")


def upgrade() -> None:
    for name in ("expired_us", "set_aside_us", "collected_us"):
        op.add_column("version", sa.Column(name, sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_version_expired",
        "version",
        ["store_id", "namespace_id", "number"],
        sqlite_where=_EXPIRED,
        postgresql_where=_EXPIRED,
    )
    op.add_column("blob", sa.Column("is_checked", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index("ix_blob_unchecked", "blob", ["store_id", "id"], sqlite_where=_UNCHECKED, postgresql_where=_UNCHECKED)
    op.create_index("ix_blob_state", "blob", ["store_id", "state", "changed_us"], sqlite_where=_MOVING, postgresql_where=_MOVING)
    _create_uses()
    _create_expired_entry()
    _create_manifest()
    _create_marks()


def _store_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["store_id"], ["store.id"], name=f"fk_{table}_store_id")


def _create_uses() -> None:
    op.create_table(
        "object_use",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        _store_key("object_use"),
        sa.CheckConstraint("uses > 0", name=op.f("ck_object_use_uses")),
        sa.PrimaryKeyConstraint("store_id", "digest", name="pk_object_use"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "counted",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("namespace_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        _store_key("counted"),
        sa.PrimaryKeyConstraint("store_id", "namespace_id", name="pk_counted"),
    )


def _create_expired_entry() -> None:
    op.create_table(
        "expired_entry",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("namespace_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("first_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_version", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.SmallInteger(), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.Column("set_aside_us", sa.BigInteger(), nullable=False),
        _store_key("expired_entry"),
        sa.PrimaryKeyConstraint("store_id", "namespace_id", "path", "first_version", name="pk_expired_entry"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_expired_entry_set_aside", "expired_entry", ["store_id", "set_aside_us"])


def _create_manifest() -> None:
    op.create_table(
        "manifest",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("namespace_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("blob_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        _store_key("manifest"),
        sa.CheckConstraint("kind IN ('changes', 'checkpoint')", name=op.f("ck_manifest_kind")),
        sa.PrimaryKeyConstraint("store_id", "namespace_id", "number", "kind", name="pk_manifest"),
    )
    op.create_index("ix_manifest_blob", "manifest", ["store_id", "blob_id"])


def _create_marks() -> None:
    op.create_table(
        "erased",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("erased_us", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        _store_key("erased"),
        sa.PrimaryKeyConstraint("store_id", "digest", name="pk_erased"),
    )
    op.create_table(
        "damage",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("blob_id", sa.BigInteger(), nullable=False),
        sa.Column("found_us", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        _store_key("damage"),
        sa.PrimaryKeyConstraint("store_id", "digest", name="pk_damage"),
    )
    op.create_table(
        "gap",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("first_number", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("found_us", sa.BigInteger(), nullable=False),
        _store_key("gap"),
        sa.CheckConstraint("kind IN ('journal', 'changes', 'events', 'log')", name=op.f("ck_gap_kind")),
        sa.PrimaryKeyConstraint("store_id", "key", name="pk_gap"),
    )
