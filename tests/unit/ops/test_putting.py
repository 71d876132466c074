from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from tests.unit.ops.stored import Stored
from tests.unit.ops.test_download import Counting
from vds.blobs import reads
from vds.blobs.driver import Buffer
from vds.blobs.packs import MEMBER_BYTES_END
from vds.errors import AccessDeniedError, ConflictError, InvalidInputError, UnavailableError
from vds.model.digest import Digest
from vds.ops import putting
from vds.ops.putting import PutOutcome, put_entries
from vds.pace import Pace

KIB = 1024
SMALL = {f"s/{i:02}": f"{i}".encode() for i in range(30)}
WHOLE = os.urandom(MEMBER_BYTES_END)


class FakeBlobs:
    """Blobs in memory that are called as files are."""

    def __init__(self, stored: Stored, *, is_beside_store: bool = False) -> None:
        self.files: dict[str, bytes] = {}
        self.replaced: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.fail: Callable[[str, str], None] = lambda call, path: None
        self.is_beside_store = is_beside_store
        self.pace = Pace(3, 3)
        self._stored = stored
        self._blocks: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def put_file(self, path: str, body: Buffer, digest: Digest, replaces: str = "") -> None:
        self._keep("put", path, bytes(body), digest, replaces)

    def copy_file(self, path: str, key: str, size_bytes: int, digest: Digest, replaces: str = "") -> None:
        body = self._stored.driver._stored(key).body
        assert len(body) == size_bytes
        self._keep("copy", path, body, digest, replaces)

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        self._count("stage", key)
        self._blocks[key, block_id] = bytes(body)

    def commit_file(self, path: str, block_ids: Sequence[str], size_bytes: int, digest: Digest, replaces: str = "") -> None:
        assert len({len(block_id) for block_id in block_ids}) == 1
        body = b"".join(self._blocks[path, block_id] for block_id in block_ids)
        assert len(body) == size_bytes
        self._keep("commit", path, body, digest, replaces)

    def _keep(self, call: str, path: str, body: bytes, digest: Digest, replaces: str) -> None:
        self._count(call, path)
        assert Digest.of(body) == digest
        self.files[path] = body
        if replaces:
            self.replaced[path] = replaces

    def _count(self, call: str, path: str) -> None:
        with self._lock:
            self.calls[call] += 1
        self.fail(call, path)


def put(stored: Stored, target: FakeBlobs, files: dict[str, bytes], replaces: dict[str, str] | None = None) -> PutOutcome:
    progress = Counting()
    outcome = put_entries(stored.source, target, stored.version(files), replaces or {}, progress)
    assert progress.files == outcome.files
    return outcome


def test_packs_are_read_once_and_members_put_one_by_one() -> None:
    stored = Stored()
    target = FakeBlobs(stored)
    files = {**SMALL, "empty": b"", "again": b"7"}
    outcome = put(stored, target, files, {"again": "etag-1"})
    assert target.files == files
    assert (outcome.files, outcome.copied, outcome.failures) == (len(files), 0, {})
    assert target.calls == {"put": len(files)}
    assert stored.driver.requests["read"] == 1
    assert target.replaced == {"again": "etag-1"}


@pytest.mark.parametrize("is_beside_store", [True, False])
def test_a_whole_object_is_copied_where_it_can_be(is_beside_store: bool) -> None:
    stored = Stored()
    target = FakeBlobs(stored, is_beside_store=is_beside_store)
    files = {"whole": WHOLE, "twin": WHOLE, "s": b"s"}
    outcome = put(stored, target, files, {"twin": "etag-1"})
    assert target.files == files
    assert outcome.copied == (2 if is_beside_store else 0)
    assert target.calls == ({"copy": 2, "put": 1} if is_beside_store else {"put": 3})
    assert stored.driver.requests["read"] == (1 if is_beside_store else 2)
    assert target.replaced == {"twin": "etag-1"}


def test_a_copy_that_is_refused_comes_by_here() -> None:
    stored = Stored()
    target = FakeBlobs(stored, is_beside_store=True)

    def refuse(call: str, path: str) -> None:
        if call == "copy" and path == "a":
            raise InvalidInputError("no")

    target.fail = refuse
    files = {"a": WHOLE, "b": WHOLE[::-1]}
    outcome = put(stored, target, files)
    assert target.files == files
    assert (outcome.files, outcome.copied, target.calls) == (2, 1, {"copy": 2, "put": 1})


