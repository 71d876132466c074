"""What digest a file had, by its path, size, mtime, ctime and inode: an unchanged tree is uploaded again without being read.

A row counts only while all five are what they were, and is kept only if a later change must show in them. A file system stamps
with a clock that ticks, so a file that was written in the same tick as it was read can be written again without its stat changing
(git calls such an entry racy). Therefore a row is kept only if both times are at least one tick older than the moment its reading
began: whatever is written from then on gets another ctime, which no program can set. What a tick is:
- 20 ms: two of the slowest clock that Linux stamps files with (100 Hz), more than one of Windows or of exFAT;
- 2 s for a time without a sub-second part: FAT, some servers, ext3. Archives make such mtimes too, but mostly old ones.

A file server stamps by its own clock. Ahead of ours, its new files look younger than they are, and are not kept. Behind ours,
they look older: then a second write in the server's same tick as the first one, with our reading in between, would go unnoticed.
A client that shows an old stat shows it without this cache as well.

Not seen, as by every tool that goes by stat: writes through a mapping that was dirty already when the file was read, until the
kernel writes them back; and on Windows, where ctime is the time of creation, a writer that sets the old mtime again.

Guarantees:
- whatever is doubtful (a damaged, foreign or newer file, any difference) is unknown, and never an error;
- an OSError of the cache's own files is logged for debugging, and from then on nothing is known or kept;
- memory is bounded by a few frames, a buffer of added rows and one byte for each row known before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import compress, zip_longest
from pathlib import Path

import xxhash

from vds.files.scan import SourceFile
from vds.files.statframes import (
    FRAME_ROWS,
    RECORD_BYTES,
    STAT_BYTES,
    Frame,
    FrameFile,
    find_frame_file,
    frame_of,
    stat_record,
)
from vds.files.statspool import Spool, adopt_spools, create_spool, merge_frames
from vds.model.batch import batched
from vds.model.digest import DIGEST_SIZE_BYTES

TICK_NS = 20_000_000
COARSE_TICK_NS = 2_000_000_000

_SECOND_NS = 1_000_000_000
_SLACK_NS = 1_000_000  # a sleep is measured by another clock than the files' times
# Added rows go to the spool when there are this many, or when they stand for this much reading: what a kill costs at most.
_BUFFER_ROWS = 16 * FRAME_ROWS
_BUFFER_HASHED_BYTES = 1 << 30
_SAVE_ATTEMPTS = 3
_UNASKED, _SAME, _DIFFERENT = 0, 1, 2
_KEPT = bytes([1, 1, 0]).ljust(256, b"\0")
_KEPT_OF_COMPLETE = bytes([0, 1, 0]).ljust(256, b"\0")

_log = logging.getLogger(__name__)

_Identity = tuple[int, int, int, int]


def open_stat_cache(root: str, directory: Path | None) -> StatCache:
    """Return what is known of the files below `root`; None for a cache that knows nothing and keeps nothing.

    Nothing is written, unless a process that was killed left rows: those are merged in first.

    Args:
        root: a directory, by whatever name; the cache goes by its real path.
        directory: of all caches; made when something is kept.
    """
    cache = StatCache(os.fsencode(os.path.realpath(root)), directory)
    cache.open()
    return cache


def settle_delay_s(files: Sequence[SourceFile], now_ns: int) -> float:
    """Return how long to wait before these files are read, so that their rows may be kept; at most 21 ms.

    0 when all are old enough. A file that would take longer (a coarse file system, a time in the future) is not waited for.
    """
    if not files or _newest(files) <= now_ns - COARSE_TICK_NS:
        return 0.0
    waits = [wait for file in files if 0 < (wait := _settled_ns(file) - now_ns) <= TICK_NS]
    return (max(waits) + _SLACK_NS) / _SECOND_NS if waits else 0.0


def _newest(files: Sequence[SourceFile]) -> int:
    return max(max([file.modified_ns for file in files]), max([file.changed_ns for file in files]))


def _settled_ns(file: SourceFile) -> int:
    return max(stamp + (TICK_NS if stamp % _SECOND_NS else COARSE_TICK_NS) for stamp in (file.modified_ns, file.changed_ns))


class StatCache:
    """The cache of one scanned root, for one upload. Not for several threads at a time."""

    def __init__(self, root: bytes, directory: Path | None) -> None:
        self._root = root
        self._key = xxhash.xxh3_128_hexdigest(root)
        self._directory = None if directory is None else directory / "stat"
        self._known: FrameFile | None = None
        self._spool: Spool | None = None
        self._added: dict[str, bytes] = {}
        self._added_hashed_bytes = 0
        self._forget_known()

    def _forget_known(self) -> None:
        if self._known is not None:
            self._known.close()
        self._known = None
        self._frames: Iterator[Frame] = iter(())
        self._marks: list[bytearray] = []
        self._is_foreign = False
        self._last = ""
        self._positions: dict[str, int] = {}
        self._records = b""

    def open(self) -> None:
        """Look for what earlier uploads kept; called once, by `open_stat_cache`."""
        if self._directory is None:
            return
        try:
            self._adopt(self._directory)
        except OSError as err:
            # What is in the way of writing need not be in the way of reading.
            _log.debug("stat cache: rows of an earlier upload were left as they are: %s", err)
        try:
            self._open_known()
        except OSError as err:
            self._give_up(err)

    def find(self, files: Sequence[SourceFile]) -> list[bytes | None]:
        """Return for each file its digest, or None when it is not known.

        The paths ascend, within a call and from one to the next, as the scan yields them; a file out of order is unknown.
        """
        found: list[bytes | None] = []
        add, positions, records, last = found.append, self._positions, self._records, self._last
        marks = self._marks[-1] if self._marks else bytearray()
        for file in files:
            path = file.path
            while path > last and self._next_frame():
                positions, records, last, marks = self._positions, self._records, self._last, self._marks[-1]
            position = positions.get(path)
            if position is None:
                add(None)
                continue
            start = position * RECORD_BYTES
            middle = start + STAT_BYTES
            if records[start:middle] == stat_record(file):
                marks[position] = _SAME
                add(records[middle : start + RECORD_BYTES])
            else:
                marks[position] = _DIFFERENT
                add(None)
        return found

    def _next_frame(self) -> bool:
        frame = next(self._frames, None)
        if frame is None:
            return False
        self._positions = {path: position for position, path in enumerate(frame.paths())}
        self._records = frame.records
        self._last = frame.last
        self._marks.append(bytearray(frame.row_count))
        return True

    def add(self, files: Sequence[SourceFile], digests: Sequence[bytes], read_at_ns: int) -> None:
        """Note the digests of files that were read; in any order.

        Args:
            files: as they were scanned, and as they still were after their reading.
            digests: one for each file, 32 bytes.
            read_at_ns: a time at which none of them had been opened for reading yet; rows of files that were written to less
                than a tick before it are not kept.
        """
        if self._directory is None or not files:
            return
        are_old = _newest(files) <= read_at_ns - COARSE_TICK_NS
        for file, digest in zip(files, digests, strict=True):
            assert len(digest) == DIGEST_SIZE_BYTES, digest
            if (are_old or _settled_ns(file) <= read_at_ns) and (stat := stat_record(file)):
                self._added[file.path] = stat + digest
                self._added_hashed_bytes += file.size_bytes
        if len(self._added) >= _BUFFER_ROWS or self._added_hashed_bytes >= _BUFFER_HASHED_BYTES:
            self._spool_added()

    def _spool_added(self) -> None:
        assert self._directory is not None
        try:
            if self._spool is None:
                self._spool = create_spool(self._directory, self._key, self._root)
            self._spool.add(sorted(self._added.items()))
        except OSError as err:
            self._give_up(err)
        self._added.clear()
        self._added_hashed_bytes = 0

    def save(self, *, is_complete: bool) -> None:
        """Make durable what was added; nothing is written when there is nothing to change.

        Rows that another process saved meanwhile stay. May be called more than once; only the first time drops rows.

        Args:
            is_complete: every file below the root was asked for, so rows of other paths are dropped.
        """
        if self._directory is None:
            return
        is_to_drop = is_complete and self._has_unasked()
        is_damaged = self._is_foreign or (self._known is not None and self._known.is_damaged)
        if not (self._added or self._spool is not None or is_damaged or is_to_drop):
            return
        try:
            self._replace(self._directory, _KEPT_OF_COMPLETE if is_complete else _KEPT)
        except OSError as err:
            self._give_up(err)
        self._drop_added()
        self._forget_known()

    def close(self) -> None:
        """Drop what was not saved; idempotent. Nothing is known or kept from then on."""
        self._drop_added()
        self._forget_known()
        self._directory = None

    def _give_up(self, err: OSError) -> None:
        _log.debug("stat cache: not used: %s", err)
        self.close()

    def _drop_added(self) -> None:
        self._added.clear()
        self._added_hashed_bytes = 0
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    @property
    def _path(self) -> Path:
        assert self._directory is not None
        return self._directory / f"{self._key}.stat"

    def _adopt(self, directory: Path) -> None:
        adopted = adopt_spools(directory, self._key, self._root)
        is_merged = False
        try:
            if any(spool.sources() for spool in adopted):
                self._replace(directory, _KEPT, adopted)
            is_merged = True
        finally:
            for spool in adopted:
                spool.close(is_kept=not is_merged)

    def _open_known(self) -> None:
        try:
            self._known = find_frame_file(self._path, self._root)
        except FileNotFoundError:
            return
        if self._known is None:
            self._is_foreign = True
        else:
            self._frames = self._known.frames()

    def _has_unasked(self) -> bool:
        return any(_UNASKED in marks for marks in self._marks) or self._next_frame()

    def _replace(self, directory: Path, kept: bytes, adopted: Sequence[Spool] = ()) -> None:
        for attempt in range(1, _SAVE_ATTEMPTS + 1):
            seen = _identity(self._path)
            is_ours = self._known is not None and _identity(self._known.descriptor) == seen
            theirs = None if is_ours or seen is None else find_frame_file(self._path, self._root)
            # A spool again: if this process is killed here, the next one adopts what was merged so far.
            target = create_spool(directory, self._key, self._root)
            is_placed = False
            try:
                for frame in merge_frames(self._sources(kept, theirs, adopted)):
                    target.file.append(frame)
                target.file.sync()
                # If another process saved meanwhile, its rows are merged too, rather than lost.
                if attempt == _SAVE_ATTEMPTS or _identity(self._path) == seen:
                    for file in (target.file, theirs, self._known):  # Windows replaces no open file
                        if file is not None:
                            file.close()
                    os.replace(target.path, self._path)
                    is_placed = True
                    return
            finally:
                target.close(is_kept=is_placed)
                if theirs is not None:
                    theirs.close()

    def _sources(self, kept: bytes, theirs: FrameFile | None, adopted: Sequence[Spool]) -> Iterator[Iterator[Frame]]:
        if self._known is not None:
            yield self._kept_frames(self._known, kept)
        if theirs is not None:
            yield theirs.frames()
        for spool in (*adopted, *([] if self._spool is None else [self._spool])):
            yield from spool.sources()
        if self._added:
            yield (frame_of(rows) for rows in batched(sorted(self._added.items()), FRAME_ROWS))

    def _kept_frames(self, known: FrameFile, kept: bytes) -> Iterator[Frame]:
        for frame, marks in zip_longest(known.frames(), self._marks):
            if frame is None:  # it was sound when it was asked for, and is no more
                return
            is_kept = (marks or bytearray(frame.row_count)).translate(kept)
            if 0 not in is_kept:
                yield frame
            elif 1 in is_kept:
                yield frame_of(list(compress(frame.rows(), is_kept)))


def _identity(file: Path | int) -> _Identity | None:
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
