"""Looking for a blob without the SDK: what is asked, which answers count, and that no body is waited for."""

from __future__ import annotations

import io

import pytest

from tests.unit.blobs.loopback import CREATED, Received, Reply, Server
from tests.unit.blobs.test_hot import ASKED, Outcome, answer, calls
from tests.unit.blobs.test_wire import put
from vds.blobs.http1 import read_answer
from vds.blobs.route import Route
from vds.blobs.wire import Wire
from vds.errors import UnavailableError

THERE = answer(200, {"etag": '"0x1"', "content-length": "7", "x-ms-meta-k": "v"})
ABSENT = answer(404, {"x-ms-error-code": "BlobNotFound"})


@pytest.mark.parametrize("outcome", [THERE, ABSENT])
def test_it_is_one_request_without_a_body(outcome: Outcome) -> None:
    hot, service = calls(outcome)
    assert hot.head_blob(ASKED, "/data/a") is outcome
    (head,) = service.heads
    assert head.startswith("HEAD /data/a?sig=SASsecret HTTP/1.1\r\n")
    assert service.bodies == [b""]


@pytest.mark.parametrize(
    "outcome",
    [
        None,
        answer(404, {"x-ms-error-code": "ContainerNotFound"}),
        answer(404),
        answer(403, {"x-ms-error-code": "AuthorizationFailure"}),
        answer(200, {"content-length": "7"}),
        answer(200, {"etag": '"0x1"'}),
        answer(200, {"etag": '"0x1"', "content-length": "-7"}),
    ],
)
def test_any_other_answer_is_left_to_the_sdk(outcome: Outcome) -> None:
    hot, service = calls(outcome)
    assert hot.head_blob(ASKED, "/data/a") is None
    assert len(service.heads) == 1


def test_trouble_is_waited_out() -> None:
    hot, service = calls(answer(503), TimeoutError(), ABSENT)
    assert hot.head_blob(ASKED, "/data/a") is ABSENT
    assert len(service.waits) == 2


def test_no_answer_at_all() -> None:
    hot, _ = calls(*[TimeoutError()] * 100)
    with pytest.raises(UnavailableError):
        hot.head_blob(ASKED, "/data/a")


def test_the_length_of_a_body_that_does_not_come() -> None:
    answers = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    stream = io.BytesIO(answers)
    first, second = read_answer(stream, has_body=False), read_answer(stream)
    assert (first.status, first.body, first.is_last, first.headers["content-length"]) == (200, b"", False, "5")
    assert second.status == 404


@pytest.mark.usefixtures("plain_environment")
def test_the_connection_is_used_again() -> None:
    def say(request: Received) -> Reply:
        return Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") if request.line.startswith("HEAD") else CREATED

    with Server(say) as server:
        wire = Wire(Route("127.0.0.1", server.port))
        for _ in range(2):
            found = wire.exchange(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n", body_bytes_max=5)
            assert found is not None
            assert (found.status, found.body) == (200, b"")
            assert put(wire).status == 201
        wire.close()
        assert server.connections == 1
