"""One file of a version as a Python file: seekable, buffered, read lazily in ranges.

Guarantees:
- nothing is requested before something is read; a random read is one request, of the pieces that it touches;
- who reads on gets read-ahead, doubled from request to request up to 32 MiB, larger ones split over parallel requests;
- every byte was checked: a range against the checks of its pieces, and a file read from its start to its end against its digest.

Not for several threads at once, as Python's own files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Protocol

from blake3 import blake3

from vds.errors import CorruptionError
from vds.model.digest import Digest
from vds.pipeline import parallel_map

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 64 * 1024
AHEAD_BYTES_FIRST = 256 * 1024
AHEAD_BYTES_MAX = 32 * 1024 * 1024
REQUEST_BYTES_MAX = 8 * 1024 * 1024
REQUESTS_AT_ONCE = AHEAD_BYTES_MAX // REQUEST_BYTES_MAX


class Source(Protocol):
    """Where the bytes of one file come from, checked."""

    @property
    def size_bytes(self) -> int:
        """How many they are."""
        ...

    @property
    def digest_raw(self) -> bytes:
        """What they are to be."""
        ...

    def find_slice(self, offset_bytes: int, size_bytes: int) -> bytes | None:
        """Return a range with one request; None when only the whole can be checked."""
        ...

    def read_whole(self) -> bytes:
        """Return all of them."""
        ...

    def spool(self) -> IO[bytes] | None:
        """Return a temporary file with all of them; None when they are few enough to be kept in memory."""
        ...


class ObjectFile(io.RawIOBase):
    """The unbuffered file: `readinto` costs a request where what is wanted was not read before."""

    def __init__(self, source: Source, name: str) -> None:
        super().__init__()
        self.name = name
        self.mode = "rb"
        self._source = source
        self._position = 0
        self._window = memoryview(b"")
        self._window_start = 0
        self._ahead_bytes = 0
        self._expected_end = 0
        self._spooled: IO[bytes] | None = None
        self._hasher = blake3()
        self._hashed_bytes = 0

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return self._source.size_bytes

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next read."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it; as with any file it may be behind the end."""
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None:
            raise ValueError(f"whence {whence!r} is not 0, 1 or 2")
        if base + offset < 0:
            raise ValueError(f"the position {base + offset} is before the file's start")
        self._position = base + offset
        return self._position

    @contextmanager
    def expecting(self, end: int) -> Iterator[None]:
        """Read all from here up to `end` within the block, so that one request can bring it; not what is read later."""
        self._expected_end = min(end, self.size)
        try:
            yield
        finally:
            self._expected_end = 0

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` as far as there are bytes, and return how many.

        Raises:
            CorruptionError: the stored bytes are not what they must be.
        """
        self._check_open()
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), self.size - self._position)
        if wanted <= 0:
            return 0
        if not self._window_start <= self._position < self._window_start + len(self._window):
            self._fill(wanted)
        begin = self._position - self._window_start
        data = self._window[begin : begin + wanted]
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return all from here to the end; the whole file is read in parallel and checked against its digest."""
        self._check_open()
        if self._position == 0 and not len(self._window):
            data = self._source.read_whole()
            self._position = self.size
            return data
        left = bytearray(max(0, self.size - self._position))
        done = 0
        with self.expecting(self.size):
            while count := self.readinto(memoryview(left)[done:]):
                done += count
        return bytes(left)

    def close(self) -> None:
        """Let go of what was read ahead; idempotent."""
        self._window = memoryview(b"")
        if self._spooled is not None:
            self._spooled.close()
            self._spooled = None
        super().close()

    def _fill(self, wanted: int) -> None:
        """Get the window that begins at the position, with at least one byte."""
        start = self._position
        is_sequel = start == self._window_start + len(self._window)
        self._ahead_bytes = min(AHEAD_BYTES_MAX, max(AHEAD_BYTES_FIRST, 2 * self._ahead_bytes)) if is_sequel else 0
        length = max(wanted, self._ahead_bytes, self._expected_end - start)
        length = min(length, max(wanted, AHEAD_BYTES_MAX), self.size - start)
        self._window, self._window_start = memoryview(b""), start  # the old one is not held beside the new one
        self._window, self._window_start = self._read(start, length)
        self._hash(self._window_start, self._window)

    def _read(self, start: int, length: int) -> tuple[memoryview, int]:
        if self._spooled is not None:
            return self._read_spooled(self._spooled, start, length), start
        data = self._find_slices(start, length)
        if data is not None:
            return memoryview(data), start
        self._spooled = self._source.spool()
        if self._spooled is not None:
            return self._read_spooled(self._spooled, start, length), start
        return memoryview(self._source.read_whole()), 0

    def _find_slices(self, start: int, length: int) -> bytes | None:
        find = self._source.find_slice
        if length <= REQUEST_BYTES_MAX:
            return find(start, length)
        end = start + length
        cuts = range(start, end, REQUEST_BYTES_MAX)
        reads = parallel_map(lambda cut: find(cut, min(REQUEST_BYTES_MAX, end - cut)), cuts, workers=REQUESTS_AT_ONCE)
        pieces = [piece for piece in reads if piece is not None]
        return b"".join(pieces) if len(pieces) == len(cuts) else None

    def _read_spooled(self, spooled: IO[bytes], start: int, length: int) -> memoryview:
        spooled.seek(start)
        return memoryview(spooled.read(length))

    def _hash(self, start: int, data: memoryview) -> None:
        """Take a window into the digest of the whole, as long as the file is read in order; check it at the end."""
        if start != self._hashed_bytes or self._spooled is not None:
            return
        self._hasher.update(data)
        self._hashed_bytes += len(data)
        if self._hashed_bytes == self.size and (found := Digest.from_raw(self._hasher.digest())).raw != self._source.digest_raw:
            self._window = memoryview(b"")
            digest = Digest.from_raw(self._source.digest_raw)
            raise CorruptionError(f"object {digest} ({self.name!r}) is corrupt: read {found}", hint="run: vds fsck")

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class VersionFile(io.BufferedReader):
    """A file of a version, open for reading; what `Version.open` returns."""

    raw: ObjectFile

    def __init__(self, raw: ObjectFile) -> None:
        super().__init__(raw, BUFFER_BYTES)

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return self.raw.size

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, fewer only at the end; None or a negative size: all that is left."""
        if size is None or size <= BUFFER_BYTES:
            return super().read(-1 if size is None else size)
        with self.raw.expecting(self.tell() + size):
            return super().read(size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer`, fewer only at the end, and return how many bytes came."""
        length = memoryview(buffer).nbytes
        if length <= BUFFER_BYTES:
            return super().readinto(buffer)
        with self.raw.expecting(self.tell() + length):
            return super().readinto(buffer)
