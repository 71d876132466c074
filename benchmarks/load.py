"""Runs that commit to a store, or ask its index: in SQLite on the disk, or in a PostgreSQL server beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benchmarks.catalog import Peer
from benchmarks.runs import Figures, Run, RunError
from benchmarks.server import CONTAINER
from tests import services

# As a server is that somebody relies on; all else is as PostgreSQL comes.
SETTINGS = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "1GB", "max_wal_size": "8GB"}
_SHOWN = ("server_version", "synchronous_commit", *SETTINGS)
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server.

    Attributes:
        url: of a database of it that nobody uses.
        pid: of its first process, whose children are all others.
        settings: those that say how it keeps what it is told.
    """

    url: str
    pid: int
    settings: Mapping[str, str]

    def make_database(self, name: str) -> str:
        """Return the url of an empty database; one of that name goes first."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url_of(name)

    def url_of(self, name: str) -> str:
        """Return the url of a database."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def cpu_s(self) -> float:
        """Return the CPU seconds that all its processes have used, those that ended included."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile: its parent has its time now
            if int(path.parent.name) == self.pid:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == self.pid:
                ticks += sum(map(int, fields[11:13]))
        return ticks / _TICKS_A_SECOND


@contextmanager
def postgres_for(peers: Sequence[Peer]) -> Iterator[Postgres | None]:
    """Run a server if one of the peers has its index there."""
    if not any(peer.index == "postgresql" for peer in peers):
        yield None
        return
    with services.postgres(SETTINGS) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            shown = {name: str(_one(connection, f"SHOW {name}")) for name in _SHOWN}
            pid = int(_one(connection, "SELECT pg_backend_pid()"))
            first = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield Postgres(url, first, shown)


@dataclass(frozen=True, slots=True)
class Loading(Run):
    """A run on a store whose index is said, and where no tree is uploaded.

    Attributes:
        count: of what is done, how often.
        unit_bytes: of each of these.
        postgres: the server that has the index; None: SQLite, in `state`.
        target: a directory for what is to be committed.
    """

    count: int
    unit_bytes: int
    postgres: Postgres | None
    target: Path

    @property
    def units(self) -> dict[str, int]:
        """What is done, by which rates are taken."""
        return {"files": self.count, "bytes": self.count * self.unit_bytes}

    def clear(self) -> None:
        """Forget what earlier runs left and make the store.

        Raises:
            RunError: it could not be made.
        """
        if self.postgres is not None:
            self.postgres.make_database(self._database)
        Run.clear(self)

    def take(self) -> Figures:
        """Run to the end and return the figures, with the CPU time that each thing took here and in the index's server.

        Raises:
            RunError: it failed, or was too slow.
        """
        before_s = self.postgres.cpu_s() if self.postgres is not None else 0.0
        figures = Run.take(self)
        figures["cpu_each_ms"] = figures["cpu_s"] / self.count * 1e3
        if self.postgres is not None:
            figures["index_cpu_each_ms"] = (self.postgres.cpu_s() - before_s) / self.count * 1e3
        return figures

    def check_whole(self, figures: Mapping[str, Any]) -> None:
        """Check that as much was done as was asked for; what went wrong with it is a figure.

        Raises:
            RunError: it was not.
        """
        done = figures.get("acknowledged", self.count) + figures.get("errors", 0)
        if done != self.count:
            raise RunError(f"{done} of {self.count} were done")

    @property
    def _database(self) -> str:
        return f"bench_{self.peer.name}"

    def _command(self) -> list[str]:
        container = f"{CONTAINER}-{self.peer.name.replace('_', '-')}"
        command = [*Run._command(self), "--target", str(self.target), "--count", str(self.count)]
        return [*command, "--container", container]  # of an option that comes twice the last one counts

    def _environment(self) -> dict[str, str]:
        index = self.postgres.url_of(self._database) if self.postgres is not None else "embedded"
        return {**Run._environment(self), "VDS_INDEX": index}


@dataclass(frozen=True, slots=True)
class Asking(Loading):
    """A run on a store that takes long to make and that asking does not change: it stays for the rounds that follow."""

    def make_once(self) -> None:
        """Make the store, if it is not there.

        Raises:
            RunError: it could not be made.
        """
        if not self._made.exists():
            shutil.rmtree(self.state, ignore_errors=True)
            self.clear()
            self._made.touch()
        self.server.reset(counters_only=True)

    def forget(self) -> None:
        """Leave all as it is."""

    @property
    def _made(self) -> Path:
        return self.state / "made"


def _one(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]
