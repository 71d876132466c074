"""What the database's errors mean to a caller: the one place where they stop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from vds.errors import (
    AccessDeniedError,
    ConflictError,
    CorruptionError,
    FormatError,
    NoSpaceError,
    UnavailableError,
    VdsError,
)
from vds.index.schema import metadata

# Source: PostgreSQL documentation, appendix A, error codes.
_DEADLOCK, _SERIALIZATION, _FOREIGN_KEY = "40P01", "40001", "23503"

GRANTS_HINT = "the owner of the index runs, once for each role, what this prints: vds index grants reader|writer|collector ROLE"

_POSTGRES: list[tuple[str, type[VdsError], str]] = [
    ("28", AccessDeniedError, "check the user and password of the index, for example in VDS_INDEX"),
    ("42501", AccessDeniedError, GRANTS_HINT),
    ("3D000", UnavailableError, "create the database first, or correct its name in the index url"),
    ("42P01", FormatError, "vds index upgrade"),
    ("42703", FormatError, "vds index upgrade"),
    ("53100", NoSpaceError, "free space on the database server"),
    ("25006", AccessDeniedError, "the database is read-only; connect to the primary"),
    ("XX001", CorruptionError, "restore the index from a backup"),
    ("XX002", CorruptionError, "restore the index from a backup"),
]
# The driver gives no code for what the server says before a session begins, so the words must do.
_LOGIN: list[tuple[str, str]] = [
    ("password authentication failed", _POSTGRES[0][2]),
    ("no password supplied", _POSTGRES[0][2]),
    ("access token", "az login, or check that the database has a role for the identity that this runs as"),
    ("is not permitted to log in", _POSTGRES[0][2]),
    ("permission denied for database", GRANTS_HINT),
]
_SQLITE: list[tuple[str, type[VdsError], str]] = [
    ("database or disk is full", NoSpaceError, "free space on the disk that holds the index"),
    (
        "readonly database",
        AccessDeniedError,
        "SQLite needs to write beside its file even to read it: make the index's directory writable, or use PostgreSQL",
    ),
    ("unable to open database file", AccessDeniedError, "check that the directory of the index exists and may be written"),
    ("no such table", FormatError, "vds index upgrade"),
    ("no such column", FormatError, "vds index upgrade"),
    ("malformed", CorruptionError, "restore the index from a backup"),
    ("not a database", CorruptionError, "the index url names a file that is not an index"),
    ("disk i/o error", UnavailableError, "check the disk that holds the index"),
]

# A broken rule of the schema → what it means in the domain.
_CONSTRAINTS: dict[str, str] = {
    "uq_entry_open": "two live entries of one path",
    "uq_namespace_store_id_name_fold": "a namespace of this name exists already, names are unique blind to case",
    "uq_dataset_store_id_name_fold": "a dataset of this name exists already, names are unique blind to case",
    "uq_version_store_id_commit_id": "this commit was already made",
    "pk_version": "another writer made this version",
    "pk_tag_event": "another writer moved this dataset's tags",
    "pk_journal_queue": "another writer recorded this number",
    "uq_part_done": "another worker finished a part of this name",
    "pk_staged": "one path twice in one upload",
    "uq_release_source": "this version is released already",
}


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn errors of the database at `address` into ours, the original as their cause."""
    try:
        yield
    except sa.exc.NoResultFound as err:
        raise _replaced(address) from err
    except sa.exc.IntegrityError as err:
        if _is_of_gone_store(err):
            raise _replaced(address) from err
        raise _conflict(err) from err
    except sa.exc.DBAPIError as err:
        raise _translate(err, address) from err
    except sa.exc.TimeoutError as err:
        raise UnavailableError(f"no free connection to the index at {address}", hint="use fewer threads a process") from err


def is_disconnect(error: BaseException) -> bool:
    """Return whether `error` says that the connection, or the disk below it, is gone, so that nobody knows what a COMMIT did."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = _sqlstate(error)
    if not _is_postgres(error):
        return bool(error.connection_invalidated) or "disk i/o error" in str(error.orig).lower()
    return bool(error.connection_invalidated) or state[:2] in ("08", "57") or not state


def is_retryable(error: BaseException | None) -> bool:
    """Return whether the database undid the transaction only because of others, so that it may simply be run again."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    return _sqlstate(error) in (_DEADLOCK, _SERIALIZATION) or "database is locked" in str(error.orig)


def _sqlstate(error: sa.exc.DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _is_postgres(error: sa.exc.DBAPIError) -> bool:
    return type(error.orig).__module__.startswith("psycopg")


def _conflict(error: sa.exc.IntegrityError) -> VdsError:
    text = str(error.orig)
    diagnostics = getattr(error.orig, "diag", None)
    name = getattr(diagnostics, "constraint_name", None) or ""
    columns = re.sub(r"UNIQUE constraint failed: ", "", text)
    for constraint, meaning in _CONSTRAINTS.items():
        if constraint == name or (not name and _sqlite_columns(constraint) == columns):
            return ConflictError(meaning)
    return ConflictError(f"the index refused a row: {name or text}")


def _is_of_gone_store(error: sa.exc.IntegrityError) -> bool:
    """Return whether a row was refused because the store's own is gone: it is all that foreign keys refer to."""
    return _sqlstate(error) == _FOREIGN_KEY or "FOREIGN KEY constraint failed" in str(error.orig)


def _replaced(address: str) -> FormatError:
    """Return the error for rows that must be there, and are not: those of a store go when its index is made anew beside them."""
    return FormatError(
        f"the index at {address} is older than its store: it was replaced while it was in use", hint="connect to the store again"
    )


def _sqlite_columns(constraint: str) -> str:
    """Return what SQLite calls a constraint: the list of its columns, never its name."""
    for table in metadata.tables.values():
        for candidate in (*table.constraints, *table.indexes):
            columns = getattr(candidate, "columns", None)
            if getattr(candidate, "name", None) == constraint and columns is not None:
                return ", ".join(f"{table.name}.{column.name}" for column in columns)
    return ""


def _after_fatal(text: str) -> str:
    """Return what the server said, without the address, which is named already."""
    return text.rpartition("FATAL:")[2].strip()


def _translate(error: sa.exc.DBAPIError, address: str) -> VdsError:
    state, text = _sqlstate(error), str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else ""
    if _is_postgres(error):
        for prefix, error_type, hint in _POSTGRES:
            if state.startswith(prefix):
                return error_type(f"the index at {address} refused: {text}", hint=hint)
        for words, hint in _LOGIN:
            if words in text.lower():
                return AccessDeniedError(f"the index at {address} refused the login: {_after_fatal(text)}", hint=hint)
    else:
        for words, error_type, hint in _SQLITE:
            if words in text.lower():
                return error_type(f"the index at {address}: {text}", hint=hint)
    return UnavailableError(f"the index at {address} did not answer: {text}", hint="check that it runs, then try again")
