"""Reading answers: their lengths, their ends, and what is no answer."""

from __future__ import annotations

import io
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected

import pytest

from vds.blobs.http1 import HEADERS_MAX, LINE_BYTES_MAX, REMARK_BYTES_MAX, Answer, read_answer

NEXT = b"HTTP/1.1 201 Next\r\nContent-Length: 0\r\n\r\n"


def read(data: bytes, body_bytes_max: int = 0) -> tuple[Answer, bytes]:
    stream = io.BytesIO(data)
    return read_answer(stream, body_bytes_max), stream.read()


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 201\r\nContent-Length: 0\r\n\r\n", 201, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 201, b""),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 201, b""),
        (
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
            400,
            b"hello",
        ),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", 200, b"hi"),
    ],
)
def test_an_answer_is_read_to_its_end_and_no_further(data: bytes, status: int, body: bytes) -> None:
    answer, rest = read(data + NEXT)
    assert (answer.status, answer.body, answer.is_last) == (status, body, False)
    assert rest == NEXT


def test_headers_have_lower_case_names() -> None:
    answer, _ = read(b'HTTP/1.1 201 Created\r\nETag: "0x1"\r\nX-MS-Version:  1 \r\nContent-Length: 0\r\n\r\n')
    assert answer.headers == {"etag": '"0x1"', "x-ms-version": "1", "content-length": "0"}


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 201 Created\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_the_last_answer_of_a_connection(data: bytes) -> None:
    assert read(data)[0].is_last


@pytest.mark.parametrize("headers", [b"", b"Content-Length: x\r\n", b"Content-Length: -1\r\n", b"Content-Length: 70000\r\n"])
def test_a_body_of_unknown_or_too_great_length_is_left(headers: bytes) -> None:
    answer, rest = read(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\nrest")
    assert (answer.body, answer.is_last, rest) == (None, True, b"rest")


def test_a_body_is_read_up_to_the_limit_asked_for() -> None:
    size_bytes = REMARK_BYTES_MAX + 1
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size_bytes + bytes(size_bytes)
    assert read(data, size_bytes)[0].body == bytes(size_bytes)
    assert read(data, size_bytes - 1)[0].body is None


def test_a_body_goes_where_it_is_wanted_and_no_further() -> None:
    stream = io.BytesIO(b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\n\r\nhello" + NEXT)
    target = bytearray(7)
    answer = read_answer(stream, 0, memoryview(target)[1:-1])
    assert (answer.body, answer.is_filled, answer.is_last) == (b"", True, False)
    assert bytes(target) == b"\0hello\0"
    assert stream.read() == NEXT


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nno va", b"no va"),
        (b"HTTP/1.1 206 Partial\r\nContent-Length: 4\r\n\r\nhell", b"hell"),
        (b"HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ],
)
def test_a_body_that_is_not_the_one_wanted_goes_elsewhere(data: bytes, body: bytes) -> None:
    target = bytearray(5)
    answer = read_answer(io.BytesIO(data), 0, memoryview(target))
    assert (answer.body, answer.is_filled, bytes(target)) == (body, False, bytes(5))


def test_a_body_that_ends_early_is_no_answer() -> None:
    with pytest.raises(IncompleteRead):
        read_answer(io.BytesIO(b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\n\r\nhel"), 0, memoryview(bytearray(5)))


def test_a_long_chunked_body_is_left() -> None:
    answer, _ = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (REMARK_BYTES_MAX + 1), 1 << 30)
    assert (answer.body, answer.is_last) == (None, True)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", RemoteDisconnected),
        (b"HTTP/1.1 2", BadStatusLine),
        (b"SSH-2.0-OpenSSH\r\n", BadStatusLine),
        (b"HTTP/1.1 abc Word\r\n\r\n", BadStatusLine),
        (b"HTTP/1.1 201 Created\r\n", HTTPException),
        (b"HTTP/1.1 201 Created\r\nContent-Len", HTTPException),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", IncompleteRead),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", IncompleteRead),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhel\r\n", HTTPException),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello", HTTPException),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * LINE_BYTES_MAX, HTTPException),
        (b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * (HEADERS_MAX + 1) + b"\r\n", HTTPException),
    ],
)
def test_what_is_no_answer(data: bytes, error: type[HTTPException]) -> None:
    with pytest.raises(error):
        read(data)
