"""What one version holds, and where: asked of the index, or of the local manifest where this machine has one.

A version never changes, so both say the same for ever; only where bytes lie may change, and the index alone knows that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from vds.blobs.objects import Placement
from vds.engine.doors import Doors
from vds.errors import CorruptionError, UnavailableError, VdsError
from vds.files.localmanifest import LocalManifest, PlacedRow
from vds.index.entries import At, find_entries, is_anything_at, measure, read_page
from vds.index.erasure import find_erased
from vds.index.placements import find_checks, find_placements
from vds.model.checks import Checks
from vds.model.digest import Digest
from vds.model.entry import EntryRow
from vds.model.path import is_under

PAGE_ROWS_FIRST = 64
PAGE_ROWS_MAX = 4096
_LAST = "\U0010ffff"


class View(Protocol):
    """The files of one version. Thread-safe; paths are those of the whole version."""

    def find(self, paths: Iterable[str]) -> dict[str, EntryRow]:
        """Return the files with exactly these paths; those that are not there are left out."""
        ...

    def page(self, path: str, after: str, limit: int) -> list[EntryRow]:
        """Return the next files that are `path` or below it and sort after `after`, at most `limit`, by path."""
        ...

    def has(self, path: str) -> bool:
        """Return whether `path` is a file or a directory."""
        ...

    def measure(self, path: str) -> tuple[int, int]:
        """Return how many files are at or below `path`, and their bytes."""
        ...

    def places(self, rows: Sequence[EntryRow]) -> dict[bytes, Placement]:
        """Return where the bytes of these files lie, by digest; what has no place is left out. Fastest in the order of paths."""
        ...

    def checks(self, row: EntryRow) -> Checks | None:
        """Return the checks of a file's pieces; None when there are none."""
        ...

    def missing(self, row: EntryRow) -> VdsError:
        """Return the error for a file whose bytes lie nowhere."""
        ...


class IndexView:
    """A version as the index has it.

    Args:
        doors: opens the store, when something is asked.
        at: finds out which version it is, likewise.
    """

    def __init__(self, doors: Callable[[], Doors], at: Callable[[], At]) -> None:
        self._doors = doors
        self._at = at

    def find(self, paths: Iterable[str]) -> dict[str, EntryRow]:
        """Return the files with exactly these paths."""
        at = self._at()
        with self._doors().index.read() as connection:
            return find_entries(connection, at, paths)

    def page(self, path: str, after: str, limit: int) -> list[EntryRow]:
        """Return the next files; nobody holds a connection while a slow reader thinks."""
        at = self._at()
        with self._doors().index.read() as connection:
            return read_page(connection, at, path, after, limit=limit)

    def has(self, path: str) -> bool:
        """Return whether `path` is a file or a directory."""
        at = self._at()
        with self._doors().index.read() as connection:
            return is_anything_at(connection, at, path)

    def measure(self, path: str) -> tuple[int, int]:
        """Return how many files are at or below `path`, and their bytes."""
        at = self._at()
        with self._doors().index.read() as connection:
            return measure(connection, at, path)

    def places(self, rows: Sequence[EntryRow]) -> dict[bytes, Placement]:
        """Return where the bytes lie now."""
        doors = self._doors()
        with doors.index.read() as connection:
            found = find_placements(connection, doors.store.id, {row.digest for row in rows})
        return {digest: Placement(row.key, row.offset_bytes, row.length_bytes) for digest, row in found.items()}

    def checks(self, row: EntryRow) -> Checks | None:
        """Return the checks of a file's pieces."""
        doors = self._doors()
        with doors.index.read() as connection:
            return find_checks(connection, doors.store.id, [row.digest]).get(row.digest)

    def missing(self, row: EntryRow) -> VdsError:
        """Return the error for a file whose bytes lie nowhere: it was erased, or the index is damaged."""
        try:
            doors = self._doors()
            with doors.index.read() as connection:
                erased = find_erased(connection, doors.store.id, [row.digest]).get(row.digest)
        except UnavailableError:  # what is known without it must do
            erased = None
        return missing_error(row) if erased is None else erased.error(row.path)


def missing_error(row: EntryRow) -> CorruptionError:
    """Return the error for a file whose object has no place, and was not erased."""
    return CorruptionError(
        f"{row.path!r}: the index has no place of {row.size_bytes} bytes for object {Digest.from_raw(row.digest)}",
        hint="run: vds fsck",
    )


class LocalView:
    """A version as the local manifest has it: no connection is made."""

    def __init__(self, manifest: LocalManifest) -> None:
        self.manifest = manifest

    def find(self, paths: Iterable[str]) -> dict[str, EntryRow]:
        """Return the files with exactly these paths."""
        found = {path: self.manifest.find(path) for path in paths}
        return {path: placed.entry for path, placed in found.items() if placed is not None}

    def page(self, path: str, after: str, limit: int) -> list[EntryRow]:
        """Return the next files."""
        return [placed.entry for placed, _ in zip(self.manifest.rows(path, after), range(limit), strict=False)]

    def has(self, path: str) -> bool:
        """Return whether `path` is a file or a directory."""
        return self.manifest.has(path)

    def measure(self, path: str) -> tuple[int, int]:
        """Return how many files are at or below `path`, and their bytes."""
        return self.manifest.measure(path)

    def places(self, rows: Sequence[EntryRow]) -> dict[bytes, Placement]:
        """Return where the bytes lay when the manifest was made."""
        found: dict[bytes, Placement] = {}
        placed: PlacedRow | None = None
        following: Iterator[PlacedRow] = iter(())
        for row in rows:
            placed = next(following, None)
            if placed is None or placed.entry.path != row.path:
                following = self.manifest.rows("", row.path)
                placed = self.manifest.find(row.path)
            if placed is not None and placed.key is not None:
                found[row.digest] = Placement(placed.key, placed.offset_bytes, placed.entry.size_bytes)
        return found

    def checks(self, row: EntryRow) -> Checks | None:
        """Return the checks of a file's pieces."""
        return self.manifest.find_checks(row.path)

    def missing(self, row: EntryRow) -> VdsError:
        """Return the error for a file whose bytes lie nowhere."""
        return missing_error(row)


def list_rows(view: View, path: str = "") -> Iterator[EntryRow]:
    """Yield the files that are `path` or below it, by path."""
    if isinstance(view, LocalView):
        yield from (placed.entry for placed in view.manifest.rows(path))
        return
    after = ""
    while page := view.page(path, after, PAGE_ROWS_MAX):
        yield from page
        after = page[-1].path


def list_children(view: View, path: str) -> Iterator[tuple[str, EntryRow | None]]:
    """Yield what is directly below a directory, by path: a file with its row, a directory with None.

    What lies below a directory is skipped, not read: it costs the children, however many files there are.
    """
    prefix = f"{path}/" if path else ""
    after, limit = "", PAGE_ROWS_FIRST
    while page := view.page(path, after, limit):
        seen = 0
        after = page[-1].path
        directory = ""
        for row in page:
            if not row.path.startswith(prefix):
                continue  # a file of this very path: not below it
            name, slash, _ = row.path[len(prefix) :].partition("/")
            if not slash:
                seen += 1
                yield row.path, row
            elif prefix + name != directory:
                seen += 1
                directory = prefix + name
                yield directory, None
        if directory and is_under(after, directory):
            after = f"{directory}/{_LAST}"
        # Files side by side want long pages; directories, of which one row is enough, want short ones.
        limit = min(PAGE_ROWS_MAX, limit * 4) if seen > len(page) // 2 else max(1, limit // 4)
