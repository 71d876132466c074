"""When the index's database is logged in to with a token, as whom, and over which connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.model.test_webtoken import token_of
from vds.errors import AccessDeniedError, InvalidInputError
from vds.index.login import TokenLogin, find_token_login

PUBLIC = "https://ossrdbms-aad.database.windows.net/.default"
SERVER = "team.postgres.database.azure.com"
IDENTITY = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/etl-jobs"


def never(scope: str) -> str:
    raise AssertionError("no token is asked for before there is a connection to make")


def find(url: str, **environ: str) -> TokenLogin | None:
    return find_token_login(url, never, environ)


def giving(claims: object) -> Callable[[str], str]:
    return lambda scope: token_of(claims)


class TestRule:
    @pytest.mark.parametrize(
        ("host", "scope"),
        [
            (SERVER, PUBLIC),
            ("Team.Postgres.Database.Azure.com.", PUBLIC),
            ("team.privatelink.postgres.database.azure.com", PUBLIC),
            ("team.postgres.database.usgovcloudapi.net", "https://ossrdbms-aad.database.usgovcloudapi.net/.default"),
            ("team.postgres.database.chinacloudapi.cn", "https://ossrdbms-aad.database.chinacloudapi.cn/.default"),
        ],
    )
    def test_a_server_of_azures_without_a_password(self, host: str, scope: str) -> None:
        for url in (
            f"postgresql://ada@{host}/vds",
            f"postgresql+psycopg://{host}:6432/vds?schema=a",
            f"postgresql:///vds?host={host}",
        ):
            login = find(url)
            assert login is not None
            assert (login.scope, login.sslmode) == (scope, "require")

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://ada@db.example.com/vds",
            f"postgresql://ada@{SERVER}.evil.example/vds",
            "postgresql://ada@postgres.database.azure.com/vds",
            "postgresql://ada@evilpostgres.database.azure.com/vds",
            "postgresql://ada@127.0.0.1/vds",
            "postgresql:///vds",
            f"postgresql:///vds?host={SERVER}&host=other.example",
            "sqlite:////tmp/index.sqlite",
        ],
    )
    def test_any_other_server_gets_none(self, url: str) -> None:
        assert find(url) is None

    @pytest.mark.parametrize("query", ["?password=x", "?passfile=/x", "?service=x"])
    def test_a_password_in_the_url_stands(self, query: str) -> None:
        assert find(f"postgresql://ada:pw@{SERVER}/vds") is None
        assert find(f"postgresql://ada@{SERVER}/vds{query}") is None

    @pytest.mark.parametrize("name", ["PGPASSWORD", "PGPASSFILE", "PGSERVICE"])
    def test_a_password_in_the_environment_stands(self, name: str) -> None:
        assert find(f"postgresql://ada@{SERVER}/vds", **{name: "x"}) is None
        assert find(f"postgresql://ada@{SERVER}/vds", **{name: ""}) is not None

    @pytest.mark.parametrize(
        ("line", "is_there"),
        [
            (f"{SERVER}:5432:*:ada:pw", True),
            ("*:*:*:*:pw", True),
            ("other:5432:*:ada:pw", False),
            (f"# {SERVER}:", False),
            ("", False),
        ],
    )
    def test_a_password_in_the_users_file_stands(self, tmp_path: Path, line: str, is_there: bool) -> None:
        (tmp_path / ".pgpass").write_text(f"elsewhere:*:*:*:pw\n{line}\n")
        assert (find(f"postgresql://ada@{SERVER}/vds", HOME=str(tmp_path)) is None) == is_there
        assert find(f"postgresql://ada@{SERVER}/vds", HOME=str(tmp_path / "nobody")) is not None


class TestConnection:
    @pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
    def test_what_is_encrypted_is_left_as_it_was_asked_for(self, mode: str) -> None:
        for login in (find(f"postgresql://{SERVER}/vds?sslmode={mode}"), find(f"postgresql://{SERVER}/vds", PGSSLMODE=mode)):
            assert login is not None
            assert login.sslmode == mode

    @pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "nonsense"])
    def test_what_others_can_read_is_refused_or_raised(self, mode: str) -> None:
        with pytest.raises(InvalidInputError, match="readable on the way") as caught:
            find(f"postgresql://{SERVER}/vds?sslmode={mode}")
        assert "verify-full" in caught.value.hint
        login = find(f"postgresql://{SERVER}/vds", PGSSLMODE=mode)  # which was not said of this server
        assert login is not None
        assert login.sslmode == "require"


class TestUser:
    @pytest.mark.parametrize(
        ("claims", "user"),
        [
            ({"xms_mirid": IDENTITY, "appid": "1"}, "etl-jobs"),
            ({"xms_mirid": IDENTITY.lower(), "upn": "ada@example.com"}, "etl-jobs"),
            ({"xms_mirid": "/subscriptions/s/resourcegroups/g/providers/Microsoft.Compute/virtualMachines/vm", "upn": "u"}, "u"),
            ({"upn": "ada@example.com", "unique_name": "other"}, "ada@example.com"),
            ({"preferred_username": "ada@example.com"}, "ada@example.com"),
            ({"unique_name": "ada@example.com"}, "ada@example.com"),
        ],
    )
    def test_the_role_that_a_token_is_for(self, claims: dict[str, str], user: str) -> None:
        login = TokenLogin(PUBLIC, giving(claims))
        assert login.ask_parameters(None) == {"user": user, "password": token_of(claims), "sslmode": "require"}

    def test_a_user_that_was_named_stands(self) -> None:
        login = TokenLogin(PUBLIC, giving({"upn": "ada@example.com"}), sslmode="verify-full")
        assert login.ask_parameters("etl")["user"] == "etl"
        assert TokenLogin(PUBLIC, lambda scope: "opaque").ask_parameters("etl")["password"] == "opaque"

    @pytest.mark.parametrize(("claims", "bearer"), [({"appid": "1111-22"}, "1111-22"), ({"oid": "33"}, "33"), ({}, "unknown")])
    def test_a_token_that_names_nobody_says_what_to_do(self, claims: dict[str, str], bearer: str) -> None:
        token = token_of(claims)
        with pytest.raises(AccessDeniedError, match=f"of {bearer}") as caught:
            TokenLogin(PUBLIC, lambda scope: token).ask_parameters(None)
        assert "postgresql://ROLE@HOST/DATABASE" in caught.value.hint
        assert token not in str(caught.value) + caught.value.hint


def test_a_login_shows_nothing_of_a_token() -> None:
    assert repr(TokenLogin(PUBLIC, lambda scope: "secret")) == f"TokenLogin(scope='{PUBLIC}', sslmode='require')"
