"""Rows before their commit: uploads, their parts, and the paths they stage.

A part is all or nothing: its rows count once it is `done`. The part called "" holds what the transaction itself wrote; every
other one is a share written by a joined worker. Finishing a part replaces the earlier one of its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection, Row

from vds.errors import ConflictError, FormatError, NotFoundError
from vds.index.database import now_sql, now_us
from vds.index.sql import text

WRITTEN, REMOVED = 1, 2
"""What a staged row says of its path."""

StagedRow = tuple[int, int, str, int, int, int, bytes | None, int, int, int]
"""store_id, part_id, path, kind, changed, was_read, digest, size_bytes, mode, modified_ns: the table's own column order."""


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A writer's session: one transaction, or one call that commits at once."""

    id: int
    token: str
    namespace_id: int
    state: str
    base: int
    expected_parent: int | None
    author: str
    message: str
    labels: str
    allow_shrink: bool
    commit_id: str
    created_us: int
    expires_us: int


@dataclass(frozen=True, slots=True)
class PartRow:
    """One share of a transaction."""

    id: int
    name: str
    file_count: int
    size_bytes: int
    created_us: int


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What is known of an upload when it begins.

    Attributes:
        process: names its writer, so that another process of the same machine can tell whether it still runs; empty: unknown.
    """

    token: str
    namespace_id: int
    base: int
    expected_parent: int | None
    author: str
    message: str
    labels: str
    allow_shrink: bool
    commit_id: str
    ttl_us: int
    process: str = ""


def add_upload(connection: Connection, store_id: int, new: NewUpload) -> UploadRow:
    """Open an upload."""
    now = now_sql(connection)
    row = connection.execute(
        text(
            "INSERT INTO upload (store_id, token, namespace_id, state, base, expected_parent, author, message, labels,"
            " allow_shrink, commit_id, created_us, heartbeat_us, expires_us, process) VALUES (:s, :token, :ns, 'open', :base,"
            f" :expected, :author, :message, :labels, :shrink, :commit_id, {now}, {now}, {now} + :ttl, :process)"
            " RETURNING *"
        ),
        {
            "s": store_id,
            "token": new.token,
            "ns": new.namespace_id,
            "base": new.base,
            "expected": new.expected_parent,
            "author": new.author,
            "message": new.message,
            "labels": new.labels,
            "shrink": int(new.allow_shrink),
            "commit_id": new.commit_id,
            "ttl": new.ttl_us,
            "process": new.process,
        },
    )
    return _upload(row.one())


def get_upload(connection: Connection, store_id: int, token: str) -> UploadRow:
    """Return the upload with this token, in whatever state.

    Raises:
        NotFoundError: there is none.
    """
    return _upload(_read_upload(connection, store_id, token))


def get_open_upload(connection: Connection, store_id: int, token: str) -> UploadRow:
    """Return the upload with this token, locked against its own end.

    Raises:
        NotFoundError: there is none.
        ConflictError: it was committed, aborted, or has expired.
    """
    row = _read_upload(connection, store_id, token, "" if connection.dialect.name == "sqlite" else " FOR UPDATE")
    upload = _upload(row)
    if upload.state != "open":
        raise ConflictError(f"the transaction was {upload.state} already", hint="vds tx begin NAMESPACE")
    if upload.expires_us < row.now_us:
        raise ConflictError("the transaction has expired", hint="begin a new one, with a longer ttl_hours")
    return upload


def _read_upload(connection: Connection, store_id: int, token: str, lock: str = "") -> Row[Any]:
    row = connection.execute(
        text(f"SELECT upload.*, {now_sql(connection)} AS now_us FROM upload WHERE store_id = :s AND token = :token{lock}"),
        {"s": store_id, "token": token},
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"no transaction {token!r} in this store", hint="vds tx list")
    return row


def mark_committed(connection: Connection, upload_id: int) -> tuple[str, int]:
    """Say of an upload that is open that it is committed, and return the state it had and the version it began from.

    Its row is locked until the transaction ends, the first lock of a commit, and all is undone with it. From here on the rows of
    the upload mean nothing, and are swept up.

    Raises:
        FormatError: the index knew it, and does not any more: it was put back to an earlier state while it was in use.
    """
    base = connection.execute(
        text("UPDATE upload SET state = 'committed' WHERE id = :id AND state = 'open' RETURNING base"), {"id": upload_id}
    ).scalar_one_or_none()
    if base is not None:
        return "open", base
    row = connection.execute(text("SELECT state, base FROM upload WHERE id = :id"), {"id": upload_id}).one_or_none()
    if row is None:
        raise FormatError("this index is older than its store: it knew this upload and does not now", hint="vds index rebuild")
    return row.state, row.base


def list_open_uploads(connection: Connection, store_id: int) -> Iterator[tuple[UploadRow, str, int]]:
    """Yield open, unexpired transactions, oldest first, each with its namespace's name and its number of done parts."""
    rows = connection.execute(
        text(
            "SELECT u.*, n.name AS namespace_name, (SELECT COUNT(*) FROM part p WHERE p.store_id = u.store_id"
            " AND p.upload_id = u.id AND p.state = 'done' AND p.name <> '') AS parts"
            " FROM upload u JOIN namespace n ON n.id = u.namespace_id"
            " WHERE u.store_id = :s AND u.state = 'open' AND u.expires_us >= :now ORDER BY u.id"
        ),
        {"s": store_id, "now": now_us(connection)},
    )
    for row in rows:
        yield _upload(row), row.namespace_name, row.parts


