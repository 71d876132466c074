"""Keep-alive connections to one host: a request goes out and its answer comes back, at the price of the system calls.

Guarantees:
- a body is never copied, and goes out and comes in in pieces, each with the whole timeout: a slow line is not a dead one;
- a connection carries one request at a time, and is used again only after a whole answer; the last one used comes first;
- one that the server closed meanwhile is replaced without an error;
- thread-safe without a lock; a forked child opens connections of its own.

`http.client` connects, encrypts and asks proxies for tunnels.
"""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import struct
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from typing import Any, BinaryIO

from vds.blobs.driver import Buffer
from vds.blobs.http1 import Answer, read_answer
from vds.blobs.route import Route

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
"""For each piece sent or received, not for the whole."""
PIECE_BYTES = 1 << 20
WHOLE_BYTES_MIN = 64 * 1024
"""From here on a body is received in one system call."""
IDLE_CONNECTIONS_MAX = 64
IDLE_S_MAX = 60.0
"""Load balancers and routers forget quiet connections after some minutes without telling; what is sent then just disappears."""


class Wire:
    """The connections to the host of `route`; made without a call.

    Args:
        route: the way to the host.
        clock: seconds that never go back.
    """

    def __init__(self, route: Route, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._route = route
        self._clock = clock
        self._idle: deque[_Connection] = deque()
        weakref.finalize(self, _close_all, self._idle)  # for those who forget to close a driver
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"Wire({self._route.authority!r})"

    def exchange(
        self, head: bytes, body: Buffer = b"", *, body_bytes_max: int = 0, target: memoryview | None = None
    ) -> Answer | None:
        """Send one request and return its answer; None when no connection could be made, for a reason other than time.

        Args:
            head: request line and headers, up to and with the empty line.
            body: what follows; as many bytes as the head says.
            body_bytes_max: the longest body of an answer that is read.
            target: takes the body of an answer, see `read_answer`.

        Raises:
            TimeoutError: nothing moved for the time allowed.
            OSError, HTTPException: the connection broke, or what came is no answer. The request may have taken effect.
        """
        view = memoryview(body).cast("B")
        connection = self._find_idle()
        while connection is not None:
            try:
                return self._exchange_over(connection, head, view, body_bytes_max, target)
            except (BrokenPipeError, ConnectionResetError, RemoteDisconnected, ssl.SSLEOFError):
                # The server closed it between two requests, as it may: no trouble, and the others may be closed as well.
                connection = self._find_idle()
        try:
            connection = _Connection(self._route)
        except TimeoutError:
            raise
        except (OSError, HTTPException):
            return None
        return self._exchange_over(connection, head, view, body_bytes_max, target)

    def close(self) -> None:
        """Close the connections that are idle; idempotent, and later requests open new ones."""
        _close_all(self._idle)

    def _exchange_over(
        self, connection: _Connection, head: bytes, body: memoryview, body_bytes_max: int, target: memoryview | None
    ) -> Answer:
        try:
            answer = connection.exchange(head, body, body_bytes_max, target)
        except BaseException:  # Ctrl-C too: half of an answer may still be on its way
            connection.close()
            raise
        if answer.is_last or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            connection.idle_since_s = self._clock()
            self._idle.append(connection)
        return answer

    def _find_idle(self) -> _Connection | None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self.close()  # the parent's; closing them here does not end them there
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if self._clock() - connection.idle_since_s <= IDLE_S_MAX and not _is_readable(connection.socket):
                return connection
            connection.close()


class _Connection:
    """One connection; used by one thread at a time."""

    def __init__(self, route: Route) -> None:
        host, port = route.proxy or (route.host, route.port)
        self._http = (
            HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT_S, context=route.context)
            if route.context is not None
            else HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
        )
        if route.proxy is not None:
            self._http.set_tunnel(route.host, route.port, dict(route.proxy_headers))
        try:
            self._http.connect()  # sets TCP_NODELAY
        except BaseException:
            self._http.close()
            raise
        self.socket: socket.socket = self._http.sock
        self.socket.settimeout(READ_TIMEOUT_S)
        self._sends_whole = route.context is None and hasattr(self.socket, "sendmsg") and sys.platform != "win32"
        if self._sends_whole:
            limit = struct.pack("@ll", int(READ_TIMEOUT_S), int(READ_TIMEOUT_S % 1 * 1_000_000))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._stream: BinaryIO = io.BufferedReader(_Incoming(self.socket)) if self._sends_whole else self.socket.makefile("rb")
        self.idle_since_s = 0.0

    def exchange(self, head: bytes, body: memoryview, body_bytes_max: int, target: memoryview | None) -> Answer:
        try:
            self._send(head, body)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as err:
            return self._read_early_answer(err)
        return read_answer(self._stream, body_bytes_max, target, has_body=not head.startswith(b"HEAD "))

    def close(self) -> None:
        self._stream.close()
        self._http.close()

    def _send(self, head: bytes, body: memoryview) -> None:
        if self._sends_whole:
            self._send_whole(head, body)
            return
        self.socket.sendall(head)
        for begin in range(0, len(body), PIECE_BYTES):
            self.socket.sendall(body[begin : begin + PIECE_BYTES])

    def _send_whole(self, head: bytes, body: memoryview) -> None:
        """Send everything in one system call, where the socket itself keeps the timeout.

        Python's own timeout makes it two calls for each few hundred kilobytes, and each gives the interpreter away.
        """
        self.socket.settimeout(None)
        try:
            sent = self.socket.sendmsg([head, body])  # for small bodies one packet, too
            for rest in (head[sent:], body[max(0, sent - len(head)) :]):
                if rest:
                    self.socket.sendall(rest)
        except BlockingIOError as err:
            raise TimeoutError("the service takes no more of the request") from err
        finally:
            self.socket.settimeout(READ_TIMEOUT_S)

    def _read_early_answer(self, err: OSError) -> Answer:
        """Return what a server said that took no more of the body, before it closed the connection."""
        try:
            answer = read_answer(self._stream)
        except (OSError, HTTPException):
            raise err from None
        return Answer(answer.status, answer.headers, answer.body, is_last=True)


class _Incoming(io.RawIOBase):
    """What a socket receives. Much at once comes in one system call, where the socket itself keeps the timeout.

    Otherwise 8 MiB are a hundred calls, and each gives the interpreter away and waits for whoever has it then.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        if len(target) < WHOLE_BYTES_MIN:
            return self._socket.recv_into(target)
        self._socket.settimeout(None)
        try:
            # When the time is up it returns what has come, and fails only if that is nothing.
            return self._socket.recv_into(target, 0, socket.MSG_WAITALL)
        except BlockingIOError as err:
            raise TimeoutError("the service sends no more of its answer") from err
        finally:
            self._socket.settimeout(READ_TIMEOUT_S)


def _close_all(idle: deque[_Connection]) -> None:
    with suppress(IndexError):  # other threads take from it too
        while True:
            idle.pop().close()


def _is_readable(connected: socket.socket) -> bool:
    """Return whether something came on a connection where nothing is awaited: its end, or what no answer of ours could be."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(connected, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([connected], [], [], 0)[0])
