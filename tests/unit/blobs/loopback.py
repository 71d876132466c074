"""A server on this machine that answers as a test says, and a proxy that asks nothing but a password."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass(frozen=True)
class Received:
    """One request, and the number of the connection it came over."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass(frozen=True)
class Reply:
    """What to send back, as it is, and whether to close the connection then."""

    data: bytes
    closes: bool = False


Answerer = Callable[[Received], Reply]


def reply(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
    lines = [f"HTTP/1.1 {status} Word", *[f"{name}: {value}" for name, value in (headers or {}).items()]]
    return Reply("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)


CREATED = reply(201, {"ETag": '"0x1"'})


@dataclass
class Server:
    """Answers every request on every connection until it is closed."""

    answer: Answerer
    context: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    opened: list[socket.socket] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Server:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def hang_up(self) -> None:
        """Close all connections, as servers do with quiet ones."""
        for connected in self.opened:
            with suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)  # below the encryption, which another thread is reading

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            number = self.connections
            self._start(lambda connected=connected, number=number: self._serve(connected, number))  # type: ignore[misc]

    def _serve(self, connected: socket.socket, number: int) -> None:
        with connected, suppress(OSError, ValueError):
            if self.context is not None:
                connected = self.context.wrap_socket(connected, server_side=True)
            self.opened.append(connected)
            with connected, connected.makefile("rb") as stream:
                while self._serve_one(connected, stream, number):
                    pass

    def _serve_one(self, connected: socket.socket, stream: BinaryIO, number: int) -> bool:
        line = stream.readline().decode().strip()
        if not line:
            return False
        headers = {}
        while text := stream.readline().decode().strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0)))
        received = Received(line, headers, body, number)
        self.received.append(received)
        answer = self.answer(received)
        connected.sendall(answer.data)
        return not answer.closes


class TunnelProxy(Server):
    """Takes CONNECT with the right password, whatever the name asked for, and passes bytes on to `target_port`."""

    def __init__(self, target_port: int, authorization: str) -> None:
        super().__init__(lambda request: Reply(b""))
        self._target_port = target_port
        self._authorization = authorization

    def _serve_one(self, connected: socket.socket, stream: BinaryIO, number: int) -> bool:
        self.answer = self._judge
        if not super()._serve_one(connected, stream, number):
            return False
        with socket.create_connection(("127.0.0.1", self._target_port)) as target:
            self.opened.append(target)
            back = threading.Thread(target=_pass_on, args=(target, connected), daemon=True)
            back.start()
            _pass_on(connected, target)
            back.join()
        return False

    def _judge(self, request: Received) -> Reply:
        if request.headers.get("proxy-authorization") != self._authorization:
            return Reply(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", closes=True)
        return Reply(b"HTTP/1.1 200 Connection established\r\n\r\n")


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
