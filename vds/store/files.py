"""The files of a pinned version: listed, and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from vds.engine.objectfile import VersionFile
from vds.engine.view import list_children, list_rows
from vds.errors import EntryNotFoundError, InvalidInputError
from vds.model.digest import Digest
from vds.model.entry import Entry, EntryRow
from vds.model.manifest import ContentHasher
from vds.model.path import EntryPath, directory_path, entry_path, join, relative_to
from vds.ops.stream import Shard, stream
from vds.store.facts import VersionFacts
from vds.store.pinned import Pinned


class VersionFiles(VersionFacts):
    """A pinned version, seen from a directory: its files. Paths are relative to that directory."""

    @classmethod
    def _seen(cls, pinned: Pinned, path: str) -> Self:
        version = cls.__new__(cls)
        VersionFacts.__init__(version, pinned, path)
        return version

    @property
    def file_count(self) -> int:
        """How many files it has, below the directory it is seen from."""
        return self._pinned.view.measure(self._path)[0] if self._path else self._row.file_count

    @property
    def size_bytes(self) -> int:
        """The sum of their sizes."""
        return self._pinned.view.measure(self._path)[1] if self._path else self._row.size_bytes

    @property
    def content_digest(self) -> Digest:
        """Equal exactly when paths, bytes and modes are; computed on demand, and kept for a whole version by who may write."""
        row = self._row
        if row.content_digest is not None and not self._path:
            return Digest.from_raw(row.content_digest)
        hasher = ContentHasher()
        for entry in self._rows(self._path):
            hasher.add(relative_to(entry.path, self._path), entry.digest, entry.mode)
        digest = hasher.digest()
        if not self._path:
            self._pinned.keep_content_digest(digest)
        return Digest.from_raw(digest)

    def at(self, path: str) -> Self:
        """Return the same version seen from a directory (or a file).

        Raises:
            EntryNotFoundError: there is nothing at `path`.
        """
        place = join(self._path, directory_path(path))
        if place and not self._pinned.view.has(place):
            raise self._nothing_at(path)
        return self._seen(self._pinned, place)

    def entries(self, path: str = "") -> Iterator[Entry]:
        """Yield the files at or below `path`, by path; lazy, and empty when there is nothing."""
        return (self._entry(row) for row in self._rows(join(self._path, directory_path(path))))

    def children(self, path: str = "") -> list[tuple[str, Entry | None]]:
        """Return what is directly below a directory, by path: files with their entries, directories with None.

        It costs the children, not the files below them; a file, or nothing, has none.
        """
        place = join(self._path, directory_path(path))
        return [
            (relative_to(found, self._path), None if row is None else self._entry(row))
            for found, row in list_children(self._pinned.view, place)
        ]

    def entry(self, path: str) -> Entry:
        """Return one file.

        Raises:
            EntryNotFoundError: there is no file at `path`.
        """
        return self._entry(self._get_row(path))

    def exists(self, path: str) -> bool:
        """Return whether `path` is a file or a directory here."""
        place = directory_path(path)
        view = self._pinned.view
        return view.has(join(self._path, place)) or bool(view.find(self._itself(place)))

    def open(self, path: str, mode: str = "rb") -> VersionFile:
        """Open one file for reading: binary, seekable, buffered, with read-ahead; for text wrap it in io.TextIOWrapper.

        A random read is one request. Every byte was checked before it is handed out: ranges against the checks of their pieces,
        a file that is read from start to end against its digest.

        Raises:
            EntryNotFoundError: there is no file at `path`.
            CorruptionError: out of its `read`: the stored bytes are not what they must be.
        """
        if mode != "rb":
            raise InvalidInputError(f"mode {mode!r} is not 'rb': a version is read-only", hint="for text: io.TextIOWrapper(f)")
        row = self._get_row(path)
        return self._pinned.reader.open(row, row.path)

    def read_bytes(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return the bytes of one file, or `size` of them from `offset` (fewer at its end), checked, with one request.

        Raises:
            EntryNotFoundError: there is no file at `path`.
            CorruptionError: its stored bytes are not what they must be.
        """
        if offset < 0 or (size is not None and size < 0):
            raise InvalidInputError(f"offset {offset} and size {size} must not be negative")
        row = self._get_row(path)
        with self._pinned.listing_missing(lambda: [row]):
            return self._pinned.reader.read_bytes(row, offset, size)

    def read_text(self, path: str, encoding: str = "utf-8") -> str:
        """Return one file as text."""
        return self.read_bytes(path).decode(encoding)

    def read_many(self, paths: Iterable[str]) -> Iterator[tuple[Entry, bytes]]:
        """Yield these files with their bytes, in their order; those near each other in a pack come with one request.

        Raises:
            EntryNotFoundError: there is no file at one of the paths; nothing was yielded.
            CorruptionError: stored bytes are not what they must be; what was yielded before is good.
        """
        rows = self._get_rows(list(paths))
        return self._entries_of(self._pinned.reader.read_many(rows), lambda: rows)

    def stream(
        self, path: str = "", *, shard: tuple[int, int] = (0, 1), shuffle_seed: int | None = None
    ) -> Iterator[tuple[Entry, bytes]]:
        """Yield every file at or below `path` with its bytes, in the order in which they are stored, each range fetched once.

        The first call for a version on a machine writes the list of its files to the cache.

        Args:
            path: a directory or a file; all by default.
            shard: `(k, n)`: only the k-th of n shares, from 0. With one seed, n readers get every file exactly once.
            shuffle_seed: mixes the files: the stored ranges at random, and files within a window of some thousands. The same
                seed gives the same order everywhere; take another for each epoch.

        Raises:
            EntryNotFoundError: there is nothing at `path`.
            InvalidInputError: `shard` is not a share.
            CorruptionError: stored bytes are not what they must be; what was yielded before is good.
        """
        parsed = Shard.parse(shard)
        view = self.at(path) if path else self
        manifest = self._pinned.need_manifest()
        files = stream(self._pinned.reader, manifest, view._path, shard=parsed, shuffle_seed=shuffle_seed)
        return self._entries_of(files, lambda: self._rows(view._path))

    def fetch(self, path: str = "") -> Path:
        """Return a read-only local file with the bytes of one file, for libraries that want a path.

        It is in the cache of this machine, shared by all processes, and stays there as long as this process lives.

        Raises:
            EntryNotFoundError: there is no file at `path`.
            CorruptionError: its stored bytes are not what they must be.
            InvalidInputError: this machine has no cache, or it cannot take the file.
        """
        row = self._get_row(path)
        with self._pinned.listing_missing(lambda: [row]):
            return self._pinned.reader.fetch(row)

    def _rows(self, place: str) -> Iterator[EntryRow]:
        return list_rows(self._pinned.view, place)

    def _entries_of(
        self, files: Iterator[tuple[EntryRow, bytes]], rows: Callable[[], Iterable[EntryRow]]
    ) -> Iterator[tuple[Entry, bytes]]:
        with self._pinned.listing_missing(rows):
            for row, body in files:
                yield self._entry(row), body

    def _get_row(self, path: str) -> EntryRow:
        return self._get_rows([path])[0]

    def _get_rows(self, paths: Sequence[str]) -> list[EntryRow]:
        """Return the rows of these paths, in their order.

        Raises:
            EntryNotFoundError: there is no file at one of them.
        """
        places = [self._path if not path and self._path else join(self._path, entry_path(path)) for path in paths]
        own = {name for path in paths for name in self._itself(path)}
        found = self._pinned.find([*places, *own])
        rows = []
        for path, place in zip(paths, places, strict=True):
            row = found.get(place) or next((found[name] for name in self._itself(path) if name in found), None)
            if row is None:
                raise self._nothing_at(path)
            rows.append(row)
        return rows

    def _itself(self, path: str) -> list[str]:
        """Return the path this is seen from, if `path` can name it: a file is listed under its last segment."""
        return [self._path] if path and self._path.rpartition("/")[2] == path else []

    def _nothing_at(self, path: str) -> EntryNotFoundError:
        return EntryNotFoundError(f"there is no file {path!r} in {self.uri}", hint=f"vds ls {self.namespace}@{self.number}")

    def _rows_of(self, entries: Iterable[Entry]) -> list[EntryRow]:
        """Return entries of this view as rows of the whole version."""
        is_file = bool(self._path) and bool(self._pinned.view.find([self._path]))
        return [
            EntryRow(self._path if is_file else join(self._path, entry.path), entry.digest.raw, entry.size_bytes, 0, 0)
            for entry in entries
        ]

    def _entry(self, row: EntryRow) -> Entry:
        path = EntryPath(row.path) if not self._path else relative_to(row.path, self._path)
        return Entry(path, Digest.from_raw(row.digest), row.size_bytes, row.mode, row.modified_ns)

    def _maybe(self, row: EntryRow | None) -> Entry | None:
        return None if row is None else self._entry(row)
