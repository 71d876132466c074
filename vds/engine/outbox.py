"""What leaves for the container: packs, whole objects and large files, behind whoever reads them.

Order: the intent to make a blob is written down before its first byte leaves, and an object is placed in the index only when its
blob is there. A crash anywhere leaves at most a pending blob that nobody refers to: harmless, collection takes it.

What is known of contents on their way is forgotten once they are placed, as the index knows them then: memory does not grow with
the number of objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event

from vds.blobs.driver import Buffer
from vds.blobs.objects import BLOCK_BYTES_MIN, SENDING_BYTES_MAX, fresh_ulid, object_key, pack_key, put_blob, stream_key
from vds.blobs.packs import MEMBER_BYTES_END, PACK_BUFFER_BYTES, PackBuilder
from vds.blobs.streams import StreamWriter
from vds.buffers import BufferPool, Loan
from vds.engine.doors import Doors
from vds.engine.large import Intent, LargeFile, LargeSent, Means
from vds.engine.resume import HEARTBEAT_S, begin_large
from vds.errors import ConflictError, VdsError
from vds.files.read import BlockHashes
from vds.files.scan import SourceFile
from vds.index.database import Connection
from vds.index.erasure import ErasedRow, find_erased, has_erased
from vds.index.placements import add_pending_blobs, drop_pending_blobs, find_live, finish_blob
from vds.index.resume import find_known_files
from vds.index.staging import heartbeat
from vds.model.checks import Checks, checks_of
from vds.model.content import Member
from vds.model.digest import EMPTY_RAW
from vds.pipeline import Lane
from vds.progress import Progress

INTENTS_MAX = 16
"""For how many packs the intent is written down in one transaction: each costs a sync of the index's disk."""


@dataclass
class Tally:
    """What sending cost.

    Attributes:
        bytes_read: of the files that were read.
        bytes_sent: to the container; blocks that were there already are not counted.
        bytes_new: of contents that the store did not have.
        bytes_saved: of the files whose contents need not be sent.
    """

    bytes_read: int = 0
    bytes_sent: int = 0
    bytes_new: int = 0
    bytes_saved: int = 0
    objects_new: int = 0


@dataclass(frozen=True, slots=True)
class _BlobSent:
    blob_id: int
    etag: str
    size_bytes: int
    members: Sequence[Member]
    checks: Checks | None = None


