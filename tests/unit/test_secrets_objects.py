"""No object of ours shows a secret, hands one to another process, or sends one to a place that was not meant."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

import vds
from tests.support import write_tree
from vds.blobs.credential import Credential
from vds.blobs.location import AzureLocation, parse_location
from vds.blobs.memory import MemoryDriver
from vds.blobs.open import open_driver
from vds.blobs.signing import Request, Signer
from vds.config import find_store_settings, write_store_settings
from vds.errors import InvalidInputError, UnavailableError, VdsError
from vds.index.address import parse_url
from vds.index.database import Database
from vds.index.login import TokenLogin, find_token_login

SECRET = "kJ8zQ4vN1xW7"
KEY = base64.b64encode(SECRET.encode() * 5).decode()
SAS = f"sv=2024-01-01&sp=rl&sig={SECRET}%3D"
STRING = f"DefaultEndpointsProtocol=https;AccountName=acct;AccountKey={KEY};EndpointSuffix=core.windows.net"


def shows(text: str | bytes) -> bool:
    """Return whether a secret is in a text, as it is or in base 64."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    return SECRET in text or KEY[4:20] in text


def reach(found: object, seen: set[int] | None = None) -> Iterator[object]:
    """Yield an object and whatever objects of ours it leads to."""
    seen = set() if seen is None else seen
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, list | tuple | set | dict):
        for item in found.values() if isinstance(found, dict) else found:
            yield from reach(item, seen)
    elif type(found).__module__.partition(".")[0] == "vds":
        yield found
        names = [field.name for field in fields(found)] if is_dataclass(found) else list(getattr(found, "__dict__", {}))
        for name in names:
            yield from reach(getattr(found, name, None), seen)


def check_shown(found: object) -> int:
    """Check that nothing that leads from an object shows a secret, and return how many there were."""
    reached = list(reach(found))
    for one in reached:
        for text in (repr(one), str(one), f"{one}"):
            assert not shows(text), f"{type(one)}: {text}"
    return len(reached)


class Token:
    def get_token(self, *scopes: str, **_: object) -> SimpleNamespace:
        return SimpleNamespace(token=SECRET, expires_on=4102444800)

    def __repr__(self) -> str:
        return f"Token({SECRET!r})"  # what others write is not ours to trust


@pytest.mark.parametrize(
    ("url", "credential"),
    [
        ("az://data@acct", KEY),
        ("az://data@acct", SAS),
        ("az://data@acct", "?" + SAS),
        ("az://data@acct", STRING),
        ("az://data@acct", Token()),
        (f"https://acct.blob.core.windows.net/data/prefix?{SAS}", None),
        (f"az://data@acct?{SAS}", None),
        (f"azurite://data?{SAS}", None),
    ],
    ids=["key", "SAS", "SAS with ?", "connection string", "token", "url", "short url", "emulator"],
)
def test_a_driver(url: str, credential: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vds.blobs.azure.check_address", lambda asked: None)
    driver: Any = open_driver(url, credential)
    driver._opened()  # makes what it calls with, and calls nobody
    assert check_shown(driver) > 3
    assert not shows(driver.url)
    with pytest.raises(InvalidInputError):
        pickle.dumps(driver)


@pytest.mark.parametrize("variable", ["AZURE_STORAGE_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN"])
def test_a_driver_of_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, {"AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_SAS_TOKEN": SAS}.get(variable, STRING))
    driver: Any = open_driver("az://data@acct")
    assert driver._credential.key or driver._credential.sas
    check_shown(driver)


