"""What is in the local cache, for people, and whether it is still what was put there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from vds.errors import CorruptionError
from vds.files.cachetree import KINDS, MANIFESTS, OBJECTS, PARTIAL, RANGES, READ_FLAGS, CachedFile, CacheTree, parse_range, remove
from vds.files.lease import find_held
from vds.files.localmanifest import LocalManifest
from vds.files.read import hash_descriptor
from vds.model.moment import moment_of
from vds.pipeline import HASH_WORKERS, parallel_map

STAT = "stat"
"""The directory of the stat cache of uploads, which stands beside ours."""

_NOATIME = getattr(os, "O_NOATIME", 0)


@dataclass(frozen=True, slots=True)
class KindListing:
    """The files of one kind.

    Attributes:
        kind: `objects`, `ranges`, `manifests`, `partial` (being written, or left behind), `stat` (the stat cache of uploads).
        files: their number.
        size_bytes: of all.
        oldest_use: when the one that was not used for longest was last used; None when there is none.
        newest_use: when one was used last.
    """

    kind: str
    files: int
    size_bytes: int
    oldest_use: datetime | None
    newest_use: datetime | None


@dataclass(frozen=True, slots=True)
class CacheListing:
    """What is in a cache.

    Attributes:
        root: its directory.
        bytes_max: its cap, which all kinds but `stat` count against.
        kinds: each kind, empty ones too.
        held_files: that living processes hold.
        held_bytes: of those.
    """

    root: str
    bytes_max: int
    kinds: tuple[KindListing, ...]
    held_files: int
    held_bytes: int

    @property
    def size_bytes(self) -> int:
        """What counts against the cap."""
        return sum(kind.size_bytes for kind in self.kinds if kind.kind != STAT)


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What a check of a cache found.

    Attributes:
        files: that were read.
        size_bytes: of those.
        failures: path → what is wrong with it; damaged files are removed, so that they are fetched again.
    """

    files: int
    size_bytes: int
    failures: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether nothing was damaged."""
        return not self.failures


def list_cache(tree: CacheTree, bytes_max: int) -> CacheListing:
    """Return what is in a cache; nothing in it is changed, but that the leases of dead processes are removed.

    Raises:
        OSError: it cannot be read.
    """
    held = find_held(tree) if tree.is_there() else set()
    held_files = held_bytes = 0
    kinds = []
    for kind in (*KINDS, PARTIAL, STAT):
        files = tree.files(kind) if kind in KINDS else tree.loose_files(kind)
        count = size_bytes = 0
        uses: list[int] = []
        for file in files:
            count += 1
            size_bytes += file.size_bytes
            uses = [min(file.used_ns, *uses), max(file.used_ns, *uses)] if uses else [file.used_ns, file.used_ns]
            if kind in (OBJECTS, MANIFESTS) and bytes.fromhex(file.name) in held:
                held_files += 1
                held_bytes += file.size_bytes
        oldest_use, newest_use = (moment_of(used_ns // 1000) for used_ns in uses) if uses else (None, None)
        kinds.append(KindListing(kind, count, size_bytes, oldest_use, newest_use))
    return CacheListing(tree.root, bytes_max, tuple(kinds), held_files, held_bytes)


def verify_cache(tree: CacheTree, release: Callable[[int], None]) -> VerifyResult:
    """Read all of a cache and remove what is damaged, even if it is held: wrong bytes must not be read again.

    Objects are compared with their digests, manifests with the sum they carry. Ranges carry none (their readers compare
    digests): of those only the length is checked. The times of use stay as they are where the system lets us read so.

    Args:
        tree: the cache.
        release: called with the size of each file that is removed.

    Raises:
        OSError: the cache cannot be read.
    """
    files = size_bytes = 0
    failures: dict[str, str] = {}
    found: Iterable[CachedFile] = chain.from_iterable(map(tree.files, KINDS))
    with closing(parallel_map(_check, found, workers=HASH_WORKERS, ordered=False)) as checks:
        for file, fault in checks:
            files += 1
            size_bytes += file.size_bytes
            if fault is None:
                continue
            if remove(file.path):
                release(file.size_bytes)
            elif os.path.lexists(file.path):
                fault += "; it could not be removed"
            failures[file.path] = fault
    return VerifyResult(files, size_bytes, dict(sorted(failures.items())))


def _check(file: CachedFile) -> tuple[CachedFile, str | None]:
    try:
        return file, _CHECKS[file.kind](file)
    except FileNotFoundError:
        return file, None  # evicted meanwhile
    except CorruptionError:
        return file, "its sum is not that of its bytes"
    except OSError as err:
        return file, f"cannot be read: {err.strerror or err}"


def _check_object(file: CachedFile) -> str | None:
    try:
        descriptor = os.open(file.path, READ_FLAGS | _NOATIME)
    except PermissionError:  # O_NOATIME is for the owner alone
        descriptor = os.open(file.path, READ_FLAGS)
    try:
        digest = hash_descriptor(descriptor).hex()
    finally:
        os.close(descriptor)
    return None if digest == file.name else f"expected b3:{file.name}, read b3:{digest}"


def _check_range(file: CachedFile) -> str | None:
    found = parse_range(file.name)
    length = found[1] - found[0] if found else 0
    return None if file.size_bytes == length else f"expected {length} bytes, found {file.size_bytes}"


def _check_manifest(file: CachedFile) -> str | None:
    LocalManifest(file.path)
    return None


_CHECKS: dict[str, Callable[[CachedFile], str | None]] = {
    OBJECTS: _check_object,
    RANGES: _check_range,
    MANIFESTS: _check_manifest,
}
