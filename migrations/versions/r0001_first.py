"""The first tables.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "entry",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("namespace_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("first_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_version", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.SmallInteger(), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("first_version < end_version", name=op.f("ck_entry_interval")),
        sa.PrimaryKeyConstraint("store_id", "namespace_id", "path", "first_version", name=op.f("pk_entry")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_entry_end",
        "entry",
        ["store_id", "namespace_id", "end_version"],
        unique=False,
        sqlite_where=sa.text("end_version < 4611686018427387904"),
        postgresql_where=sa.text("end_version < 4611686018427387904"),
    )
    op.create_index("ix_entry_first", "entry", ["store_id", "namespace_id", "first_version"], unique=False)
    op.create_index(
        "uq_entry_open",
        "entry",
        ["store_id", "namespace_id", "path"],
        unique=True,
        sqlite_where=sa.text("end_version = 4611686018427387904"),
        postgresql_where=sa.text("end_version = 4611686018427387904"),
    )
    op.create_table(
        "object",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("blob_id", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("length_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "digest", name=op.f("pk_object")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_object_blob", "object", ["store_id", "blob_id"], unique=False)
    op.create_table(
        "staged",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("part_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("changed", sa.SmallInteger(), nullable=False),
        sa.Column("was_read", sa.SmallInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.SmallInteger(), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "part_id", "path", name=op.f("pk_staged")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "store",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("log_seq", sa.BigInteger(), nullable=False),
        sa.Column("log_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store")),
        sa.UniqueConstraint("uid", name=op.f("uq_store_uid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "blob",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("upload_id", sa.BigInteger(), nullable=True),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('pending', 'live', 'condemned', 'deleting', 'deleted')", name=op.f("ck_blob_state")),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_blob_store_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob")),
        sa.UniqueConstraint("store_id", "key", name=op.f("uq_blob_store_id_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_blob_upload", "blob", ["store_id", "upload_id"], unique=False)
    op.create_table(
        "dataset",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("name_fold", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("head_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_dataset_store_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset")),
        sa.UniqueConstraint("store_id", "name_fold", name=op.f("uq_dataset_store_id_name_fold")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "journal_queue",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_journal_queue_store_id"),
        sa.PrimaryKeyConstraint("store_id", "line", "owner_id", "number", name=op.f("pk_journal_queue")),
    )
    op.create_table(
        "namespace",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("name_fold", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("head_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_namespace_store_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_namespace")),
        sa.UniqueConstraint("store_id", "name_fold", name=op.f("uq_namespace_store_id_name_fold")),
        sa.UniqueConstraint("store_id", "uid", name=op.f("uq_namespace_store_id_uid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "part",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("upload_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("file_count", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'done')", name=op.f("ck_part_state")),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_part_store_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_part")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_part_done",
        "part",
        ["store_id", "upload_id", "name"],
        unique=True,
        sqlite_where=sa.text("state = 'done'"),
        postgresql_where=sa.text("state = 'done'"),
    )
    op.create_table(
        "release",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dataset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("namespace_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("event", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_release_store_id"),
        sa.PrimaryKeyConstraint("store_id", "dataset_id", "number", name=op.f("pk_release")),
        sa.UniqueConstraint("store_id", "dataset_id", "namespace_id", "version", "path", name="uq_release_source"),
    )
    op.create_index("ix_release_namespace", "release", ["store_id", "namespace_id", "version"], unique=False)
    op.create_table(
        "tag_event",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dataset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=True),
        sa.Column("release", sa.BigInteger(), nullable=True),
        sa.Column("previous", sa.BigInteger(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("parent", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("kind IN ('register', 'tag', 'untag')", name=op.f("ck_tag_event_kind")),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_tag_event_store_id"),
        sa.PrimaryKeyConstraint("store_id", "dataset_id", "number", name=op.f("pk_tag_event")),
    )
    op.create_index("ix_tag_event_tag", "tag_event", ["store_id", "dataset_id", "tag", "number"], unique=False)
    op.create_table(
        "upload",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("namespace_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.Column("expected_parent", sa.BigInteger(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("allow_shrink", sa.SmallInteger(), nullable=False),
        sa.Column("commit_id", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'committed', 'aborted')", name=op.f("ck_upload_state")),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_upload_store_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload")),
        sa.UniqueConstraint("store_id", "token", name=op.f("uq_upload_store_id_token")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "version",
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("namespace_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("parent", sa.LargeBinary(), nullable=False),
        sa.Column("commit_id", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("modified", sa.BigInteger(), nullable=False),
        sa.Column("removed", sa.BigInteger(), nullable=False),
        sa.Column("file_count", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("content_digest", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name="fk_version_store_id"),
        sa.PrimaryKeyConstraint("store_id", "namespace_id", "number", name=op.f("pk_version")),
        sa.UniqueConstraint("store_id", "commit_id", name=op.f("uq_version_store_id_commit_id")),
    )
    op.create_index("ix_version_created", "version", ["store_id", "namespace_id", "created_us"], unique=False)
    op.create_index("ix_version_digest", "version", ["store_id", "namespace_id", "digest"], unique=False)
