"""Signed urls: what stands in them, who can sign, and what a user delegation key costs."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import urllib3
from azure.core.credentials import AccessToken

from vds.blobs.open import open_driver
from vds.blobs.share import content_disposition
from vds.errors import AccessDeniedError, InvalidInputError

KEY = base64.b64encode(b"KEYsecret" * 4).decode()
DELEGATED = base64.b64encode(b"DELEGATEDsecret" * 3).decode()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIMES: dict[str, datetime] = {"starts_at": NOW - timedelta(minutes=15), "expires_at": NOW + timedelta(hours=4)}
NAME = "objects/ab/abcd.01jq"
HTTPS = "https://acct.blob.core.windows.net/data/some/prefix"


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


class TestAccountKey:
    def test_a_url_reads_one_blob_over_https_until_its_end(self) -> None:
        [url] = open_driver("az://data@acct/some/prefix", KEY).sign_reads([(NAME, "model.bin")], **TIMES)
        assert url.partition("?")[0] == f"{HTTPS}/{NAME}"
        said = query(url)
        assert (said["sp"], said["sr"], said["spr"], said["se"]) == ("r", "b", "https", "2026-03-01T16:00:00Z")
        assert said["rscd"] == 'attachment; filename="model.bin"'
        assert not said.keys() & {"st", "sip", "skoid"}
        assert KEY not in url

    def test_an_endpoint_without_https_is_read_as_it_is(self) -> None:
        [url] = open_driver("azurite://data").sign_reads([(NAME, "a")], **TIMES)
        assert url.startswith(f"http://127.0.0.1:10000/devstoreaccount1/data/{NAME}?")
        assert "spr" not in query(url)

    def test_signs_each_blob_by_itself_without_a_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", None)
        urls = open_driver("az://data@acct", KEY).sign_reads([(NAME, "a"), (NAME, "b"), ("objects/cd/e", "a")], **TIMES)
        assert len({query(url)["sig"] for url in urls}) == 3
        assert [query(url)["rscd"][-3:] for url in urls] == ['"a"', '"b"', '"a"']

    def test_only_keys_of_blobs_are_signed(self) -> None:
        with pytest.raises(InvalidInputError, match="is not the key of a blob"):
            open_driver("az://data@acct", KEY).sign_reads([("../other", "a")], **TIMES)


def test_a_sas_cannot_sign_another_one() -> None:
    driver = open_driver("az://data@acct", "sv=2024-01-01&sp=rl&sig=SASsecret")
    with pytest.raises(InvalidInputError, match="cannot sign urls") as caught:
        driver.sign_reads([(NAME, "a")], **TIMES)
    assert "az login" in caught.value.hint
    assert "vds export" in caught.value.hint


class Token:
    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("TOKENsecret", 4102444800)


class Service:
    """Hands out user delegation keys, or an error."""

    def __init__(self) -> None:
        self.requests: list[requests.PreparedRequest] = []
        self.status, self.code = 200, ""

    def send(self, adapter: object, request: requests.PreparedRequest, **_: object) -> requests.Response:
        self.requests.append(request)
        body = (
            "<UserDelegationKey><SignedOid>oid</SignedOid><SignedTid>tid</SignedTid><SignedStart>2026-03-01T11:45:00Z</SignedStart>"
            "<SignedExpiry>2026-03-01T16:00:00Z</SignedExpiry><SignedService>b</SignedService>"
            f"<SignedVersion>2021-12-02</SignedVersion><Value>{DELEGATED}</Value></UserDelegationKey>"
        ).encode()
        answer = requests.Response()
        answer.status_code, answer.reason, answer.request = self.status, "", request
        answer.headers.update({"Content-Type": "application/xml", **({"x-ms-error-code": self.code} if self.code else {})})
        raw = body if self.status == 200 else b""
        answer.raw = urllib3.HTTPResponse(
            io.BytesIO(raw), headers=dict(answer.headers), status=self.status, preload_content=False
        )
        return answer


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    monkeypatch.setattr("vds.blobs.azure.check_address", lambda asked: None)
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", lambda *args, **options: service.send(*args, **options))
    return service


class TestUserDelegationKey:
    def test_one_key_is_asked_for_and_signs_all(self, service: Service) -> None:
        urls = open_driver("az://data@acct/some/prefix", Token()).sign_reads([(NAME, "a"), (NAME, "b"), ("x", "c")], **TIMES)
        [asked] = service.requests
        assert (asked.method, asked.url) == ("POST", "https://acct.blob.core.windows.net/?restype=service&comp=userdelegationkey")
        assert asked.headers["Authorization"] == "Bearer TOKENsecret"
        body = str(asked.body)
        assert "<Start>2026-03-01T11:45:00Z</Start>" in body
        assert "<Expiry>2026-03-01T16:00:00Z</Expiry>" in body
        assert len({query(url)["sig"] for url in urls}) == 3
        for url in urls:
            said = query(url)
            assert (said["sp"], said["sr"], said["spr"], said["skoid"], said["sktid"]) == ("r", "b", "https", "oid", "tid")
            assert "TOKENsecret" not in url
            assert DELEGATED not in url

    def test_nothing_to_sign_asks_for_nothing(self, service: Service) -> None:
        assert open_driver("az://data@acct", Token()).sign_reads([], **TIMES) == []
        assert service.requests == []

    def test_a_role_that_may_not_sign(self, service: Service) -> None:
        service.status, service.code = 403, "AuthorizationPermissionMismatch"
        with pytest.raises(AccessDeniedError, match="user delegation key") as caught:
            open_driver("az://data@acct", Token()).sign_reads([(NAME, "a")], **TIMES)
        assert "'Storage Blob Delegator' on the storage account 'acct'" in caught.value.hint

    def test_times_that_the_service_does_not_take(self, service: Service) -> None:
        service.status, service.code = 400, "InvalidXmlNodeValue"
        with pytest.raises(InvalidInputError) as caught:
            open_driver("az://data@acct", Token()).sign_reads([(NAME, "a")], **TIMES)
        assert "clock" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.bin", 'attachment; filename="model.bin"'),
        ("a b+c=d@e-f.txt", 'attachment; filename="a b+c=d@e-f.txt"'),
        ('say "hi".txt', "attachment; filename=\"say _hi_.txt\"; filename*=UTF-8''say%20%22hi%22.txt"),
        ("50%41.txt", "attachment; filename=\"50_41.txt\"; filename*=UTF-8''50%2541.txt"),
        ("naïve.txt", "attachment; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        ("데이터", "attachment; filename=\"___\"; filename*=UTF-8''%EB%8D%B0%EC%9D%B4%ED%84%B0"),
        ("a;b'c*.txt", "attachment; filename=\"a;b'c*.txt\"; filename*=UTF-8''a%3Bb%27c%2A.txt"),
    ],
)
def test_a_download_is_saved_under_its_name(name: str, expected: str) -> None:
    assert content_disposition(name) == expected
