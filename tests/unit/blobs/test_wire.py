"""Connections: kept, replaced, broken, slow, encrypted, tunnelled."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography import x509

from tests.services import free_port
from tests.unit.blobs.loopback import CREATED, Received, Reply, Server, TunnelProxy, reply
from vds.blobs import wire as wire_module
from vds.blobs.http1 import Answer
from vds.blobs.route import Route, find_route
from vds.blobs.wire import IDLE_CONNECTIONS_MAX, IDLE_S_MAX, PIECE_BYTES, Wire

pytestmark = pytest.mark.usefixtures("plain_environment")


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def clock() -> list[float]:
    """Return a list whose only item is the time."""
    return [0.0]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(lambda request: CREATED) as server:
        yield server


@pytest.fixture
def wire(server: Server, clock: list[float]) -> Iterator[Wire]:
    wire = Wire(Route("127.0.0.1", server.port), clock=lambda: clock[0])
    yield wire
    wire.close()


def put(wire: Wire, body: bytes | memoryview = b"hello") -> Answer:
    answer = wire.exchange(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    assert answer is not None
    return answer


def get(wire: Wire, size_bytes: int) -> Answer:
    answer = wire.exchange(GET, body_bytes_max=size_bytes)
    assert answer is not None
    return answer


class TestKeeping:
    def test_twenty_puts_use_one_connection(self, server: Server, wire: Wire) -> None:
        for _ in range(20):
            assert put(wire).status == 201
        assert server.connections == 1
        assert [request.body for request in server.received] == [b"hello"] * 20

    def test_the_last_connection_used_comes_first(self, server: Server, wire: Wire) -> None:
        both = threading.Barrier(2)

        def answer(request: Received) -> Reply:
            if len(server.received) <= 2:
                both.wait(10)
            return CREATED

        server.answer = answer
        other = threading.Thread(target=put, args=(wire,))
        other.start()
        put(wire)
        other.join()
        assert server.connections == 2
        for _ in range(3):
            put(wire)
        assert server.connections == 2
        assert len({request.connection for request in server.received[2:]}) == 1

    def test_no_more_stay_idle_than_the_limit(self, server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        assert IDLE_CONNECTIONS_MAX >= 32
        monkeypatch.setattr(wire_module, "IDLE_CONNECTIONS_MAX", 0)
        put(wire)
        put(wire)
        assert server.connections == 2

    def test_one_idle_for_long_is_not_used(self, server: Server, wire: Wire, clock: list[float]) -> None:
        put(wire)
        clock[0] = IDLE_S_MAX
        put(wire)
        assert server.connections == 1
        clock[0] = 2 * IDLE_S_MAX + 1
        put(wire)
        assert server.connections == 2

    def test_one_that_the_server_closed_is_replaced(self, server: Server, wire: Wire) -> None:
        put(wire)
        server.hang_up()
        assert put(wire).status == 201
        assert server.connections == 2

    def test_one_closed_while_it_was_being_used_is_replaced(
        self, server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(wire)
        server.hang_up()
        monkeypatch.setattr(wire_module, "_is_readable", lambda connected: False)  # as if the close came just after the look
        assert put(wire, bytes(4 * PIECE_BYTES)).status == 201
        assert server.connections == 2

    def test_one_that_says_it_closes_is_not_used_again(self, server: Server, wire: Wire) -> None:
        server.answer = lambda request: reply(201, {"Connection": "close"})
        put(wire)
        put(wire)
        assert server.connections == 2

    def test_a_forgotten_wire_closes_its_connections(self, server: Server) -> None:
        put(Wire(Route("127.0.0.1", server.port)))
        gc.collect()  # a connection left open would warn here, which is an error in tests
        put(Wire(Route("127.0.0.1", server.port)))
        assert server.connections == 2

    def test_a_closed_wire_opens_again(self, server: Server, wire: Wire) -> None:
        put(wire)
        wire.close()
        wire.close()
        put(wire)
        assert server.connections == 2

    def test_a_forked_child_opens_its_own(self, server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        put(wire)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        put(wire)
        assert server.connections == 2


class TestBodies:
    @pytest.mark.parametrize("size_bytes", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 7])
    def test_a_body_arrives_as_it_is(self, server: Server, wire: Wire, size_bytes: int) -> None:
        body = memoryview(os.urandom(size_bytes))
        put(wire, body)
        put(wire, body)
        assert [request.body for request in server.received] == [body, body]

    @pytest.mark.parametrize("size_bytes", [1, 8192, 3 * PIECE_BYTES + 1])
    def test_a_body_comes_back(self, server: Server, wire: Wire, size_bytes: int) -> None:
        body = os.urandom(size_bytes)
        server.answer = lambda request: reply(206, body=body)
        assert get(wire, size_bytes).body == body
        assert get(wire, size_bytes).body == body
        assert server.connections == 1

    def test_a_body_that_is_too_long_is_not_read(self, server: Server, wire: Wire) -> None:
        server.answer = lambda request: reply(200, body=bytes(PIECE_BYTES))
        assert get(wire, PIECE_BYTES - 1).body is None
        assert get(wire, PIECE_BYTES - 1).body is None
        assert server.connections == 2


class TestTrouble:
    def test_broken_before_the_answer(self, server: Server, wire: Wire) -> None:
        server.answer = lambda request: Reply(b"", closes=True)
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            put(wire)

    @pytest.mark.parametrize("data", [b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
    def test_broken_after_half_the_answer(self, server: Server, wire: Wire, data: bytes) -> None:
        server.answer = lambda request: Reply(data, closes=True)
        with pytest.raises((HTTPException, ConnectionResetError)):
            get(wire, 9)
        server.answer = lambda request: reply(200, body=b"whole one")
        assert get(wire, 9).body == b"whole one"
        assert server.connections == 2

    def test_a_slow_server_is_a_timeout(self, server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        answered = threading.Event()
        monkeypatch.setattr(wire_module, "READ_TIMEOUT_S", 0.05)

        def answer(request: Received) -> Reply:
            answered.wait(10)
            return CREATED

        server.answer = answer
        with pytest.raises(TimeoutError):
            put(wire)
        answered.set()
        assert put(wire).status == 201
        assert server.connections == 2

    def test_a_server_that_takes_no_more_is_a_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wire_module, "READ_TIMEOUT_S", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as deaf:  # connections wait in its queue, and nobody reads from them
            wire = Wire(Route("127.0.0.1", deaf.getsockname()[1]))
            with pytest.raises(TimeoutError):
                put(wire, bytes(64 << 20))
            wire.close()

    def test_a_server_that_takes_a_body_slowly_gets_all_of_it(
        self, server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire_module, "READ_TIMEOUT_S", 0.5)
        body = os.urandom(96 << 20)
        got = bytearray()

        def take_slowly(connected: socket.socket, stream: BinaryIO, number: int) -> bool:
            while stream.readline().strip():
                pass
            while len(got) < len(body):
                got.extend(stream.read(4 << 20))
                time.sleep(0.04)  # together longer than the limit, which is for a standstill
            connected.sendall(CREATED.data)
            return False

        server._serve_one = take_slowly  # type: ignore[method-assign]
        assert put(wire, body).status == 201
        assert bytes(got) == body

    def test_a_server_that_sends_a_body_slowly_is_waited_for(
        self, server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire_module, "READ_TIMEOUT_S", 0.1)
        body = os.urandom(8 << 20)
        target = bytearray(len(body))

        def send_slowly(connected: socket.socket, stream: BinaryIO, number: int) -> bool:
            while stream.readline().strip():
                pass
            connected.sendall(b"HTTP/1.1 206 Partial\r\nContent-Length: %d\r\n\r\n" % len(body))
            for begin in range(0, len(body), 1 << 20):
                connected.sendall(body[begin : begin + (1 << 20)])
                time.sleep(0.03)  # together longer than the limit, which is for a standstill
            return False

        server._serve_one = send_slowly  # type: ignore[method-assign]
        answer = wire.exchange(GET, target=memoryview(target))
        assert answer is not None
        assert answer.is_filled
        assert bytes(target) == body

    @pytest.mark.parametrize("sent", [0, 1, 100_000])
    def test_a_server_that_stops_in_a_body_is_a_timeout(
        self, server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch, sent: int
    ) -> None:
        monkeypatch.setattr(wire_module, "READ_TIMEOUT_S", 0.05)
        done = threading.Event()

        def stop(connected: socket.socket, stream: BinaryIO, number: int) -> bool:
            while stream.readline().strip():
                pass
            connected.sendall(b"HTTP/1.1 206 Partial\r\nContent-Length: 1000000\r\n\r\n" + bytes(sent))
            done.wait(10)
            return False

        server._serve_one = stop  # type: ignore[method-assign]
        try:
            with pytest.raises(TimeoutError):
                wire.exchange(GET, target=memoryview(bytearray(1_000_000)))
        finally:
            done.set()

    @pytest.mark.parametrize("sent", [0, 999_999])
    def test_a_server_that_hangs_up_in_a_body(self, server: Server, wire: Wire, sent: int) -> None:
        server.answer = lambda request: Reply(
            b"HTTP/1.1 206 Partial\r\nContent-Length: 1000000\r\n\r\n" + bytes(sent), closes=True
        )
        with pytest.raises(IncompleteRead):
            wire.exchange(GET, target=memoryview(bytearray(1_000_000)))

    def test_what_a_server_says_before_it_has_the_body(self, wire: Wire, server: Server) -> None:
        # As a service does that refuses the signature: it answers after the head, and closes.
        def say_at_once(connected: socket.socket, stream: object, number: int) -> bool:
            connected.sendall(reply(403, {"x-ms-error-code": "AuthenticationFailed"}).data)
            return False

        server._serve_one = say_at_once  # type: ignore[method-assign]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire_module._Connection, "_send", _broken_pipe)
            answer = put(wire)
        assert (answer.status, answer.is_last) == (403, True)

    def test_no_connection_is_none(self) -> None:
        assert Wire(Route("127.0.0.1", free_port())).exchange(b"GET / HTTP/1.1\r\n\r\n") is None

    def test_a_name_without_an_address_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr("http.client.socket.create_connection", refuse)
        assert Wire(Route("acct.example", 80)).exchange(b"GET / HTTP/1.1\r\n\r\n") is None

    def test_no_connection_in_time_is_a_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def wait(*_: object, **__: object) -> None:
            raise TimeoutError("timed out")

        monkeypatch.setattr("http.client.socket.create_connection", wait)
        with pytest.raises(TimeoutError):
            Wire(Route("acct.example", 80)).exchange(b"GET / HTTP/1.1\r\n\r\n")


def _broken_pipe(connection: object, head: bytes, body: memoryview) -> None:
    raise BrokenPipeError


def exchange(url: str, body: bytes = b"hello") -> Answer | None:
    route = find_route(url)
    assert route is not None
    wire = Wire(route)
    try:
        answer = put(wire, body)
        return put(wire, body) if answer else None
    except AssertionError:
        return None
    finally:
        wire.close()


class TestEncrypted:
    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_an_authority_of_ones_own(
        self, encrypted: Server, authority: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, str(authority / "ca.pem"))
        body = os.urandom(3 * PIECE_BYTES + 1)
        answer = exchange(f"https://127.0.0.1:{encrypted.port}", body)
        assert answer is not None
        assert answer.status == 201
        assert encrypted.connections == 1
        assert [request.body for request in encrypted.received] == [body, body]

    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
    def test_a_directory_of_certificates(
        self, encrypted: Server, authority: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
    ) -> None:
        certificate = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes())
        assert certificate.subject.rfc4514_string() == "CN=test"
        (tmp_path / "756b76dc.0").write_bytes((authority / "ca.pem").read_bytes())  # OpenSSL's hash of CN=test
        monkeypatch.setenv(name, str(tmp_path))
        assert exchange(f"https://127.0.0.1:{encrypted.port}") is not None

    def test_without_it_there_is_no_connection(self, encrypted: Server) -> None:
        assert exchange(f"https://127.0.0.1:{encrypted.port}") is None
        assert encrypted.received == []

    def test_the_wrong_name(self, encrypted: Server, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem"))
        assert exchange(f"https://localhost:{encrypted.port}") is None
        assert encrypted.received == []

    def test_one_that_the_server_closed_is_replaced(
        self, encrypted: Server, authority: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem"))
        route = find_route(f"https://127.0.0.1:{encrypted.port}")
        assert route is not None
        wire = Wire(route)
        put(wire)
        encrypted.hang_up()
        monkeypatch.setattr(wire_module, "_is_readable", lambda connected: False)
        assert put(wire, bytes(4 * PIECE_BYTES)).status == 201
        assert encrypted.connections == 2
        wire.close()

    @pytest.mark.parametrize("size_bytes", [1, 100, 3 * PIECE_BYTES + 1])
    def test_an_answer_into_memory(
        self, encrypted: Server, authority: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem"))
        body = os.urandom(size_bytes)
        encrypted.answer = lambda request: reply(206, body=body)
        route = find_route(f"https://127.0.0.1:{encrypted.port}")
        assert route is not None
        wire = Wire(route)
        for _ in range(2):
            target = bytearray(size_bytes)
            answer = wire.exchange(GET, target=memoryview(target))
            assert answer is not None
            assert (answer.is_filled, bytes(target)) == (True, body)
        assert encrypted.connections == 1
        wire.close()


class TestTunnel:
    def test_a_proxy_passes_encrypted_bytes_on(self, encrypted: Server, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem"))
        with TunnelProxy(encrypted.port, "Basic dXNlcjpwQHNz") as proxy:
            monkeypatch.setenv("https_proxy", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
            assert exchange("https://acct.example") is not None
            assert proxy.received[0].line.startswith("CONNECT acct.example:443 ")
            assert [request.headers["host"] for request in encrypted.received] == ["x", "x"]
            assert proxy.connections == 1

    def test_a_refused_password_is_no_connection(
        self, encrypted: Server, authority: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem"))
        with TunnelProxy(encrypted.port, "Basic other") as proxy:
            monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
            assert exchange("https://acct.example") is None
        assert encrypted.received == []
