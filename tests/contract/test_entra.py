"""Tokens as passwords, on a real server: each connection asks for its own, and none of them is kept or shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

import vds
import vds.index.database
from tests.unit.model.test_webtoken import token_of
from vds.errors import AccessDeniedError, UnavailableError
from vds.index.database import Database
from vds.index.login import TokenLogin, find_token_login

pytestmark = pytest.mark.services

CONNECT = import_module("vds.store.connect")  # `vds.store.connect` is the function
SCOPE = "https://ossrdbms-aad.database.windows.net/.default"


@dataclass
class Server:
    """A server whose role `user` takes one token at a time, and a credential that gives the one which is good now."""

    admin: psycopg.Connection[Any]
    url: str
    user: str
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    @property
    def token(self) -> str:
        """The one that is good."""
        return self.tokens[-1]

    def renew(self) -> None:
        """Have the token in use expire: from now on another one is good, for new connections."""
        self.tokens.append(token_of({"upn": self.user, "jti": f"secret {len(self.tokens)}"}))
        self.admin.execute(f"ALTER ROLE \"{self.user}\" PASSWORD '{self.token}'".encode())

    def get_token(self, scope: str) -> SimpleNamespace:
        self.asked.append(scope)
        return SimpleNamespace(token=self.token, expires_on=0)

    def login(self) -> TokenLogin:
        # The server of the tests speaks no TLS.
        return TokenLogin(SCOPE, lambda scope: str(self.get_token(scope).token), sslmode="prefer")


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    parts = urlsplit(database_url)
    user = f"ada-{parts.path[-8:]}@example.com"
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(f'CREATE ROLE "{user}" LOGIN'.encode())
        admin.execute(f'GRANT CREATE ON DATABASE {parts.path[1:]} TO "{user}"'.encode())
        made = Server(admin, f"postgresql://{parts.hostname}:{parts.port}{parts.path}", user)
        made.renew()
        yield made


def user_of(database: Database) -> str:
    with database.read() as connection:
        return str(connection.exec_driver_sql("SELECT CURRENT_USER").scalar_one())


def test_each_new_connection_asks_for_a_token(server: Server) -> None:
    database = Database(server.url, login=server.login())
    assert server.asked == []
    with database.read() as first:
        assert first.exec_driver_sql("SELECT CURRENT_USER").scalar_one() == server.user
        server.renew()  # the first one's token is not good any more
        assert user_of(database) == server.user  # a second connection, beside the first
        assert first.exec_driver_sql("SELECT 1").scalar_one() == 1
    assert user_of(database) == server.user  # one of the two again
    assert server.asked == [SCOPE, SCOPE]
    database.close()
    assert user_of(database) == server.user
    assert len(server.asked) == 3
    database.close()


def test_an_old_token_is_refused_and_not_shown(server: Server) -> None:
    """So the test above would fail with a token that was kept."""
    old = server.token
    server.renew()
    database = Database(server.url, login=TokenLogin(SCOPE, lambda scope: old, sslmode="prefer"))
    with pytest.raises(AccessDeniedError) as caught:
        user_of(database)
    shown = f"{caught.value} {caught.value.hint} {caught.value.__cause__!r} {caught.value.__cause__}"
    assert old not in shown
    assert old.split(".")[1] not in shown


def test_a_user_in_the_url_is_who_logs_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    named = server.url.replace("://", f"://{server.user.replace('@', '%40')}@")
    login = replace(server.login(), ask=lambda scope: server.token)
    for url, variable in ((named, ""), (server.url, server.user)):
        monkeypatch.setenv("PGUSER", variable)
        database = Database(url, login=login)
        assert user_of(database) == server.user
        database.close()


def test_no_token_is_kept_or_logged(server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    log_in = vds.index.database._log_in

    def watch(engine: Engine, login: TokenLogin) -> None:
        event.listen(engine, "do_connect", lambda dialect, record, arguments, parameters: seen.append(parameters))
        log_in(engine, login)

    monkeypatch.setattr(vds.index.database, "_log_in", watch)
    for name in ("", "sqlalchemy", "sqlalchemy.pool", "sqlalchemy.engine", "psycopg", "vds"):
        caplog.set_level(logging.DEBUG, name or None)
    database = Database(server.url, login=server.login())
    user_of(database)
    engine = database._live_engine()
    assert [parameters["dbname"] for parameters in seen] == [urlsplit(server.url).path[1:]]
    shown = [*map(repr, seen), database.address, repr(database), repr(database._login), repr(engine), repr(engine.pool)]
    shown += [engine.url.render_as_string(hide_password=False), repr(engine.dialect.create_connect_args(engine.url))]
    assert all(server.token not in text for text in shown)
    assert "connection attempt" in caplog.text
    assert server.token not in caplog.text
    database.close()


def test_a_token_is_not_sent_where_it_could_be_read(server: Server) -> None:
    login = find_token_login("postgresql://team.postgres.database.azure.com/vds", lambda scope: server.token, {})
    assert login is not None
    database = Database(server.url, login=login)
    with pytest.raises(UnavailableError, match="SSL"):
        user_of(database)


def test_a_credential_without_a_token_says_so(server: Server) -> None:
    def refuse(scope: str) -> str:
        raise AccessDeniedError("no token from FakeCredential", hint="az login")

    database = Database(server.url, login=TokenLogin(SCOPE, refuse, sslmode="prefer"))
    with pytest.raises(AccessDeniedError, match="FakeCredential"), database.read():
        pass


def test_a_store_hands_its_credential_to_both_doors(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(url: str, ask: Any, environ: Any) -> TokenLogin | None:
        """Take the server of this test for one of Azure's."""
        found = find_token_login("postgresql://team.postgres.database.azure.com/vds", ask, environ)
        return None if found is None else replace(found, sslmode="prefer")

    monkeypatch.setattr(CONNECT, "find_token_login", find)
    index = f"{server.url}?schema=team_raw"
    with vds.connect(tmp_path / "s", index=index, create=True, credential=server) as store:
        assert store.index == index
        assert server.token not in repr(store)
    server.renew()
    with vds.connect(tmp_path / "s", credential=server) as store:
        assert store.namespaces() == []
    assert vds.upgrade_index(tmp_path / "s", credential=server)[0] is not None
    assert set(server.asked) == {SCOPE}
