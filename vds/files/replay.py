"""A version put together from its history, on this machine's disk: what each path is by now, and where its bytes were found.

It is a database of its own in a temporary directory, so memory does not grow with the number of files. Nothing of it is kept. One
thread uses it.
"""

from __future__ import annotations

import errno
import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from vds.errors import NoSpaceError, UnavailableError
from vds.model.batch import batched
from vds.model.content import Member
from vds.model.digest import EMPTY_RAW
from vds.model.entry import EntryRow, NumberedRow
from vds.model.manifest import ChangeRow

_BATCH_ROWS = 4096
_PRAGMAS = (
    "journal_mode=OFF",  # a crash leaves a file that nobody opens again
    "synchronous=OFF",
    "locking_mode=EXCLUSIVE",
    "cache_size=-32768",  # 32 MiB
)
_TABLES = (
    "CREATE TABLE entry (path TEXT PRIMARY KEY, digest BLOB NOT NULL, size_bytes INTEGER NOT NULL, mode INTEGER NOT NULL,"
    " modified_ns INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE object (digest BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, blob INTEGER, offset_bytes INTEGER)"
    " WITHOUT ROWID",
    "CREATE TABLE blob (id INTEGER PRIMARY KEY, key TEXT NOT NULL)",
    "CREATE TABLE avoided (key TEXT PRIMARY KEY) WITHOUT ROWID",
)


class Replay:
    """The files of one version while they are found out; a context manager.

    Raises:
        NoSpaceError: out of any method: the temporary directory is full.
        UnavailableError: it cannot be used.
    """

    def __init__(self) -> None:
        with _translated():
            self._directory = tempfile.TemporaryDirectory(prefix="vds-replay-", ignore_cleanup_errors=True)
            self._database = sqlite3.connect(Path(self._directory.name) / "replay.sqlite", isolation_level=None)
            for pragma in _PRAGMAS:
                self._database.execute(f"PRAGMA {pragma}").close()
            for table in _TABLES:
                self._database.execute(table)
            self._database.execute("BEGIN")  # and never a COMMIT: it is read on the same connection

    def apply(self, rows: Iterable[ChangeRow]) -> None:
        """Lay the rows of a change list over what is there; when `rows` raises, some of them are in."""
        for batch in batched(rows, _BATCH_ROWS):
            removed = [(row.path,) for row in batch if row.digest is None]
            with _translated():
                self._database.executemany(
                    "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", (row for row in batch if row.digest is not None)
                )
                self._database.executemany("DELETE FROM entry WHERE path = ?", removed)

    def clear(self) -> None:
        """Forget all rows."""
        with _translated():
            self._database.execute("DELETE FROM entry")

    def measure(self) -> tuple[int, int]:
        """Return how many files there are, and their bytes."""
        with _translated():
            count, size_bytes = self._database.execute("SELECT COUNT(*), COALESCE(SUM(size_bytes), 0) FROM entry").fetchone()
        return count, size_bytes

    def avoid(self, keys: Iterable[str]) -> None:
        """Note keys whose blobs are going, or gone."""
        with _translated():
            self._database.executemany("INSERT OR IGNORE INTO avoided VALUES (?)", ((key,) for key in keys))

    @property
    def avoids_any(self) -> bool:
        """Whether any key was noted."""
        with _translated():
            return self._database.execute("SELECT 1 FROM avoided LIMIT 1").fetchone() is not None

    def is_avoided(self, key: str) -> bool:
        """Return whether a key was noted."""
        with _translated():
            return self._database.execute("SELECT 1 FROM avoided WHERE key = ?", (key,)).fetchone() is not None

    def want_all(self, but: Collection[bytes] = ()) -> list[bytes]:
        """Begin to look for the contents of all files but those of these digests, and return which of those there were."""
        with _translated():
            self._database.execute(
                "INSERT INTO object SELECT digest, size_bytes, NULL, NULL FROM entry WHERE digest <> ? GROUP BY digest",
                (EMPTY_RAW,),
            )
            dropped = (self._database.execute("DELETE FROM object WHERE digest = ?", (digest,)).rowcount for digest in but)
            return [digest for digest, count in zip(but, dropped, strict=True) if count]

    def count_missing(self, size_bytes_min: int = 0, size_bytes_end: int | None = None) -> int:
        """Return how many contents of these sizes are wanted and were not found."""
        end = 2**63 - 1 if size_bytes_end is None else size_bytes_end
        with _translated():
            found: int = self._database.execute(
                "SELECT COUNT(*) FROM object WHERE blob IS NULL AND size_bytes >= ? AND size_bytes < ?", (size_bytes_min, end)
            ).fetchone()[0]
        return found

    def list_missing(self, size_bytes_min: int = 0) -> list[bytes]:
        """Return the digests that `count_missing` counts."""
        with _translated():
            rows = self._database.execute(
                "SELECT digest FROM object WHERE blob IS NULL AND size_bytes >= ? ORDER BY digest", (size_bytes_min,)
            )
            return [digest for (digest,) in rows]

    def place(self, key: str, members: Iterable[Member]) -> int:
        """Take those contents of a blob that are still missing, and return how many they were."""
        with _translated():
            blob = self._database.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM blob").fetchone()[0]
            placed = self._database.executemany(
                "UPDATE object SET blob = ?, offset_bytes = ? WHERE digest = ? AND size_bytes = ? AND blob IS NULL",
                (
                    (blob, member.offset_bytes, member.digest, member.length_bytes) for member in sorted(members)
                ),  # by digest, as the tree is
            ).rowcount
            if placed:
                self._database.execute("INSERT INTO blob VALUES (?, ?)", (blob, key))
        return max(placed, 0)

    def rows(self) -> Iterator[NumberedRow]:
        """Yield all files, by path, each with the number of the blob that its bytes are in."""
        with _translated():
            rows = self._database.execute(
                "SELECT e.path, e.digest, e.size_bytes, e.mode, e.modified_ns, o.blob, o.offset_bytes FROM entry e"
                " LEFT JOIN object o ON o.digest = e.digest AND o.size_bytes = e.size_bytes ORDER BY e.path"
            )
            for path, digest, size_bytes, mode, modified_ns, blob, offset_bytes in rows:
                yield NumberedRow(EntryRow(path, digest, size_bytes, mode, modified_ns), blob, offset_bytes or 0)

    def find_keys(self, blobs: Sequence[int]) -> dict[int, str]:
        """Return the keys of blobs, by their numbers."""
        with _translated():
            return {blob: self._database.execute("SELECT key FROM blob WHERE id = ?", (blob,)).fetchone()[0] for blob in blobs}

    def close(self) -> None:
        """Remove it; idempotent."""
        self._database.close()
        self._directory.cleanup()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as err:
        where = f"the temporary directory {tempfile.gettempdir()!r}"
        if getattr(err, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(err, "errno", None) == errno.ENOSPC:
            raise NoSpaceError(f"{where} is full", hint="free some space, or set TMPDIR to another disk") from err
        raise UnavailableError(f"{where} cannot be used: {err}", hint="set TMPDIR to another disk") from err
