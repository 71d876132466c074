"""The tables of the index.

Every key that can repeat between stores begins with the store's id: one database holds many stores. Surrogate ids stay inside
the index. Times are microseconds since 1970 in UTC, from the database's clock. Digests are raw bytes.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql

REVISION = "0005"
"""The newest migration: what an index must be at for this program. A test holds it against `migrations/`."""

SMALL_BYTES_MAX = 8 * 1024 * 1024
"""The length beyond which objects are found by their length, in ix_object_length."""

OPEN = 2**62
"""The end of an interval that has none: never NULL, so that one comparison serves."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Bytes decide the order, on both databases: BINARY is SQLite's default, "C" is PostgreSQL's.
_Bytewise = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_Surrogate = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in an INTEGER PRIMARY KEY


def _store_key(table: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["store_id"], ["store.id"], name=f"fk_{table}_store_id")


store = Table(
    "store",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    Column("incarnation", Text, nullable=False),  # of this index; a rebuild makes a new one and fences this
    Column("log_seq", BigInteger, nullable=False),  # the last record of the store's own log
    Column("log_digest", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

namespace = Table(
    "namespace",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("store_id", Integer, nullable=False),
    Column("uid", Text, nullable=False),
    Column("name", _Bytewise, nullable=False),
    Column("name_fold", _Bytewise, nullable=False),
    Column("head", BigInteger, nullable=False),  # the last committed version; visible once journaled
    Column("head_digest", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    _store_key("namespace"),
    UniqueConstraint("store_id", "name_fold"),
    UniqueConstraint("store_id", "uid"),
    sqlite_autoincrement=True,
)

version = Table(
    "version",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("namespace_id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False),
    Column("parent", LargeBinary, nullable=False),
    Column("commit_id", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("operation", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("labels", Text, nullable=False),  # JSON object
    Column("provenance", Text, nullable=False),  # JSON object
    Column("added", BigInteger, nullable=False),
    Column("modified", BigInteger, nullable=False),
    Column("removed", BigInteger, nullable=False),
    Column("file_count", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("content_digest", LargeBinary),  # computed on demand, then kept
    Column("expired_us", BigInteger),  # its name is gone since then; the head never expires
    Column("set_aside_us", BigInteger),  # its entries were moved to expired_entry, where no other version needs them
    Column("collected_us", BigInteger),  # they are gone for good
    Column("run", Text),  # the run that wrote it, as its provenance says
    _store_key("version"),
    UniqueConstraint("store_id", "commit_id"),
    Index(
        "ix_version_expired",
        "store_id",
        "namespace_id",
        "number",
        sqlite_where=text("expired_us IS NOT NULL AND collected_us IS NULL"),
        postgresql_where=text("expired_us IS NOT NULL AND collected_us IS NULL"),
    ),
    Index(
        "ix_version_run",
        "store_id",
        "run",
        sqlite_where=text("run IS NOT NULL"),
        postgresql_where=text("run IS NOT NULL"),
    ),
    Index("ix_version_created", "store_id", "namespace_id", "created_us"),
    Index("ix_version_digest", "store_id", "namespace_id", "digest"),
)

entry = Table(
    "entry",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("namespace_id", Integer, primary_key=True, autoincrement=False),
    Column("path", _Bytewise, primary_key=True),
    Column("first_version", BigInteger, primary_key=True, autoincrement=False),
    Column("end_version", BigInteger, nullable=False),  # live at v when first_version <= v < end_version
    Column("digest", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mode", SmallInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    CheckConstraint("first_version < end_version", name="interval"),
    # One live interval a path: whatever goes wrong above, a version never holds two files of one name.
    Index(
        "uq_entry_open",
        "store_id",
        "namespace_id",
        "path",
        unique=True,
        sqlite_where=text(f"end_version = {OPEN}"),
        postgresql_where=text(f"end_version = {OPEN}"),
    ),
    # These two make "what changed between two versions" cost the changes, not the files.
    Index("ix_entry_first", "store_id", "namespace_id", "first_version"),
    Index(
        "ix_entry_end",
        "store_id",
        "namespace_id",
        "end_version",
        sqlite_where=text(f"end_version < {OPEN}"),
        postgresql_where=text(f"end_version < {OPEN}"),
    ),
    sqlite_with_rowid=False,
)

blob = Table(
    "blob",
    metadata,
    Column("id", _Surrogate, primary_key=True),
    Column("store_id", Integer, nullable=False),
    Column("key", _Bytewise, nullable=False),
    Column("state", Text, nullable=False),  # pending, live, condemned, deleting, deleted
    Column("size_bytes", BigInteger),  # known once live
    Column("etag", Text),
    Column("upload_id", BigInteger),  # who may finish it while pending
    Column("changed_us", BigInteger, nullable=False),
    Column("fingerprint", Text),  # of a large one: what a file is known by before it is read
    Column("moves", BigInteger, nullable=False, server_default=text("0")),  # how often placements were taken out of it
    Column("is_checked", SmallInteger, nullable=False, server_default=text("0")),  # by collection, since something in it changed
    _store_key("blob"),
    CheckConstraint("state IN ('pending', 'live', 'condemned', 'deleting', 'deleted')", name="state"),
    UniqueConstraint("store_id", "key"),
    Index("ix_blob_upload", "store_id", "upload_id"),
    Index(
        "ix_blob_fingerprint",
        "store_id",
        "fingerprint",
        sqlite_where=text("fingerprint IS NOT NULL"),
        postgresql_where=text("fingerprint IS NOT NULL"),
    ),
    # What collection looks at: it costs what changed, not what is there.
    Index(
        "ix_blob_unchecked",
        "store_id",
        "id",
        sqlite_where=text("is_checked = 0 AND state = 'live'"),
        postgresql_where=text("is_checked = 0 AND state = 'live'"),
    ),
    Index(
        "ix_blob_state",
        "store_id",
        "state",
        "changed_us",
        sqlite_where=text("state IN ('pending', 'condemned', 'deleting')"),
        postgresql_where=text("state IN ('pending', 'condemned', 'deleting')"),
    ),
    sqlite_autoincrement=True,  # an id is never used again
)

object_ = Table(
    "object",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),
    Column("blob_id", BigInteger, nullable=False),
    Column("offset_bytes", BigInteger, nullable=False),
    Column("length_bytes", BigInteger, nullable=False),
    Index("ix_object_blob", "store_id", "blob_id"),
    # Whether a large file can be here already is asked before it is read; small ones are hashed anyway.
    Index(
        "ix_object_length",
        "store_id",
        "length_bytes",
        sqlite_where=text(f"length_bytes > {SMALL_BYTES_MAX}"),
        postgresql_where=text(f"length_bytes > {SMALL_BYTES_MAX}"),
    ),
    sqlite_with_rowid=False,
)

object_check = Table(
    "object_check",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),  # of the object: wherever it is placed, its checks are the same
    Column("piece_bytes", Integer, nullable=False),
    Column("checks", LargeBinary, nullable=False),  # 8 bytes a piece, at most some 128 KiB: see vds/model/checks.py
    _store_key("object_check"),
)

object_use = Table(
    "object_use",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),
    Column("uses", BigInteger, nullable=False),  # rows of entry, of the versions that were counted
    _store_key("object_use"),
    CheckConstraint("uses > 0", name="uses"),  # nothing is taken away that was not counted
    sqlite_with_rowid=False,
)

counted = Table(
    "counted",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("namespace_id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),  # object_use knows the entries that begin in versions up to this one
    _store_key("counted"),
)

expired_entry = Table(
    "expired_entry",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("namespace_id", Integer, primary_key=True, autoincrement=False),
    Column("path", _Bytewise, primary_key=True),
    Column("first_version", BigInteger, primary_key=True, autoincrement=False),
    Column("end_version", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mode", SmallInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("set_aside_us", BigInteger, nullable=False),
    _store_key("expired_entry"),
    Index("ix_expired_entry_set_aside", "store_id", "set_aside_us"),
    sqlite_with_rowid=False,
)

manifest = Table(
    "manifest",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("namespace_id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),  # changes: of this version; checkpoint: all of its entries
    Column("blob_id", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # of the list
    Column("row_count", BigInteger, nullable=False),
    _store_key("manifest"),
    CheckConstraint("kind IN ('changes', 'checkpoint')", name="kind"),
    Index("ix_manifest_blob", "store_id", "blob_id"),
)

erased = Table(
    "erased",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),  # of an object whose bytes were destroyed on purpose, for ever
    Column("erased_us", BigInteger, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _store_key("erased"),
)

damage = Table(
    "damage",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),  # of an object whose stored bytes are not what they must be
    Column("blob_id", BigInteger, nullable=False),  # where they were looked at
    Column("found_us", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    _store_key("damage"),
)

gap = Table(
    "gap",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("key", _Bytewise, primary_key=True),  # of a blob that was gone or damaged when the index was made from the container
    Column("kind", Text, nullable=False),  # what went with it: versions (journal), their entries (changes), events, log records
    Column("owner_id", Integer, nullable=False),  # the namespace or dataset; 0 for none
    Column("first_number", BigInteger, nullable=False),  # of the versions or events that are lost
    Column("last_number", BigInteger, nullable=False),  # OPEN: all that follow
    Column("detail", Text, nullable=False),
    Column("found_us", BigInteger, nullable=False),
    _store_key("gap"),
    CheckConstraint("kind IN ('journal', 'changes', 'events', 'log')", name="kind"),
)

run = Table(
    "run",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("uid", _Bytewise, primary_key=True),  # a ulid: runs sort by when they began
    Column("parent", _Bytewise, nullable=False),  # empty for none
    Column("kind", Text, nullable=False),
    Column("name", _Bytewise, nullable=False),
    Column("author", Text, nullable=False),
    Column("status", Text, nullable=False),  # running, completed, failed, canceled; abandoned is told from the heartbeat
    Column("started_us", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Column("process", Text, nullable=False),  # host, boot, pid and start of who runs it; empty once it has ended
    Column("params", Text, nullable=False),  # JSON object
    Column("provenance", Text, nullable=False),  # JSON object
    Column("key", Text, nullable=False),  # of a step that may be used again; else empty
    Column("key_parts", Text, nullable=False),  # JSON object
    Column("reused", Text, nullable=False),  # the run whose outputs these are; else empty
    Column("error", Text, nullable=False),
    _store_key("run"),
    CheckConstraint("status IN ('running', 'completed', 'failed', 'canceled')", name="status"),
    CheckConstraint("kind IN ('run', 'pipeline', 'step')", name="kind"),
    Index("ix_run_name", "store_id", "name", "uid"),
    Index("ix_run_parent", "store_id", "parent", "uid"),
    Index("ix_run_key", "store_id", "key", "uid", sqlite_where=text("key <> ''"), postgresql_where=text("key <> ''")),
)

run_place = Table(
    "run_place",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("run", _Bytewise, primary_key=True),
    Column("kind", Text, primary_key=True),  # input or output
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("namespace_id", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("path", _Bytewise, nullable=False),
    Column("asked", Text, nullable=False),  # the ref as given, or the local path that it was written to
    _store_key("run_place"),
    CheckConstraint("kind IN ('input', 'output')", name="kind"),
    Index("ix_run_place_version", "store_id", "namespace_id", "number"),
)

upload = Table(
    "upload",
    metadata,
    Column("id", _Surrogate, primary_key=True),
    Column("store_id", Integer, nullable=False),
    Column("token", Text, nullable=False),
    Column("namespace_id", Integer, nullable=False),
    Column("state", Text, nullable=False),  # open, committed, aborted
    Column("base", BigInteger, nullable=False),  # the head when it was opened
    Column("expected_parent", BigInteger),
    Column("author", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("allow_shrink", SmallInteger, nullable=False),
    Column("commit_id", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("process", Text, nullable=False, server_default=text("''")),  # host, boot, pid and start of its writer
    _store_key("upload"),
    CheckConstraint("state IN ('open', 'committed', 'aborted')", name="state"),
    UniqueConstraint("store_id", "token"),
    sqlite_autoincrement=True,
)

part = Table(
    "part",
    metadata,
    Column("id", _Surrogate, primary_key=True),
    Column("store_id", Integer, nullable=False),
    Column("upload_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),  # empty for the transaction's own rows
    Column("state", Text, nullable=False),  # open, done
    Column("file_count", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    _store_key("part"),
    CheckConstraint("state IN ('open', 'done')", name="state"),
    Index(
        "uq_part_done",
        "store_id",
        "upload_id",
        "name",
        unique=True,
        sqlite_where=text("state = 'done'"),
        postgresql_where=text("state = 'done'"),
    ),
    sqlite_autoincrement=True,
)

staged = Table(
    "staged",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("part_id", BigInteger, primary_key=True, autoincrement=False),
    Column("path", _Bytewise, primary_key=True),
    Column("kind", SmallInteger, nullable=False),  # 1 written, 2 removed
    Column("changed", SmallInteger, nullable=False),  # whether it differs from the base it was planned against
    Column("was_read", SmallInteger, nullable=False),  # whether what is staged elsewhere came from what it was
    Column("digest", LargeBinary),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mode", SmallInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

dataset = Table(
    "dataset",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("store_id", Integer, nullable=False),
    Column("name", _Bytewise, nullable=False),
    Column("name_fold", _Bytewise, nullable=False),
    Column("head", BigInteger, nullable=False),  # the last event; visible once journaled
    Column("head_digest", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    _store_key("dataset"),
    UniqueConstraint("store_id", "name_fold"),
    sqlite_autoincrement=True,
)

release = Table(
    "release",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("dataset_id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("namespace_id", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("path", _Bytewise, nullable=False),
    Column("event", BigInteger, nullable=False),  # the event that made it
    Column("created_us", BigInteger, nullable=False),
    Column("author", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("labels", Text, nullable=False),
    _store_key("release"),
    UniqueConstraint("store_id", "dataset_id", "namespace_id", "version", "path", name="uq_release_source"),
    Index("ix_release_namespace", "store_id", "namespace_id", "version"),
)

tag_event = Table(
    "tag_event",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("dataset_id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),  # register, tag, untag
    Column("tag", _Bytewise),
    Column("release", BigInteger),
    Column("previous", BigInteger),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("parent", LargeBinary, nullable=False),
    _store_key("tag_event"),
    CheckConstraint("kind IN ('register', 'tag', 'untag')", name="kind"),
    # A tag is its latest event: there is no second table that could disagree with the history.
    Index("ix_tag_event_tag", "store_id", "dataset_id", "tag", "number"),
)

journal_queue = Table(
    "journal_queue",
    metadata,
    Column("store_id", Integer, primary_key=True, autoincrement=False),
    Column("line", Text, primary_key=True),  # version, event or store: which chain
    Column("owner_id", Integer, primary_key=True, autoincrement=False),  # the namespace, dataset or 0
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # complete: whoever flushes writes the same bytes
    _store_key("journal_queue"),
)
