"""A relay in front of a database that counts the connections made to it."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from contextlib import suppress

READ_BYTES = 65536


class Relay(socketserver.ThreadingTCPServer):
    """Passes on what comes, both ways.

    Args:
        url: of the database, `postgresql://USER:PW@HOST:PORT/NAME`.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.counted = 0
        found = re.search(r"@([^/:]+):(\d+)/", url)
        assert found is not None, url
        self.behind = (found[1], int(found[2]))
        self.url = f"{url[: found.start()]}@127.0.0.1:{self.server_address[1]}/{url[found.end() :]}"

    def __enter__(self) -> Relay:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        self.server.counted += 1
        with socket.create_connection(self.server.behind) as behind:
            back = threading.Thread(target=_pass_on, args=(behind, self.request), daemon=True)
            back.start()
            _pass_on(self.request, behind)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either side may close at any time
        while data := source.recv(READ_BYTES):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