def end_upload(connection: Connection, store_id: int, upload_id: int, state: str) -> bool:
    """Move an open upload to `committed` or `aborted`, and forget its rows; False when it had ended already."""
    done = connection.execute(
        text("UPDATE upload SET state = :state WHERE id = :id AND state = 'open'"), {"state": state, "id": upload_id}
    )
    connection.execute(
        text(
            "DELETE FROM staged WHERE store_id = :s AND part_id IN (SELECT id FROM part WHERE store_id = :s AND upload_id = :u)"
        ),
        {"s": store_id, "u": upload_id},
    )
    connection.execute(text("DELETE FROM part WHERE store_id = :s AND upload_id = :u"), {"s": store_id, "u": upload_id})
    return done.rowcount == 1


def add_part(connection: Connection, store_id: int, upload_id: int, name: str) -> int:
    """Open a part and return its id; nothing of it counts before `finish_part`."""
    return int(
        connection.execute(
            text(
                "INSERT INTO part (store_id, upload_id, name, state, file_count, size_bytes, created_us)"
                f" VALUES (:s, :u, :name, 'open', 0, 0, {now_sql(connection)}) RETURNING id"
            ),
            {"s": store_id, "u": upload_id, "name": name},
        ).scalar_one()
    )


def drop_part(connection: Connection, store_id: int, part_id: int) -> None:
    """Forget a part and its rows; idempotent."""
    connection.execute(text("DELETE FROM staged WHERE store_id = :s AND part_id = :p"), {"s": store_id, "p": part_id})
    connection.execute(text("DELETE FROM part WHERE id = :p"), {"p": part_id})


def finish_part(connection: Connection, store_id: int, upload: UploadRow, part_id: int, name: str) -> None:
    """Make a part count, in place of an earlier one of its name; the upload's row is locked."""
    earlier = connection.execute(
        text("SELECT id FROM part WHERE store_id = :s AND upload_id = :u AND name = :name AND state = 'done'"),
        {"s": store_id, "u": upload.id, "name": name},
    ).scalar_one_or_none()
    if earlier is not None:
        drop_part(connection, store_id, earlier)
    connection.execute(
        text(
            "UPDATE part SET state = 'done',"
            " file_count = (SELECT COUNT(*) FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1),"
            " size_bytes = (SELECT COALESCE(SUM(size_bytes), 0) FROM staged WHERE store_id = :s AND part_id = :p AND kind = 1)"
            " WHERE id = :p"
        ),
        {"s": store_id, "p": part_id},
    )


def list_parts(connection: Connection, store_id: int, upload_id: int) -> Sequence[PartRow]:
    """Return the parts that count, by name."""
    rows = connection.execute(
        text(
            "SELECT id, name, file_count, size_bytes, created_us FROM part"
            " WHERE store_id = :s AND upload_id = :u AND state = 'done' ORDER BY name"
        ),
        {"s": store_id, "u": upload_id},
    )
    return [PartRow(*row) for row in rows]


