"""The ceiling: read, BLAKE3 and PUT over bare sockets, with no client library, no signing, no index and no retries.

Large files go in blocks of 8 MiB, each hashed by the thread that sends it. Small ones are read straight into pack buffers of
8 MiB and hashed one by one, while two threads send the packs before.
"""

from __future__ import annotations

import importlib
import mmap
import os
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.peers.measure import BLOCK_BYTES, PREFIX, Figures, Job, run_peer

PACK_SENDERS = 2
PACK_BUFFERS = 4
SMALL_BYTES_MAX = 1 << 20


class Wire:
    """One connection, which sends a body and reads an answer without one, or the reverse."""

    def __init__(self, job: Job) -> None:
        address = urlsplit(job.account_url)
        plain = socket.create_connection((address.hostname, address.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = ssl.create_default_context(cafile=job.ca_path) if job.ca_path else None
        self._socket = context.wrap_socket(plain, server_hostname=address.hostname) if context else plain
        self._flags = 0 if context else socket.MSG_WAITALL  # OpenSSL takes none
        self._base = f"{address.path}/{job.container}/{PREFIX}"

    def put(self, name: str, body: memoryview | bytes, query: str = "") -> None:
        """Send one PUT and wait for its answer."""
        head = f"PUT {self._base}/{name}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-ms-version: 2021-12-02\r\n"
        head += f"x-ms-blob-type: BlockBlob\r\nContent-Length: {len(body)}\r\n\r\n"
        if len(body) <= 1 << 16:
            self._socket.sendall(head.encode() + body)
        else:
            self._socket.sendall(head.encode())
            self._socket.sendall(body)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self._socket.recv(4096)
        if not answer.startswith(b"HTTP/1.1 201"):
            raise OSError(f"the server answered {answer[:60]!r}")

    def get(self, name: str, offset_bytes: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `offset_bytes` on."""
        head = f"GET {self._base}/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-ms-version: 2021-12-02\r\n"
        self._socket.sendall(f"{head}x-ms-range: bytes={offset_bytes}-{offset_bytes + len(into) - 1}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(2048)
        answer, _, body = answer.partition(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 206"):
            raise OSError(f"the server answered {answer[:60]!r}")
        into[: len(body)] = body
        position = len(body)
        while position < len(into):
            got = self._socket.recv_into(into[position:], 0, self._flags)
            if not got:
                raise OSError("the answer ends early")
            position += got


class PerThread:
    """A wire and a buffer for each thread. The buffer is page-aligned: the kernel copies from others a fifth slower."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._own = threading.local()

    def get(self) -> tuple[Wire, memoryview]:
        """Return this thread's own, made on its first call."""
        if not hasattr(self._own, "wire"):
            self._own.wire, self._own.buffer = Wire(self._job), memoryview(mmap.mmap(-1, BLOCK_BYTES))
        return self._own.wire, self._own.buffer


def upload(job: Job, figures: Figures) -> None:
    """Send small files in packs, then large ones in blocks."""
    blake3: Callable[[Any], Any] = importlib.import_module("blake3").blake3
    with figures.timed():
        files = job.files()
        small = [path for path, _, size_bytes in files if size_bytes <= SMALL_BYTES_MAX]
        if small:
            _send_packs(job, small, blake3)
        large = [file for file in files if file[2] > SMALL_BYTES_MAX]
        if large:
            _send_blocks(job, large, blake3)


def _send_blocks(job: Job, files: Sequence[tuple[Path, str, int]], blake3: Callable[[Any], Any]) -> None:
    threads = PerThread(job)
    descriptors = {path: os.open(path, os.O_RDONLY) for path, _, _ in files}

    def send(task: tuple[Path, int, int]) -> None:
        path, number, offset_bytes = task
        wire, buffer = threads.get()
        length_bytes = os.preadv(descriptors[path], [buffer], offset_bytes)
        body = buffer[:length_bytes]
        blake3(body).digest()
        wire.put(f"{number}", body, f"?comp=block&blockid={offset_bytes:016}")

    tasks = [
        (path, number, offset_bytes)
        for number, (path, _, size_bytes) in enumerate(files)
        for offset_bytes in range(0, size_bytes, BLOCK_BYTES)
    ]
    with ThreadPoolExecutor(job.workers) as pool:
        list(pool.map(send, tasks))
        list(pool.map(lambda numbered: _commit(threads.get()[0], numbered[0], numbered[1][2]), enumerate(files)))
    for descriptor in descriptors.values():
        os.close(descriptor)


def _commit(wire: Wire, number: int, size_bytes: int) -> None:
    ids = "".join(f"<Latest>{offset_bytes:016}</Latest>" for offset_bytes in range(0, size_bytes, BLOCK_BYTES))
    wire.put(f"{number}", f"<BlockList>{ids}</BlockList>".encode(), "?comp=blocklist")


def _send_packs(job: Job, paths: Sequence[Path], blake3: Callable[[Any], Any]) -> None:
    free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    full: queue.SimpleQueue[tuple[int, memoryview, int] | None] = queue.SimpleQueue()
    for _ in range(PACK_BUFFERS):
        free.put(memoryview(mmap.mmap(-1, BLOCK_BYTES)))

    def send() -> None:
        wire = Wire(job)
        while (pack := full.get()) is not None:
            number, buffer, used_bytes = pack
            wire.put(f"pack-{number}", buffer[:used_bytes])
            free.put(buffer)

    senders = [threading.Thread(target=send) for _ in range(PACK_SENDERS)]
    for sender in senders:
        sender.start()
    buffer, used_bytes, number = free.get(), 0, 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        if BLOCK_BYTES - used_bytes < os.fstat(descriptor).st_size:
            full.put((number, buffer, used_bytes))
            buffer, used_bytes, number = free.get(), 0, number + 1
        read_bytes = os.readv(descriptor, [buffer[used_bytes:]])
        os.close(descriptor)
        blake3(buffer[used_bytes : used_bytes + read_bytes]).digest()
        used_bytes += read_bytes
    full.put((number, buffer, used_bytes))
    for _ in senders:
        full.put(None)
    for sender in senders:
        sender.join()


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
