"""The database door: engines, transactions, and foreign errors turned into ours.

Guarantees:
- `read` gives a connection of its own; each statement on it sees one committed state.
- `run` gives one transaction, committed or undone; deadlocks and serialization failures are retried here, unseen.
- SQLite: WAL, synchronous=FULL, BEGIN IMMEDIATE for writes. PostgreSQL: READ COMMITTED, set by ourselves; of several schemas
  every connection sees the one that the url names, and no other.
- opened for reading, neither database takes a write from us.
- a forked child never touches its parent's connections, and inherits no open SQLite file.
"""

from __future__ import annotations

import os
import random
import select
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.engine import Connection as Connection

from vds.errors import AccessDeniedError, FormatError, InvalidInputError, OutcomeUnknownError, VdsError
from vds.index import fork
from vds.index.address import SCHEMA_PARAMETER, parse_url, public_address, quoted, schema_of
from vds.index.cursors import insert_values
from vds.index.login import TokenLogin
from vds.index.translate import GRANTS_HINT, is_disconnect, is_retryable, translated

T = TypeVar("T")

CONFLICT_RETRIES_MAX = 20

# Longer than the longest allowed locked step (a commit of millions of rows), so that waiting is never an error.
LOCK_WAIT_S = 900
CONNECT_TIMEOUT_S = 10
ASK_AFTER_S = 10.0
"""How long a connection to PostgreSQL may be out of use and is still taken for one that works, unless its end was seen."""

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
        url: a SQLAlchemy url of SQLite or PostgreSQL (`?schema=NAME`: where its tables are), or the file of a SQLite database.
        read_only: refuse every write, also at the database.
        login: how to log in to PostgreSQL where the url and the environment hold no password.
    """

    def __init__(self, url: str | Path, *, read_only: bool = False, login: TokenLogin | None = None) -> None:
        self._url = URL.create("sqlite", database=str(url)) if isinstance(url, Path) else parse_url(url)
        self.read_only = read_only
        self._login = login
        self._shown = self.address  # made once: it would be a part of what a small transaction costs
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
        return public_address(self._url)

    @property
    def schema(self) -> str | None:
        """The schema of PostgreSQL that holds all tables, and is all that is seen; None: where the database's settings say."""
        return None if self.is_sqlite else schema_of(self._url)

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
        with translated(self._shown), self._connection() as connection:
            if not self.is_sqlite:  # no requests to begin and end what changes nothing; see `hold_together`
                connection.execution_options(isolation_level="AUTOCOMMIT")
            with connection.begin():
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
                with translated(self._shown):
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
                    # Refused by the database: nothing was committed. SQLAlchemy takes the transaction for ended all the same, and
                    # would put the connection back with it: SQLite, where it is only busy, keeps it open, and its lock too.
                    connection.invalidate()
                    raise
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
                if self.is_sqlite:
                    self._engine = _open_sqlite(self._url, self.read_only)
                else:
                    self._engine = _open_postgres(self._url, read_only=self.read_only, login=self._login)
                self._pid = os.getpid()
            return self._engine


def now_us(connection: Connection) -> int:
    """Return the database's clock in microseconds since 1970; SQLite's moves in milliseconds."""
    return int(connection.exec_driver_sql(f"SELECT {now_sql(connection)}").scalar_one())


def now_sql(connection: Connection) -> str:
    """Return the same as an expression, for a statement that would otherwise be two."""
    if connection.dialect.name == "sqlite":
        return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000"
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


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
        try:
            for pragma in ("cache_size=-32768",) if read_only else _SQLITE_PRAGMAS:
                # Closed, as a statement that is still open would forbid the functions that are added next.
                connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.Error:
            connection.close()
            raise
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


def _open_postgres(url: URL, *, read_only: bool = False, login: TokenLogin | None = None) -> Engine:
    schema = schema_of(url)
    try:
        engine = sa.create_engine(
            url.difference_update_query([SCHEMA_PARAMETER]),
            isolation_level="READ COMMITTED",
            pool_size=8,
            max_overflow=64,
            # The one used last comes first: fewer are used, and each finds its statements prepared and its server's caches warm.
            pool_use_lifo=True,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "keepalives_idle": 30,
                "tcp_user_timeout": 60_000,
                "options": _session_options(schema, read_only),
            },
        )
    except ImportError as err:
        raise InvalidInputError("the PostgreSQL driver is not installed", hint="pip install 'vds[postgres]'") from err
    _watch_idle(engine)
    if login is not None:
        _log_in(engine, login)
    if schema is not None:
        event.listen(engine, "connect", lambda raw, record: _check_schema(raw, schema))
    return engine


def _session_options(schema: str | None, read_only: bool) -> str:
    settings = {"lock_timeout": f"{LOCK_WAIT_S}s", "statement_timeout": "0", "jit": "off", "application_name": "vds"}
    if schema is not None:
        settings["search_path"] = quoted(schema)
    if read_only:
        settings["default_transaction_read_only"] = "on"
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _watch_idle(engine: Engine) -> None:
    """Have no connection used again that the server closed while nobody used it.

    One that was in use a moment ago is not asked, only looked at: nothing is awaited there, so that what came is its end, or is
    for the driver to read when it asks. Asking each time would be a tenth of all the requests of a small commit.
    """

    @event.listens_for(engine, "checkin")
    def note(raw: object, record: Any) -> None:
        record.info["used_s"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def look(raw: Any, record: Any, proxy: object) -> None:
        used_s = record.info.get("used_s")
        if used_s is None:
            return  # it is new
        if (time.monotonic() - used_s > ASK_AFTER_S or _is_readable(raw)) and not _answers(engine, raw):
            raise sa.exc.DisconnectionError  # another one is taken then, or made


def _answers(engine: Engine, raw: Any) -> bool:
    try:
        return engine.dialect.do_ping(raw)
    except engine.dialect.loaded_dbapi.Error:
        return False


def _is_readable(raw: Any) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(raw.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([raw.fileno()], [], [], 0)[0])


def _log_in(engine: Engine, login: TokenLogin) -> None:
    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: object, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        user = parameters.get("user") or os.environ.get("PGUSER")
        # A new dict: SQLAlchemy before 2.1 keeps what is put into `parameters`, and would use the token again after its time.
        return dialect.connect(*arguments, **{**parameters, **login.ask_parameters(user)})


def _check_schema(raw: Any, schema: str) -> None:
    """Check that a new connection sees the schema, and nothing else: elsewhere might be another store's tables.

    Raises:
        AccessDeniedError: the role may not use it.
        InvalidInputError: something on the way to the server dropped the setting.
    """
    was, raw.autocommit = raw.autocommit, True  # one request, in place of one for each end of a transaction, too
    found, may_use = raw.execute(
        "SELECT current_setting('search_path'), (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s)",
        (schema,),
    ).fetchone()
    raw.autocommit = was
    if found == quoted(schema) and may_use is not False:  # None: it is not there yet, `vds index upgrade` makes it
        return
    raw.close()
    if may_use is False:
        raise AccessDeniedError(f"the role may not use schema {schema!r} of the index", hint=GRANTS_HINT)
    raise InvalidInputError(
        f"the connection to the index sees schema {found}, not {schema!r}: a pooler on the way does not pass it on",
        hint="connect to the server itself, or to a pooler that keeps the `options` of a connection",
    )


@contextmanager
def _quiet_disconnect() -> Iterator[None]:
    """Let the error that broke the transaction through: a rollback on a lost connection fails too, and says less."""
    try:
        yield
    except sa.exc.DBAPIError as err:
        if not is_disconnect(err):
            raise
