"""Bring bytes into the store: what it has already is not sent, small objects share packs, large ones get a blob of their own.

Order: the intent to make a blob is written down before its first byte leaves, and an object is placed in the index only when its
blob is there. A crash anywhere leaves at most a pending blob that nobody refers to: harmless, collection takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import NamedTuple

from blake3 import blake3

from vds.blobs.driver import Buffer
from vds.blobs.objects import block_size_bytes, fresh_ulid, object_key, pack_key, put_blob, put_object, stream_key
from vds.blobs.packs import MEMBER_BYTES_END, PackBuilder
from vds.blobs.streams import StreamWriter
from vds.engine.doors import Doors
from vds.errors import ConflictError, VdsError
from vds.files.read import hash_file, read_blocks, read_file
from vds.files.scan import SourceFile
from vds.index.database import Connection
from vds.index.placements import Member, add_pending_blob, find_placements, finish_blob
from vds.model.content import SourceChangedError, check_sent
from vds.pipeline import HASH_WORKERS, Lane, grouped, parallel_map
from vds.progress import Progress

# A thread takes a group of files at a time: handed out one by one they cost twice the time of an upload of small ones.
GROUP_FILES_MAX = 256
GROUP_BYTES_MAX = 8 * 1024 * 1024
READ_AHEAD_BYTES_MAX = 64 * 1024 * 1024
LANE_WORKERS = 3  # beside the thread that fills packs; 8 were slower than 2 on two cores
LANE_BYTES_MAX = 128 * 1024 * 1024
LARGE_BYTES_MIN = 16 * 1024 * 1024
"""Files of this size are cut into blocks that go out in parallel: one such file at a time."""


class HashedFile(NamedTuple):
    """A source file and what is in it."""

    file: SourceFile
    digest: bytes


@dataclass
class Tally:
    """What sending cost."""

    bytes_read: int = 0
    bytes_sent: int = 0
    objects_new: int = 0


class _Read(NamedTuple):
    file: SourceFile
    digest: bytes
    body: bytes | None  # of a small file; a large one is read again when it must be sent
    failure: str | None


@dataclass(frozen=True, slots=True)
class _Sent:
    blob_id: int
    etag: str
    size_bytes: int
    members: Sequence[Member]


class Sender:
    """Sends the bytes of one upload; used by one thread, as a context manager. Call `finish` before the commit.

    Args:
        doors: the store.
        upload_id: to whom pending blobs belong.
        progress: told of bytes and files.
        is_dry: hash and look up, but send nothing.
    """

    def __init__(self, doors: Doors, upload_id: int, progress: Progress, *, is_dry: bool = False) -> None:
        self._doors = doors
        self._upload_id = upload_id
        self._progress = progress
        self._is_dry = is_dry
        self._known: set[bytes] = set()
        self._pack = PackBuilder()
        self._members: list[Member] = []
        self._lane: Lane[_Sent] = Lane(workers=LANE_WORKERS, in_flight_bytes_max=LANE_BYTES_MAX)
        self.tally = Tally()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop sending and join the workers; idempotent."""
        self._lane.close()

    def send_files(self, files: Iterable[SourceFile], failures: dict[str, str]) -> Iterator[HashedFile]:
        """Yield each file with its digest, in order, its bytes on their way. What cannot be read goes into `failures`.

        After the first failure nothing more is sent, but all files are still looked at, so that one error names them all.
        """
        batches = parallel_map(
            self._read_group,
            grouped(files, _held_bytes, count_max=GROUP_FILES_MAX, bytes_max=GROUP_BYTES_MAX),
            workers=HASH_WORKERS,
            weigh=_weigh,
            in_flight_bytes_max=READ_AHEAD_BYTES_MAX,
            in_flight_max=HASH_WORKERS * 2,
        )
        for batch in batches:
            sound = [read for read in batch if read.failure is None]
            for read in batch:
                if read.failure is not None:
                    failures[read.file.path] = read.failure
            self._look_up(read.digest for read in sound)
            for read in sound:
                if not failures:
                    self._send_read(read, failures)
                self._progress.add(files=1)
                yield HashedFile(read.file, read.digest)
            self._settle(self._lane.collect())

    def send_bytes(self, body: Buffer) -> bytes:
        """Store one object and return its digest."""
        digest = blake3(body).digest()
        self._look_up([digest])
        if len(body) and digest not in self._known:
            if len(body) < MEMBER_BYTES_END:
                self._pack_body(digest, body)
            else:
                self._submit_blob(digest, bytes(body))
        return digest

    def open_stream(self) -> OutgoingStream:
        """Begin an object whose content is not known yet."""
        key = stream_key(fresh_ulid())
        blob_id = self._doors.index.run(lambda c: add_pending_blob(c, self._doors.store.id, key, self._upload_id))
        return OutgoingStream(self, blob_id, StreamWriter(self._doors.blobs, key))

    def finish(self) -> None:
        """Wait until every byte is durable and every object is placed."""
        self._flush_pack()
        self._settle(self._lane.finish())

    def _read_group(self, files: list[SourceFile]) -> list[_Read]:
        return [self._read(file) for file in files]

    def _read(self, file: SourceFile) -> _Read:
        try:
            if file.size_bytes < MEMBER_BYTES_END:
                body = read_file(file)
                return _Read(file, blake3(body).digest(), body, None)
            return _Read(file, hash_file(file), None, None)
        except (OSError, VdsError) as err:
            reason = str(err) if isinstance(err, VdsError) else f"{type(err).__name__}: {err.strerror or err}"
            return _Read(file, b"", None, reason)

    def _look_up(self, digests: Iterable[bytes]) -> None:
        """Learn which of these objects need not be sent: those with a live blob."""
        unknown = {digest for digest in digests if digest not in self._known}
        if not unknown:
            return
        with self._doors.index.read() as connection:
            found = find_placements(connection, self._doors.store.id, unknown)
        self._known.update(digest for digest, placement in found.items() if placement.state == "live")

    def _send_read(self, read: _Read, failures: dict[str, str]) -> None:
        self.tally.bytes_read += read.file.size_bytes
        if not read.file.size_bytes or read.digest in self._known:
            return
        if self._is_dry:
            self._count_new(read.digest, read.file.size_bytes)
        elif read.body is not None:
            self._pack_body(read.digest, read.body)
        else:
            self._send_large(read, failures)

    def _send_large(self, read: _Read, failures: dict[str, str]) -> None:
        file, size_bytes = read.file, read.file.size_bytes
        blocks = read_blocks(file, block_size_bytes(size_bytes))
        try:
            if size_bytes < LARGE_BYTES_MIN:
                body = b"".join(blocks)
                sent = blake3(body).digest()  # read a second time: what leaves must be what was hashed
                check_sent(file.path, expected_raw=read.digest, sent_raw=sent, expected_bytes=size_bytes, sent_bytes=len(body))
                self._submit_blob(read.digest, body)
                return
            key = object_key(read.digest, fresh_ulid())
            blob_id = self._add_pending(key)
            etag = put_object(self._doors.blobs, key, blocks, size_bytes=size_bytes, digest_raw=read.digest)
        except SourceChangedError as err:
            failures[file.path] = str(err)
            return
        except OSError as err:
            if isinstance(err, VdsError):
                raise  # the service's trouble, not this file's
            failures[file.path] = f"{type(err).__name__}: {err.strerror or err}"
            return
        self._count_new(read.digest, size_bytes)
        self._settle([_Sent(blob_id, etag, size_bytes, [Member(read.digest, 0, size_bytes)])])

    def _submit_blob(self, digest: bytes, body: bytes) -> None:
        key = object_key(digest, fresh_ulid())
        sent = partial(self._put, self._add_pending(key), key, body, [Member(digest, 0, len(body))])
        self._lane.submit(sent, len(body))
        self._count_new(digest, len(body))

    def _pack_body(self, digest: bytes, body: Buffer) -> None:
        if not self._pack.fits(len(body)):
            self._flush_pack()
        self._members.append(Member(digest, self._pack.append(digest, body), len(body)))
        self._count_new(digest, len(body))
        if self._pack.is_full:
            self._flush_pack()

    def _flush_pack(self) -> None:
        if not self._members:
            return
        body, members = self._pack.finish(), self._members
        self._pack, self._members = PackBuilder(), []
        key = pack_key(fresh_ulid())
        self._lane.submit(partial(self._put, self._add_pending(key), key, body, members), len(body))

    def _put(self, blob_id: int, key: str, body: Buffer, members: Sequence[Member]) -> _Sent:
        etag = put_blob(self._doors.blobs, key, body)
        return _Sent(blob_id, etag, len(body), members)

    def _add_pending(self, key: str) -> int:
        return self._doors.index.run(lambda c: add_pending_blob(c, self._doors.store.id, key, self._upload_id))

    def _count_new(self, digest: bytes, size_bytes: int) -> None:
        self._known.add(digest)
        self.tally.objects_new += 1
        if not self._is_dry:
            self.tally.bytes_sent += size_bytes
            self._progress.add(bytes=size_bytes)

    def _settle(self, sent: Sequence[_Sent]) -> None:
        """Place the objects of blobs that have arrived."""
        if not sent:
            return

        def work(connection: Connection) -> bool:
            return all(
                finish_blob(connection, self._doors.store.id, one.blob_id, self._upload_id, one.size_bytes, one.etag, one.members)
                for one in sent
            )

        if not self._doors.index.run(work):
            raise ConflictError("this upload was taken over or aborted while it ran", hint="upload again")