@pytest.mark.parametrize(
    "credential",
    [
        SECRET + "!",
        f"AccountKey={SECRET}",
        f"AccountName=other;AccountKey={KEY}",
        f"AccountName=acct;AccountKey={SECRET}!",
        7,
        b"kJ8z",
    ],
)
def test_a_credential_that_is_none(credential: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_driver("az://data@acct", credential)
    assert not shows("".join(traceback.format_exception(caught.value)) + caught.value.hint)


def test_what_signs() -> None:
    for credential in (Credential("a key", "acct", key=KEY), Credential("a SAS", "acct", sas=SAS), Credential("a token", "acct")):
        signer = Signer("acct.example", credential, lambda: (SECRET, 4102444800.0))
        assert signer.head(Request("GET", "/data"))
        check_shown(signer)


@pytest.mark.parametrize(
    "url",
    [
        f"https://{SECRET}@acct.blob.core.windows.net/data",
        f"https://ada:{SECRET}@acct.blob.core.windows.net/data",
        f"https://ada:p/{SECRET}@acct.blob.core.windows.net/data",
        f"https://acct.blob.core.windows.net:{SECRET}/data",
        f"https://acct.blob.core.windows.net/Data?{SAS}",
        f"https://acct.blob.core.windows.net/?{SAS}",
        f"https://acct.blob.core.windows.net/data?code={SECRET}",
        f"https://acct.blob.core.windows.net/data#{SECRET}",
        f"htps://acct.blob.core.windows.net/data?{SAS}",
        f"az://data:{SECRET}@acct",
    ],
)
def test_a_store_url_that_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_location(url)
    assert not shows("".join(traceback.format_exception(caught.value)) + caught.value.hint)


INDEXES = [
    f"postgresql://ada:{SECRET}@db.example/vds",
    f"postgresql://ada:p%40{SECRET}@db.example:5432/vds?sslmode=require",
    f"postgresql://ada:p/{SECRET}@db.example/vds",
    f"postgresql://db.example/vds?user=ada&password={SECRET}",
    f"postgresql://db.example/vds?sslkey=/k&sslpassword={SECRET}",
    f"postgresql://ada:{SECRET}@/vds?host=/var/run/postgresql",
    f"postgresql://db.example/vds?options=-c%20x={SECRET}",
    f"postgresql://db.example/vds?passfile=/{SECRET}&service={SECRET}",
]


class TestIndex:
    @pytest.mark.parametrize("url", INDEXES)
    def test_an_address(self, url: str) -> None:
        database = Database(url)
        check_shown(database)
        assert not shows(database.address)
        assert "vds" in database.address

    @pytest.mark.parametrize(
        "url",
        [
            f"postgresql://ada:{SECRET}",  # what stands where a port should
            f"postgresql://ada:{SECRET}/vds",
            f"postgresql://ada:p@{SECRET}@db.example/vds",  # an @ that is not written %40
            f"{SECRET}",
            f"mysql://ada:{SECRET}@db.example/vds",
            f"sqlite://{SECRET}",
        ],
    )
    def test_an_url_that_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidInputError) as caught:
            Database(url)
        assert not shows("".join(traceback.format_exception(caught.value)) + caught.value.hint)

    @pytest.mark.parametrize("url", INDEXES[:-1])
    def test_a_database_that_does_not_answer(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        database = Database(
            url.replace("db.example", "127.0.0.1").replace("/var/run/postgresql", "127.0.0.1")
            + ("&" if "?" in url else "?")
            + "port=1"
        )
        with pytest.raises(VdsError) as caught, database.read():
            pytest.fail("there is nothing on port 1")
        assert not shows("".join(traceback.format_exception(caught.value)) + caught.value.hint + caplog.text)
        check_shown(database)
        database.close()

    def test_how_to_log_in(self) -> None:
        check_shown(TokenLogin("scope", lambda scope: SECRET))

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://mine.postgres.database.azure.com/vds?host=evil.example",
            "postgresql://mine.postgres.database.azure.com/vds?hostaddr=192.0.2.1",
            "postgresql://mine.postgres.database.azure.com.evil.example/vds",
            "postgresql://evil.example/mine.postgres.database.azure.com",
            "postgresql:///vds?host=mine.postgres.database.azure.com,evil.example",
        ],
    )
    def test_a_token_goes_to_nobody_else(self, url: str) -> None:
        """The index that a store names comes out of its container: whoever may write there must not be sent a token."""
        login = find_token_login(url, lambda scope: SECRET, {"HOME": "/nonexistent"})
        dialect: Any = PGDialect_psycopg
        _, parameters = dialect().create_connect_args(parse_url(url))
        assert "evil.example" in str(parameters) or "192.0.2.1" in str(parameters)
        assert login is None


class TestPlaces:
    def test_settings(self, tmp_path: Path) -> None:
        url, index = f"https://acct.blob.core.windows.net/data?{SAS}", f"postgresql://ada:p {SECRET}@db.example/vds"
        check_shown(find_store_settings(url, index, environ={}, cwd=tmp_path))
        path = write_store_settings(url, index, environ={}, cwd=tmp_path)
        assert not shows(path.read_text())
        assert "postgresql://ada@db.example/vds" in path.read_text()

    @pytest.mark.parametrize("key", ["store", "index"])
    def test_settings_that_hold_one(self, key: str, tmp_path: Path) -> None:
        for value in (f"https://acct.blob.core.windows.net/data?{SAS}", *INDEXES[:5]):
            (tmp_path / "vds.toml").write_text(
                'store = "./s"\nindex = "./i"\n'.replace(f'{key} = "./{key[0]}"', f'{key} = "{value}"')
            )
            with pytest.raises(InvalidInputError, match="holds a secret") as caught:
                find_store_settings(environ={}, cwd=tmp_path)
            assert not shows(str(caught.value) + caught.value.hint)

    def test_a_location(self) -> None:
        location = parse_location(f"https://acct.blob.core.windows.net/data?{SAS}")
        assert isinstance(location, AzureLocation)
        assert SECRET in location.sas
        check_shown(location)
        assert not shows(location.url)


def test_a_store_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has kept is read through an index that was given with its password: that goes nowhere."""
    with vds.connect(tmp_path / "store", create=True) as store:
        store.namespace("raw").upload(write_tree(tmp_path / "src", {"a": b"1"}), show_progress=False)
        pickle.dumps(store.get("raw@1"))  # writes the list of its files to the cache
        url = store.url

    def is_down(*_: object, **__: object) -> Any:
        raise UnavailableError("it is down")

    with monkeypatch.context() as patch:
        patch.setattr("vds.blobs.directory.DirectoryDriver.list_blobs", is_down)
        offline = vds.connect(url, index=f"postgresql://ada:{SECRET}@127.0.0.1:1/vds", read_only=True)
        version = offline.get("raw@1")
        for found in (offline, version):
            check_shown(found)
            assert not shows(pickle.dumps(found))
    with pytest.raises(VdsError) as caught:  # again as it was to be opened: with the index that was given
        offline.get("raw@latest")
    trace = "".join(traceback.format_exception(caught.value))
    assert "127.0.0.1:1" in trace
    assert not shows(trace)


def test_a_whole_store(tmp_path: Path) -> None:
    """Everything that leads from a store, from the library's side: all of it has a repr, and none fails."""
    driver = MemoryDriver("secrets-objects")
    assert check_shown(driver)
    with vds.connect(tmp_path / "store", create=True) as store:
        result = store.namespace("raw").upload(write_tree(tmp_path / "src", {"a": b"1"}), show_progress=False)
        release = store.dataset("d").register("raw@1", tags=["prod"])
        with store.namespace("raw").transaction() as tx:
            tx.write_bytes("b", b"2")
            assert check_shown(tx)
        assert check_shown([store, result, release, store.get("raw@1"), list(store.get("raw@1").entries())]) > 20
