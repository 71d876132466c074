"""How long a process spends in its index: inside transactions, what it works out between their statements included."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import vds.index.commit
from vds.index.database import Connection, Database
from vds.index.head import Head, lock_head
from vds.index.plan import Area


@dataclass(slots=True)
class IndexClock:
    """Seconds since it was made or reset; of one thread that writes.

    Attributes:
        spent_s: in all transactions, from the asking for a connection to its return.
        commit_s: in those that made a version.
        held_s: of them, from the locking of the head to the end of the transaction, when the next writer may go on.
        transactions: how many there were.
    """

    spent_s: float = 0.0
    commit_s: float = 0.0
    held_s: float = 0.0
    transactions: int = 0
    locked_at_s: float = 0.0

    def reset(self) -> None:
        """Begin anew."""
        self.spent_s = self.commit_s = self.held_s = 0.0
        self.transactions = 0


@contextmanager
def watched_index() -> Iterator[IndexClock]:
    """Watch every index that this process has open, or opens, inside the block."""
    clock = IndexClock()
    plain_read, plain_run = Database.read, Database.run

    @contextmanager
    def read(self: Database) -> Iterator[Connection]:
        begun = time.perf_counter()
        with plain_read(self) as connection:
            yield connection
        clock.spent_s += time.perf_counter() - begun
        clock.transactions += 1

    def run(self: Database, work: Callable[[Connection], Any], *, commit_id: str = "") -> Any:
        begun = time.perf_counter()
        result = plain_run(self, work, commit_id=commit_id)
        ended = time.perf_counter()
        clock.spent_s += ended - begun
        clock.transactions += 1
        if commit_id:
            clock.commit_s += ended - begun
            # SQLite has one writer at a time: there a transaction holds everything from its beginning.
            clock.held_s += ended - (begun if self.is_sqlite else clock.locked_at_s)
        return result

    def lock(connection: Connection, area: Area, base: int, began_at: int, *, looks: bool) -> Head:
        head = lock_head(connection, area, base, began_at, looks=looks)
        clock.locked_at_s = time.perf_counter()
        return head

    with ExitStack() as stack:
        for owner, name, watched in (
            (Database, "read", read),
            (Database, "run", run),
            (vds.index.commit, "lock_head", lock),
        ):
            stack.enter_context(patch.object(owner, name, watched))
        yield clock
