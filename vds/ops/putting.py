"""Bring objects from the store's blobs into blobs of other names.

A whole object is copied by the service where it can; small ones are read many to a request and put one by one, side by side;
large ones go block by block. What is read here is checked against its digest before its file appears. What goes wrong with one
file is collected; what goes wrong with everything (the service is away, a right is missing) stops at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from vds.blobs.driver import BlobDriver, Buffer
from vds.blobs.objects import OBJECT_PREFIX, SENDING_BYTES_MAX, block_size_bytes
from vds.blobs.reads import READ_BYTES_MAX, RangeRead, Wanted, plan_reads, read_chunks, read_object, read_range
from vds.errors import AccessDeniedError, ConflictError, CorruptionError, UnavailableError, VdsError
from vds.model.batch import batched
from vds.model.digest import EMPTY_RAW, Digest
from vds.model.entry import Entry
from vds.ops.placing import LOOKUP_MAX, ObjectSource
from vds.pace import Pace
from vds.pipeline import Lane, Limits, parallel_map
from vds.progress import Progress

READ_LIMITS = Limits(workers=4, in_flight_bytes_max=64 * 1024 * 1024)
"""Of what is read ahead of the puts."""
_PLANNED_AT_ONCE = 8192  # as many files as a pack can hold, so that one request can serve them
_STOPS = (UnavailableError, AccessDeniedError)


class FileBlobs(Protocol):
    """Blobs named by the paths of files; `vds.blobs.export` has the one for Azure."""

    @property
    def pace(self) -> Pace:
        """How many requests at once the service takes well."""
        ...

    @property
    def is_beside_store(self) -> bool:
        """Whether `copy_file` may be used."""
        ...

    def put_file(self, path: str, body: Buffer, digest: Digest, replaces: str = "") -> None:
        """Put a file where none is, or in place of the blob whose etag is `replaces`."""
        ...

    def copy_file(self, path: str, key: str, size_bytes: int, digest: Digest, replaces: str = "") -> None:
        """Have the service copy a whole blob of the store."""
        ...

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        """Stage one block."""
        ...

    def commit_file(self, path: str, block_ids: Sequence[str], size_bytes: int, digest: Digest, replaces: str = "") -> None:
        """Make a file out of staged blocks."""
        ...


@dataclass
class PutOutcome:
    """What came of some files.

    Attributes:
        files: that are there now.
        copied: of them, those that the service copied by itself.
    """

    files: int = 0
    copied: int = 0
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Done:
    """How one call ended; `was_refused` when the service did not copy, which says nothing against the file."""

    entry: Entry
    failure: str = ""
    was_copied: bool = False
    was_refused: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    make: Callable[[], _Done]
    held_bytes: int


def put_entries(
    source: ObjectSource, target: FileBlobs, entries: Iterable[Entry], replaces: Mapping[str, str], progress: Progress
) -> PutOutcome:
    """Put every entry; what was put before an error stays.

    Args:
        source: of the objects.
        target: where to.
        entries: what to put.
        replaces: path → etag, of the blobs that are to be replaced.
        progress: is told of files and bytes.

    Raises:
        UnavailableError, AccessDeniedError: the service failed.
    """
    outcome = PutOutcome()
    with Lane[_Done](target.pace, in_flight_bytes_max=SENDING_BYTES_MAX) as lane:
        work = _Putting(source, target, replaces, progress, lane, outcome)
        work.run(entries, copies=target.is_beside_store)
        work.run(work.take_refused(), copies=False)
    return outcome


class _Putting:
    """One run of `put_entries`; used by one thread."""

    def __init__(
        self,
        source: ObjectSource,
        target: FileBlobs,
        replaces: Mapping[str, str],
        progress: Progress,
        lane: Lane[_Done],
        outcome: PutOutcome,
    ) -> None:
        self._source = source
        self._target = target
        self._replaces = replaces
        self._progress = progress
        self._lane = lane
        self._outcome = outcome
        self._refused: list[Entry] = []

    def take_refused(self) -> list[Entry]:
        """Return the files that the service did not copy by itself, and forget them."""
        taken, self._refused = self._refused, []
        return taken

    def run(self, entries: Iterable[Entry], *, copies: bool) -> None:
        """Put these."""
        large: list[tuple[Wanted, Entry]] = []
        for batch in batched(entries, _PLANNED_AT_ONCE):
            with closing(self._calls(batch, large, copies=copies)) as calls:
                for call in calls:
                    self._lane.submit(call.make, call.held_bytes)
                    self._note(self._lane.collect())
        self._note(self._lane.finish())
        for wanted, entry in large:
            self._put_large(wanted, entry)

    def _calls(self, batch: list[Entry], large: list[tuple[Wanted, Entry]], *, copies: bool) -> Generator[_Call, None, None]:
        by_digest: dict[bytes, list[Entry]] = {}
        for entry in batch:
            by_digest.setdefault(entry.digest.raw, []).append(entry)
        for entry in by_digest.pop(EMPTY_RAW, []):
            yield self._put(entry, b"")
        small: list[Wanted] = []
        for wanted in self._find(by_digest):
            placement = wanted.placement
            if copies and placement.key.startswith(OBJECT_PREFIX):
                yield from (self._copy(entry, placement.key) for entry in by_digest[wanted.digest_raw])
            elif placement.length_bytes > READ_BYTES_MAX:
                large.extend((wanted, entry) for entry in by_digest[wanted.digest_raw])
            else:
                small.append(wanted)
        with closing(_read_all(self._source.driver, plan_reads(small))) as found:
            for digest_raw, body in found:
                for entry in by_digest[digest_raw]:
                    if isinstance(body, str):
                        self._outcome.failures[entry.path] = body
                    else:
                        yield self._put(entry, body)

    def _find(self, by_digest: Mapping[bytes, Sequence[Entry]]) -> Iterator[Wanted]:
        for digests in batched(by_digest, LOOKUP_MAX):
            found = self._source.find_placements([by_digest[digest_raw][0] for digest_raw in digests])
            for digest_raw in digests:
                placement, entries = found.get(digest_raw), by_digest[digest_raw]
                if placement is not None and placement.length_bytes == entries[0].size_bytes:
                    yield Wanted(digest_raw, placement)
                    continue
                self._outcome.failures.update({entry.path: self._source.reason(entry) for entry in entries})

    def _put(self, entry: Entry, body: Buffer) -> _Call:
        put = partial(self._target.put_file, entry.path, body, entry.digest, self._replaces.get(entry.path, ""))
        return _Call(partial(_attempt, entry, put), len(body))

    def _copy(self, entry: Entry, key: str) -> _Call:
        replaces = self._replaces.get(entry.path, "")
        copy = partial(self._target.copy_file, entry.path, key, entry.size_bytes, entry.digest, replaces)
        return _Call(partial(_attempt_copy, entry, copy), 0)

    def _put_large(self, wanted: Wanted, entry: Entry) -> None:
        run, ids, path = secrets.token_hex(8), list[str](), entry.path
        pieces_a_block = -(-block_size_bytes(entry.size_bytes) // READ_BYTES_MAX)
        try:
            with closing(read_chunks(self._source.driver, wanted.placement, wanted.digest_raw)) as pieces:
                for parts in batched(pieces, pieces_a_block):
                    block = parts[0] if len(parts) == 1 else b"".join(parts)
                    ids.append(f"{run}-{len(ids):06}")
                    stage = partial(self._target.stage_block, path, ids[-1], block)
                    self._lane.submit(partial(_attempt, entry, stage), len(block))
                    self._progress.add(bytes=len(block))
        except CorruptionError as err:
            self._outcome.failures[path] = err.message
        # The digest held, or the blocks are never made a blob: nobody sees them, and the service drops them after a week.
        faults = [done.failure for done in self._lane.finish() if done.failure]
        if faults:
            self._outcome.failures[path] = faults[0]
        if path in self._outcome.failures:
            return
        size_bytes, replaces = entry.size_bytes, self._replaces.get(path, "")
        done = _attempt(entry, partial(self._target.commit_file, path, ids, size_bytes, entry.digest, replaces))
        self._note([done], counts_bytes=False)

    def _note(self, ended: Iterable[_Done], *, counts_bytes: bool = True) -> None:
        files = size_bytes = 0
        for done in ended:
            if done.was_refused:
                self._refused.append(done.entry)
            elif done.failure:
                self._outcome.failures[done.entry.path] = done.failure
            else:
                files, size_bytes = files + 1, size_bytes + done.entry.size_bytes
                self._outcome.copied += done.was_copied
        self._outcome.files += files
        if files:
            self._progress.add(files=files, bytes=size_bytes if counts_bytes else 0)


def _attempt(entry: Entry, call: Callable[[], None]) -> _Done:
    try:
        call()
    except _STOPS:
        raise
    except ConflictError as err:
        return _Done(entry, _in_the_way(err))
    except VdsError as err:
        return _Done(entry, err.message)
    return _Done(entry)


def _attempt_copy(entry: Entry, copy: Callable[[], None]) -> _Done:
    try:
        copy()
    except UnavailableError:
        raise
    except ConflictError as err:
        return _Done(entry, _in_the_way(err))
    except VdsError:
        # A rule of the account may keep the service from reading its own blobs. The bytes come by here then, and if it was
        # something else, that shows once more.
        return _Done(entry, was_refused=True)
    return _Done(entry, was_copied=True)


def _in_the_way(err: ConflictError) -> str:
    return f"somebody else put or changed something there meanwhile: {err.message}"


def _read_all(driver: BlobDriver, plan: Iterable[RangeRead]) -> Generator[tuple[bytes, Buffer | str], None, None]:
    """Yield (raw digest, bytes) of every object of a plan, or the reason why it cannot be had."""
    results = parallel_map(
        partial(_read, driver),
        plan,
        workers=READ_LIMITS.workers,
        weigh=lambda read: read.length_bytes,
        in_flight_bytes_max=READ_LIMITS.in_flight_bytes_max,
        ordered=False,
    )
    with closing(results):
        for found in results:
            yield from found


def _read(driver: BlobDriver, read: RangeRead) -> Sequence[tuple[bytes, Buffer | str]]:
    try:
        return read_range(driver, read)
    except CorruptionError:
        # One damaged member must not take its neighbours along: each is read by itself, so that exactly the bad ones fail.
        return [(item.digest_raw, _read_one(driver, item)) for item in read.members]


def _read_one(driver: BlobDriver, item: Wanted) -> bytes | str:
    try:
        return read_object(driver, item.placement, item.digest_raw, limits=Limits(workers=1))
    except CorruptionError as err:
        return err.message
