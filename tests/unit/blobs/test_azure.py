"""The Azure driver without a service: errors, secrets, requests, forks."""

from __future__ import annotations

import base64
import io
import logging
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3.exceptions
from azure.core.credentials import AccessToken

from tests.unit.blobs.loopback import CREATED, Received, Server, reply
from vds.blobs.answers import Asked, check_address
from vds.blobs.azure import PACE_MOST, PACE_START, AzureDriver
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
from vds.pace import Pace

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
    """Answer every request of the SDK with what `answer_with` was given, without any waiting; return the requests made."""
    sent: list[requests.PreparedRequest] = []
    monkeypatch.setattr("vds.blobs.azure.open_hot", lambda *_: None)
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
    monkeypatch.setattr(Pace, "pause_s", lambda pace: 0.0)  # it goes by the real clock, which waits of this test do not move
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
    before = driver._clients
    monkeypatch.setattr(os, "getpid", lambda: -1)
    driver._lock.acquire()  # as another thread of the parent would have held it
    driver.put_if_absent("b", b"1")
    assert driver._clients is not None
    assert driver._clients is not before


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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, plain_environment: None) -> Iterator[Server]:
    """Return a service on this machine that both the hot calls and the SDK ask; the SDK does not wait."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with Server(lambda request: CREATED) as server:
        yield server


def at(server: Server, credential: object = KEY) -> BlobDriver:
    return open_driver(f"http://127.0.0.1:{server.port}/acct/data/some/prefix", credential)


def is_hot(request: Received) -> bool:
    return request.headers["user-agent"].startswith("vds/")


class TestBothPaths:
    """Puts and reads go without the SDK; what that does not know is asked again through it."""

    def test_twenty_puts_are_twenty_requests_over_one_connection(self, server: Server) -> None:
        driver = at(server)
        for number in range(20):
            assert driver.put_if_absent(f"a{number}", b"hello") == "0x1"
        assert server.connections == 1
        assert len(server.received) == 20
        assert all(is_hot(request) for request in server.received)
        assert server.received[7].line == "PUT /acct/data/some/prefix/a7 HTTP/1.1"
        driver.close()

    def test_put_stage_commit_and_read_make_one_request_each(self, server: Server) -> None:
        driver = at(server)
        driver.put_if_absent("a", b"hello", {"k": "v"})
        driver.stage_block("a", "0001", memoryview(b"hello"))
        assert driver.commit_blocks("a", ["0001"], {"k": "v"}) == "0x1"
        server.answer = lambda request: reply(206, {"Content-Range": "bytes 1-3/5"}, b"ell")
        assert driver.read_range("a", 1, 3) == b"ell"
        assert [request.line.split()[0] for request in server.received] == ["PUT", "PUT", "PUT", "GET"]
        assert all(is_hot(request) for request in server.received)
        driver.close()

    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (401, "InvalidAuthenticationInfo", AccessDeniedError),
            (403, "AuthenticationFailed", AccessDeniedError),
            (400, "InvalidHeaderValue", InvalidInputError),
            (409, "BlobAlreadyExists", BlobExistsError),
            (412, "ConditionNotMet", BlobExistsError),
        ],
    )
    def test_the_answer_of_the_sdk_counts(self, server: Server, status: int, code: str, error: type[VdsError]) -> None:
        server.answer = lambda request: reply(status, {"x-ms-error-code": code})
        driver = at(server)
        with pytest.raises(error):
            driver.put_if_absent("a", b"hello")
        assert [is_hot(request) for request in server.received] == [True, False]
        driver.close()

    def test_what_only_the_hot_path_is_refused_works_all_the_same(self, server: Server) -> None:
        server.answer = lambda request: reply(403) if is_hot(request) else CREATED
        driver = at(server)
        assert driver.put_if_absent("a", b"hello") == "0x1"
        driver.stage_block("a", "0001", b"hello")
        assert [is_hot(request) for request in server.received] == [True, False, True, False]
        assert server.received[1].headers["content-md5"]
        assert server.received[3].headers["content-md5"]
        assert [request.body for request in server.received] == [b"hello"] * 4
        driver.close()

    def test_throttling_is_waited_out_without_the_sdk(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        answers = iter([reply(503, {"Retry-After": "7"}), reply(429), CREATED])
        server.answer = lambda request: next(answers)
        driver = at(server)
        assert isinstance(driver, AzureDriver)
        hot = driver._opened().hot
        assert hot is not None
        monkeypatch.setattr(hot, "_sleep", waits.append)
        monkeypatch.setattr(driver.pace, "_clock", lambda: time.monotonic() + sum(waits))
        assert driver.put_if_absent("a", b"hello") == "0x1"
        assert len(waits) == 2
        assert waits[0] >= 7
        assert driver.pace.limit < PACE_START
        driver.close()

    def test_no_secret_of_a_hot_call_in_any_text(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.answer = lambda request: reply(503, {"x-ms-error-code": "ServerBusy"})
        driver = at(server, SAS)
        assert isinstance(driver, AzureDriver)
        hot = driver._opened().hot
        assert hot is not None
        monkeypatch.setattr(hot, "_sleep", lambda seconds: None)
        with pytest.raises(UnavailableError) as caught:
            driver.put_if_absent("a", b"1")
        assert "sig=SASsecret" in server.received[0].line
        trace = "".join(traceback.format_exception(caught.value))
        for text in (str(caught.value), caught.value.hint, trace, caplog.text, repr(driver._clients), repr(hot), repr(hot._wire)):
            assert "SASsecret" not in text
        driver.close()


@pytest.mark.usefixtures("plain_environment")
class TestEncrypted:
    """Both paths trust the same certificates."""

    def test_a_certificate_that_is_not_trusted_names_the_variable(
        self, encrypted: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        driver = open_driver(f"https://127.0.0.1:{encrypted.port}/acct/data", KEY)
        with pytest.raises(UnavailableError, match="is not trusted") as caught:
            driver.put_if_absent("a", b"1")
        assert "REQUESTS_CA_BUNDLE" in caught.value.hint
        assert encrypted.received == []
        driver.close()

    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_an_authority_of_ones_own(
        self, encrypted: Server, authority: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, str(authority / "ca.pem"))
        encrypted.answer = lambda request: reply(403) if is_hot(request) else CREATED
        driver = open_driver(f"https://127.0.0.1:{encrypted.port}/acct/data", KEY)
        assert driver.put_if_absent("a", b"1") == "0x1"
        assert [is_hot(request) for request in encrypted.received] == [True, False]
        driver.close()

    def test_certificates_that_are_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
        with pytest.raises(InvalidInputError, match="REQUESTS_CA_BUNDLE"):
            opened().find_blob("a")


def test_its_pace_starts_modest() -> None:
    driver = opened()
    assert (driver.pace.limit, driver.pace.most) == (PACE_START, PACE_MOST)
    assert driver.pace is driver.pace
