"""Reading objects out of blobs, every one checked against its digest: wrong bytes are never returned."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from blake3 import blake3

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import Placement
from vds.errors import CorruptionError, NotFoundError
from vds.model.digest import Digest
from vds.pipeline import TRANSFER_LIMITS, Limits, parallel_map

READ_BYTES_MAX = 8 * 1024 * 1024
GAP_BYTES_MAX = 64 * 1024  # less to read for nothing than a request takes, at 100 MB/s and a millisecond each


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object to be read."""

    digest_raw: bytes
    placement: Placement


@dataclass(frozen=True, slots=True)
class RangeRead:
    """One request: a range of a blob and the objects in it, by offset."""

    key: str
    offset_bytes: int
    length_bytes: int
    members: tuple[Wanted, ...]


def plan_reads(
    wanted: Iterable[Wanted], *, gap_bytes_max: int = GAP_BYTES_MAX, read_bytes_max: int = READ_BYTES_MAX
) -> list[RangeRead]:
    """Return the requests that read these objects, adjacent and near ones of a blob in one.

    No request is longer than `read_bytes_max`, but for an object that is. Objects of no bytes need no request and are left out.
    Blobs come in the order in which they are first wanted, ranges of a blob by offset.
    """
    by_key: dict[str, list[Wanted]] = {}
    for item in wanted:
        if item.placement.length_bytes:
            by_key.setdefault(item.placement.key, []).append(item)
    return [read for members in by_key.values() for read in _plan_blob(members, gap_bytes_max, read_bytes_max)]


def _plan_blob(members: list[Wanted], gap_bytes_max: int, read_bytes_max: int) -> Iterator[RangeRead]:
    members.sort(key=lambda item: item.placement.offset_bytes)
    group: list[Wanted] = []
    start = end = 0
    for item in members:
        offset = item.placement.offset_bytes
        item_end = offset + item.placement.length_bytes
        if group and (offset - end > gap_bytes_max or max(end, item_end) - start > read_bytes_max):
            yield RangeRead(group[0].placement.key, start, end - start, tuple(group))
            group = []
        if not group:
            start = end = offset
        group.append(item)
        end = max(end, item_end)
    if group:
        yield RangeRead(group[0].placement.key, start, end - start, tuple(group))


def read_range(driver: BlobDriver, read: RangeRead) -> list[tuple[bytes, memoryview]]:
    """Make one planned request and return (raw digest, bytes) of each object in it.

    Raises:
        CorruptionError: an object is not what its digest names, or its blob is gone or too short.
    """
    if read.length_bytes > READ_BYTES_MAX and len(read.members) == 1:
        only = read.members[0]
        return [(only.digest_raw, memoryview(read_object(driver, only.placement, only.digest_raw)))]
    return split_range(read, read_piece(driver, read.key, read.offset_bytes, read.length_bytes, read.members[0].digest_raw))


def split_range(read: RangeRead, data: bytes) -> list[tuple[bytes, memoryview]]:
    """Return (raw digest, bytes) of each object in a range that was read, wherever it came from.

    Raises:
        CorruptionError: an object is not what its digest names.
    """
    view = memoryview(data)
    found = []
    for item in read.members:
        start = item.placement.offset_bytes - read.offset_bytes
        body = view[start : start + item.placement.length_bytes]
        _check(item, blake3(body).digest())
        found.append((item.digest_raw, body))
    return found


def read_into(driver: BlobDriver, read: RangeRead, target: memoryview) -> None:
    """Make one planned request into memory of the caller's, as long as the range; what comes is not checked.

    Raises:
        CorruptionError: the blob is gone or too short.
    """
    try:
        driver.read_range_into(read.key, read.offset_bytes, target)
    except NotFoundError as err:
        raise _missing_error(read.key, read.members[0].digest_raw) from err


def read_ranges(
    driver: BlobDriver, plan: Iterable[RangeRead], *, limits: Limits = TRANSFER_LIMITS
) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (raw digest, bytes) of every object of a plan as the requests end, in parallel.

    Raises:
        CorruptionError: as `read_range`; what was yielded before is good.
    """
    results = parallel_map(
        lambda read: read_range(driver, read),
        plan,
        workers=limits.workers,
        weigh=lambda read: read.length_bytes,
        in_flight_bytes_max=limits.in_flight_bytes_max,
        ordered=False,
    )
    return chain.from_iterable(results)


def read_object(driver: BlobDriver, placement: Placement, digest_raw: bytes, *, limits: Limits = TRANSFER_LIMITS) -> bytes:
    """Return the bytes of one object; large ones are read in parallel.

    Raises:
        CorruptionError: they are not what the digest names, or the blob is gone or too short.
    """
    return b"".join(read_chunks(driver, placement, digest_raw, limits=limits))


def read_chunks(
    driver: BlobDriver, placement: Placement, digest_raw: bytes, *, limits: Limits = TRANSFER_LIMITS
) -> Generator[bytes, None, None]:
    """Yield the bytes of one object in order, in pieces of at most 8 MiB that are read in parallel.

    The digest covers the whole object, so a piece must not be believed until the iterator has ended without an error.

    Raises:
        CorruptionError: after the last piece, when the digest does not fit; or the blob is gone or too short.
    """
    hasher = blake3()
    offsets = range(0, placement.length_bytes, READ_BYTES_MAX)

    def read(offset: int) -> bytes:
        length = min(READ_BYTES_MAX, placement.length_bytes - offset)
        return read_piece(driver, placement.key, placement.offset_bytes + offset, length, digest_raw)

    # One piece, or one worker, needs no thread: the way of every small object that is opened by itself.
    pieces = map(read, offsets) if len(offsets) <= 1 or limits.workers == 1 else _in_parallel(read, offsets, limits)
    for piece in pieces:
        hasher.update(piece)
        yield piece
    _check(Wanted(digest_raw, placement), hasher.digest())


def _in_parallel(read: Callable[[int], bytes], offsets: range, limits: Limits) -> Iterator[bytes]:
    return parallel_map(
        read,
        offsets,
        workers=limits.workers,
        in_flight_max=limits.workers * 2,
        weigh=lambda _: READ_BYTES_MAX,
        in_flight_bytes_max=limits.in_flight_bytes_max,
    )


def read_piece(driver: BlobDriver, key: str, offset_bytes: int, length_bytes: int, digest_raw: bytes) -> bytes:
    """Return a range of the blob that holds an object; what comes is not checked.

    Raises:
        CorruptionError: the blob is gone or too short.
    """
    try:
        return driver.read_range(key, offset_bytes, length_bytes)
    except NotFoundError as err:
        raise _missing_error(key, digest_raw) from err


def _missing_error(key: str, digest_raw: bytes) -> CorruptionError:
    return CorruptionError(f"object {Digest.from_raw(digest_raw)} is missing: no blob {key!r}", hint=_HINT)


def _check(item: Wanted, found_raw: bytes) -> None:
    if found_raw != item.digest_raw:
        raise damage_error(item, found_raw)


def damage_error(item: Wanted, found_raw: bytes) -> CorruptionError:
    """Return the error that says what an object's bytes have for a digest instead of the right one."""
    expected, found = Digest.from_raw(item.digest_raw), Digest.from_raw(found_raw)
    return CorruptionError(
        f"object {expected} in blob {item.placement.key!r} is corrupt: expected {expected}, read {found}", hint=_HINT
    )


_HINT = "run: vds fsck"
