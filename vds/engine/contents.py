"""The bytes of objects, read through the cache of this machine: nothing is handed out that was not checked.

Small objects are kept as they came, in ranges of their pack; each is held against its digest whenever it is read, so a damaged
cache costs a request, never a wrong byte. Large ones are files, held against their digest when they were written, and whenever
they are read: whole against it again, in ranges against the checks of their pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from vds.blobs.driver import BlobDriver
from vds.blobs.packs import MEMBER_BYTES_END
from vds.blobs.reads import READ_BYTES_MAX, RangeRead, Wanted, read_chunks, read_object, read_piece, split_range
from vds.errors import CorruptionError
from vds.files.cache import Cache
from vds.model.checks import Checks, find_damage, is_whole
from vds.model.digest import EMPTY_RAW, Digest
from vds.pipeline import TRANSFER_LIMITS, Limits

KEPT_RANGE_BYTES_MIN = 64 * 1024
"""Shorter ranges of random reads are not kept: a file for each would cost the cache more than it saves."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Where objects are read from.

    Attributes:
        driver: reads blobs.
        cache: None where this machine has none.
        store_uid: whose keys these are.
    """

    driver: BlobDriver
    cache: Cache | None
    store_uid: str

    def read_members(self, read: RangeRead, *, keeps_all: bool = False) -> list[tuple[bytes, memoryview]]:
        """Make one planned request, unless the cache has what it asks for, and return (raw digest, bytes) of each object.

        Args:
            read: as it was planned.
            keeps_all: keep short ranges as well: who reads a whole version wants to find all of it again.

        Raises:
            CorruptionError: an object is not what its digest names, or its blob is gone or too short.
        """
        if read.length_bytes >= MEMBER_BYTES_END and len(read.members) == 1:
            only = read.members[0]
            return [(only.digest_raw, memoryview(self.read_whole(only, limits=Limits(1, TRANSFER_LIMITS.in_flight_bytes_max))))]
        cached = self._find_range(read)
        if cached is not None:
            return cached
        data = read_piece(self.driver, read.key, read.offset_bytes, read.length_bytes, read.members[0].digest_raw)
        found = split_range(read, data)
        if self.cache is not None and (keeps_all or read.length_bytes >= KEPT_RANGE_BYTES_MIN):
            self.cache.put_range(self.store_uid, read.key, read.offset_bytes, data)
        return found

    def read_whole(self, item: Wanted, *, limits: Limits = TRANSFER_LIMITS) -> bytes:
        """Return the bytes of one object.

        Raises:
            CorruptionError: they are not what the digest names, or the blob is gone or too short.
        """
        if item.digest_raw == EMPTY_RAW:
            return b""
        if self.cache is not None:
            path = self.cache.find_object(item.digest_raw)
            if path is not None and (body := self._read_kept(item, path)) is not None:
                return body
            place = item.placement
            if place.length_bytes < MEMBER_BYTES_END:
                kept = self._find_range(RangeRead(place.key, place.offset_bytes, place.length_bytes, (item,)))
                if kept is not None:
                    return bytes(kept[0][1])
        return read_object(self.driver, item.placement, item.digest_raw, limits=limits)

    def read_slice(self, item: Wanted, checks: Callable[[], Checks | None], offset_bytes: int, size_bytes: int) -> bytes | None:
        """Return a range of a large object, with one request; None when nothing but the whole can be checked.

        Args:
            item: the object.
            checks: finds the checks of its pieces.
            offset_bytes: within the object, as the range's end is.
            size_bytes: at least 1.

        Raises:
            CorruptionError: a piece is not what its check says, or the blob is gone or too short.
        """
        if item.placement.length_bytes < MEMBER_BYTES_END:
            return None
        found = checks()
        if found is None or not is_whole(found, item.placement.length_bytes):
            return None
        begin = offset_bytes // found.piece_bytes * found.piece_bytes
        end = min(-(-(offset_bytes + size_bytes) // found.piece_bytes) * found.piece_bytes, item.placement.length_bytes)
        data = self._find_pieces(item, found, begin, end)
        if data is None:
            place = item.placement
            data = read_piece(self.driver, place.key, place.offset_bytes + begin, end - begin, item.digest_raw)
            damage = find_damage(found, begin, data)
            if damage is not None:
                raise CorruptionError(
                    f"object {Digest.from_raw(item.digest_raw)} in blob {place.key!r} is corrupt: "
                    f"its piece at byte {begin + damage} is not what was stored",
                    hint="run: vds fsck",
                )
        return data[offset_bytes - begin : offset_bytes - begin + size_bytes]

    def chunks(self, item: Wanted, *, limits: Limits = TRANSFER_LIMITS) -> Iterator[bytes]:
        """Yield the bytes of one object; they may be believed once the iterator has ended."""
        if item.digest_raw == EMPTY_RAW:
            return
        if item.placement.length_bytes <= READ_BYTES_MAX:
            yield self.read_whole(item)
            return
        yield from read_chunks(self.driver, item.placement, item.digest_raw, limits=limits)

    def has(self, item: Wanted) -> bool:
        """Return whether the cache has an object, so that no request would be made for it."""
        if item.digest_raw == EMPTY_RAW:
            return True
        if self.cache is None:
            return False
        place = item.placement
        return self.cache.find_object(item.digest_raw) is not None or (
            place.length_bytes < MEMBER_BYTES_END
            and self.cache.find_range(self.store_uid, place.key, place.offset_bytes, place.length_bytes) is not None
        )

    def hold(self, item: Wanted) -> Path | None:
        """Return a read-only file of the cache with an object's bytes, which stays while this process lives; None without one.

        Raises:
            CorruptionError: they are not what the digest names, or the blob is gone or too short.
        """
        if self.cache is None:
            return None
        path = self.cache.hold_object(item.digest_raw)
        if path is None and self.cache.put_object(item.digest_raw, self.chunks(item), size_bytes=item.placement.length_bytes):
            path = self.cache.hold_object(item.digest_raw)
        return path

    def _find_range(self, read: RangeRead) -> list[tuple[bytes, memoryview]] | None:
        if self.cache is None:
            return None
        data = self.cache.find_range(self.store_uid, read.key, read.offset_bytes, read.length_bytes)
        if data is None:
            return None
        try:
            return split_range(read, data)
        except CorruptionError:  # in the cache: what the blob has is another matter
            self.cache.drop_range(self.store_uid, read.key, read.offset_bytes, read.length_bytes)
            return None

    def _find_pieces(self, item: Wanted, checks: Checks, begin: int, end: int) -> bytes | None:
        """Return whole pieces out of the cache's file of an object; a damaged file is dropped, as if there were none."""
        path = self.cache.find_object(item.digest_raw) if self.cache is not None else None
        data = _read_file(path, begin, end - begin) if path is not None else None
        if data is None or find_damage(checks, begin, data) is None:
            return data
        assert self.cache is not None
        self.cache.drop_object(item.digest_raw)
        return None

    def _read_kept(self, item: Wanted, path: Path) -> bytes | None:
        try:
            body = path.read_bytes()
        except OSError:
            return None  # evicted, or unreadable: as if it were not there
        if blake3(body).digest() == item.digest_raw:
            return body
        assert self.cache is not None
        self.cache.drop_object(item.digest_raw)
        return None


def _read_file(path: Path, offset_bytes: int, size_bytes: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            file.seek(offset_bytes)
            data = file.read(size_bytes)
    except OSError:
        return None
    return data if len(data) == size_bytes else None
