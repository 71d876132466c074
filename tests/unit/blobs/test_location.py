"""Urls of stores: every form, every refusal, and no secret in any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vds.blobs.directory import DirectoryDriver
from vds.blobs.location import AzureLocation, DirectoryLocation, MemoryLocation, parse_location
from vds.blobs.memory import MemoryDriver
from vds.blobs.open import open_driver
from vds.errors import InvalidInputError

PUBLIC = "https://acct.blob.core.windows.net"
LOCAL = "http://127.0.0.1:10000/devstoreaccount1"


@pytest.mark.parametrize(
    ("text", "account", "account_url", "container", "prefix"),
    [
        (f"{PUBLIC}/data", "acct", PUBLIC, "data", ""),
        (f"{PUBLIC}/data/", "acct", PUBLIC, "data", ""),
        (f"{PUBLIC}/data/team/a", "acct", PUBLIC, "data", "team/a"),
        ("HTTPS://ACCT.blob.core.windows.net/data", "acct", PUBLIC, "data", ""),
        ("https://acct.dfs.core.windows.net/data", "acct", PUBLIC, "data", ""),
        ("https://acct.blob.core.chinacloudapi.cn/data", "acct", "https://acct.blob.core.chinacloudapi.cn", "data", ""),
        ("https://acct.blob.core.usgovcloudapi.net/d-1", "acct", "https://acct.blob.core.usgovcloudapi.net", "d-1", ""),
        ("https://acct.z01.blob.storage.azure.net/data", "acct", "https://acct.z01.blob.storage.azure.net", "data", ""),
        (
            "https://acct.privatelink.blob.core.windows.net/data/p",
            "acct",
            "https://acct.privatelink.blob.core.windows.net",
            "data",
            "p",
        ),
        ("https://data.example.com/data", "data", "https://data.example.com", "data", ""),
        ("http://127.0.0.1:10000/devstoreaccount1/data/p", "devstoreaccount1", LOCAL, "data", "p"),
        ("https://10.0.0.7/acct/data", "acct", "https://10.0.0.7/acct", "data", ""),
        ("http://localhost:1234/acct/data", "acct", "http://localhost:1234/acct", "data", ""),
        ("http://azurite:10000/acct/data", "acct", "http://azurite:10000/acct", "data", ""),
        ("http://[::1]:10000/acct/data", "acct", "http://[::1]:10000/acct", "data", ""),
        ("abfss://data@acct.dfs.core.windows.net", "acct", PUBLIC, "data", ""),
        ("abfss://data@acct.dfs.core.windows.net/team/a/", "acct", PUBLIC, "data", "team/a"),
        ("az://data@acct/team", "acct", PUBLIC, "data", "team"),
        ("az://data@acct", "acct", PUBLIC, "data", ""),
        ("az://data@acct.blob.core.chinacloudapi.cn", "acct", "https://acct.blob.core.chinacloudapi.cn", "data", ""),
        ("azurite://data", "devstoreaccount1", LOCAL, "data", ""),
        ("azurite://data/team/a", "devstoreaccount1", LOCAL, "data", "team/a"),
        ("azurite://127.0.0.1:10000/data/p", "devstoreaccount1", LOCAL, "data", "p"),
        ("azurite://localhost:7/data", "devstoreaccount1", "http://localhost:7/devstoreaccount1", "data", ""),
        ("azurite://localhost/data", "devstoreaccount1", "http://localhost:10000/devstoreaccount1", "data", ""),
    ],
)
def test_azure(text: str, account: str, account_url: str, container: str, prefix: str) -> None:
    location = parse_location(text)
    assert location == AzureLocation(account, account_url, container, prefix)
    assert isinstance(location, AzureLocation)
    assert parse_location(location.url) == location


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///data/store", "/data/store"),
        ("file:///data/a%20b", "/data/a b"),
        ("file://localhost/data", "/data"),
        ("/data/store/", "/data/store"),
        ("./store", "store"),
        (".", "."),
        ("..", ".."),
        ("data/store", "data/store"),
        ("~/store", "~/store"),
    ],
)
def test_directories(text: str, path: str) -> None:
    expected = Path(path).expanduser().absolute()
    location = parse_location(text)
    assert isinstance(location, DirectoryLocation)
    assert location.path == Path(*expected.parts).resolve() or location.path == expected
    assert location.path.is_absolute()


def test_a_drive_letter_makes_a_path() -> None:
    assert isinstance(parse_location("C:store"), DirectoryLocation)
    assert isinstance(parse_location("C:\\store"), DirectoryLocation)


@pytest.mark.parametrize("text", ["prod", "team-store", "memory", "https"])
def test_a_bare_word_is_no_place(text: str) -> None:
    assert parse_location(text) is None
    with pytest.raises(InvalidInputError, match="a name, not a place"):
        open_driver(text)


def test_memory() -> None:
    assert parse_location("memory://x-1") == MemoryLocation("x-1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("htps://acct.blob.core.windows.net/data", "unknown scheme 'htps'"),
        ("azure://data", "unknown scheme"),
        ("s3://bucket", "unknown scheme"),
        ("https:/acct.blob.core.windows.net/data", "no // after"),
        (PUBLIC, "names no container"),
        (f"{PUBLIC}/", "names no container"),
        (f"{PUBLIC}/Data", "container 'Data'"),
        (f"{PUBLIC}/da", "container 'da'"),
        (f"{PUBLIC}/" + "d" * 64, "container"),
        (f"{PUBLIC}/a--b", "container"),
        (f"{PUBLIC}/-ab", "container"),
        (f"{PUBLIC}/a_b", "container"),
        (f"{PUBLIC}/data/../x", "prefix"),
        (f"{PUBLIC}/data/a b", "prefix"),
        (f"{PUBLIC}/data?comp=list", "query"),
        (f"{PUBLIC}/data#x", "#"),
        ("https://acct/data", "full host name"),
        ("https://acct.blob.core.windows.net:x/data", "host and port"),
        ("https://me:secret@acct.blob.core.windows.net/data", "names a user"),
        ("http://127.0.0.1:10000", "names no account"),
        ("http://127.0.0.1:10000/acct", "names no container"),
        ("abfss://acct.dfs.core.windows.net/data", "CONTAINER@ACCOUNT"),
        ("abfss://data@acct", "no storage account"),
        ("az://data", "CONTAINER@ACCOUNT"),
        ("az://data@ACCT", "no storage account"),
        ("az://data@ac", "no storage account"),
        ("azurite://", "names no container"),
        ("azurite://127.0.0.1:10000", "names no container"),
        ("azurite://Data", "container 'Data'"),
        ("file://host/data", "names a host"),
        ("file:data", "no // after"),
        ("memory://", "no plain name"),
        ("memory://a/b", "no plain name"),
        ("/data/\0x", "null character"),
    ],
)
def test_what_does_not_parse(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        parse_location(text)
    assert "secret" not in str(caught.value) + caught.value.hint


def test_a_misspelt_scheme_gets_a_proposal() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_location("abffs://data@acct.dfs.core.windows.net")
    assert "abfss://" in caught.value.hint


def test_a_sas_is_taken_out() -> None:
    sas = "sv=2024-01-01&sp=rl&sig=TOPsecret%2F%3D"
    for text in (f"{PUBLIC}/data/p?{sas}", f"abfss://data@acct.dfs.core.windows.net/p?{sas}", f"az://data@acct/p?{sas}"):
        location = parse_location(text)
        assert isinstance(location, AzureLocation)
        assert location.sas == sas
        assert location.url == f"{PUBLIC}/data/p"
        assert "TOPsecret" not in repr(location)
    with pytest.raises(InvalidInputError) as caught:
        parse_location(f"{PUBLIC}/DATA?{sas}")
    assert "TOPsecret" not in str(caught.value) + caught.value.hint


def test_open_driver(tmp_path: Path) -> None:
    assert isinstance(open_driver("memory://open"), MemoryDriver)
    assert isinstance(open_driver(str(tmp_path)), DirectoryDriver)
    directory = open_driver((tmp_path / "a b é").as_uri())
    assert open_driver(directory.url).url == directory.url
    azure = open_driver("azurite://data/p")
    assert azure.url == f"{LOCAL}/data/p"
    azure.close()
