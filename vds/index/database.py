"""The database door: engines, transactions, and foreign errors turned into ours.

Guarantees:
- `read` gives a connection of its own; each statement on it sees one committed state.
- `run` gives one transaction, committed or undone; deadlocks and serialization failures are retried here, unseen.
- SQLite: WAL, synchronous=FULL, BEGIN IMMEDIATE for writes. PostgreSQL: READ COMMITTED, set by ourselves.
- a forked child never touches its parent's connections, and inherits no open SQLite file.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.engine import Connection as Connection

from vds.errors import FormatError, InvalidInputError, OutcomeUnknownError, VdsError
from vds.index import fork
from vds.index.cursors import insert_values
from vds.index.translate import is_disconnect, is_retryable, translated

T = TypeVar("T")

CONFLICT_RETRIES_MAX = 20

# Longer than the longest allowed locked step (a commit of millions of rows), so that waiting is never an error.
LOCK_WAIT_S = 900
CONNECT_TIMEOUT_S = 10
_PRIVATE_PARAMETERS = {"user", "password", "passfile", "sslkey", "sslpassword", "service", "options"}
_SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-32768",  # 32 MiB a connection; 64 and 128 made an upload of a million files no faster
    "wal_autocheckpoint=16384",  # pages: digests lie anywhere in their tree, and a page changed often is copied back once
)
SQLITE_VERSION_MIN = (3, 39)  # for IS DISTINCT FROM


class Database:
    """One SQL database, opened lazily, shared by all threads of a process.

    Args:
        url: a SQLAlchemy url of SQLite or PostgreSQL, or the file of a SQLite database.
        read_only: refuse every write, also at the database.
    """

    def __init__(self, url: str | Path, *, read_only: bool = False) -> None:
        self._url = URL.create("sqlite", database=str(url)) if isinstance(url, Path) else _parse_url(url)
        self.read_only = read_only
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._pid = 0
        fork.tell_of_forks(self)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite (one writer at a time) rather than PostgreSQL."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def address(self) -> str:
        """The url without user, password and anything else that is secret: what a store may record."""
        if self.is_sqlite:
            return URL.create("sqlite", database=str(self.path)).render_as_string()
        url = self._url
        query = {key: value for key, value in url.query.items() if key not in _PRIVATE_PARAMETERS}
        bare = URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database, query=query)
        return bare.render_as_string()

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        assert self.is_sqlite
        return Path(self._url.database or "").absolute()

    def __repr__(self) -> str:
        return f"Database({self.address!r})"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for reading.

        Raises:
            UnavailableError: the database does not answer.
        """
        with translated(self.address), self._connection() as connection, connection.begin():
            yield connection

    def run(self, work: Callable[[Connection], T], *, commit_id: str = "") -> T:
        """Run `work` in one write transaction and return what it returns.

        `work` may be called several times: it must have no effect outside its connection.

        Raises:
            UnavailableError: the database does not answer; nothing was committed.
            OutcomeUnknownError: the connection was lost while committing.
        """
        for attempt in range(CONFLICT_RETRIES_MAX + 1):
            try:
                with translated(self.address):
                    return self._attempt(work, commit_id)
            except VdsError as err:
                if attempt == CONFLICT_RETRIES_MAX or not is_retryable(err.__cause__):
                    raise
            time.sleep(random.uniform(0.001, 0.01 * 2 ** min(attempt, 6)))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(self, work: Callable[[Connection], T], commit_id: str) -> T:
        with self._connection() as connection:
            transaction = connection.execution_options(vds_write=True).begin()
            try:
                result = work(connection)
            except BaseException:
                with _quiet_disconnect():
                    transaction.rollback()
                raise
            try:
                transaction.commit()
            except sa.exc.DBAPIError as err:
                if not is_disconnect(err):
                    raise  # refused by the database: nothing was committed
                raise OutcomeUnknownError(
                    f"the connection to {self.address} was lost while committing",
                    commit_id=commit_id,
                    hint="ask store.outcome(commit_id) before trying again",
                ) from err
            return result

    def insert_rows(self, connection: Connection, table: sa.Table, rows: Iterable[Sequence[Any]]) -> int:
        """Insert tuples in the table's column order and return how many.

        COPY on PostgreSQL, tuples in batches on SQLite: building a dict a row costs 3.5 times as much as inserting it.
        """
        names = ", ".join(column.name for column in table.columns)
        count = 0
        if self.is_sqlite:
            return insert_values(connection, f"INSERT INTO {table.name} ({names})", rows)
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
                count += 1
        return count

    def close(self) -> None:
        """Close all connections; the database may be used again, and then reconnects."""
        with self._lock:
            if self._engine is not None and self._pid == os.getpid():
                self._engine.dispose()
            self._engine = None

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with fork.in_use() if self.is_sqlite else nullcontext(), self._live_engine().connect() as connection:
            yield connection

    def before_fork(self) -> None:
        """Close idle connections to a SQLite file; see `vds.index.fork`."""
        engine = self._engine
        if engine is not None and self.is_sqlite and self._pid == os.getpid():
            engine.dispose()  # the parent opens the file anew with its next statement

    def after_fork(self) -> None:
        """Take a new lock; the old engine is left to the parent by the next statement."""
        self._lock = threading.Lock()  # another thread of the parent may have held it

    def _live_engine(self) -> Engine:
        with self._lock:
            if self._engine is None or self._pid != os.getpid():
                if self._engine is not None:
                    self._engine.dispose(close=False)  # the parent still uses these sockets
                self._engine = _open_sqlite(self._url, self.read_only) if self.is_sqlite else _open_postgres(self._url)
                self._pid = os.getpid()
            return self._engine


