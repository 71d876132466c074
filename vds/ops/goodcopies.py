"""Where good bytes can be had to mend a store with: a directory of files, or another container that is a copy of it.

Nothing found here is believed: objects are held against their digests while they are sent, records against the digest they must
have, before anything is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vds.blobs.driver import BlobDriver
from vds.blobs.objects import Placement, object_key, read_record
from vds.blobs.reads import READ_BYTES_MAX, read_chunks
from vds.blobs.records import Gap, list_placements, open_changes
from vds.errors import CorruptionError, NotFoundError
from vds.files.read import hash_descriptor
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.index.placements import PlacementRow
from vds.model.manifest import ChangeRow
from vds.model.version import ChangeListRef
from vds.pipeline import HASH_WORKERS, Limits, parallel_map

_LIMITS = Limits(2, 2 * READ_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class WantedObject:
    """An object that is to be found.

    Attributes:
        place: where the index has it; None when nowhere.
    """

    digest: bytes
    size_bytes: int
    place: PlacementRow | None = None


@dataclass(frozen=True, slots=True)
class GoodObject:
    """An object that was found: where, and its bytes, which end with an error unless they are what the digest names."""

    wanted: WantedObject
    where: str
    open: Callable[[], Iterator[bytes]]


class GoodCopies(Protocol):
    """A place that may have what a store lost."""

    def find_objects(self, wanted: Mapping[bytes, WantedObject]) -> Iterator[GoodObject]:
        """Yield those of these objects that are there, each once."""
        ...

    def find_record(self, key: str, fits: Callable[[bytes], bool]) -> bytes | None:
        """Return the record under this key if it is there and fits."""
        ...

    def open_list(self, changes: ChangeListRef) -> Iterator[ChangeRow] | None:
        """Return the rows of a change list, or None when it is not there; they end with an error unless they are right."""
        ...


class NoCopies:
    """Nowhere."""

    def find_objects(self, wanted: Mapping[bytes, WantedObject]) -> Iterator[GoodObject]:
        """Yield nothing."""
        return iter(())

    def find_record(self, key: str, fits: Callable[[bytes], bool]) -> bytes | None:
        """Return None."""
        return None

    def open_list(self, changes: ChangeListRef) -> Iterator[ChangeRow] | None:
        """Return None."""
        return None


class LocalCopies(NoCopies):
    """The files below a directory, whatever they are called: those of the right size are hashed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find_objects(self, wanted: Mapping[bytes, WantedObject]) -> Iterator[GoodObject]:
        """Yield those of these objects that some file has for its content.

        Raises:
            InvalidInputError: it is no directory.
        """
        sizes = {one.size_bytes for one in wanted.values()}
        left = dict(wanted)
        files = (file for file in scan_directory(self._root, ScanReport()) if file.size_bytes in sizes)
        with closing(parallel_map(_hash, files, workers=HASH_WORKERS)) as hashed:
            for file, digest in hashed:
                one = left.pop(digest, None)
                if one is not None:
                    yield GoodObject(one, file.os_path, lambda path=file.os_path: _read_file(path))  # type: ignore[misc]


def _hash(file: SourceFile) -> tuple[SourceFile, bytes]:
    try:
        descriptor = os.open(file.os_path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return file, b""  # one that cannot be read is no copy
    try:
        return file, hash_descriptor(descriptor)
    except OSError:
        return file, b""
    finally:
        os.close(descriptor)


def _read_file(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(READ_BYTES_MAX):
                yield piece
    except OSError as err:
        raise CorruptionError(f"{path!r} cannot be read: {err.strerror or err}") from err


class ContainerCopies:
    """Another container: a copy of this one, as it was or as it is."""

    def __init__(self, blobs: BlobDriver) -> None:
        self._blobs = blobs

    def find_objects(self, wanted: Mapping[bytes, WantedObject]) -> Iterator[GoodObject]:
        """Yield those that are there: where they are here, under another key of theirs, or in any pack."""
        left: dict[bytes, WantedObject] = {}
        looks = parallel_map(lambda one: (one, self._find_by_key(one)), wanted.values())
        with closing(looks):
            for one, place in looks:
                if place is None:
                    left[one.digest] = one
                else:
                    yield self._good(one, place)
        if left:
            yield from self._find_anywhere(left)

    def _find_by_key(self, one: WantedObject) -> Placement | None:
        if one.place is not None:
            place = Placement(one.place.key, one.place.offset_bytes, one.place.length_bytes)
            if self._is_good(one, place):
                return place
        for blob in self._blobs.list_blobs(object_key(one.digest, "")):
            place = Placement(blob.key, 0, blob.size_bytes)
            if blob.size_bytes == one.size_bytes and self._is_good(one, place):
                return place
        return None

    def _find_anywhere(self, left: dict[bytes, WantedObject]) -> Iterator[GoodObject]:
        for placed in list_placements(self._blobs):
            for member in () if isinstance(placed, Gap) else placed.members:
                one = left.get(member.digest)
                if one is None or member.length_bytes != one.size_bytes:
                    continue
                place = Placement(placed.key, member.offset_bytes, member.length_bytes)
                if self._is_good(one, place):
                    del left[one.digest]
                    yield self._good(one, place)
            if not left:
                return

    def _is_good(self, one: WantedObject, place: Placement) -> bool:
        try:
            for _ in read_chunks(self._blobs, place, one.digest, limits=_LIMITS):
                pass
        except CorruptionError:
            return False
        return True

    def _good(self, one: WantedObject, place: Placement) -> GoodObject:
        where = f"{place.key} of {self._blobs.url}"
        return GoodObject(one, where, lambda: read_chunks(self._blobs, place, one.digest, limits=_LIMITS))

    def find_record(self, key: str, fits: Callable[[bytes], bool]) -> bytes | None:
        """Return the record under this key if it is there and fits."""
        try:
            body = read_record(self._blobs, key)
        except (NotFoundError, CorruptionError):
            return None
        return body if fits(body) else None

    def open_list(self, changes: ChangeListRef) -> Iterator[ChangeRow] | None:
        """Return the rows of a change list, or None when it is not there."""
        if changes.key is None or self._blobs.find_blob(changes.key) is None:
            return None
        return open_changes(self._blobs, changes)
