"""The calls that every file or commit needs, without the SDK: Put Blob, Put Block, Put Block List, Get Blob, its properties.

The SDK's pipeline costs half a millisecond of the interpreter for each request, more than reading, hashing and sending 1 MiB; a
list of blocks through it costs three.

Guarantees:
- every body carries a check that the service compares (`vds.blobs.checks`);
- trouble (429, 5xx, 408, timeouts, broken connections) is waited out here, for as long as the service asks, in a bounded number
  of tries; a conditional put may then meet its own first write;
- whatever else is not the expected success is left to the SDK: such a call returns None, and the SDK's answer counts;
- after several such answers in a row the next calls go to the SDK at once for a while;
- thread-safe; throttling and throughput are told to the `Pace`.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException

from vds.blobs.answers import Asked, answer_error, is_corruption, no_answer_error, retry_after_s
from vds.blobs.checks import check_of
from vds.blobs.credential import Credential
from vds.blobs.driver import Buffer
from vds.blobs.http1 import Answer
from vds.blobs.location import AzureLocation
from vds.blobs.route import find_route
from vds.blobs.signing import AskToken, Request, Signer, is_plain
from vds.blobs.wire import Wire
from vds.errors import CorruptionError, VdsError
from vds.pace import Pace

TRIES_MAX = 9
"""Waits of about a minute in all, as the SDK's."""
WAIT_S_FIRST = 0.25
WAIT_S_MAX = 32.0
WHOLE_BYTES_MAX = 256 << 20
"""A read up to the end of a larger blob is left to the SDK, which asks for it in pieces."""
STRANGE_MAX = 8
REST_S = 60.0

_THROTTLED = {408, 429, 503}
_TROUBLE = {*_THROTTLED, 500, 502, 504}
# What a blob, or its absence, is reason enough for: it says nothing about this path.
_ORDINARY = {404, 409, 412, 416}


@dataclass(frozen=True, slots=True)
class _Trouble:
    error: VdsError
    is_throttled: bool
    retry_after_s: float = 0.0


def open_hot(location: AzureLocation, credential: Credential, ask_token: AskToken, pace: Pace) -> HotCalls | None:
    """Return the hot calls to an account, or None where only the SDK knows the way; no call is made.

    Raises:
        InvalidInputError: the certificates that the environment names cannot be used.
    """
    route = find_route(location.account_url)
    if route is None or not is_plain(credential.sas):
        return None
    return HotCalls(Wire(route), Signer(route.authority, credential, ask_token), pace)


