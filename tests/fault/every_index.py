"""The databases of a site, whose whole content can be put aside and back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg


class Index(Protocol):
    """A database; nobody may have it open while it is saved or restored."""

    @property
    def url(self) -> str:
        """Where it is."""
        ...

    def save(self, name: str) -> None:
        """Put aside what it holds, under a name."""
        ...

    def restore(self, name: str) -> None:
        """Put back what was put aside."""
        ...

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        ...

    def execute(self, statement: str) -> None:
        """Execute a statement that changes something."""
        ...


@dataclass
class SqliteIndex:
    """An index in a file."""

    path: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return f"sqlite:///{self.path}"

    def save(self, name: str) -> None:
        """Copy the file."""
        self._check_closed()
        self.path.with_suffix(f".{name}").write_bytes(self.path.read_bytes())

    def restore(self, name: str) -> None:
        """Copy it back."""
        self._check_closed()
        self.path.write_bytes(self.path.with_suffix(f".{name}").read_bytes())

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask with a connection of its own."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(statement).fetchall()

    def execute(self, statement: str) -> None:
        """Execute with a connection of its own."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(statement)

    def _check_closed(self) -> None:
        # The last connection takes the write-ahead log with it: one that is there belongs to a connection that was left open.
        assert not self.path.with_name(self.path.name + "-wal").exists()


@dataclass
class PostgresIndex:
    """A database of a server; what is put aside are databases made from it."""

    url: str

    def save(self, name: str) -> None:
        """Make a copy of the database."""
        self._replace(f"{self._name}_{name}", self._name)

    def restore(self, name: str) -> None:
        """Make the database anew from its copy."""
        self._replace(self._name, f"{self._name}_{name}")

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask with a connection of its own."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def execute(self, statement: str) -> None:
        """Execute with a connection of its own."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def drop_copies(self) -> None:
        """Drop all that was put aside."""
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{self._name}_%"]):
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    @property
    def _name(self) -> str:
        return urlsplit(self.url).path.lstrip("/")

    @property
    def _server_url(self) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path="/postgres"))

    def _replace(self, target: str, source: str) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {target} TEMPLATE {source}".encode())
