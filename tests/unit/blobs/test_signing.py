"""Signing: the same bytes as the SDK signs, tokens kept while they last, secrets never shown."""

from __future__ import annotations

import base64
import os
import pickle
import random
import string
from typing import Any

import pytest
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.pipeline.transport import HttpRequest
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy

from vds.blobs.credential import Credential
from vds.blobs.signing import TOKEN_RENEWAL_S, Request, Signer, is_plain, quoted_path
from vds.errors import InvalidInputError

KEY = base64.b64encode(b"KEYsecret" * 4).decode()
NOW_S = 1_800_000_000.0


def signer(credential: Credential, ask_token: object = None, clock: object = None) -> Signer:
    return Signer("acct.example", credential, ask_token, clock=clock or (lambda: NOW_S))  # type: ignore[arg-type]


def parse(head: bytes) -> tuple[str, dict[str, str]]:
    assert head.endswith(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")[:-2]
    return line, dict(text.split(": ", 1) for text in lines)


METADATA = {f"x-ms-meta-{name}": "two words; a=b" for name in ("vds_digest", "a1", "a_", "a", "a_1", "a1_b", "_a", "ab")}


@pytest.mark.parametrize(
    "request_",
    [
        Request(
            "PUT",
            "/data/some/prefix/a~b%401",
            headers={
                "content-length": "11",
                "content-type": "application/octet-stream",
                "x-ms-blob-type": "BlockBlob",
                "if-none-match": "*",
                "x-ms-content-crc64": "AAAAAAAAAAA=",
                **METADATA,
            },
        ),
        Request("PUT", "/devstoreaccount1/data/a", headers={"content-length": "0", "x-ms-blob-type": "BlockBlob"}),
        Request("PUT", "/data/a", {"comp": "block", "blockid": "Ky89fiA/eA=="}, {"content-length": "7", "content-md5": "x=="}),
        Request("GET", "/data/a", headers={"x-ms-range": "bytes=0-4"}),
    ],
)
def test_a_key_signs_as_the_sdk_does(request_: Request) -> None:
    line, headers = parse(signer(Credential("a key", "acct", key=KEY)).head(request_))
    theirs = HttpRequest(request_.method, f"https://acct.example{line.split()[1]}", headers=dict(headers))
    ours = theirs.headers.pop("authorization")
    policy: Any = SharedKeyCredentialPolicy("acct", KEY)  # type: ignore[no-untyped-call]
    policy.on_request(PipelineRequest(theirs, PipelineContext(None)))
    assert theirs.headers["Authorization"] == ours
    assert headers["x-ms-date"] == "Fri, 15 Jan 2027 08:00:00 GMT"


def test_any_metadata_is_signed_as_the_sdk_does() -> None:
    rng = random.Random(7)
    for _ in range(200):
        names = {"".join(rng.choices(string.ascii_lowercase[:3] + "_12", k=rng.randint(1, 6))) for _ in range(5)}
        test_a_key_signs_as_the_sdk_does(Request("PUT", "/data/a", headers={f"x-ms-meta-{name}": "x" for name in names}))


def test_a_sas_goes_with_the_query() -> None:
    own = signer(Credential("a SAS", "acct", sas="sv=1&sig=SASsecret%3D"))
    line, headers = parse(own.head(Request("PUT", "/data/a", {"comp": "block", "blockid": "a+/="})))
    assert line == "PUT /data/a?comp=block&blockid=a%2B%2F%3D&sv=1&sig=SASsecret%3D HTTP/1.1"
    assert "authorization" not in headers
    assert parse(own.head(Request("GET", "/data/a")))[0] == "GET /data/a?sv=1&sig=SASsecret%3D HTTP/1.1"


class Tokens:
    """Gives out tokens that last an hour of its clock."""

    def __init__(self) -> None:
        self.now_s = NOW_S
        self.asked = 0

    def __call__(self) -> tuple[str, float]:
        self.asked += 1
        return f"TOKEN{self.asked}", self.now_s + 3600

    def signer(self) -> Signer:
        return signer(Credential("a token", "acct"), self, lambda: self.now_s)


def authorization(own: Signer) -> str:
    return parse(own.head(Request("GET", "/data/a")))[1]["authorization"]


def test_a_token_is_kept_until_shortly_before_it_expires() -> None:
    tokens = Tokens()
    own = tokens.signer()
    assert authorization(own) == "Bearer TOKEN1"
    tokens.now_s += 3600 - TOKEN_RENEWAL_S - 1
    assert authorization(own) == "Bearer TOKEN1"
    tokens.now_s += 1
    assert authorization(own) == "Bearer TOKEN2"
    assert tokens.asked == 2


def test_a_refused_token_is_asked_for_anew() -> None:
    own = Tokens().signer()
    authorization(own)
    own.forget_token()
    assert authorization(own) == "Bearer TOKEN2"


def test_a_fork_does_not_wait_for_a_thread_of_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Tokens().signer()
    own._tokens._lock.acquire()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert authorization(own) == "Bearer TOKEN1"


def test_a_token_that_would_end_the_header_is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        authorization(signer(Credential("a token", "acct"), lambda: ("TOKEN\r\nx: y", NOW_S + 3600)))
    assert "TOKEN" not in str(caught.value)


def test_no_secret_in_a_repr_or_a_pickle() -> None:
    own = signer(Credential("a key", "acct", key=KEY, sas=""))
    assert KEY not in repr(own)
    with pytest.raises(InvalidInputError):
        pickle.dumps(own)


def test_paths_are_quoted_once() -> None:
    assert quoted_path("/devstoreaccount1", "data", "a~b@1=2+3.c") == "/devstoreaccount1/data/a~b%401%3D2%2B3.c"
    assert quoted_path("", "data", "a/b") == "/data/a/b"


def test_what_is_plain() -> None:
    assert is_plain("")
    assert is_plain("sv=1&sig=%3D")
    for text in ("a b", "a\r\nb", "ä", "a\n"):
        assert not is_plain(text)
