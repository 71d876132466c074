"""Bring bytes into the store: what it has already is not sent, small objects share packs, large ones get a blob of their own.

    files found → digest known?  no: read and hash in groups (threads) → which contents are new? (one lookup a group)
               → the outbox: packs, blobs and large files leave behind all this → placed in the index

Large files are hashed while they leave, unless their fingerprint says that the store may have them: then they are hashed first.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import NamedTuple

from blake3 import blake3

from vds.blobs.driver import Buffer
from vds.blobs.packs import MEMBER_BYTES_END, PackBuilder
from vds.engine.doors import Doors
from vds.engine.gather import Found, Group, Grouper, Kind, Read, is_large, reason_of
from vds.engine.large import LargeSent
from vds.engine.outbox import Outbox, OutgoingStream, Tally
from vds.engine.readers import Readers
from vds.engine.session import Session
from vds.files.read import sample_file
from vds.files.scan import SourceFile
from vds.pipeline import HASH_WORKERS, parallel_map
from vds.progress import Progress

Remember = Callable[[Sequence[SourceFile], Sequence[bytes], int], None]
"""Told which files were hashed, their digests, and when reading them began."""


class Hashed(NamedTuple):
    """Files whose contents are in the store or on their way there, and what is in them."""

    files: Sequence[SourceFile]
    digests: Sequence[bytes]


class Sender:
    """Sends the bytes of one upload; used by one thread, as a context manager. Call `finish` before the commit.

    Args:
        doors: the store.
        opened: the session that pending blobs belong to; None for a dry run without one.
        progress: told of bytes and files.
        is_dry: hash and look up, but send nothing.
    """

    def __init__(self, doors: Doors, opened: Session | None, progress: Progress, *, is_dry: bool = False) -> None:
        assert opened or is_dry
        upload_id, check = (opened.upload.id, opened.freshness.check) if opened else (0, doors.check_writable)
        self._outbox = Outbox(doors, upload_id, progress, check)
        self._progress = progress
        self._is_dry = is_dry

    @property
    def tally(self) -> Tally:
        """What sending cost so far."""
        return self._outbox.tally

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop sending and join the workers; idempotent."""
        self._outbox.close()

    def send_files(
        self, found: Iterable[Found], failures: dict[str, str], remember: Remember = lambda files, digests, read_at_ns: None
    ) -> Generator[Hashed, None, None]:
        """Yield all files with their digests, in batches as they get ready, their bytes on their way.

        What cannot be read goes into `failures`. After the first failure nothing more is read or sent, but all other files are
        still looked at, so that one error names them all.

        Args:
            found: what to send; a digest that is given is believed, and its file not read unless the store lacks the content.
            failures: path → reason; filled.
            remember: told what was hashed.
        """
        twins: list[SourceFile] = []
        readers = Readers(self._outbox.pool)
        reads = parallel_map(
            readers.read,
            self._groups(found, failures, twins),
            workers=HASH_WORKERS,
            in_flight_max=HASH_WORKERS * 2,
            ordered=False,  # a file that is slow to read holds up its own group, no other
            on_wait=self._outbox.beat,
        )
        with closing(readers), closing(reads):
            for read in reads:
                yield self._take_in(read, failures, remember)
                yield from self._arrived(self._outbox.settle(), failures, remember)
                if failures:
                    self._outbox.give_up()
                self._outbox.beat()
        if self._outbox.large:
            yield from self._arrived(self._outbox.settle(wait=True), failures, remember)
        if twins:  # the index knows by now what they are twins of
            yield from self.send_files([Found(twins, [None] * len(twins))], failures, remember)

    def send_bytes(self, body: Buffer) -> bytes:
        """Store one object and return its digest."""
        digest = blake3(body).digest()
        if len(body) and self._outbox.find_new([digest]):
            self._outbox.refuse_erased(digest)
            self._outbox.count_new(digest, len(body))
            if len(body) < MEMBER_BYTES_END:
                self._outbox.append(digest, body)
            else:
                self._outbox.send_blobs([(digest, bytes(body))], None, f"{len(body)} bytes")
        return digest

    def open_stream(self) -> OutgoingStream:
        """Begin an object whose content is not known yet."""
        return self._outbox.open_stream()

    def finish(self) -> None:
        """Wait until every byte is durable and every object is placed."""
        large = self._outbox.finish()
        assert not large, "send_files waits for large files"

    def _groups(self, found: Iterable[Found], failures: dict[str, str], twins: list[SourceFile]) -> Iterator[Group]:
        """Say what is done with which file, and begin to send the large ones; in the caller's thread."""
        groupers: dict[Kind, Grouper] = {kind: Grouper(kind) for kind in ("known", "pack", "whole", "hash", "look")}
        for files, digests in found:
            known = {digest for digest in digests if digest is not None}
            if known and not self._is_dry:
                known -= self._outbox.find_new(known)
            large: list[SourceFile] = []
            for file, digest in zip(files, digests, strict=True):
                if digest in known:
                    kind: Kind = "known"
                elif failures:
                    kind = "look"
                elif file.size_bytes < MEMBER_BYTES_END:
                    kind = "pack"
                elif is_large(file):
                    large.append(file)
                    continue
                else:
                    kind = "whole"
                if (group := groupers[kind].add(file, digest or b"")) is not None:
                    yield group
            for file in large if self._is_dry else self._send_large(large, failures, twins):
                yield Group("hash", [file])
        for grouper in groupers.values():
            if (group := grouper.flush()) is not None:
                yield group

    def _send_large(self, files: Sequence[SourceFile], failures: dict[str, str], twins: list[SourceFile]) -> Iterator[SourceFile]:
        """Send large files in one pass; yield those that the store may have, to be hashed first."""
        sampled: list[tuple[SourceFile, str]] = []
        for file in files:
            try:
                sampled.append((file, sample_file(file)))
            except OSError as err:
                failures[file.path] = reason_of(err)
        if not sampled:
            return
        known = self._outbox.find_known([(file.size_bytes, fingerprint) for file, fingerprint in sampled])
        under_way = set(self._outbox.large.values())
        new: list[tuple[SourceFile, str, None]] = []
        for file, fingerprint in sampled:
            if fingerprint in known:
                yield file
            elif fingerprint in under_way:
                twins.append(file)
            else:
                under_way.add(fingerprint)
                new.append((file, fingerprint, None))
        if not failures:
            self._outbox.send_large(new)

    def _take_in(self, read: Read, failures: dict[str, str], remember: Remember) -> Hashed:
        """Send what is new in a group that was read."""
        failures.update(read.failures)
        files, digests = read.group.files, read.digests
        if read.failures or read.group.kind == "look":
            pairs = [(file, digest) for file, digest in zip(files, digests, strict=True) if digest]
            files, digests = [file for file, _ in pairs], [digest for _, digest in pairs]
        group_bytes = sum([file.size_bytes for file in files])
        if read.group.kind == "known":
            new_bytes = self._count_known(files, digests) if self._is_dry else 0
        else:
            self.tally.bytes_read += group_bytes
            remember(files, digests, read.read_at_ns)
            new_bytes = self._send_new(read, files, digests, failures)
        self.tally.bytes_saved += group_bytes - new_bytes
        self._progress.hashed(len(files), group_bytes, saved_bytes=group_bytes - new_bytes)
        return Hashed(files, digests)

    def _send_new(self, read: Read, files: Sequence[SourceFile], digests: Sequence[bytes], failures: dict[str, str]) -> int:
        """Send the contents of a group that the store does not have and return how many bytes they are."""
        self._refuse_erased(files, digests, failures)
        if read.group.kind == "hash":
            return self._send_hashed(read, files, digests, failures)
        new_digests = self._outbox.find_new([body.digest for body in read.bodies])
        new = [body for body in read.bodies if body.digest in new_digests]
        for body in new:
            self._outbox.count_new(body.digest, body.length_bytes, is_sent=not self._is_dry)
        if read.loan is None:
            return 0
        if not new or failures or self._is_dry:
            read.loan.release()
            return sum([body.length_bytes for body in new])
        bodies = ((body.digest, read.loan.view[body.offset_bytes : body.offset_bytes + body.length_bytes]) for body in new)
        what = f"{len(files)} files, the first of them {files[0].path!r}"
        if not read.rows:
            read.loan.shares = len(new)
            self._outbox.send_blobs(list(bodies), read.loan, what)
        elif len(new) == len(read.bodies):
            used_bytes = sum([body.length_bytes for body in new])
            self._outbox.send_pack(PackBuilder.adopt(read.loan.view, read.rows, used_bytes), read.loan, read.bodies, what)
        else:  # the buffer holds what the store has too
            for digest, body_view in bodies:
                self._outbox.append(digest, body_view)
            read.loan.release()
        return sum([body.length_bytes for body in new])

    def _refuse_erased(self, files: Sequence[SourceFile], digests: Sequence[bytes], failures: dict[str, str]) -> bool:
        """Count files whose content was erased among what cannot be uploaded, and return whether there are any."""
        erased = self._outbox.find_erased(digests)
        for file, digest in zip(files, digests, strict=True):
            if digest in erased:
                failures[file.path] = str(erased[digest].error())
        return bool(erased)

    def _send_hashed(self, read: Read, files: Sequence[SourceFile], digests: Sequence[bytes], failures: dict[str, str]) -> int:
        """Send a large file that was hashed before, if its content is new."""
        new_bytes = 0
        for file, digest in zip(files, digests, strict=True):
            if not self._outbox.find_new([digest]):
                continue
            self._outbox.count_new(digest, file.size_bytes, is_sent=False)
            new_bytes += file.size_bytes
            if not failures and not self._is_dry:
                try:
                    fingerprint = sample_file(file)
                except OSError as err:
                    failures[file.path] = reason_of(err)
                    continue
                self._outbox.send_large([(file, fingerprint, read.block_hashes[digest])])
        return new_bytes

    def _count_known(self, files: Sequence[SourceFile], digests: Sequence[bytes]) -> int:
        """Count what a dry run would send of files that need not be read, and return how many bytes that is."""
        new_bytes, new = 0, self._outbox.find_new(digests)
        for file, digest in zip(files, digests, strict=True):
            if digest in new:
                new.discard(digest)
                self._outbox.count_new(digest, file.size_bytes, is_sent=False)
                new_bytes += file.size_bytes
        return new_bytes

    def _arrived(self, large: Sequence[LargeSent], failures: dict[str, str], remember: Remember) -> Iterator[Hashed]:
        """Count the large files that have arrived, and yield those whose digest is known since."""
        for one in large:
            self.tally.bytes_sent += one.sent_bytes
            if one.failure is not None:
                failures[one.file.path] = one.failure
            elif self._refuse_erased([one.file], [one.digest], failures) or one.was_hashed_before or one.was_given_up:
                continue
            else:
                size_bytes = one.file.size_bytes
                self.tally.bytes_read += size_bytes
                if one.etag is None:
                    self.tally.bytes_saved += size_bytes
                else:
                    self.tally.objects_new += 1
                    self.tally.bytes_new += size_bytes
                self._progress.hashed(1, 0)
                remember([one.file], [one.digest], one.read_at_ns)
                yield Hashed([one.file], [one.digest])