def move_rows(connection: Connection, store_id: int, source: int, target: int) -> None:
    """Move all rows of one part into another; where both name a path, the moved row stands. The source is forgotten."""
    ids = {"s": store_id, "source": source, "target": target}
    connection.execute(  # what was read stays read, whatever is written there now
        text(
            "UPDATE staged SET was_read = 1 WHERE store_id = :s AND part_id = :source AND path IN"
            " (SELECT path FROM staged WHERE store_id = :s AND part_id = :target AND was_read = 1)"
        ),
        ids,
    )
    connection.execute(
        text(
            "DELETE FROM staged WHERE store_id = :s AND part_id = :target AND path IN"
            " (SELECT path FROM staged WHERE store_id = :s AND part_id = :source)"
        ),
        ids,
    )
    connection.execute(text("UPDATE staged SET part_id = :target WHERE store_id = :s AND part_id = :source"), ids)
    connection.execute(text("DELETE FROM part WHERE id = :source"), ids)


def merge_parts(connection: Connection, store_id: int, parts: Sequence[PartRow], target: int) -> None:
    """Copy the rows of all `parts` into the part `target`.

    Raises:
        ConflictError: two parts give one path different contents; both are named.
    """
    merged: list[PartRow] = []
    for part in parts:
        ids = {"s": store_id, "p": part.id, "t": target}
        clashes = connection.execute(
            text(
                "SELECT a.path FROM staged a JOIN staged b ON b.store_id = a.store_id AND b.part_id = :t AND b.path = a.path"
                " WHERE a.store_id = :s AND a.part_id = :p"
                " AND (a.kind <> b.kind OR a.digest IS DISTINCT FROM b.digest OR a.mode <> b.mode) ORDER BY a.path LIMIT 100"
            ),
            ids,
        )
        if paths := list(clashes.scalars()):
            other = _find_writer(connection, store_id, merged, paths[0])
            raise ConflictError(
                f"parts {other!r} and {_shown(part)!r} both write {paths[0]!r}, with different contents",
                paths=paths,
                hint="give each part its own paths, or add one of the two again without them",
            )
        connection.execute(
            text(
                "INSERT INTO staged SELECT store_id, :t, path, kind, changed, was_read, digest, size_bytes, mode, modified_ns"
                " FROM staged WHERE store_id = :s AND part_id = :p ON CONFLICT (store_id, part_id, path)"
                " DO UPDATE SET was_read = excluded.was_read WHERE excluded.was_read = 1"
            ),
            ids,
        )
        merged.append(part)


def _find_writer(connection: Connection, store_id: int, parts: Sequence[PartRow], path: str) -> str:
    """Return the name of the part, among `parts`, that stages `path`."""
    for part in parts:
        row = connection.execute(
            text("SELECT 1 FROM staged WHERE store_id = :s AND part_id = :p AND path = :path"),
            {"s": store_id, "p": part.id, "path": path},
        ).one_or_none()
        if row:
            return _shown(part)
    raise AssertionError(f"{path!r} was merged from one of these parts")


def _shown(part: PartRow) -> str:
    return part.name or "(the transaction itself)"


def main_part(connection: Connection, store_id: int, upload_id: int) -> int:
    """Return the part that holds what the transaction itself wrote."""
    return int(
        connection.execute(
            text("SELECT MIN(id) FROM part WHERE store_id = :s AND upload_id = :u AND name = ''"), {"s": store_id, "u": upload_id}
        ).scalar_one()
    )


def heartbeat(connection: Connection, upload_id: int) -> None:
    """Say that the upload's writer is alive: for people and for the reaping of what was abandoned, never for safety."""
    connection.execute(text("UPDATE upload SET heartbeat_us = :now WHERE id = :id"), {"now": now_us(connection), "id": upload_id})


def _upload(row: Row[Any]) -> UploadRow:
    return UploadRow(
        row.id,
        row.token,
        row.namespace_id,
        row.state,
        row.base,
        row.expected_parent,
        row.author,
        row.message,
        row.labels,
        bool(row.allow_shrink),
        row.commit_id,
        row.created_us,
        row.expires_us,
    )
