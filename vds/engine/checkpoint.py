"""Checkpoints: all entries of a version in one blob, now and then, so that a replay of its history is short.

Guarantees:
- intent, bytes, name: the blob's row is there before its first byte, and one transaction makes it live and notes it;
- of several writers of one checkpoint one counts; what the others wrote, and what a crash leaves, collection takes;
- only visible versions have one: whatever the index is rebuilt to, a checkpoint is of a version that is there;
- it has as many rows as its version has files, or is not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from vds.blobs.objects import fresh_ulid
from vds.engine.doors import Doors
from vds.engine.listspool import ListSpool
from vds.errors import CorruptionError, VdsError
from vds.index.database import Connection
from vds.index.entries import At
from vds.index.expiry import check_kept
from vds.index.manifests import find_tail, finish_checkpoint, has_checkpoint, measure_tail, read_manifest_rows
from vds.index.placements import add_pending_blob
from vds.index.staging import NewUpload, add_upload, end_upload
from vds.index.stores import NamespaceRow, read_namespace
from vds.index.versions import get_version
from vds.model.checkpoint import CheckpointKey
from vds.model.manifest import FRAME_ROWS_MAX, ChangeRow

TAIL_ROWS_MIN = 20_000
"""What a replay may cost however few files there are: some tenths of a second."""

LOOK_EVERY = 16
"""Every so many versions the length of the tail is looked at; and at once after a commit of many changes."""

_TTL_US = 24 * 3600 * 1_000_000


def keep_tail_short(doors: Doors, namespace_id: int, number: int, changes: int) -> None:
    """After a commit that is acknowledged: write a checkpoint when replaying the version would cost more than reading one.

    It may fail without anybody being told: one of the next commits writes it then. Most commits ask the index nothing.

    Args:
        doors: the store.
        namespace_id: where the commit was.
        number: of its version.
        changes: how many those were.
    """
    if number % LOOK_EVERY and changes < FRAME_ROWS_MAX:
        return
    with suppress(VdsError):
        with doors.index.read() as connection:
            if not _is_due(connection, At(doors.store.id, namespace_id, number), changes):
                return
            namespace = read_namespace(connection, namespace_id)
        write_checkpoint(doors, namespace, number)


def shorten_history(doors: Doors, namespace_id: int, oldest: int) -> None:
    """Write a checkpoint of the oldest version that is left, when replaying all before it would cost more than reading that.

    The change lists before it are needed no more then.

    Raises:
        VdsError: as `write_checkpoint`.
    """
    with doors.index.read() as connection:
        namespace = read_namespace(connection, namespace_id)
        is_due = _is_due(connection, At(doors.store.id, namespace_id, oldest), FRAME_ROWS_MAX)
    if is_due:
        write_checkpoint(doors, namespace, oldest)


def _is_due(connection: Connection, at: At, changes: int) -> bool:
    tail = find_tail(connection, at)
    if changes < FRAME_ROWS_MAX and at.number % _step(at.number - tail.checkpoint):
        return False
    return measure_tail(connection, at, tail.checkpoint) >= max(tail.file_count, TAIL_ROWS_MIN)


def _step(versions: int) -> int:
    """Return how often a tail of so many versions is measured: each time it has grown by a sixteenth, so 16 rows a commit."""
    return max(LOOK_EVERY, 1 << max(0, (versions // 16).bit_length() - 1))


def write_checkpoint(doors: Doors, namespace: NamespaceRow, number: int) -> bool:
    """Write the checkpoint of a version, and return whether this call did; False when there is one, and for version 0.

    Raises:
        NotFoundError: the version is not visible, or has expired.
        CorruptionError: the index does not hold as many entries as the version has files.
        AccessDeniedError: the store was opened for reading.
        NoSpaceError: its temporary file cannot be written.
        UnavailableError, OutcomeUnknownError: it may be there or not; to call again is harmless.
    """
    doors.check_writable()
    at = At(doors.store.id, namespace.id, number)
    if number == 0:
        return False
    with ListSpool() as spool:
        with doors.index.read() as connection:
            if has_checkpoint(connection, at):
                return False
            version = get_version(connection, read_namespace(connection, namespace.id), number)
            sizes = _Sizes()
            spool.fill(sizes.passing(read_manifest_rows(connection, at)))
            check_kept(connection, *at)
        if (spool.count, sizes.sum_bytes) != (version.file_count, version.size_bytes):
            raise CorruptionError(
                f"the index holds {spool.count} entries of {sizes.sum_bytes} bytes of version {number} of {namespace.name!r},"
                f" which has {version.file_count} files of {version.size_bytes} bytes",
                hint="run: vds fsck",
            )
        return _send(doors, namespace, at, spool)


class _Sizes:
    """Adds up the sizes of rows that pass."""

    sum_bytes = 0

    def passing(self, rows: Iterable[ChangeRow]) -> Iterator[ChangeRow]:
        for row in rows:
            self.sum_bytes += row.size_bytes
            yield row


def _send(doors: Doors, namespace: NamespaceRow, at: At, spool: ListSpool) -> bool:
    key = str(CheckpointKey(namespace.uid, at.number, spool.digest, fresh_ulid()))

    def begin(connection: Connection) -> tuple[int, int]:
        new = NewUpload(
            token=fresh_ulid(),
            namespace_id=namespace.id,
            base=at.number,
            expected_parent=None,
            author="",
            message=f"the checkpoint of version {at.number}",
            labels="{}",
            allow_shrink=False,
            commit_id=fresh_ulid(),
            ttl_us=_TTL_US,
        )
        upload_id = add_upload(connection, doors.store.id, new).id
        return upload_id, add_pending_blob(connection, doors.store.id, key, upload_id)

    upload_id, blob_id = doors.index.run(begin)
    # A crash from here on leaves a pending blob of an upload that falls silent.
    try:
        sent = spool.put(doors.blobs, key, blob_id)
        return doors.index.run(lambda connection: finish_checkpoint(connection, at, upload_id, sent))
    except BaseException:
        with suppress(VdsError):  # the first error says more
            doors.index.run(lambda connection: end_upload(connection, doors.store.id, upload_id, "aborted"))
        raise
