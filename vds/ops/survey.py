"""Look over a source before anything is read: which files are as the stat cache knows them, and which as the version has them.

Scan, cache and version come sorted by path and are merged as they stream, so a tree of any size is looked over in bounded memory.
A file whose digest the cache knows and whose entry the base version holds already needs nothing at all: it is not even staged.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from vds.engine.doors import Doors
from vds.engine.gather import Found
from vds.files.scan import SourceFile
from vds.files.statcache import StatCache, settle_delay_s
from vds.index.entries import ViewRow, find_view_row, read_view_page
from vds.index.plan import Area
from vds.model.batch import batched
from vds.progress import Progress

BATCH_FILES = 512
AHEAD_BATCHES = 40
"""How far the scan runs ahead of the reading, so that small and middling uploads know their totals early."""


@dataclass
class View:
    """The live entries of one version under a target, read in the order in which the scan meets their paths.

    Attributes:
        missing: called with the paths that the version has and the source lacks; None when nobody asks.
    """

    doors: Doors
    area: Area
    version: int
    target: str
    missing: list[str] | None = None
    _page: list[ViewRow] = field(default_factory=list)
    _position: int = 0
    _after: str = ""
    _is_ended: bool = False

    def take_until(self, last: str | None) -> dict[str, ViewRow]:
        """Return the rows up to the path `last` (all that are left when None) that were not returned before."""
        taken: dict[str, ViewRow] = {}
        while True:
            if self._position == len(self._page):
                if self._is_ended:
                    return taken
                self._turn()
                continue
            row = self._page[self._position]
            if last is not None and row[0] > last:
                return taken
            taken[row[0]] = row
            self._position += 1

    def _turn(self) -> None:
        with self.doors.index.read() as connection:
            rows = read_view_page(connection, self.area, self.version, self.target, self._after)
            if not self._after and self.target and (own := find_view_row(connection, self.area, self.version, self.target)):
                rows.insert(0, own)  # a file where the target directory is to be
        self._is_ended = not rows
        self._page, self._position = rows, 0
        if rows:
            self._after = rows[-1][0]


@dataclass
class Survey:
    """One look over the files of a source.

    Attributes:
        target: the directory in the namespace, or "".
        find_doubtful: told the contents of unchanged files, says which of them must be looked at all the same; None for none.
        unchanged: how many files needed nothing.
        unchanged_bytes: how many bytes they have.
    """

    files: Iterable[SourceFile]
    target: str
    cache: StatCache
    progress: Progress
    view: View | None = None
    find_doubtful: Callable[[Sequence[bytes]], set[bytes]] | None = None
    unchanged: int = 0
    unchanged_bytes: int = 0

    def found(self) -> Iterator[Found]:
        """Yield the files that need something, each with its digest where that is known without reading it."""
        for batch in self._run_ahead():
            digests = self.cache.find(batch)
            found = Found(batch, digests) if self.view is None else self._compare(self.view, batch, digests)
            if found.files:
                if delay_s := settle_delay_s(_unknown(found), time.time_ns()):
                    time.sleep(delay_s)  # at most two ticks of the file system's clock: then what is read now may be remembered
                yield found
        if self.view is not None and self.view.missing is not None:
            self.view.missing.extend(self.view.take_until(None))

    def _run_ahead(self) -> Iterator[list[SourceFile]]:
        """Yield the scan in batches, scanning two for each one that is taken."""
        ahead: deque[list[SourceFile]] = deque()
        for number, batch in enumerate(batched(self.files, BATCH_FILES), 1):
            self.progress.found(len(batch), sum([file.size_bytes for file in batch]))
            ahead.append(batch)
            if len(ahead) > AHEAD_BATCHES or number % 2 == 0:
                yield ahead.popleft()
        self.progress.scanned()
        yield from ahead

    def _compare(self, view: View, files: Sequence[SourceFile], digests: Sequence[bytes | None]) -> Found:
        """Leave out the files that are in the version as they are here."""
        prefix = f"{self.target}/" if self.target else ""
        paths = [prefix + file.path for file in files]
        rows = view.take_until(paths[-1])
        if not rows:
            return Found(files, digests)
        doubtful = self.find_doubtful([row[1] for row in rows.values()]) if self.find_doubtful is not None else set()
        changed: list[SourceFile] = []
        changed_digests: list[bytes | None] = []
        saved_bytes = 0
        for path, file, digest in zip(paths, files, digests, strict=True):
            row = rows.pop(path, None)
            if digest is not None and row is not None and row[1] == digest and row[3] == file.mode and digest not in doubtful:
                saved_bytes += file.size_bytes
                continue
            changed.append(file)
            changed_digests.append(digest)
        if view.missing is not None:
            view.missing.extend(rows)
        same = len(files) - len(changed)
        self.unchanged += same
        self.unchanged_bytes += saved_bytes
        self.progress.hashed(same, saved_bytes, saved_bytes=saved_bytes)
        return Found(changed, changed_digests)


def _unknown(found: Found) -> list[SourceFile]:
    return [file for file, digest in zip(found.files, found.digests, strict=True) if digest is None]
