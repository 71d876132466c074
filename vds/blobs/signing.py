"""Requests to the blob service, and the proof of who sends them: an account key, a shared access signature or a token.

Source: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import NoReturn
from urllib.parse import quote

from vds._version import __version__
from vds.blobs.credential import Credential
from vds.errors import InvalidInputError

# Every SDK since 12.20 and every Azurite since 3.15 knows it; newest versions are refused by an Azurite a few weeks older.
API_VERSION = "2021-12-02"
TOKEN_RENEWAL_S = 300.0
"""A token is asked for anew this long before it expires."""

_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)
_PLAIN = re.compile(r"[!-~]*")

AskToken = Callable[[], tuple[str, float]]
"""Returns a token and when it expires, in seconds of the epoch."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request before it is signed.

    Attributes:
        path: from the root of the host, percent-encoded.
        query: names and values, not encoded.
        headers: names in lower case.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Signer:
    """Turns requests to one host into the bytes to send; thread-safe. Made without a call.

    Args:
        authority: the value of the Host header.
        credential: the key, or the SAS; neither means a token.
        ask_token: asked where a token is needed, by one thread at a time.
        clock: seconds of the epoch.
    """

    def __init__(
        self, authority: str, credential: Credential, ask_token: AskToken, *, clock: Callable[[], float] = time.time
    ) -> None:
        assert is_plain(credential.sas)
        self._fixed = {"host": authority, "user-agent": f"vds/{__version__}", "x-ms-version": API_VERSION}
        self._account = credential.account
        self._key = base64.b64decode(credential.key)
        self._sas = credential.sas
        self._tokens = _Tokens(ask_token, clock)
        self._clock = clock

    def __reduce__(self) -> NoReturn:
        raise InvalidInputError("a credential is not sent to another process")

    def head(self, request: Request) -> bytes:
        """Return request line and headers as they are sent, with the empty line.

        Raises:
            Exception: what `ask_token` raised.
        """
        headers = {**self._fixed, "x-ms-date": formatdate(self._clock(), usegmt=True), **request.headers}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in request.query.items())
        if self._key:
            signature = hmac.digest(self._key, string_to_sign(self._account, request, headers).encode(), "sha256")
            headers["authorization"] = f"SharedKey {self._account}:{base64.b64encode(signature).decode()}"
        elif self._sas:
            query = f"{query}&{self._sas}" if query else self._sas
        else:
            headers["authorization"] = f"Bearer {self._tokens.get()}"
        target = f"{request.path}?{query}" if query else request.path
        lines = [f"{request.method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def forget_token(self) -> None:
        """Ask for a token the next time, whatever the old one says of itself: the service refused it."""
        self._tokens.forget()


def string_to_sign(account: str, request: Request, headers: Mapping[str, str]) -> str:
    """Return what an account key signs; `headers` are those of the request and those added to it."""
    # No length is signed as nothing, not as 0; and the others stand for nothing when they are missing.
    signed = ["" if name == "content-length" and headers.get(name) == "0" else headers.get(name, "") for name in _SIGNED_HEADERS]
    # The service sorts "_" before digits, as dictionaries do, not after them.
    names = sorted((name for name in headers if name.startswith("x-ms-")), key=lambda name: name.replace("_", "!"))
    own = [f"{name}:{headers[name]}" for name in names]
    query = [f"{name.lower()}:{value}" for name, value in sorted(request.query.items())]
    return "\n".join([request.method, *signed, *own, f"/{account}{request.path}", *query])


def quoted_path(*parts: str) -> str:
    """Return the path of a request: `parts` joined, percent-encoded as the SDK does it."""
    return quote("/".join(parts), safe="~/")


def is_plain(text: str) -> bool:
    """Return whether `text` may stand in a request line or a header as it is."""
    return _PLAIN.fullmatch(text) is not None


class _Tokens:
    """The token in use, renewed before it expires."""

    def __init__(self, ask: AskToken, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._token, self._expires_s = "", 0.0

    def get(self) -> str:
        if self._pid != os.getpid():
            self._lock = threading.Lock()  # at the fork a thread may have held it that is not here
            self._pid = os.getpid()
        if self._clock() < self._expires_s - TOKEN_RENEWAL_S:
            return self._token
        with self._lock:
            if self._clock() >= self._expires_s - TOKEN_RENEWAL_S:  # else another thread renewed it meanwhile
                token, expires_s = self._ask()
                if not is_plain(token):
                    raise InvalidInputError("the credential returned a token with characters that no header holds")
                self._token, self._expires_s = token, expires_s
            return self._token

    def forget(self) -> None:
        self._expires_s = 0.0