@pytest.mark.parametrize("pieces_a_block", [1, 3])
def test_a_large_object_goes_in_blocks(monkeypatch: pytest.MonkeyPatch, pieces_a_block: int) -> None:
    for module in (reads, putting):
        monkeypatch.setattr(module, "READ_BYTES_MAX", 300 * KIB)
    monkeypatch.setattr(putting, "block_size_bytes", lambda size_bytes: 300 * KIB * pieces_a_block)
    stored = Stored()
    target = FakeBlobs(stored)
    files = {"large": WHOLE, "twin": WHOLE, "s": b"s"}
    outcome = put(stored, target, files, {"large": "etag-1"})
    assert target.files == files
    assert outcome.files == 3
    assert target.calls == {"stage": 2 * -(-4 // pieces_a_block), "commit": 2, "put": 1}
    assert target.replaced == {"large": "etag-1"}


def test_a_large_object_that_is_damaged_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reads, putting):
        monkeypatch.setattr(module, "READ_BYTES_MAX", 300 * KIB)
    stored = Stored()
    target = FakeBlobs(stored)
    stored.version({"large": WHOLE})
    stored.driver.damaged[stored.placements[Digest.of(WHOLE).raw].key] = 700 * KIB
    outcome = put(stored, target, {"large": WHOLE, "other": WHOLE[::-1]})
    assert outcome.failures.keys() == {"large"}
    assert "is corrupt" in outcome.failures["large"]
    assert target.files == {"other": WHOLE[::-1]}
    assert target.calls["commit"] == 1


def test_a_block_that_is_refused_fails_its_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reads, putting):
        monkeypatch.setattr(module, "READ_BYTES_MAX", 300 * KIB)
    stored = Stored()
    target = FakeBlobs(stored)

    def refuse(call: str, path: str) -> None:
        if (call, path) == ("stage", "a"):
            raise InvalidInputError("no block")

    target.fail = refuse
    outcome = put(stored, target, {"a": WHOLE, "b": WHOLE[::-1]})
    assert outcome.failures == {"a": "no block"}
    assert target.files == {"b": WHOLE[::-1]}


def test_a_damaged_member_fails_alone() -> None:
    stored = Stored()
    target = FakeBlobs(stored)
    stored.version(SMALL)
    placement = stored.placements[Digest.of(b"7").raw]
    stored.driver.damaged[placement.key] = placement.offset_bytes
    outcome = put(stored, target, {**SMALL, "twin of 7": b"7"})
    assert outcome.failures.keys() == {"s/07", "twin of 7"}
    assert target.files == {path: body for path, body in SMALL.items() if body != b"7"}


def test_an_object_without_a_place_fails_alone() -> None:
    stored = Stored()
    entries = stored.version({"a": b"a", "b": b"b"})
    del stored.placements[Digest.of(b"a").raw]
    target = FakeBlobs(stored)
    outcome = put_entries(stored.source, target, entries, {}, Counting())
    assert list(outcome.failures) == ["a"]
    assert "there is no place of object b3:" in outcome.failures["a"]
    assert target.files == {"b": b"b"}


def test_what_others_put_meanwhile_is_a_failure() -> None:
    stored = Stored()
    target = FakeBlobs(stored, is_beside_store=True)

    def meddle(call: str, path: str) -> None:
        if path in ("whole", "s/03"):
            raise ConflictError("it is there")

    target.fail = meddle
    outcome = put(stored, target, {**SMALL, "whole": WHOLE})
    assert outcome.failures.keys() == {"whole", "s/03"}
    assert all("somebody else" in reason for reason in outcome.failures.values())
    assert outcome.files == len(SMALL) - 1


@pytest.mark.parametrize("error", [UnavailableError, AccessDeniedError])
def test_what_goes_wrong_with_everything_stops(error: type[Exception]) -> None:
    stored = Stored()
    target = FakeBlobs(stored)
    before = threading.active_count()

    def fail(call: str, path: str) -> None:
        raise error("down")

    target.fail = fail
    with pytest.raises(error):
        put(stored, target, {f"{i:04}": f"{i}".encode() for i in range(2000)})
    assert target.calls["put"] < 100
    assert threading.active_count() == before


def test_a_service_that_is_away_stops_copies() -> None:
    stored = Stored()
    target = FakeBlobs(stored, is_beside_store=True)

    def fail(call: str, path: str) -> None:
        raise UnavailableError("down")

    target.fail = fail
    with pytest.raises(UnavailableError):
        put(stored, target, {"whole": WHOLE})
    assert target.calls == {"copy": 1}
