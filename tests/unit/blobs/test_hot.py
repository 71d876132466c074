"""The calls without the SDK: what is sent, what is waited out, what is left to the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from http.client import RemoteDisconnected
from itertools import repeat
from xml.etree import ElementTree

import pytest

from vds.blobs import hot as hot_module
from vds.blobs.answers import RETRY_AFTER_S_MAX, Asked
from vds.blobs.checks import check_of
from vds.blobs.credential import Credential
from vds.blobs.driver import Buffer
from vds.blobs.hot import REST_S, STRANGE_MAX, TRIES_MAX, WHOLE_BYTES_MAX, HotCalls, open_hot
from vds.blobs.http1 import Answer
from vds.blobs.location import AzureLocation
from vds.blobs.signing import Signer
from vds.blobs.wire import Wire
from vds.errors import CorruptionError, UnavailableError
from vds.pace import Pace

LOCATION = AzureLocation("acct", "https://acct.example", "data")
CREDENTIAL = Credential("a SAS", "acct", sas="sig=SASsecret")
ASKED = Asked(LOCATION, CREDENTIAL, "put blob 'a'", writing=True, absent=True)

Outcome = Answer | BaseException | None


def answer(status: int, headers: dict[str, str] | None = None, body: bytes | None = b"") -> Answer:
    return Answer(status, headers or {}, body, is_last=False)


CREATED = answer(201, {"etag": '"0x1"'})


class Service(Wire):
    """A wire without connections: gives the outcomes of a list, keeps what was sent, and lets time pass when somebody sleeps."""

    def __init__(self, outcomes: Iterator[Outcome]) -> None:
        self.outcomes = outcomes
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.limits: list[int] = []
        self.waits: list[float] = []
        self.now_s = 0.0
        self.pace = Pace(4, 32, clock=lambda: self.now_s)

    def exchange(
        self, head: bytes, body: Buffer = b"", *, body_bytes_max: int = 0, target: memoryview | None = None
    ) -> Answer | None:
        self.heads.append(head.decode())
        self.bodies.append(bytes(body))
        self.limits.append(body_bytes_max)
        outcome = next(self.outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        if target is not None and outcome is not None and outcome.body is not None and len(outcome.body) == len(target):
            target[:] = outcome.body
            return replace(outcome, body=b"", is_filled=True)
        return outcome

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


def calls(*outcomes: Outcome) -> tuple[HotCalls, Service]:
    return over(Service(iter(outcomes)))


def over(service: Service) -> tuple[HotCalls, Service]:
    own = Signer("acct.example", CREDENTIAL, lambda: ("", 0.0))
    return HotCalls(service, own, service.pace, sleep=service.sleep, clock=lambda: service.now_s), service


def put(hot: HotCalls, body: Buffer = b"hello") -> str | None:
    return hot.put_blob(ASKED, "/data/a", body, {"k": "v"})


class TestPuts:
    def test_a_put_is_one_checked_conditional_request(self) -> None:
        hot, service = calls(CREATED)
        assert put(hot, memoryview(b"_hello_")[1:-1]) == '"0x1"'
        (head,) = service.heads
        assert head.startswith("PUT /data/a?sig=SASsecret HTTP/1.1\r\n")
        for line in ("x-ms-blob-type: BlockBlob", "if-none-match: *", "x-ms-meta-k: v", "content-length: 5"):
            assert f"\r\n{line}\r\n" in head
        assert "\r\n{}: {}\r\n".format(*check_of(b"hello")) in head
        assert service.bodies == [b"hello"]
        assert service.waits == []

    def test_a_block_is_one_checked_request(self) -> None:
        hot, service = calls(CREATED)
        assert hot.put_block(ASKED, "/data/a", "0001", b"hello")
        (head,) = service.heads
        assert head.startswith("PUT /data/a?comp=block&blockid=MDAwMQ%3D%3D&sig=SASsecret HTTP/1.1\r\n")
        assert "\r\n{}: {}\r\n".format(*check_of(b"hello")) in head
        assert "if-none-match" not in head

    def test_a_list_of_blocks_is_one_checked_conditional_request(self) -> None:
        hot, service = calls(CREATED)
        assert hot.put_block_list(ASKED, "/data/a", ["0001", "0002"], {"k": "v"}) == '"0x1"'
        (head,), (body,) = service.heads, service.bodies
        assert head.startswith("PUT /data/a?comp=blocklist&sig=SASsecret HTTP/1.1\r\n")
        for line in ("content-type: application/xml", "if-none-match: *", "x-ms-meta-k: v", f"content-length: {len(body)}"):
            assert f"\r\n{line}\r\n" in head
        assert "x-ms-blob-type" not in head
        assert "\r\n{}: {}\r\n".format(*check_of(body)) in head
        assert [one.text for one in ElementTree.fromstring(body).findall("Latest")] == ["MDAwMQ==", "MDAwMg=="]

    def test_a_list_that_meets_its_own_first_write_is_left_to_the_sdk(self) -> None:
        hot, service = calls(RemoteDisconnected("x"), answer(409, {"x-ms-error-code": "BlobAlreadyExists"}))
        assert hot.put_block_list(ASKED, "/data/a", ["0001"], {}) is None
        assert len(service.heads) == 2

    @pytest.mark.parametrize("name", ["x-ms-content-crc64", "content-md5"])
    def test_the_echo_of_the_check_is_compared(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(hot_module, "check_of", lambda body: (name, "right="))
        hot, service = calls(answer(201, {"etag": "x", name: "right="}), answer(201, {"etag": "x", name: "other="}))
        assert put(hot) == "x"
        assert f"\r\n{name}: right=\r\n" in service.heads[0]
        with pytest.raises(CorruptionError, match="bytes changed on the way"):
            put(hot)

    def test_the_echo_of_another_check_is_left_alone(self) -> None:
        hot, _ = calls(answer(201, {"etag": "x", "content-md5": "other="}))
        assert put(hot) == "x"

    @pytest.mark.parametrize("code", ["Crc64Mismatch", "Md5Mismatch"])
    def test_bytes_that_changed_on_the_way(self, code: str) -> None:
        hot, service = calls(answer(400, {"x-ms-error-code": code}))
        with pytest.raises(CorruptionError):
            put(hot)
        assert len(service.heads) == 1

    def test_the_pace_hears_of_successes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hot, service = calls(CREATED, CREATED, answer(409))
        heard: list[int] = []
        monkeypatch.setattr(service.pace, "done", heard.append)
        put(hot)
        hot.put_block(ASKED, "/data/a", "0001", b"12")
        put(hot)
        assert heard == [5, 2]


class TestReads:
    def read(self, outcome: Answer, offset: int = 2, length: int | None = 3) -> tuple[bytes | None, Service]:
        hot, service = calls(outcome)
        return hot.get_range(ASKED, "/data/a", offset, length), service

    def test_a_range(self) -> None:
        body, service = self.read(answer(206, {"content-range": "bytes 2-4/9"}, b"llo"))
        assert body == b"llo"
        assert "\r\nx-ms-range: bytes=2-4\r\n" in service.heads[0]
        assert service.limits == [3]

    def test_a_range_to_the_end(self) -> None:
        body, service = self.read(answer(206, {"content-range": "bytes 2-4/5"}, b"llo"), length=None)
        assert body == b"llo"
        assert "\r\nx-ms-range: bytes=2-\r\n" in service.heads[0]
        assert service.limits == [WHOLE_BYTES_MAX]

    @pytest.mark.parametrize(
        ("outcome", "length"),
        [
            (answer(200, {"content-range": "bytes 2-4/9"}, b"llo"), 3),
            (answer(206, {"content-range": "bytes 1-3/9"}, b"ell"), 3),
            (answer(206, {"content-range": "bytes 2-3/4"}, b"ll"), 3),
            (answer(206, {"content-range": "bytes 2-3/9"}, b"ll"), None),
            (answer(206, {"content-range": "bytes 2-4/*"}, b"ll"), None),
            (answer(206, {}, b"llo"), 3),
            (answer(206, {"content-range": "bytes 2-4/9", "content-encoding": "gzip"}, b"llo"), 3),
            (answer(206, {"content-range": "bytes 2-4/9"}, None), 3),
            (answer(206, {"content-range": "bytes 2-1/9"}, b""), None),
            (answer(404), 3),
            (answer(416), 3),
        ],
    )
    def test_what_is_not_what_was_asked_for_is_left_to_the_sdk(self, outcome: Answer, length: int | None) -> None:
        assert self.read(outcome, length=length)[0] is None

    @pytest.mark.parametrize(
        ("outcome", "is_read"),
        [
            (answer(206, {"content-range": "bytes 2-4/9"}, b"llo"), True),
            (answer(206, {"content-range": "bytes 1-3/9"}, b"ell"), False),
            (answer(206, {"content-range": "bytes 2-3/4"}, b"ll"), False),
            (answer(206, {}, b"llo"), False),
            (answer(206, {"content-range": "bytes 2-4/9", "content-encoding": "gzip"}, b"llo"), False),
            (answer(200, {"content-range": "bytes 2-4/9"}, b"llo"), False),
            (answer(404), False),
        ],
    )
    def test_a_range_into_memory(self, outcome: Answer, is_read: bool) -> None:
        hot, service = calls(outcome)
        target = bytearray(3)
        assert hot.get_range_into(ASKED, "/data/a", 2, memoryview(target)) is is_read
        assert bytes(target) == b"llo" or not is_read
        assert "\r\nx-ms-range: bytes=2-4\r\n" in service.heads[0]

    def test_half_an_answer_is_asked_for_again(self) -> None:
        hot, service = calls(RemoteDisconnected("x"), answer(206, {"content-range": "bytes 2-4/9"}, b"llo"))
        assert hot.get_range(ASKED, "/data/a", 2, 3) == b"llo"
        assert len(service.waits) == 1


class TestTrouble:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_it_is_waited_out(self, status: int) -> None:
        hot, service = calls(answer(status), answer(status), CREATED)
        assert put(hot) == '"0x1"'
        assert service.bodies == [b"hello"] * 3
        first, second = service.waits
        assert 0.125 <= first <= 0.25 <= second <= 0.5

    @pytest.mark.parametrize("error", [TimeoutError("timed out"), ConnectionResetError(), RemoteDisconnected("x")])
    def test_no_answer_is_waited_out(self, error: BaseException) -> None:
        hot, service = calls(error, CREATED)
        assert put(hot) == '"0x1"'
        assert len(service.waits) == 1

    @pytest.mark.parametrize(("asked", "waited_s"), [("17", 17.0), ("3600", RETRY_AFTER_S_MAX), ("Sat, 21 Nov 2026", 0.0)])
    def test_the_service_says_for_how_long(self, asked: str, waited_s: float) -> None:
        hot, service = calls(answer(503, {"retry-after": asked}), CREATED)
        put(hot)
        (wait_s,) = service.waits
        assert waited_s < wait_s <= waited_s + 0.25

    @pytest.mark.parametrize(
        ("outcome", "throttles"),
        [
            (answer(429), [0.0]),
            (answer(503, {"retry-after": "2"}), [2.0]),
            (answer(408), [0.0]),
            (TimeoutError("timed out"), [0.0]),
            (answer(500), []),
            (ConnectionResetError(), []),
        ],
    )
    def test_the_pace_hears_of_throttling(
        self, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, throttles: list[float]
    ) -> None:
        hot, service = calls(outcome, CREATED)
        heard: list[float] = []
        monkeypatch.setattr(service.pace, "throttled", heard.append)
        put(hot)
        assert heard == throttles

    def test_nobody_begins_while_the_service_wants_to_be_left_alone(self) -> None:
        hot, service = calls(CREATED)
        service.pace.throttled(9.0)
        put(hot)
        assert service.waits == [9.0]

    def test_a_wait_that_grew_while_it_was_slept_is_slept_on(self) -> None:
        hot, service = calls(answer(503, {"retry-after": "1"}), CREATED)
        real, asked_more = service.sleep, [5.0]

        def sleep(seconds: float) -> None:  # meanwhile another thread hears that it is to be longer
            if asked_more:
                service.pace.throttled(asked_more.pop())
            real(seconds)

        hot._sleep = sleep
        assert put(hot) == '"0x1"'
        assert service.now_s >= 5
        assert len(service.heads) == 2

    @pytest.mark.parametrize(
        "outcome", [answer(503, {"x-ms-error-code": "ServerBusy"}), TimeoutError("timed out"), OSError("broken")]
    )
    def test_it_ends_after_so_many_tries(self, outcome: Outcome) -> None:
        hot, service = over(Service(repeat(outcome)))
        with pytest.raises(UnavailableError, match="put blob 'a'") as caught:
            put(hot)
        assert len(service.heads) == TRIES_MAX
        assert len(service.waits) == TRIES_MAX - 1
        assert caught.value.hint
        assert "SASsecret" not in repr(caught.value)
        assert caught.value.__cause__ is None

    def test_each_try_is_signed_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hot, service = calls(answer(503), CREATED)
        now = iter((0.0, 86400.0))
        monkeypatch.setattr(hot._signer, "_clock", lambda: next(now))
        put(hot)
        assert "x-ms-date: Thu, 01 Jan 1970" in service.heads[0]
        assert "x-ms-date: Fri, 02 Jan 1970" in service.heads[1]

    def test_a_put_that_meets_its_own_first_write_is_left_to_the_sdk(self) -> None:
        hot, _ = calls(RemoteDisconnected("x"), answer(409, {"x-ms-error-code": "BlobAlreadyExists"}))
        assert put(hot) is None


class TestTheUnknown:
    @pytest.mark.parametrize(
        "outcome", [None, *(answer(status) for status in (200, 301, 400, 401, 403, 404, 407, 409, 412, 501))]
    )
    def test_it_is_left_to_the_sdk_without_a_second_try(self, outcome: Outcome) -> None:
        hot, service = calls(outcome)
        assert put(hot) is None
        assert len(service.heads) == 1
        assert service.waits == []

    def test_after_many_in_a_row_the_sdk_is_asked_at_once_for_a_while(self) -> None:
        hot, service = over(Service(repeat(answer(403))))
        for _ in range(STRANGE_MAX + 3):
            assert put(hot) is None
        assert len(service.heads) == STRANGE_MAX
        service.now_s += REST_S
        put(hot)
        assert len(service.heads) == STRANGE_MAX + 1

    def test_what_says_nothing_about_this_path_does_not_count(self) -> None:
        hot, service = over(Service(repeat(answer(409))))
        for _ in range(2 * STRANGE_MAX):
            put(hot)
        assert len(service.heads) == 2 * STRANGE_MAX

    def test_a_refused_token_is_asked_for_anew(self) -> None:
        tokens = iter(("one", "two"))
        service = Service(iter((answer(401), CREATED)))
        own = Signer("acct.example", Credential("a token", "acct"), lambda: (next(tokens), 4e9))
        hot = HotCalls(service, own, service.pace, sleep=service.sleep)
        assert put(hot) is None
        assert put(hot) == '"0x1"'
        assert "Bearer one" in service.heads[0]
        assert "Bearer two" in service.heads[1]


def test_a_way_only_the_sdk_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(4, 32)
    monkeypatch.setattr(hot_module, "find_route", lambda url: None)
    assert open_hot(LOCATION, CREDENTIAL, lambda: ("", 0.0), pace) is None
    monkeypatch.undo()
    assert open_hot(LOCATION, CREDENTIAL, lambda: ("", 0.0), pace) is not None
    assert open_hot(LOCATION, Credential("a SAS", "acct", sas="sig=a b"), lambda: ("", 0.0), pace) is None
