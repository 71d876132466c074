"""Sorted runs of rows: spooled to a file while they are found, adopted from one that a dead process left, and merged.

A spool is locked while its process lives. An adopter takes the lock first, so each dead spool is merged by one process at a
time; but nothing depends on that. A row says what content a stat stood for, whoever wrote it, so one that is merged twice does no
harm. A spool that is unlinked while it is written to stays readable to its writer (POSIX), or cannot be unlinked (Windows).
"""

from __future__ import annotations

import os
import secrets
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

from vds.files.lock import is_abandoned, try_lock
from vds.files.statframes import (
    FRAME_ROWS,
    FRAME_ROWS_MAX,
    Frame,
    FrameFile,
    Place,
    Row,
    create_frame_file,
    find_frame_file,
    frame_of,
)
from vds.model.batch import batched

_SUFFIX = ".run"
_ADOPTED_MAX = 16  # more are left for the next time: each holds a descriptor and some frames


@dataclass(slots=True)
class _Chain:
    last: str
    places: list[Place]


class Spool:
    """Rows in a file of their own, beside the cache's; they outlive this process when it is killed."""

    def __init__(self, path: Path, file: FrameFile) -> None:
        self.path = path
        self.file = file
        self._chains: list[_Chain] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Append sorted rows.

        Raises:
            OSError: they cannot be written; those of whole frames may be there nevertheless.
        """
        for batch in batched(rows, FRAME_ROWS):
            frame = frame_of(batch)
            self.link(frame, self.file.append(frame))

    def link(self, frame: Frame, place: Place) -> None:
        """Note a frame that stands in the file.

        Frames that follow each other in path order make one chain, so rows that were added nearly in order are merged from few.
        """
        first, last = frame.first, frame.last
        before = max((chain for chain in self._chains if chain.last < first), key=lambda chain: chain.last, default=None)
        if before is None:
            self._chains.append(_Chain(last, [place]))
        else:
            before.last = last
            before.places.append(place)

    def sources(self) -> list[Iterator[Frame]]:
        """Return the rows as iterators of frames, each sorted."""
        return [self._frames(chain.places) for chain in self._chains]

    def _frames(self, places: list[Place]) -> Iterator[Frame]:
        for place in places:
            if (frame := self.file.read(place)) is not None:
                yield frame

    def close(self, *, is_kept: bool = False) -> None:
        """Close the file, and remove it unless its name is another file's by now or still needed; idempotent."""
        self.file.close()
        if not is_kept:
            with suppress(OSError):  # gone already, or held open by a process of Windows
                self.path.unlink()


def create_spool(directory: Path, key: str, root: bytes) -> Spool:
    """Make an empty spool in `directory`, which is made too; nobody but its owner can list or read either.

    Raises:
        OSError: it cannot be made.
    """
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.mkdir(exist_ok=True, mode=0o700)
    path = directory / f"{key}.{secrets.token_hex(8)}{_SUFFIX}"
    file = create_frame_file(path, root)
    try_lock(file.descriptor)  # takes the lock; without one, a kill costs what was spooled, and nothing else
    return Spool(path, file)


def adopt_spools(directory: Path, key: str, root: bytes) -> list[Spool]:
    """Return the spools that processes which are no more left for `root`; the caller closes them.

    Raises:
        OSError: the directory cannot be listed.
    """
    with suppress(FileNotFoundError):
        names = sorted(name for name in os.listdir(directory) if name.startswith(key + ".") and name.endswith(_SUFFIX))
        found = (_adopt(directory / name, root) for name in names)
        return list(islice((spool for spool in found if spool is not None), _ADOPTED_MAX))
    return []


def _adopt(path: Path, root: bytes) -> Spool | None:
    try:
        file = find_frame_file(path, root)
    except OSError:  # adopted by another process meanwhile, or not ours to read
        return None
    if file is None:
        # Cut off within its header, or of another version of vds, whose process may live: time will tell.
        with suppress(OSError):
            if is_abandoned(path.stat().st_mtime):
                path.unlink()
        return None
    if not try_lock(file.descriptor):
        file.close()
        return None
    spool = Spool(path, file)
    for place, frame in file.places():
        spool.link(frame, place)
    return spool


class _Cursor:
    """A sorted source in the middle of a merge."""

    __slots__ = ("_frames", "_paths", "_rows", "_start", "first", "frame", "last")

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self._step()

    def _step(self) -> None:
        self.frame = next(self._frames, None)
        self._rows: list[Row] | None = None
        self._start = 0
        if self.frame is not None:
            self.first, self.last = self.frame.first, self.frame.last

    def take_whole(self, bound: str) -> Frame | None:
        """Return the frame as it is and go on, if none of it was taken and all of it is at most `bound`; else None."""
        frame = self.frame
        if self._start or self.last > bound:
            return None
        self._step()
        return frame

    def take(self, bound: str) -> list[Row]:
        """Return the rows whose paths are at most `bound`, and go on."""
        assert self.frame is not None
        if self._rows is None:
            self._rows = self.frame.rows()
        start = self._start
        if self.last <= bound:
            taken = self._rows[start:]
            self._step()
            return taken
        end = bisect_right(self._rows, bound, start, key=itemgetter(0))
        self._start = end
        self.first = self._rows[end][0]
        return self._rows[start:end]


def merge_frames(sources: Iterable[Iterator[Frame]]) -> Iterator[Frame]:
    """Yield the rows of sorted sources as sorted frames of useful sizes; of rows with one path, that of the last source.

    A frame that nothing is to be mixed into is passed on as it is: an update of a few rows does not decode a million.
    """
    waiting: list[Row] = []
    for piece in _merge(sources):
        if isinstance(piece, Frame):
            # A small frame takes its neighbours in, so that updates do not leave ever smaller ones.
            if piece.row_count >= FRAME_ROWS // 2 and (not waiting or len(waiting) >= FRAME_ROWS // 2):
                if waiting:
                    yield frame_of(waiting)
                    waiting = []
                yield piece
                continue
            waiting += piece.rows()
        else:
            waiting += piece
        while len(waiting) > FRAME_ROWS_MAX:
            yield frame_of(waiting[:FRAME_ROWS])
            del waiting[:FRAME_ROWS]
    if waiting:
        yield frame_of(waiting)


def _merge(sources: Iterable[Iterator[Frame]]) -> Iterator[Frame | list[Row]]:
    cursors = [cursor for cursor in map(_Cursor, sources) if cursor.frame is not None]
    while cursors:
        bound = min([cursor.last for cursor in cursors])
        taking = [cursor for cursor in cursors if cursor.first <= bound]
        if len(taking) > 1:
            rows: dict[str, bytes] = {}
            for cursor in taking:
                rows.update(cursor.take(bound))
            yield sorted(rows.items())
        else:
            whole = taking[0].take_whole(bound)
            yield taking[0].take(bound) if whole is None else whole
        if any(cursor.frame is None for cursor in taking):
            cursors = [cursor for cursor in cursors if cursor.frame is not None]
