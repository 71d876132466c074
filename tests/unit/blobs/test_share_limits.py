"""What no signed url may be: good for more than a blob, for writing, over a line that others read, or for long."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from vds.blobs.open import open_driver
from vds.errors import InvalidInputError

KEY = base64.b64encode(b"KEYsecret" * 4).decode()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = "objects/ab/abcd.01jq"


def sign(url: str, *, starts_at: datetime = NOW, expires_at: datetime = NOW + timedelta(hours=4)) -> dict[str, str]:
    """Return the parameters of a url that reads a blob in a store."""
    [signed] = open_driver(url, KEY).sign_reads([(NAME, "model.bin")], starts_at=starts_at, expires_at=expires_at)
    return {name: values[0] for name, values in parse_qs(urlsplit(signed).query).items()}


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:10000/acct/data", "http://localhost:10000/acct/data", "http://[::1]:10000/acct/data", "azurite://data"],
)
def test_http_is_for_this_machine_alone(url: str) -> None:
    assert "spr" not in sign(url)


@pytest.mark.parametrize(
    "url", ["http://acct.blob.core.windows.net/data", "http://10.1.2.3:10000/acct/data", "http://azurite.example:10000/acct/data"]
)
def test_no_url_is_signed_that_others_could_read_on_its_way(url: str) -> None:
    with pytest.raises(InvalidInputError, match="readable on its way") as caught:
        sign(url)
    assert "https" in caught.value.hint


@pytest.mark.parametrize("url", ["https://acct.blob.core.windows.net/data", "https://10.1.2.3:443/acct/data", "az://data@acct/p"])
def test_a_url_says_the_least(url: str) -> None:
    said = sign(url)
    assert (said["sp"], said["sr"], said["spr"]) == ("r", "b", "https")
    assert said.keys() == {"sv", "sp", "sr", "spr", "se", "rscd", "sig"}  # no start: good at once by the service's own clock
    assert datetime.fromisoformat(said["se"]) == NOW + timedelta(hours=4)


@pytest.mark.parametrize("starts_at", [NOW, NOW - timedelta(minutes=15)])
def test_seven_days_are_the_most(starts_at: datetime) -> None:
    assert sign("az://data@acct", starts_at=starts_at, expires_at=starts_at + timedelta(days=7))
    with pytest.raises(InvalidInputError, match="cannot be good from"):
        sign("az://data@acct", starts_at=starts_at, expires_at=starts_at + timedelta(days=7, seconds=1))


@pytest.mark.parametrize("expires_at", [NOW, NOW - timedelta(seconds=1), NOW - timedelta(days=3650)])
def test_no_time_at_all_is_refused(expires_at: datetime) -> None:
    with pytest.raises(InvalidInputError, match="cannot be good from"):
        sign("az://data@acct", expires_at=expires_at)