class Outbox:
    """Sends contents and places them in the index; used by one thread. Close it when done.

    Args:
        doors: the store.
        upload_id: to whom pending blobs belong.
        progress: told of bytes that arrived.
        check_fresh: made beside the first request of the upload; its error ends the upload.
    """

    def __init__(self, doors: Doors, upload_id: int, progress: Progress, check_fresh: Callable[[], None]) -> None:
        self._doors = doors
        self._store_id = doors.store.id
        self._upload_id = upload_id
        self._progress = progress
        self.pool = BufferPool(PACK_BUFFER_BYTES, is_shared=True)
        self._blocks = BufferPool(BLOCK_BYTES_MIN)
        self._means = Means(doors.blobs, self._blocks, progress, self.is_live, Event())
        self._check_fresh: Callable[[], None] | None = check_fresh
        self._lane: Lane[_BlobSent | LargeSent | None] = Lane(
            doors.blobs.pace, in_flight_bytes_max=SENDING_BYTES_MAX, on_wait=self.beat
        )
        self._in_flight: set[bytes] = set()
        self._shared: _SharedPack | None = None
        self._intents: list[tuple[int, str]] = []
        self._intents_next = 1
        self._has_erased: bool | None = None
        self._beat_s = time.monotonic()
        self.large: dict[int, str] = {}
        """Blob id → fingerprint, of the large files that have not arrived."""
        self.tally = Tally()

    def close(self) -> None:
        """Stop sending and join the workers; idempotent."""
        self._lane.close()
        self.pool.close()
        self._blocks.close()

    def give_up(self) -> None:
        """Begin nothing more of what is under way: the upload has failed, only what is at fault is still looked for."""
        self._means.given_up.set()

    def find_new(self, digests: Iterable[bytes]) -> set[bytes]:
        """Return which of these contents neither the store has nor this upload has sent already."""
        unknown = {digest for digest in digests if digest not in self._in_flight and digest != EMPTY_RAW}
        if not unknown:
            return unknown
        with self._doors.index.read() as connection:
            return unknown - find_live(connection, self._store_id, unknown)

    def find_erased(self, digests: Sequence[bytes]) -> dict[bytes, ErasedRow]:
        """Return which of these contents were erased, and must not come again; mostly without a question, as nothing ever was."""
        if self._has_erased is False:
            return {}
        with self._doors.index.read() as connection:
            if self._has_erased is None:
                self._has_erased = has_erased(connection, self._store_id)
            return find_erased(connection, self._store_id, digests) if self._has_erased else {}

    def refuse_erased(self, digest: bytes) -> None:
        """Check that a content was not erased.

        Raises:
            ErasedError: it was.
        """
        if (row := self.find_erased([digest]).get(digest)) is not None:
            raise row.error()

    def is_live(self, digest: bytes) -> bool:
        """Return whether the store has a content; from any thread."""
        with self._doors.index.read() as connection:
            return bool(find_live(connection, self._store_id, [digest]))

    def find_known(self, files: Sequence[tuple[int, str]]) -> set[str]:
        """Return the fingerprints of those (size, fingerprint) whose content the store may have."""
        with self._doors.index.read() as connection:
            return find_known_files(connection, self._store_id, files)

    def count_new(self, digest: bytes, size_bytes: int, *, is_sent: bool = True) -> None:
        """Note that a content is new and, unless this is a dry run, on its way."""
        self._in_flight.add(digest)
        self.tally.objects_new += 1
        self.tally.bytes_new += size_bytes
        if is_sent:
            self.tally.bytes_sent += size_bytes

    def send_pack(self, builder: PackBuilder, loan: Loan, members: Sequence[Member], what: str) -> None:
        """Send a filled pack, whose buffer is `loan`."""
        if not self._intents:
            keys = [pack_key(fresh_ulid()) for _ in range(self._intents_next)]
            self._intents = list(zip(self._add_pending(keys), keys, strict=True))
            self._intents_next = min(2 * self._intents_next, INTENTS_MAX)
        blob_id, key = self._intents.pop()
        body = builder.finish()
        self._lane.submit(partial(self._put, blob_id, key, body, members, loan, what), len(body))

    def append(self, digest: bytes, body: Buffer) -> None:
        """Copy a small content into the pack that groups share when only a part of each is new."""
        if self._shared is not None and not self._shared.builder.fits(len(body)):
            self.flush()
        if self._shared is None:
            self._shared = _SharedPack(self.pool.lend())
        self._shared.members.append(Member(digest, self._shared.builder.append(digest, body), len(body)))

    def flush(self) -> None:
        """Send the shared pack, full or not."""
        shared, self._shared = self._shared, None
        if shared is not None:
            self.send_pack(shared.builder, shared.loan, shared.members, f"a pack of {len(shared.members)} files")

    def send_blobs(self, bodies: Sequence[tuple[bytes, Buffer]], loan: Loan | None, what: str) -> None:
        """Send contents, given as (digest, body), as blobs of their own; `loan` is released once for each."""
        keys = [object_key(digest, fresh_ulid()) for digest, _ in bodies]
        ids = self._add_pending(keys)
        for (digest, body), blob_id, key in zip(bodies, ids, keys, strict=True):
            members = [Member(digest, 0, len(body))]
            self._lane.submit(partial(self._put, blob_id, key, body, members, loan, what), len(body))

    def send_large(self, files: Sequence[tuple[SourceFile, str, BlockHashes | None]]) -> None:
        """Send large files, each with its fingerprint and, if it was hashed before, what it holds.

        What becomes of them comes out of `settle`.
        """
        if not files:
            return
        self._begin()

        def work(connection: Connection) -> list[Intent]:
            return [
                begin_large(connection, self._store_id, self._upload_id, fingerprint, hashes.digest if hashes else None)
                for _, fingerprint, hashes in files
            ]

        for (file, fingerprint, hashes), intent in zip(files, self._doors.index.run(work), strict=True):
            self.large[intent.blob_id] = fingerprint
            self._lane.feed(LargeFile(self._means, file, intent, hashes))

    def open_stream(self) -> OutgoingStream:
        """Begin an object whose content is not known yet."""
        key = stream_key(fresh_ulid())
        [blob_id] = self._add_pending([key])
        return OutgoingStream(self, blob_id, StreamWriter(self._doors.blobs, key))

    def settle(self, *, wait: bool = False) -> list[LargeSent]:
        """Place what has arrived, or with `wait` everything, and return the large files among it."""
        sent = self._lane.finish() if wait else self._lane.collect()
        blobs: list[_BlobSent] = []
        large: list[LargeSent] = []
        for one in sent:
            if one is None:
                continue  # the index is fresh
            if isinstance(one, _BlobSent):
                blobs.append(one)
                continue
            large.append(one)
            self.large.pop(one.blob_id)
            self._in_flight.discard(one.digest)
            if one.etag is not None:
                size_bytes = one.file.size_bytes
                blobs.append(_BlobSent(one.blob_id, one.etag, size_bytes, [Member(one.digest, 0, size_bytes)], one.checks))
        if blobs:
            self.place(blobs)
        return large

    def finish(self) -> list[LargeSent]:
        """Wait until every byte is durable and every object is placed; return the large files not returned before."""
        self.flush()
        large = self.settle(wait=True)
        if self._intents:
            unused = [blob_id for blob_id, _ in self._intents]
            self._intents, self._intents_next = [], 1
            self._doors.index.run(lambda connection: drop_pending_blobs(connection, self._upload_id, unused))
        return large

    def place(self, sent: Sequence[_BlobSent]) -> None:
        """Place the objects of blobs that have arrived.

        Raises:
            ConflictError: a blob is no longer this upload's, and its content not in the store.
        """

        def work(connection: Connection) -> list[_BlobSent]:
            return [one for one in sent if not self._finish_blob(connection, one)]

        lost = self._doors.index.run(work)
        # Whoever took a blob over, or was quicker, may have stored the content: then nothing is missing.
        if any(not self.is_live(member.digest) for one in lost for member in one.members):
            raise ConflictError("this upload was taken over or aborted while it ran", hint="upload again")
        for one in sent:
            self._in_flight.difference_update([member.digest for member in one.members])

    def _finish_blob(self, connection: Connection, one: _BlobSent) -> bool:
        ours = (one.blob_id, self._upload_id)
        return finish_blob(connection, self._store_id, *ours, one.size_bytes, one.etag, one.members, checks=one.checks)

    def beat(self) -> None:
        """Show now and then that this upload is alive: for people, and for those who would continue what it left."""
        now_s = time.monotonic()
        if now_s - self._beat_s >= HEARTBEAT_S and self._upload_id:
            self._beat_s = now_s
            self._doors.index.run(lambda connection: heartbeat(connection, self._upload_id))

    def _begin(self) -> None:
        """Called before something is sent: the first time, has the index checked, in parallel."""
        check, self._check_fresh = self._check_fresh, None
        if check is not None:
            self._lane.submit(check)

    def _add_pending(self, keys: Sequence[str]) -> list[int]:
        self._begin()
        return self._doors.index.run(lambda connection: add_pending_blobs(connection, self._store_id, keys, self._upload_id))

    def _put(
        self, blob_id: int, key: str, body: Buffer, members: Sequence[Member], loan: Loan | None, what: str
    ) -> _BlobSent:  # in a worker thread
        try:
            etag = put_blob(self._doors.blobs, key, body)
        except VdsError as err:
            err.add_note(f"while sending {what}")
            raise
        size_bytes = len(body)
        is_pack = members[0].length_bytes != size_bytes
        checks = None if is_pack else checks_of(body)
        if loan is not None:
            loan.release()
        self._progress.sent(sum([member.length_bytes for member in members]))
        return _BlobSent(blob_id, etag, size_bytes, members, checks)


