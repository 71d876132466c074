"""The local cache: whole objects, ranges of blobs and manifests of versions, shared by all processes and steps of a machine.

Guarantees:
- an object is whole, and was hashed while it was written; a manifest is whole; a range may be damaged (its readers notice);
- any number of processes may put, read, evict and prune at once, and be killed at any line: what is half written never counts;
- what `hold_object` and `hold_manifest` return stays while the process lives; what `find_*` returns may be evicted at any time;
- the cap counts objects, ranges and manifests together; what was not used for longest goes first;
- a cache that cannot be read or written (full disk, no permission, another user's) is as none, and says so once in the log: it
  is never why a read fails;
- nothing is made before something is put.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from vds.config import cache_bytes_max, cache_directory
from vds.errors import AccessDeniedError, CorruptionError, InvalidInputError, UnavailableError
from vds.files.cachedraft import ObjectDraft
from vds.files.cachelist import CacheListing, VerifyResult, list_cache, verify_cache
from vds.files.cacheranges import RangeFiles
from vds.files.cacheroom import PruneResult, Room
from vds.files.cachetree import MANIFESTS, OBJECTS, UNTOUCHED_NS, CacheTree, NotTakenError, Temporary, mark_used, remove
from vds.files.lease import Lease, lease_of
from vds.files.read import hash_descriptor
from vds.model.digest import DIGEST_SIZE_BYTES, Digest

Buffer = bytes | bytearray | memoryview
Paths = list[Path]

MAKING_LOCK = "making.lock"

_PRUNE_WAIT_S = 60.0
_MAKING_WAIT_S = 60.0
_BUFFER_BYTES = 1 << 20

_log = logging.getLogger(__name__)


def open_cache(environ: Mapping[str, str] | None = None) -> Cache | None:
    """Return the cache of this user on this machine; None without a home directory, or when VDS_CACHE_MAX turns it off.

    Raises:
        InvalidInputError: VDS_CACHE_MAX is no size.
    """
    root = cache_directory(environ)
    if root is None:
        return None
    bytes_max = cache_bytes_max(root, environ)
    return Cache(root, bytes_max=bytes_max) if bytes_max else None


class Cache:
    """The cache in one directory. Thread-safe; usable after a fork; pickled, it is the same directory opened anew.

    Args:
        root: its directory, there or not.
        bytes_max: the cap; None for the default one of the disk.
    """

    def __init__(self, root: str | os.PathLike[str], *, bytes_max: int | None = None) -> None:
        self.root = Path(os.path.abspath(root))
        self.bytes_max = cache_bytes_max(self.root, {}) if bytes_max is None else bytes_max
        self._tree = CacheTree(str(self.root))
        self._room = Room(self._tree, self.bytes_max)
        self._ranges = RangeFiles(self._tree, self._room)
        self._lease: Lease | None = None
        self._said: set[int | str | None] = set()

    def __reduce__(self) -> tuple[Callable[[str, int], Cache], tuple[str, int]]:
        return _reopen, (str(self.root), self.bytes_max)

    def find_object(self, digest_raw: bytes) -> Path | None:
        """Return the file of an object, or None; it may be evicted before it is opened."""
        return self._find(_name(OBJECTS, digest_raw))

    def hold_object(self, digest_raw: bytes) -> Path | None:
        """Return the file of an object, which then stays while this process lives, or None."""
        return self._hold(_name(OBJECTS, digest_raw), digest_raw)

    def put_object(self, digest_raw: bytes, chunks: Iterable[Buffer], *, size_bytes: int) -> Path | None:
        """Write an object while hashing it, and return its file; nothing of it is there before it is whole and synced.

        An object that is there already is returned without asking for the chunks. Large chunks are best: each is one write.

        Returns:
            None when the cache cannot take it; the chunks may then be half used.

        Raises:
            CorruptionError: the chunks have another digest or size; nothing is kept, as with whatever `chunks` raises.
        """
        name = _name(OBJECTS, digest_raw)

        def fill(file: Temporary) -> None:
            hasher = blake3()
            count_bytes = 0
            for chunk in chunks:
                count_bytes += memoryview(chunk).nbytes
                if count_bytes > size_bytes:
                    break
                hasher.update(chunk)
                file.write_all(chunk)
            if hasher.digest() != digest_raw or count_bytes != size_bytes:
                expected, found = Digest.from_raw(digest_raw), Digest.from_raw(hasher.digest())
                length = "more" if count_bytes > size_bytes else str(count_bytes)
                raise CorruptionError(f"object {expected!r} is corrupt: expected {size_bytes} bytes, read {length}, of {found}")

        return self._find(name, size_bytes) or self._put(name, fill, size_bytes)

    def begin_object(self, digest_raw: bytes, size_bytes: int) -> ObjectDraft | None:
        """Begin an object that is written in pieces, beside its file elsewhere; None when the cache has it or cannot take it."""
        name = _name(OBJECTS, digest_raw)
        if self._find(name, size_bytes) is not None:
            return None
        reserved_bytes = 0

        def end(err: NotTakenError | None) -> None:
            self._room.release(size_bytes)
            if err is not None:
                self._say(err, err.reason)

        try:
            self._room.reserve(size_bytes)
            reserved_bytes = size_bytes
            return ObjectDraft(self._tree.temporary(size_bytes), name, end)
        except NotTakenError as err:
            self._room.release(reserved_bytes)
            self._say(err, err.reason)
            return None

    def drop_object(self, digest_raw: bytes) -> None:
        """Remove an object that turned out to be damaged, even if it is held."""
        path = self._tree.at(_name(OBJECTS, digest_raw))
        try:
            size_bytes = os.lstat(path).st_size
        except OSError:
            return  # gone already, or out of reach as the whole cache is
        if remove(path):
            self._room.release(size_bytes)

    def find_range(self, store: str, key: str, offset_bytes: int, length_bytes: int) -> bytes | None:
        """Return bytes of a blob, or None when no range in the cache covers them. They may be wrong: compare their digests."""
        assert offset_bytes >= 0, offset_bytes
        assert length_bytes > 0, length_bytes
        try:
            return self._ranges.find(store, key, offset_bytes, offset_bytes + length_bytes)
        except OSError as err:
            self._say(err, err.errno)
            return None

    def put_range(self, store: str, key: str, offset_bytes: int, data: Buffer) -> bool:
        """Keep bytes of a blob; False when the cache cannot take them, True also when a range there covers them."""
        try:
            self._ranges.put(store, key, offset_bytes, data)
        except NotTakenError as err:
            self._say(err, err.reason)
            return False
        except OSError as err:
            self._say(err, err.errno)
            return False
        return True

    def drop_range(self, store: str, key: str, offset_bytes: int, length_bytes: int) -> None:
        """Remove every range that covers these bytes, which turned out to be damaged."""
        try:
            self._ranges.drop(store, key, offset_bytes, offset_bytes + length_bytes)
        except OSError as err:
            self._say(err, err.errno)

    def find_manifest(self, digest_raw: bytes) -> Path | None:
        """Return the file of a version's manifest, or None; it may be evicted before it is opened."""
        return self._find(_name(MANIFESTS, digest_raw))

    def hold_manifest(self, digest_raw: bytes) -> Path | None:
        """Return the file of a version's manifest, which then stays while this process lives, or None."""
        return self._hold(_name(MANIFESTS, digest_raw), digest_raw)

    def put_manifest(self, digest_raw: bytes, write: Callable[[BinaryIO], None]) -> Path | None:
        """Write the manifest of a version and return its file; nothing of it is there before it is whole and synced.

        Of several processes that want the same one, the first writes it while the others wait for it.

        Args:
            digest_raw: the digest of the version.
            write: writes all of it, into a file that can seek but not read, and leaves it open.

        Returns:
            None when the cache cannot take it.
        """

        def fill(file: Temporary) -> None:
            buffered = io.BufferedWriter(file, _BUFFER_BYTES)
            try:
                write(buffered)
                buffered.detach()
            except BaseException:
                file.close()  # or the buffer would be flushed into it later
                raise

        name = _name(MANIFESTS, digest_raw)
        with ExitStack() as stack:
            try:
                stack.enter_context(self._tree.locked(MAKING_LOCK, wait_s=_MAKING_WAIT_S))
            except OSError as err:  # each for itself then
                _log.debug("%s: %s", self.root, err)
            return self._find(name) or self._put(name, fill, None)

    def manifests(self) -> Paths:
        """Return the files of all manifests, sorted."""
        try:
            return sorted(Path(file.path) for file in self._tree.files(MANIFESTS))
        except OSError as err:
            self._say(err, err.errno)
            return []

    def list(self) -> CacheListing:
        """Return what is in the cache.

        Raises:
            AccessDeniedError: it is another user's.
            UnavailableError: it cannot be read.
        """
        with self._explained():
            return list_cache(self._tree, self.bytes_max)

    def prune(self, to_bytes: int | None = None) -> PruneResult:
        """Remove what was not used for longest until `to_bytes` are left, and what dead writers left behind.

        What living processes hold stays. None stands for the cap.

        Raises:
            InvalidInputError: `to_bytes` is negative.
            AccessDeniedError: it is another user's.
            UnavailableError: it cannot be read, or another process has been evicting from it for a minute.
        """
        if to_bytes is not None and to_bytes < 0:
            raise InvalidInputError(f"a cache cannot be pruned to {to_bytes} bytes", hint="give 0 or more")
        if not self._tree.is_there():
            return PruneResult(0, 0, 0, 0, 0, 0)
        with self._explained():
            result = self._room.evict(self.bytes_max if to_bytes is None else to_bytes, wait_s=_PRUNE_WAIT_S)
        if result is None:
            raise UnavailableError(f"another process is pruning the cache {str(self.root)!r}", hint="run it again")
        return result

    def verify(self) -> VerifyResult:
        """Read everything and remove what is damaged.

        Objects are compared with their digests, manifests with their sums, ranges with their lengths.

        Raises:
            AccessDeniedError: it is another user's.
            UnavailableError: it cannot be read.
        """
        with self._explained():
            return verify_cache(self._tree, self._room.release)

    def _find(self, name: str, size_bytes: int | None = None) -> Path | None:
        path = self._tree.at(name)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return None
        except OSError as err:
            self._say(err, err.errno)
            return None
        if not stat.S_ISREG(found.st_mode) or size_bytes not in (None, found.st_size):
            return None
        if name.startswith(f"{OBJECTS}/") and found.st_mtime_ns != UNTOUCHED_NS:
            return self._look_again(path, name)
        mark_used(path, found)
        return Path(path)

    def _look_again(self, path: str, name: str) -> Path | None:
        """Hash an object that somebody wrote to, maybe by the name of a linked file; it is dropped if it is not what it was."""
        digest_raw = bytes.fromhex(name.rpartition("/")[2])
        try:
            with open(path, "rb") as file:
                is_whole = hash_descriptor(file.fileno()) == digest_raw
            if is_whole:
                os.utime(path, ns=(time.time_ns(), UNTOUCHED_NS))
                return Path(path)
        except OSError as err:
            self._say(err, err.errno)
            return None
        _log.warning("%s was changed: it is dropped, and fetched again when it is needed", path)
        self.drop_object(digest_raw)
        return None

    def _hold(self, name: str, digest_raw: bytes) -> Path | None:
        path = self._find(name)
        if path is None:
            return None
        if self._lease is None:
            self._lease = lease_of(self._tree)
        try:
            return path if self._lease.hold(digest_raw, str(path)) else None
        except OSError as err:
            if err.errno == errno.EROFS:
                return path  # on a disk that cannot be written nothing is evicted
            self._say(err, err.errno)
            return None

    def _put(self, name: str, fill: Callable[[Temporary], None], size_bytes: int | None) -> Path | None:
        """Write a file and return it; `size_bytes` None: known once it is written, and it replaces what is there."""
        reserved_bytes = 0
        is_placed = False
        try:
            if size_bytes is not None:
                self._room.reserve(size_bytes)
                reserved_bytes = size_bytes
            with self._tree.temporary(reserved_bytes) as file:
                fill(file)
                if size_bytes is None:
                    self._room.reserve(written_bytes := os.fstat(file.fileno()).st_size)
                    reserved_bytes = written_bytes
                elif (found := self._find(name, size_bytes)) is not None:
                    return found  # another writer was faster
                file.place(name, sync=True)
                is_placed = True
        except NotTakenError as err:
            self._say(err, err.reason)
            return None
        finally:
            if not is_placed:
                self._room.release(reserved_bytes)
        return Path(self._tree.at(name))

    def _say(self, err: Exception, reason: int | str | None) -> None:
        if reason not in self._said:
            self._said.add(reason)
            _log.warning("the cache %s cannot be used as it should, and is done without: %s", self.root, err)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as err:
            raise AccessDeniedError(
                f"the cache {str(self.root)!r} is not open to this user: {err}", hint="set VDS_CACHE to a directory of your own"
            ) from err
        except OSError as err:
            raise UnavailableError(f"the cache {str(self.root)!r} cannot be used: {err}", hint="look at that directory") from err


def _reopen(root: str, bytes_max: int) -> Cache:
    return Cache(root, bytes_max=bytes_max)


def _name(kind: str, digest_raw: bytes) -> str:
    assert len(digest_raw) == DIGEST_SIZE_BYTES, len(digest_raw)
    text = digest_raw.hex()
    return f"{OBJECTS}/{text[:2]}/{text}" if kind == OBJECTS else f"{MANIFESTS}/{text}"
