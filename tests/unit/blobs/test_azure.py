"""The Azure driver without a service: errors, secrets, requests, forks."""

from __future__ import annotations

import base64
import io
import logging
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3.exceptions
from azure.core.credentials import AccessToken

from vds.blobs.answers import Asked, check_address
from vds.blobs.azure import AzureDriver
from vds.blobs.credential import Credential
from vds.blobs.driver import BlobDriver
from vds.blobs.location import AzureLocation, parse_location
from vds.blobs.open import open_driver
from vds.errors import (
    AccessDeniedError,
    BlobExistsError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VdsError,
)

KEY = base64.b64encode(b"KEYsecret" * 4).decode()
SAS = "sv=2024-01-01&sp=rl&sig=SASsecret%2F%3D"
TOKEN = "TOKENsecret"

Answer = Callable[[requests.PreparedRequest], requests.Response]


class Token:
    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken(TOKEN, 4102444800)


def respond(status: int, code: str = "", headers: dict[str, str] | None = None) -> Answer:
    def answer(request: requests.PreparedRequest) -> requests.Response:
        response = requests.Response()
        response.status_code = status
        response.reason = code
        response.request = request
        response.headers.update(
            {"Content-Length": "0", **({"x-ms-error-code": code} if status >= 400 else {}), **(headers or {})}
        )
        response.raw = urllib3.HTTPResponse(io.BytesIO(b""), headers=dict(response.headers), status=status, preload_content=False)
        return response

    return answer


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> list[requests.PreparedRequest]:
    """Answer every request with what `answer_with` was given, without any waiting; return the requests made."""
    sent: list[requests.PreparedRequest] = []
    monkeypatch.setattr("vds.blobs.azure.check_address", lambda asked: None)  # no test asks for an address outside
    monkeypatch.setattr("time.sleep", lambda seconds: sent[-1].headers.update({"waited": f"{seconds:.2f}"}))
    answer_with(monkeypatch, sent, respond(500, "InternalError"))
    return sent


def answer_with(monkeypatch: pytest.MonkeyPatch, sent: list[requests.PreparedRequest], answer: Answer) -> None:
    def send(adapter: object, request: requests.PreparedRequest, **_: object) -> requests.Response:
        sent.append(request)
        return answer(request)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)


def opened(credential: object = KEY, url: str = "az://data@acct/some/prefix") -> BlobDriver:
    return open_driver(url, credential)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "NoAuthenticationInformation", AccessDeniedError),
        (403, "AuthenticationFailed", AccessDeniedError),
        (403, "AuthorizationPermissionMismatch", AccessDeniedError),
        (404, "ContainerNotFound", NotFoundError),
        (404, "BlobNotFound", NotFoundError),
        (409, "BlobAlreadyExists", BlobExistsError),
        (409, "LeaseIdMissing", ConflictError),
        (409, "ContainerBeingDeleted", UnavailableError),
        (412, "ConditionNotMet", BlobExistsError),
        (400, "Md5Mismatch", CorruptionError),
        (400, "Crc64Mismatch", CorruptionError),
        (400, "InvalidBlockList", NotFoundError),
        (400, "InvalidHeaderValue", InvalidInputError),
        (408, "OperationTimedOut", UnavailableError),
        (429, "TooManyRequests", UnavailableError),
        (500, "InternalError", UnavailableError),
        (503, "ServerBusy", UnavailableError),
    ],
)
def test_answers_become_errors(
    monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest], status: int, code: str, error: type[VdsError]
) -> None:
    answer_with(monkeypatch, service, respond(status, code))
    with pytest.raises(error) as caught:
        opened().put_if_absent("a", b"1")
    assert isinstance(caught.value, error)
    assert (type(caught.value) is error) or error is NotFoundError
    if error is not BlobExistsError:
        assert caught.value.hint
    assert pickle.loads(pickle.dumps(caught.value)).hint == caught.value.hint


def test_a_condition_not_met_is_a_conflict_or_a_taken_key(
    monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest]
) -> None:
    answer_with(monkeypatch, service, respond(412, "ConditionNotMet", {"ETag": '"0x1"', "x-ms-blob-type": "BlockBlob"}))
    with pytest.raises(BlobExistsError):
        opened().commit_blocks("a", ["0001"])

    def there_but_changed(request: requests.PreparedRequest) -> requests.Response:
        status = 412 if request.method == "DELETE" else 200
        return respond(status, "ConditionNotMet", {"ETag": '"0x1"', "x-ms-blob-type": "BlockBlob"})(request)

    answer_with(monkeypatch, service, there_but_changed)
    with pytest.raises(ConflictError) as caught:
        opened().delete_blob("a", "0x2")
    assert type(caught.value) is ConflictError
    assert service[-2].headers["If-Match"] == '"0x2"'


def test_a_denied_write_names_credential_role_and_command(
    monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest]
) -> None:
    answer_with(monkeypatch, service, respond(403, "AuthorizationPermissionMismatch"))
    with pytest.raises(AccessDeniedError) as caught:
        opened(Token()).put_if_absent("a", b"1")
    assert "Token" in caught.value.hint
    assert '--role "Storage Blob Data Contributor"' in caught.value.hint
    assert "storageAccounts/acct/blobServices/default/containers/data" in caught.value.hint
    with pytest.raises(AccessDeniedError) as caught:
        opened(Token()).find_blob("a")
    assert '--role "Storage Blob Data Reader"' in caught.value.hint


def no_address(request: requests.PreparedRequest) -> requests.Response:
    error = urllib3.exceptions.NameResolutionError("acct", None, OSError("x"))  # type: ignore[arg-type]
    raise requests.ConnectionError(f"Max retries exceeded with url: {request.url} (Caused by {error!r})")