class OutgoingStream:
    """One object being written in a single pass; closed by `finish` or `drop`."""

    def __init__(self, sender: Sender, blob_id: int, writer: StreamWriter) -> None:
        self._sender = sender
        self._blob_id = blob_id
        self._writer = writer

    def write(self, data: Buffer) -> int:
        """Take in `data` and return its length."""
        return self._writer.write(data)

    def finish(self) -> tuple[bytes, int]:
        """End the object, make its blob unless the store has its content, and return the digest and the size."""
        digest, size_bytes = self._writer.seal()
        self._sender._look_up([digest])
        if size_bytes and digest not in self._sender._known:
            etag = self._writer.commit()
            self._sender._count_new(digest, size_bytes)
            self._sender._settle([_Sent(self._blob_id, etag, size_bytes, [Member(digest, 0, size_bytes)])])
        self._writer.close()
        return digest, size_bytes

    def drop(self) -> None:
        """Forget what was written; idempotent."""
        self._writer.close()


def _weigh(group: list[SourceFile]) -> int:
    return sum(map(_held_bytes, group))


def _held_bytes(file: SourceFile) -> int:
    """Return how many bytes of a file are kept between reading and sending it; large ones are read again instead."""
    return file.size_bytes if file.size_bytes < MEMBER_BYTES_END else 0
