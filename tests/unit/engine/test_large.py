from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.unit.blobs.spy import SpyDriver
from vds.blobs.driver import Block, Buffer
from vds.blobs.objects import DIGEST_METADATA
from vds.buffers import BufferPool
from vds.engine import large
from vds.engine.large import Intent, LargeFile, LargeSent, Means
from vds.errors import UnavailableError
from vds.files.read import hash_blocks
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.model.digest import Digest
from vds.pipeline import Lane
from vds.progress import SilentProgress

BLOCK_BYTES = 1024
KEY = "objects/~~/large"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "block_size_bytes", lambda size_bytes: BLOCK_BYTES)


class CountingProgress(SilentProgress):
    def __init__(self) -> None:
        self.hashed_bytes = 0
        self.sent_bytes = 0
        self.saved_bytes = 0
        self._lock = threading.Lock()

    def hashed(self, files: int, bytes: int, *, saved_bytes: int = 0) -> None:
        with self._lock:
            self.hashed_bytes += bytes

    def sent(self, bytes: int, *, saved_bytes: int = 0) -> None:
        with self._lock:
            self.sent_bytes += bytes
            self.saved_bytes += saved_bytes


class BlockDriver(SpyDriver):
    """Notes the blocks it is sent, and can fail at one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.staged: list[str] = []
        self.fails_at = ""
        self.on_stage: Callable[[str], object] = str

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        self.on_stage(block_id)
        if self.fails_at and block_id.startswith(self.fails_at):
            raise UnavailableError("the blob service did not answer")
        super().stage_block(key, block_id, body)
        self.staged.append(block_id)

    def list_blocks(self, key: str) -> list[Block]:
        if self.fails_at == "list":
            raise UnavailableError("the blob service did not answer")
        return super().list_blocks(key)

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Any = None) -> str:
        if self.fails_at == "commit":
            raise UnavailableError("the blob service did not answer")
        return super().commit_blocks(key, block_ids, metadata)


@dataclass
class Desk:
    """One large file of random bytes, and what it takes to send it."""

    path: Path
    blocks: int = 20
    driver: BlockDriver = field(default_factory=BlockDriver)
    progress: CountingProgress = field(default_factory=CountingProgress)
    live: set[bytes] = field(default_factory=set)
    asked: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.body = os.urandom((self.blocks - 1) * BLOCK_BYTES + 7)
        self.path.write_bytes(self.body)
        self.file = self.scan()
        self.means = Means(self.driver, BufferPool(4096), self.progress, self.is_live, threading.Event())

    @property
    def digest(self) -> bytes:
        return blake3(self.body).digest()

    def scan(self) -> SourceFile:
        return next(file for file in scan_directory(self.path.parent, ScanReport()) if file.path == self.path.name)

    def is_live(self, digest: bytes) -> bool:
        self.asked.append(digest)
        return digest in self.live

    def send(self, *, is_hashed: bool = False, is_resumed: bool = False) -> LargeSent:
        hashes = hash_blocks(self.file, BLOCK_BYTES) if is_hashed else None
        return self.send_work(LargeFile(self.means, self.file, Intent(1, KEY, is_resumed), hashes))

    def send_work(self, work: LargeFile) -> LargeSent:
        with Lane[LargeSent](self.driver.pace) as lane:
            lane.feed(work)
            [sent] = lane.finish()
            return sent

    def write_again(self, place: int) -> None:
        """Change one byte, so that no stat shows it."""
        with open(self.path, "r+b") as handle:
            handle.seek(place)
            handle.write(bytes([self.body[place] ^ 1]))
        os.utime(self.path, ns=(self.file.modified_ns, self.file.modified_ns))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "large")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


class TestSent:
    @pytest.mark.parametrize("is_hashed", [False, True])
    def test_a_file_is_read_once_and_becomes_a_blob(self, desk: Desk, is_hashed: bool) -> None:
        sent = desk.send(is_hashed=is_hashed)
        blob = desk.driver.find_blob(KEY)
        assert blob is not None
        assert (sent.digest, sent.etag, sent.failure, sent.sent_bytes) == (desk.digest, blob.etag, None, len(desk.body))
        assert blob.metadata == {DIGEST_METADATA: Digest.of(desk.body)}
        assert desk.driver.read_range(KEY) == desk.body
        assert desk.driver.requests == {"stage": 20, "commit": 1, "read": 1}
        assert desk.progress.sent_bytes == len(desk.body)
        assert desk.progress.hashed_bytes == (0 if is_hashed else len(desk.body))
        assert sent.was_hashed_before == is_hashed

    def test_when_reading_began_is_told(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: 77)
        assert desk.send().read_at_ns == 77

    def test_nothing_is_asked_of_the_service_beforehand(self, desk: Desk) -> None:
        desk.send()
        assert desk.driver.requests["list_blocks"] == 0

    def test_content_that_became_known_meanwhile_is_never_committed(self, desk: Desk) -> None:
        desk.live = {desk.digest}
        sent = desk.send()
        assert (sent.digest, sent.etag, sent.failure) == (desk.digest, None, None)
        assert desk.driver.requests["commit"] == 0
        assert desk.driver.find_blob(KEY) is None
        assert desk.asked == [desk.digest]

    def test_buffers_are_used_again_and_come_back(self, desk: Desk) -> None:
        desk.send()
        assert 1 <= len(desk.means.pool._free) <= desk.driver.pace.most + 1

    def test_blocks_larger_than_the_shared_buffers_have_their_own(self, desk: Desk) -> None:
        desk.means.pool.size_bytes = BLOCK_BYTES - 1
        assert desk.send().failure is None
        assert len(desk.means.pool._free) == 0
        assert desk.driver.read_range(KEY) == desk.body

    def test_an_upload_that_is_given_up_makes_no_blob(self, desk: Desk) -> None:
        desk.driver.on_stage = lambda block_id: desk.means.given_up.set()
        sent = desk.send()
        assert (sent.etag, sent.failure, sent.was_given_up) == (None, None, True)
        assert desk.driver.requests["stage"] <= desk.driver.pace.most + 1
        assert desk.asked == []


class TestResumed:
    @pytest.mark.parametrize("is_hashed", [False, True])
    @pytest.mark.parametrize("kept", [0, 1, 12, 20])
    def test_blocks_the_service_holds_are_not_sent_again(self, desk: Desk, kept: int, is_hashed: bool) -> None:
        desk.live = {desk.digest}
        desk.send()  # stages every block and makes no blob
        staged = desk.driver._container.blocks[KEY]
        for block_id in sorted(staged)[kept:]:
            del staged[block_id]
        desk.live.clear()
        desk.driver.requests.clear()
        desk.progress.sent_bytes = 0
        sent = desk.send(is_resumed=True, is_hashed=is_hashed)
        assert desk.driver.requests["stage"] == 20 - kept
        assert desk.driver.requests["list_blocks"] == 1
        assert sent.sent_bytes == desk.progress.sent_bytes == len(desk.body) - desk.progress.saved_bytes
        assert desk.progress.saved_bytes == min(kept * BLOCK_BYTES, len(desk.body))
        assert (sent.etag, sent.failure) != (None, None)
        assert desk.driver.read_range(KEY) == desk.body

    def test_blocks_of_other_content_or_of_another_place_do_not_count(self, desk: Desk) -> None:
        desk.live = {desk.digest}
        desk.send()
        staged = desk.driver._container.blocks[KEY]
        for number, block_id in enumerate(sorted(staged)):
            body = staged.pop(block_id)
            if number % 2:
                staged[f"{number + 1:06x}{block_id[6:]}"] = body
            else:
                staged[block_id] = body[:-1]  # its upload broke off, says a service that should not
        desk.live.clear()
        desk.driver.requests.clear()
        desk.send(is_resumed=True)
        assert desk.driver.requests["stage"] == 20
        assert desk.driver.read_range(KEY) == desk.body

    def test_a_file_that_changed_since_is_sent_where_it_differs(self, desk: Desk) -> None:
        desk.live = {desk.digest}
        desk.send()
        desk.driver.requests.clear()
        desk.write_again(3 * BLOCK_BYTES)
        sent = desk.send(is_resumed=True)
        assert desk.driver.requests["stage"] == 1
        assert sent.digest == blake3(desk.driver.read_range(KEY)).digest() != desk.digest


class TestFailures:
    @pytest.mark.parametrize("place", [0, 5 * BLOCK_BYTES, 20 * BLOCK_BYTES - BLOCK_BYTES])
    def test_a_file_that_changed_between_the_passes_makes_no_blob(self, desk: Desk, place: int) -> None:
        hashes = hash_blocks(desk.file, BLOCK_BYTES)
        desk.write_again(place)
        sent = desk.send_work(LargeFile(desk.means, desk.file, Intent(1, KEY), hashes))
        assert sent.failure is not None
        assert "'large' changed while it was being read" in sent.failure
        assert (sent.etag, desk.driver.find_blob(KEY), desk.driver.requests["commit"]) == (None, None, 0)

    @pytest.mark.parametrize("is_hashed", [False, True])
    @pytest.mark.parametrize("change", ["shorter", "longer", "touched", "gone"])
    def test_a_file_that_changes_while_it_is_sent_is_a_failure_of_its_own(self, desk: Desk, change: str, is_hashed: bool) -> None:
        hashes = hash_blocks(desk.file, BLOCK_BYTES) if is_hashed else None
        work = LargeFile(desk.means, desk.file, Intent(1, KEY), hashes)
        before = open_descriptors()
        if change == "gone":
            desk.path.unlink()
        else:
            piece = work.draw()
            {
                "shorter": lambda: os.truncate(desk.path, 3000),
                "longer": lambda: os.truncate(desk.path, len(desk.body) + 1),
                "touched": lambda: os.utime(desk.path, ns=(1, 1)),
            }[change]()
            piece()
        sent = desk.send_work(work)
        assert sent.failure is not None
        assert ("No such file" if change == "gone" else "'large' changed") in sent.failure
        assert (sent.etag, desk.driver.find_blob(KEY)) == (None, None)
        assert (desk.asked, desk.driver.requests["commit"]) == ([], 0)
        assert open_descriptors() <= before

    def test_after_a_failure_no_more_is_read_or_sent(self, desk: Desk) -> None:
        os.truncate(desk.path, 3 * BLOCK_BYTES)
        assert desk.send().failure is not None
        assert desk.driver.requests["stage"] == 3

    @pytest.mark.parametrize("place", ["000000", "000013", "commit", "list"])
    def test_an_error_of_the_service_is_raised_with_the_path(self, desk: Desk, place: str) -> None:
        before = open_descriptors()
        desk.driver.fails_at = place
        with pytest.raises(UnavailableError) as caught:
            desk.send(is_resumed=place == "list")
        assert any("'large'" in note for note in caught.value.__notes__)
        assert open_descriptors() <= before
        desk.driver.fails_at = ""
        assert desk.driver.find_blob(KEY) is None

    def test_what_a_failed_upload_staged_is_continued(self, desk: Desk) -> None:
        desk.driver.fails_at = "00000a"
        with pytest.raises(UnavailableError):
            desk.send()
        arrived = len(desk.driver.staged)
        desk.driver.fails_at = ""
        desk.driver.staged.clear()
        desk.send(is_resumed=True)
        assert len(desk.driver.staged) == 20 - arrived
        assert arrived >= 8
        assert desk.driver.read_range(KEY) == desk.body

    def test_an_ended_work_may_be_dropped(self, desk: Desk) -> None:
        work = LargeFile(desk.means, desk.file, Intent(1, KEY))
        work.drop()
        desk.send_work(work)
        work.drop()
