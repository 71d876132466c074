"""Read an HTTP/1.1 answer. `http.client` does it too, but makes an e-mail message of the headers: half of what a small put costs.

Guarantees: nothing is read past the answer, so the connection may be used again; every length is bounded.

Source: RFC 9112
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected
from io import BufferedIOBase
from typing import BinaryIO

LINE_BYTES_MAX = 64 * 1024
HEADERS_MAX = 100
REMARK_BYTES_MAX = 64 * 1024
"""The body of an answer that nobody asked for, an error's text for example, is read up to here to keep the connection."""

_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        headers: names in lower case; of one that comes twice, the last.
        body: None when it was longer than asked for, or of unknown length, and was not read.
        is_last: whether the connection must not be used again.
        is_filled: whether the body is in the memory that was given for it, and `body` is empty.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    is_last: bool
    is_filled: bool = False


def read_answer(stream: BinaryIO, body_bytes_max: int = 0, target: memoryview | None = None, *, has_body: bool = True) -> Answer:
    """Return the next answer, with its body when it has a known length of at most `body_bytes_max`, or is a short remark.

    Args:
        stream: buffered.
        body_bytes_max: the longest body that is read.
        target: takes the body of a success (2xx) that has exactly its length; after an error it holds anything.
        has_body: False after a HEAD, whose answer says the length of a body that does not come.

    Raises:
        HTTPException: it is no HTTP, or ends early; `RemoteDisconnected` when not one byte came.
        OSError: what the connection raised, `TimeoutError` among it.
    """
    version, status = _read_status(stream)
    headers = _read_headers(stream)
    while 100 <= status < 200:
        version, status = _read_status(stream)
        headers = _read_headers(stream)
    asked_to_close = "close" in headers.get("connection", "").lower() or version == b"HTTP/1.0"
    if status in (204, 304) or not has_body:
        return Answer(status, headers, b"", asked_to_close)
    if "transfer-encoding" in headers:
        body = _read_chunks(stream)
    elif target is not None and status < 300 and headers.get("content-length", "") == str(len(target)):
        _fill(stream, target)
        return Answer(status, headers, b"", asked_to_close, is_filled=True)
    else:
        body = _read_counted(stream, headers.get("content-length", ""), max(body_bytes_max, REMARK_BYTES_MAX))
    return Answer(status, headers, body, asked_to_close or body is None)


def _read_status(stream: BinaryIO) -> tuple[bytes, int]:
    line = stream.readline(LINE_BYTES_MAX + 1)
    if not line:
        raise RemoteDisconnected("the connection was closed without an answer")
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit() or len(words[1]) != 3:
        raise BadStatusLine("no status line")
    return words[0], int(words[1])


def _read_headers(stream: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(HEADERS_MAX + 1):
        line = _read_line(stream)
        if not line:
            return headers
        name, _, value = line.partition(b":")
        headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
    raise HTTPException(f"more than {HEADERS_MAX} headers")


def _read_line(stream: BinaryIO) -> bytes:
    line = stream.readline(LINE_BYTES_MAX + 1)
    if not line.endswith(b"\n"):
        raise HTTPException("the answer ends early, or has a line that is too long")
    return line.rstrip(b"\r\n")


def _read_counted(stream: BinaryIO, length: str, bytes_max: int) -> bytes | None:
    if not length.isdigit() or int(length) > bytes_max:
        return None
    # A buffered reader fills the result straight from the socket: nothing is copied, however long it is.
    return _read_exactly(stream, int(length))


def _read_chunks(stream: BinaryIO) -> bytes | None:
    """Return a short body that came in chunks; None when it is longer than a remark, which is then not read to its end."""
    body = b""
    while True:
        text = _read_line(stream).partition(b";")[0].strip()
        if not _HEX.fullmatch(text):
            raise HTTPException("a chunk without a size")
        size_bytes = int(text, 16)
        if len(body) + size_bytes > REMARK_BYTES_MAX:
            return None
        if not size_bytes:
            break
        body += _read_exactly(stream, size_bytes)
        _read_line(stream)
    _read_headers(stream)  # trailers, mostly none, and the empty line
    return body


def _fill(stream: BinaryIO, target: memoryview) -> None:
    assert isinstance(stream, BufferedIOBase)
    count = stream.readinto(target)
    if count != len(target):
        raise IncompleteRead(b"", len(target) - count)


def _read_exactly(stream: BinaryIO, size_bytes: int) -> bytes:
    body = stream.read(size_bytes)
    if len(body) != size_bytes:
        raise IncompleteRead(b"", size_bytes - len(body))
    return body