class _SharedPack:
    """A pack that is being filled from several groups."""

    def __init__(self, loan: Loan) -> None:
        self.loan = loan
        self.builder = PackBuilder(buffer=loan.view)
        self.members: list[Member] = []


class OutgoingStream:
    """One object being written in a single pass; closed by `finish` or `drop`."""

    def __init__(self, outbox: Outbox, blob_id: int, writer: StreamWriter) -> None:
        self._outbox = outbox
        self._blob_id = blob_id
        self._writer = writer

    def write(self, data: Buffer) -> int:
        """Take in `data` and return its length."""
        return self._writer.write(data)

    def finish(self) -> tuple[bytes, int]:
        """End the object, make its blob unless the store has its content, and return the digest and the size."""
        digest, size_bytes = self._writer.seal()
        if size_bytes and self._outbox.find_new([digest]):
            self._outbox.refuse_erased(digest)
            etag = self._writer.commit()
            self._outbox.count_new(digest, size_bytes)
            members = [Member(digest, 0, size_bytes)]
            self._outbox.place([_BlobSent(self._blob_id, etag, size_bytes, members, self._writer.checks())])
        self._writer.close()
        return digest, size_bytes

    def drop(self) -> None:
        """Forget what was written; idempotent."""
        self._writer.close()


assert MEMBER_BYTES_END <= PACK_BUFFER_BYTES
