"""What an index url says: which database, which schema in it, and what of that a store may record."""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from vds.errors import InvalidInputError

SCHEMA_PARAMETER = "schema"
DEFAULT_SCHEMA = "public"
IDENTIFIER_BYTES_MAX = 63  # PostgreSQL cuts off what is longer, so that two names would be one

_PRIVATE_PARAMETERS = {"user", "password", "passfile", "sslkey", "sslpassword", "service", "options"}
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]*")
_EMPTY_SCHEMA = re.compile(rf"[?&]{SCHEMA_PARAMETER}=?(?:&|$)")


def parse_url(text: str) -> URL:
    """Return an index url with the drivers that we use.

    Raises:
        InvalidInputError: it does not parse, is of another database, or names no schema that can be used.
    """
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        # Without the cause: it quotes what stands where a port should, which may be a password.
        raise InvalidInputError(
            "the index url does not parse", hint="for example postgresql://USER@HOST/DATABASE or sqlite:////var/lib/vds/index.db"
        ) from None
    backend = url.get_backend_name()
    if "@" in (url.host or ""):  # the end of a password, which would show in every message that names the host
        raise InvalidInputError("the index url does not parse: it has more than one @", hint="write %40 for an @ in a password")
    if _EMPTY_SCHEMA.search(text):  # a variable that was not filled in, most likely; SQLAlchemy drops what is empty
        raise InvalidInputError("the index url names an empty schema", hint="?schema=NAME, or leave it out")
    if backend in ("postgresql", "postgres"):
        schema_of(url)
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database and url.database != ":memory:":
        if SCHEMA_PARAMETER in url.query:
            raise InvalidInputError("a SQLite index has no schemas", hint="give each store a file of its own")
        return url.set(drivername="sqlite")
    raise InvalidInputError(
        f"the index cannot be in {url.drivername!r}", hint="use PostgreSQL (postgresql://…) or a SQLite file (sqlite:///FILE)"
    )


def schema_of(url: URL) -> str | None:
    """Return the schema that holds all tables of the index, or None where the database's own settings say which that is.

    Lower case only: PostgreSQL folds names that are not quoted, so `Team` in somebody's SQL would be another schema than here.

    Raises:
        InvalidInputError: it is no name for one.
    """
    if SCHEMA_PARAMETER not in url.query:
        return None
    name = url.query[SCHEMA_PARAMETER]
    if not isinstance(name, str):
        raise InvalidInputError("the index url names more than one schema", hint="?schema=NAME, once")
    is_reserved = name.startswith("pg_") or name == "information_schema"
    if not _SCHEMA.fullmatch(name) or len(name) > IDENTIFIER_BYTES_MAX or is_reserved:
        raise InvalidInputError(
            f"{name!r} cannot be the schema of an index",
            hint="use 1 to 63 of a-z, 0-9 and _, not beginning with a digit or pg_: ?schema=team_raw",
        )
    return name


def public_address(url: URL) -> str:
    """Return the url of a PostgreSQL database without user, password and anything else that is secret."""
    query = {key: value for key, value in url.query.items() if key not in _PRIVATE_PARAMETERS}
    return URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database, query=query).render_as_string()


def quoted(name: str) -> str:
    """Return a name of PostgreSQL's, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'