def now_us(connection: Connection) -> int:
    """Return the database's clock in microseconds since 1970; SQLite's moves in milliseconds."""
    if connection.dialect.name == "sqlite":
        statement = "SELECT CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000"
    else:
        statement = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    return int(connection.exec_driver_sql(statement).scalar_one())


def _parse_url(text: str) -> URL:
    try:
        url = make_url(text)
    except sa.exc.ArgumentError as err:
        raise InvalidInputError(
            "the index url does not parse", hint="for example postgresql://USER@HOST/DATABASE or sqlite:////var/lib/vds/index.db"
        ) from err
    backend = url.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite")
    raise InvalidInputError(
        f"the index cannot be in {url.drivername!r}", hint="use PostgreSQL (postgresql://…) or a SQLite file (sqlite:///FILE)"
    )


def _open_sqlite(url: URL, read_only: bool) -> Engine:
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise FormatError(
            f"SQLite {sqlite3.sqlite_version} is too old, an embedded index needs 3.39", hint="use a newer build of Python"
        )
    path = Path(url.database or "")
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True)

    def connect() -> sqlite3.Connection:
        target = path.absolute().as_uri() + "?mode=ro" if read_only else str(path)
        connection = sqlite3.connect(
            target, uri=read_only, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        for pragma in ("cache_size=-32768",) if read_only else _SQLITE_PRAGMAS:
            # Closed, as a statement that is still open would forbid the functions that are added next.
            connection.execute(f"PRAGMA {pragma}").close()
        return connection

    # The connection used last comes first: the pages that a plan read are still in its cache when the commit needs them.
    engine = sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.QueuePool, pool_size=8, max_overflow=64, pool_use_lifo=True
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # The driver would begin by itself, late and without IMMEDIATE: two writers would then deadlock on their read locks.
        is_write = connection.get_execution_options().get("vds_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    return engine


def _open_postgres(url: URL) -> Engine:
    try:
        return sa.create_engine(
            url,
            isolation_level="READ COMMITTED",
            pool_size=8,
            max_overflow=64,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "keepalives_idle": 30,
                "tcp_user_timeout": 60_000,
                "options": f"-c lock_timeout={LOCK_WAIT_S}s -c statement_timeout=0 -c jit=off -c application_name=vds",
            },
        )
    except ImportError as err:
        raise InvalidInputError("the PostgreSQL driver is not installed", hint="pip install 'vds[postgres]'") from err


@contextmanager
def _quiet_disconnect() -> Iterator[None]:
    """Let the error that broke the transaction through: a rollback on a lost connection fails too, and says less."""
    try:
        yield
    except sa.exc.DBAPIError as err:
        if not is_disconnect(err):
            raise
