"""The one way into the rows of a rebuild: transactions that stop when another rebuild began, and rows gathered for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from vds.index.database import Connection, Database
from vds.index.rebuild import begin_rebuild, hold_rebuild, switch
from vds.index.schema import metadata
from vds.index.sweep import count_rows

T = TypeVar("T")

ROWS_MAX = 50_000
BYTES_MAX = 16 * 1024 * 1024
"""What is gathered for one transaction; of rows that hold texts their bytes count too."""


class Sink:
    """Writes the rows of one rebuild; used by one thread.

    Attributes:
        store_id: of the store's row.
    """

    def __init__(self, database: Database, uid: str, incarnation: str) -> None:
        self.database = database
        self._incarnation = incarnation
        self.store_id = database.run(lambda connection: begin_rebuild(connection, uid, incarnation))
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._count = self._bytes = 0
        self._written = self._counted = 0

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, which may be tried several times, and return what it returns.

        Raises:
            ConflictError: another rebuild began after this one.
        """

        def guarded(connection: Connection) -> T:
            hold_rebuild(connection, self.store_id, self._incarnation)
            return work(connection)

        return self.database.run(guarded)

    def check(self) -> None:
        """Check that no other rebuild began after this one.

        Raises:
            ConflictError: one did.
        """
        self.run(lambda connection: None)

    def add(self, table: str, rows: Iterable[tuple[Any, ...]], *, weight_bytes: int = 0) -> None:
        """Gather rows, in the table's column order; they are written once they are many."""
        own = self._rows.setdefault(table, [])
        before = len(own)
        own.extend(rows)
        self._count += len(own) - before
        self._bytes += weight_bytes
        if self._count >= ROWS_MAX or self._bytes >= BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        rows, self._rows = self._rows, {}
        self._written += self._count
        self._count = self._bytes = 0
        if rows:
            self.run(lambda connection: self._insert(connection, rows))

    def settle(self) -> None:
        """Write what was gathered, and have PostgreSQL count rows that have become many: it plans look-ups by that."""
        self.flush()
        if self._written >= 2 * self._counted + ROWS_MAX // 2:
            self._counted = self._written
            self.run(count_rows)

    def _insert(self, connection: Connection, gathered: dict[str, list[tuple[Any, ...]]]) -> None:
        for table, rows in gathered.items():
            self.database.insert_rows(connection, metadata.tables[table], rows)

    def switch(self, uid: str, log_seq: int, log_digest: bytes) -> None:
        """Put these rows in the place of the store's old ones.

        Raises:
            ConflictError: another rebuild began after this one.
        """
        self.flush()
        self.database.run(lambda connection: switch(connection, self.store_id, uid, self._incarnation, log_seq, log_digest))