class HotCalls:
    """Puts and reads over `wire`; made without a call.

    Args:
        wire: the connections.
        signer: makes requests out of what is asked for.
        pace: is told what the service takes well, and says when to wait.
        sleep: waits so many seconds.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        wire: Wire,
        signer: Signer,
        pace: Pace,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wire = wire
        self._signer = signer
        self._pace = pace
        self._sleep = sleep
        self._clock = clock
        self._strange = 0
        self._rests_until_s = float("-inf")

    def put_blob(self, asked: Asked, path: str, body: Buffer, metadata: Mapping[str, str]) -> str | None:
        """Put `body` where no blob is yet and return its etag, quotes included; None: the SDK must be asked.

        Raises:
            UnavailableError: no try got through. The blob may be there.
            CorruptionError: the bytes changed on the way.
        """
        headers = {"x-ms-blob-type": "BlockBlob", "if-none-match": "*"}
        headers.update((f"x-ms-meta-{name}", value) for name, value in metadata.items())
        answer = self._put(asked, path, body, {}, headers)
        return answer.headers.get("etag") if answer is not None else None

    def put_block(self, asked: Asked, path: str, block_id: str, body: Buffer) -> bool:
        """Stage one block and return True; False: the SDK must be asked. Raises as `put_blob` does."""
        query = {"comp": "block", "blockid": _encoded(block_id)}
        return self._put(asked, path, body, query, {}) is not None

    def put_block_list(self, asked: Asked, path: str, block_ids: Sequence[str], metadata: Mapping[str, str]) -> str | None:
        """Make a blob out of staged blocks where no blob is yet and return its etag, quotes included; as `put_blob` else."""
        names = "".join(f"<Latest>{_encoded(block_id)}</Latest>" for block_id in block_ids)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{names}</BlockList>'.encode()
        headers = {"content-type": "application/xml", "if-none-match": "*"}
        headers.update((f"x-ms-meta-{name}", value) for name, value in metadata.items())
        answer = self._put(asked, path, body, {"comp": "blocklist"}, headers)
        return answer.headers.get("etag") if answer is not None else None

    def get_range(self, asked: Asked, path: str, offset_bytes: int, length_bytes: int | None, *, etag: str = "") -> bytes | None:
        """Return `length_bytes` (not 0) from `offset_bytes`, or all that follows when it is None; None: the SDK must be asked.

        Args:
            asked: what for.
            path: of the blob.
            offset_bytes: where it begins.
            length_bytes: how much.
            etag: of the blob that is meant; empty for whatever is there. A blob that others made may be one that is encoded, and
                is then read as it is stored.

        Raises:
            UnavailableError: no try got through.
        """
        request = _range_request(path, offset_bytes, length_bytes, etag)
        bytes_max = WHOLE_BYTES_MAX if length_bytes is None else length_bytes
        answer = self._send(asked, request, b"", bytes_max)
        if answer is None or answer.status != 206 or answer.body is None or ("content-encoding" in answer.headers and not etag):
            return None
        body = answer.body
        # "bytes 0-4/5": where it begins, where it ends, and what the whole blob has.
        begin, _, size = answer.headers.get("content-range", "").partition("/")
        end = int(size) if length_bytes is None and size.isdigit() else offset_bytes + len(body)
        if not body or begin != f"bytes {offset_bytes}-{end - 1}" or length_bytes not in (None, len(body)):
            return None
        return body

    def get_range_into(self, asked: Asked, path: str, offset_bytes: int, target: memoryview) -> bool:
        """Fill `target`, which is not empty, from `offset_bytes` on and return True; False: the SDK must be asked.

        Raises:
            UnavailableError: no try got through.
        """
        end = offset_bytes + len(target)
        answer = self._send(asked, _range_request(path, offset_bytes, len(target)), b"", 0, target)
        if answer is None or answer.status != 206 or not answer.is_filled or "content-encoding" in answer.headers:
            return False
        return answer.headers.get("content-range", "").partition("/")[0] == f"bytes {offset_bytes}-{end - 1}"

    def head_blob(self, asked: Asked, path: str) -> Answer | None:
        """Return what the service says of a blob (200) or of its absence (404); None: the SDK must be asked.

        Raises:
            UnavailableError: no try got through.
        """
        answer = self._send(asked, Request("HEAD", path), b"", 0)
        if answer is None:
            return None
        if answer.status == 404 and answer.headers.get("x-ms-error-code") == "BlobNotFound":
            return answer  # not the container, say
        is_known = answer.status == 200 and "etag" in answer.headers and answer.headers.get("content-length", "").isdigit()
        return answer if is_known else None

    def close(self) -> None:
        """Let go of idle connections; idempotent. A later call opens new ones."""
        self._wire.close()

    def _put(self, asked: Asked, path: str, body: Buffer, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer | None:
        size_bytes = memoryview(body).nbytes
        check_name, check = check_of(body)
        fixed = {"content-length": str(size_bytes), "content-type": "application/octet-stream", check_name: check}
        answer = self._send(asked, Request("PUT", path, query, {**fixed, **headers}), body, 0)
        if answer is None:
            return None
        if is_corruption(answer.headers.get("x-ms-error-code", "")):
            raise answer_error(asked, answer.status, answer.headers["x-ms-error-code"])
        if answer.status != 201:
            return None
        echoed = answer.headers.get(check_name)
        if echoed not in (None, check):
            text = f"{asked.place}: the service has a body of {check_name} {echoed}, sent was {check}: bytes changed on the way"
            raise CorruptionError(text, hint="try again; if it stays, check memory and network")
        self._pace.done(size_bytes)
        return answer

    def _send(
        self, asked: Asked, request: Request, body: Buffer, body_bytes_max: int, target: memoryview | None = None
    ) -> Answer | None:
        """Return the first answer that is no trouble; None where there was no connection, or this path rests."""
        if self._clock() < self._rests_until_s:
            return None
        wait_s = self._pace.pause_s()
        for left in reversed(range(TRIES_MAX)):
            while wait_s > 0:
                self._sleep(wait_s)
                wait_s = self._pace.pause_s()  # others may have been asked meanwhile to wait longer
            outcome = self._try_once(asked, request, body, body_bytes_max, target)
            if not isinstance(outcome, _Trouble):
                self._judge(outcome)
                return outcome
            if outcome.is_throttled:
                self._pace.throttled(outcome.retry_after_s)
            if not left:
                raise outcome.error
            # The backoff is added to what the service asks for: those who waited for one moment must not all come then.
            wait_s = max(outcome.retry_after_s, self._pace.pause_s()) + _backoff_s(TRIES_MAX - 1 - left)
        raise AssertionError("the last try returns or raises")

    def _try_once(
        self, asked: Asked, request: Request, body: Buffer, body_bytes_max: int, target: memoryview | None
    ) -> Answer | _Trouble | None:
        head = self._signer.head(request)  # each time anew: it is dated, and a token may have expired meanwhile
        try:
            answer = self._wire.exchange(head, body, body_bytes_max=body_bytes_max, target=target)
        except TimeoutError as err:
            return _Trouble(no_answer_error(asked, type(err).__name__, str(err)), is_throttled=True)
        except (OSError, HTTPException) as err:
            return _Trouble(no_answer_error(asked, type(err).__name__, str(err)), is_throttled=False)
        if answer is None or answer.status not in _TROUBLE:
            return answer
        error = answer_error(asked, answer.status, answer.headers.get("x-ms-error-code", ""))
        return _Trouble(error, answer.status in _THROTTLED, retry_after_s(answer.headers.get("retry-after")))

    def _judge(self, answer: Answer | None) -> None:
        if answer is not None and (answer.status < 300 or answer.status in _ORDINARY):
            self._strange = 0
            return
        if answer is not None and answer.status == 401:
            self._signer.forget_token()
        # Not exact where threads meet, and need not be.
        self._strange += 1
        if self._strange >= STRANGE_MAX:
            self._strange = 0
            self._rests_until_s = self._clock() + REST_S


def _range_request(path: str, offset_bytes: int, length_bytes: int | None, etag: str = "") -> Request:
    last = "" if length_bytes is None else str(offset_bytes + length_bytes - 1)
    condition = {"if-match": f'"{etag}"'} if etag else {}
    return Request("GET", path, headers={"x-ms-range": f"bytes={offset_bytes}-{last}", **condition})


def _encoded(block_id: str) -> str:
    return base64.b64encode(block_id.encode()).decode()


def _backoff_s(number: int) -> float:
    longest_s = min(WAIT_S_MAX, WAIT_S_FIRST * float(2**number))
    return longest_s * random.uniform(0.5, 1)  # noqa: S311 - spreads retries; nobody gains by guessing it
