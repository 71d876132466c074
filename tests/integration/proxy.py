"""A proxy in front of a blob service, which answers for it, and a clock on which waiting takes no time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from azure.core.pipeline.transport import HttpTransport

import vds.blobs.azure
import vds.blobs.hot
from tests.unit.blobs.loopback import Received, Reply, Server
from vds.blobs.hot import HotCalls
from vds.blobs.sdk import open_client
from vds.pace import Pace

HOP_HEADERS = ("connection", "keep-alive", "transfer-encoding", "content-length")
PATIENCE_S = 10.0
"""A request that somebody had waited for, and that never came, is given up after this."""
CUT = Reply(b"", closes=True)
"""The connection ends without an answer."""


class EventClock:
    """A clock that goes as it does, and jumps to the next moment somebody waits for as soon as no request is on its way.

    Whoever waits for a second thereby waits longer than any request takes, and whoever waits a little longer than another comes
    later than it, as it would be without the jumps.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self._skipped_s = 0.0
        self._due_s: list[float] = []
        self._woken = 0  # have waited, and not yet made their request
        self._changed = threading.Condition()

    def now_s(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic() + self._skipped_s

    def sleep(self, seconds: float) -> None:
        """Wait; the caller makes a request next, or waits again."""
        with self._changed:
            due_s = self.now_s() + seconds
            self._due_s.append(due_s)
            self._woken = max(0, self._woken - 1)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._woken and not self.in_flight and due_s == min(self._due_s), PATIENCE_S)
            self._due_s.remove(due_s)
            self._skipped_s += max(0.0, due_s - self.now_s())
            self._woken += 1

    def begin(self) -> None:
        """Note that a request has come."""
        with self._changed:
            self.in_flight += 1
            self._woken = max(0, self._woken - 1)

    def end(self) -> None:
        """Note that a request was answered."""
        with self._changed:
            self.in_flight -= 1
            self._changed.notify_all()


def go_by(clock: EventClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have drivers made from now on go by this clock, until the test ends."""
    monkeypatch.setattr(vds.blobs.azure, "Pace", partial(Pace, clock=clock.now_s))
    monkeypatch.setattr(vds.blobs.hot, "HotCalls", partial(HotCalls, sleep=clock.sleep, clock=clock.now_s))
    monkeypatch.setattr(vds.blobs.azure, "open_client", partial(open_client, sleep=clock.sleep))
    monkeypatch.setattr(HttpTransport, "sleep", lambda self, seconds: clock.sleep(seconds))


def throttled(status: int, retry_after_s: int) -> Reply:
    """Return the answer of a service that has too much to do."""
    lines = [f"HTTP/1.1 {status} Busy", "x-ms-error-code: ServerBusy", f"Retry-After: {retry_after_s}", "Content-Length: 0"]
    return Reply("\r\n".join([*lines, "", ""]).encode())


@dataclass
class Front:
    """Passes every request on to the service, unless `judge` answers in its place.

    Attributes:
        url: of the service: `azurite://HOST:PORT/CONTAINER`.
        clock: is told of requests.
        judge: called with each request; the answer to give, or None.
        after: called with each request and the answer of the service; the answer to give.
    """

    url: str
    clock: EventClock = field(default_factory=EventClock)
    judge: Callable[[Received], Reply | None] = lambda request: None
    after: Callable[[Received, Reply], Reply] = lambda request, answer: answer
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Front:
        self._server = Server(self._answer)
        self._server.__enter__()
        self._behind: dict[int, HTTPConnection] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
        for connection in self._behind.values():
            connection.close()

    @property
    def front_url(self) -> str:
        """The url that leads here."""
        return re.sub(r"://[^/]*", f"://127.0.0.1:{self._server.port}", self.url, count=1)

    def _answer(self, request: Received) -> Reply:
        self.clock.begin()
        try:
            with self.lock:
                answer = self.judge(request)
            return answer or self.after(request, self._ask_service(request))
        finally:
            self.clock.end()

    def _ask_service(self, request: Received) -> Reply:
        if request.connection not in self._behind:
            self._behind[request.connection] = HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        connection = self._behind[request.connection]
        method, path, _ = request.line.split()
        with suppress(ConnectionError):  # the service may close a quiet connection
            connection.request(method, path, request.body, request.headers)
        answer = connection.getresponse()
        body = answer.read()
        length = answer.headers.get("Content-Length", "0") if method == "HEAD" else str(len(body))
        kept = [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() not in HOP_HEADERS]
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *kept, f"Content-Length: {length}", "", ""]
        return Reply("\r\n".join(lines).encode("latin-1") + body)