def timed_out(request: requests.PreparedRequest) -> requests.Response:
    raise requests.exceptions.ReadTimeout(f"read timed out: {request.url}")


def test_a_misspelt_account_is_told_after_a_few_seconds(
    monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest]
) -> None:
    answer_with(monkeypatch, service, no_address)
    with pytest.raises(UnavailableError, match="has no address") as caught:
        opened().find_blob("a")
    assert "spelling" in caught.value.hint
    assert "'acct'" in caught.value.hint
    assert len(service) == 3
    assert sum(float(request.headers.get("waited", 0)) for request in service) < 9


def test_no_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest]) -> None:
    answer_with(monkeypatch, service, timed_out)
    with pytest.raises(UnavailableError, match="no answer"):
        opened().find_blob("a")


def test_throttling_is_waited_out_as_asked(monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest]) -> None:
    answers = iter([respond(503, "ServerBusy", {"Retry-After": "17"}), respond(201, "", {"ETag": '"0x1"'})])
    answer_with(monkeypatch, service, lambda request: next(answers)(request))
    assert opened().put_if_absent("a", b"1") == "0x1"
    assert float(service[0].headers["waited"]) >= 17


def test_a_put_is_one_checked_conditional_request(
    monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest]
) -> None:
    answer_with(monkeypatch, service, respond(201, "", {"ETag": '"0x1"'}))
    body = bytes(64 << 20)
    assert opened().put_if_absent("a", memoryview(body), {"k": "v"}) == "0x1"
    (request,) = service
    assert request.url == "https://acct.blob.core.windows.net/data/some/prefix/a"
    assert request.headers["If-None-Match"] == "*"
    assert request.headers["Content-Length"] == str(len(body))
    assert request.headers["x-ms-meta-k"] == "v"
    assert request.headers["Content-MD5"]
    opened().stage_block("a", "0001", b"1")
    assert service[-1].headers["Content-MD5"]


@pytest.mark.parametrize(
    ("credential", "url"), [(KEY, "az://data@acct"), (SAS, "az://data@acct"), (None, f"az://data@acct?{SAS}")]
)
@pytest.mark.parametrize("answer", [respond(403, "AuthenticationFailed"), respond(500, "InternalError"), no_address, timed_out])
def test_no_secret_in_any_text(
    monkeypatch: pytest.MonkeyPatch,
    service: list[requests.PreparedRequest],
    caplog: pytest.LogCaptureFixture,
    credential: object,
    url: str,
    answer: Answer,
) -> None:
    caplog.set_level(logging.DEBUG)
    answer_with(monkeypatch, service, answer)
    driver = opened(credential, url)
    with pytest.raises(VdsError) as caught:
        driver.find_blob("a")
    logging.getLogger("urllib3.connectionpool").debug('https://acct "GET %s HTTP/1.1" 200', service[-1].path_url)
    trace = "".join(traceback.format_exception(caught.value))
    for text in (str(caught.value), caught.value.hint, repr(caught.value), trace, repr(driver), driver.url, caplog.text):
        assert "SASsecret" not in text
        assert KEY not in text
    with pytest.raises(InvalidInputError):
        pickle.dumps(driver)


def test_a_fork_gets_connections_of_its_own(monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest]) -> None:
    answer_with(monkeypatch, service, respond(201, "", {"ETag": '"0x1"'}))
    driver = opened()
    assert isinstance(driver, AzureDriver)
    driver.put_if_absent("a", b"1")
    before = driver._session
    monkeypatch.setattr(os, "getpid", lambda: -1)
    driver._lock.acquire()  # as another thread of the parent would have held it
    driver.put_if_absent("b", b"1")
    assert driver._session is not None
    assert driver._session is not before


def test_a_closed_driver_opens_again(monkeypatch: pytest.MonkeyPatch, service: list[requests.PreparedRequest]) -> None:
    answer_with(monkeypatch, service, respond(201, "", {"ETag": '"0x1"'}))
    driver = opened()
    driver.close()
    driver.put_if_absent("a", b"1")
    driver.close()
    driver.put_if_absent("b", b"1")
    assert len(service) == 2


class TestAddress:
    """A host is asked for before a token, which can take a minute to be refused."""

    def asked(self, credential: Credential) -> Asked:
        location = parse_location("az://data@acct")
        assert isinstance(location, AzureLocation)
        return Asked(location, credential, "look for the store", writing=False)

    def test_a_misspelt_account_shows_before_any_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vds.blobs.answers.getproxies", dict)
        hosts: list[str] = []

        def resolve(host: str, port: None) -> object:
            hosts.append(host)
            raise socket.gaierror(-2, "Name or service not known")

        with pytest.raises(UnavailableError, match="has no address") as caught:
            check_address(self.asked(Credential("DefaultAzureCredential", "acct")), resolve)
        assert hosts == ["acct.blob.core.windows.net"]
        assert "spelling of the account 'acct'" in caught.value.hint

    @pytest.mark.parametrize(
        ("credential", "proxies"),
        [(Credential("a key", "acct", key=KEY), {}), (Credential("a token", "acct"), {"https": "http://proxy:1"})],
    )
    def test_keys_and_proxies_need_no_look(
        self, monkeypatch: pytest.MonkeyPatch, credential: Credential, proxies: dict[str, str]
    ) -> None:
        monkeypatch.setattr("vds.blobs.answers.getproxies", lambda: proxies)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("looked up"))
        check_address(self.asked(credential), lambda host, port: pytest.fail("looked up"))
