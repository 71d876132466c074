"""Which credential is used, in which order, and that none can be read on the way."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace

import pytest

from vds.blobs.credential import choose_credential, principal_of
from vds.blobs.location import AzureLocation, parse_location
from vds.errors import InvalidInputError

KEY = base64.b64encode(b"the key of the account").decode()
OTHER_KEY = base64.b64encode(b"another key").decode()
SAS = "sv=2024&sig=SASsecret"


def at(text: str) -> AzureLocation:
    location = parse_location(text)
    assert isinstance(location, AzureLocation)
    return location


ACCT = at("az://data@acct")


def connection(account: str = "acct", secret: str = f"AccountKey={KEY}") -> str:
    return f"DefaultEndpointsProtocol=https;AccountName={account};{secret};EndpointSuffix=core.windows.net"


class Token:
    def get_token(self, *scopes: str) -> None:
        raise AssertionError("no call is made when choosing")


def test_the_order() -> None:
    environ = {
        "AZURE_STORAGE_CONNECTION_STRING": connection(secret=f"AccountKey={OTHER_KEY}"),
        "AZURE_STORAGE_KEY": KEY,
        "AZURE_STORAGE_ACCOUNT_KEY": OTHER_KEY,
        "AZURE_STORAGE_SAS_TOKEN": f"?{SAS}",
    }
    with_sas = at(f"az://data@acct?{SAS}1")
    assert choose_credential(with_sas, KEY, environ).key == KEY
    assert choose_credential(with_sas, None, environ).sas == f"{SAS}1"
    origins = []
    for name in (*environ, ""):
        chosen = choose_credential(ACCT, None, environ)
        origins.append(chosen.origin)
        environ.pop(name, None)
    assert [origin.removeprefix("the variable ") for origin in origins] == [
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "DefaultAzureCredential",
    ]


def test_variables_of_another_account_are_left_alone() -> None:
    environ = {"AZURE_STORAGE_CONNECTION_STRING": connection("other"), "AZURE_STORAGE_ACCOUNT": "other", "AZURE_STORAGE_KEY": KEY}
    assert choose_credential(ACCT, None, environ).origin == "DefaultAzureCredential"


@pytest.mark.parametrize(
    ("explicit", "key", "sas"),
    [
        (KEY, KEY, ""),
        (f"  {KEY}\n", KEY, ""),
        (SAS, "", SAS),
        (f"?{SAS}", "", SAS),
        (connection(), KEY, ""),
        (connection(secret=f"SharedAccessSignature={SAS}"), "", SAS),
        (f"BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature={SAS}", "", SAS),
        (SimpleNamespace(named_key=SimpleNamespace(name="acct", key=KEY)), KEY, ""),
        (SimpleNamespace(signature=f"?{SAS}"), "", SAS),
    ],
)
def test_what_can_be_passed_in(explicit: object, key: str, sas: str) -> None:
    chosen = choose_credential(ACCT, explicit, {"AZURE_STORAGE_KEY": OTHER_KEY})
    assert (chosen.key, chosen.sas, chosen.token) == (key, sas, None)
    assert "passed in" in chosen.origin


def test_a_token_credential_is_passed_on() -> None:
    token = Token()
    assert choose_credential(ACCT, token, {}).token is token


@pytest.mark.parametrize(
    "explicit",
    [
        "no base64 secret!",
        connection("other"),
        connection(secret="Nothing=x"),
        SimpleNamespace(named_key=SimpleNamespace(name="other", key=KEY)),
        5,
        b"bytes secret",
    ],
)
def test_what_cannot(explicit: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        choose_credential(ACCT, explicit, {})
    assert KEY not in str(caught.value) + caught.value.hint
    assert "secret" not in str(caught.value) + caught.value.hint


def test_azurite_uses_its_public_key() -> None:
    for text in ("azurite://data", "http://127.0.0.1:10000/devstoreaccount1/data"):
        assert choose_credential(at(text), None, {}).origin == "Azurite's public key"
    assert choose_credential(at("azurite://data"), "UseDevelopmentStorage=true", {}).key


@pytest.mark.parametrize(
    ("url", "explicit", "refused"),
    [
        ("http://10.0.0.7:10000/acct/data", Token(), True),
        ("http://10.0.0.7:10000/acct/data", None, True),
        ("http://10.0.0.7:10000/acct/data", SAS, True),
        ("http://10.0.0.7:10000/acct/data", KEY, False),
        ("http://127.0.0.1:10000/acct/data", SAS, False),
        ("http://127.0.0.1:10000/acct/data", Token(), True),
        ("https://10.0.0.7:10000/acct/data", Token(), False),
    ],
)
def test_nothing_readable_goes_over_http(url: str, explicit: object, refused: bool) -> None:
    if refused:
        with pytest.raises(InvalidInputError, match="readable on the way"):
            choose_credential(at(url), explicit, {})
    else:
        choose_credential(at(url), explicit, {})


def test_no_repr_shows_a_secret() -> None:
    for explicit in (KEY, SAS, connection()):
        text = repr(choose_credential(ACCT, explicit, {}))
        assert KEY not in text
        assert "SASsecret" not in text


def token_with(claims: object) -> str:
    return "e30." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".signature"


@pytest.mark.parametrize(
    ("token", "principal"),
    [
        (token_with({"upn": "ada@example.com", "oid": "1"}), "ada@example.com"),
        (token_with({"preferred_username": "", "appid": "app-7", "oid": "1"}), "app-7"),
        (token_with({"oid": "0f0e"}), "0f0e"),
        (token_with({"aud": "nobody"}), None),
        (token_with(["a list"]), None),
        ("no token", None),
        ("a.%%%.c", None),
    ],
)
def test_who_a_token_names(token: str, principal: str | None) -> None:
    assert principal_of(token) == principal
