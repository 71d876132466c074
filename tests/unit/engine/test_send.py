from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.unit.engine.desk import BLOCK_BYTES, LARGE_BYTES, WHOLE_BYTES, Desk, scan
from tests.unit.store.trees import write_tree
from vds.blobs.driver import Buffer
from vds.buffers import Loan
from vds.engine import gather
from vds.engine.gather import Found
from vds.engine.send import Sender
from vds.errors import UnavailableError
from vds.files.read import SAMPLE_BYTES
from vds.index.staging import end_upload
from vds.model.digest import EMPTY_RAW

WAIT_S = 30  # only ever reached by a test that fails
BODIES = {"small": b"s" * 50, "whole": b"w" * 2000, "large": b"l" * 6000, "empty": b""}


def digest(body: bytes) -> bytes:
    return blake3(body).digest()


@pytest.fixture
def sender(desk: Desk) -> Iterator[Sender]:
    with desk.sender() as made:
        yield made


def finish(sender: Sender) -> None:
    """End the sending, after which nothing is under way and nothing is remembered of it."""
    sender.finish()
    assert sender._outbox._in_flight == set()
    assert sender._outbox.large == {}


def send_elsewhere(desk: Desk, root: Path) -> None:
    """Let another upload bring a tree into the store, and forget what that cost."""
    with desk.sender(desk.open_session()) as other:
        desk.send(other, root)
        finish(other)
    desk.clear()


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a file was read")

    for name in ("read_into", "hash_blocks"):
        monkeypatch.setattr(gather, name, refuse)
    monkeypatch.setattr("vds.engine.large.SourceReader", refuse)


class TestKinds:
    def test_files_leave_by_their_size(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        bodies = {
            "empty": b"",
            "small": os.urandom(WHOLE_BYTES - 1),
            "whole": os.urandom(WHOLE_BYTES),
            "whole too": os.urandom(LARGE_BYTES),
            "large": os.urandom(LARGE_BYTES + 1),
        }
        hashed = desk.send(sender, write_tree(tmp_path / "tree", bodies))
        finish(sender)
        assert hashed == {path: digest(body) for path, body in bodies.items()} == desk.remembered
        assert desk.sends() == ["commit objects", "put objects", "put objects", "put packs", *["stage objects"] * 5]
        assert desk.states() == ["live"] * 4
        total = sum(map(len, bodies.values()))
        tally = sender.tally
        assert (tally.bytes_read, tally.bytes_sent, tally.bytes_new, tally.bytes_saved) == (total, total, total, 0)
        assert tally.objects_new == 4

    def test_everything_is_intended_before_it_leaves(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        bodies = {f"{size:05}": os.urandom(size) for size in range(500, 6000, 250)}
        desk.send(sender, write_tree(tmp_path / "tree", bodies))
        finish(sender)
        intended: set[str] = set()
        for event in desk.driver.events:
            kind, key = event.split()
            intended |= {key} if kind == "intent" else set()
            assert key in intended or not key.startswith(("packs/", "objects/"))

    def test_a_buffer_is_not_lent_again_before_every_part_of_it_left(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released, order, early = threading.Event(), itertools.count(), list[int]()
        release, put_if_absent = Loan.release, desk.driver.put_if_absent

        def note_release(loan: Loan) -> None:
            release(loan)
            released.set()

        def put(key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
            if key.startswith("objects/") and next(order):
                assert released.wait(WAIT_S)  # the first part has left
                early.append(len(sender._outbox.pool._free))
            return put_if_absent(key, body, metadata)

        monkeypatch.setattr(Loan, "release", note_release)
        monkeypatch.setattr(desk.driver, "put_if_absent", put)
        desk.send(sender, write_tree(tmp_path / "tree", {"a": os.urandom(2000), "b": os.urandom(2000)}))
        finish(sender)
        assert early == [0]
        assert len(sender._outbox.pool._free) == 1

    def test_no_files_cost_nothing(self, desk: Desk, sender: Sender) -> None:
        assert desk.send(sender, []) == {}
        finish(sender)
        assert (desk.driver.requests, desk.lookups) == ({}, [])

    def test_single_contents(self, desk: Desk, sender: Sender) -> None:
        bodies = [b"", b"small", os.urandom(WHOLE_BYTES)]
        assert [sender.send_bytes(body) for body in [*bodies, *bodies]] == [digest(body) for body in [*bodies, *bodies]]
        finish(sender)
        assert desk.sends() == ["put objects", "put packs"]
        assert sender.tally.objects_new == 2


class TestOnce:
    def test_identical_files_are_sent_once(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        contents = [os.urandom(size) for size in (50, 2000, 6000)]
        bodies = {f"{copy}/{place}": body for copy in range(5) for place, body in enumerate(contents)}
        hashed = desk.send(sender, write_tree(tmp_path / "tree", bodies))
        finish(sender)
        assert hashed == {path: digest(body) for path, body in bodies.items()}
        assert desk.sends() == ["commit objects", "put objects", "put packs", *["stage objects"] * 6]
        tally = sender.tally
        assert (tally.objects_new, tally.bytes_new, tally.bytes_sent) == (3, 8050, 8050)
        assert tally.bytes_saved == 4 * 8050

    def test_across_groups(self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gather, "PACK_MEMBERS_MAX", 4)
        bodies = {f"{number:03}": b"%d" % (number % 10) for number in range(100)}
        hashed = desk.send(sender, write_tree(tmp_path / "tree", bodies), batch=7)
        finish(sender)
        assert hashed == {path: digest(body) for path, body in bodies.items()}
        assert (sender.tally.objects_new, sender.tally.bytes_sent) == (10, 10)

    @pytest.mark.parametrize("batch", [1, 512])
    def test_large_twins_wait_for_the_first(self, desk: Desk, sender: Sender, tmp_path: Path, batch: int) -> None:
        body = os.urandom(LARGE_BYTES + 100)
        bodies = {"a": body, "b": body, "c": body, "d": body}
        assert desk.send(sender, write_tree(tmp_path / "tree", bodies), batch=batch) == dict.fromkeys(bodies, digest(body))
        finish(sender)
        assert desk.driver.requests == {"stage": 5, "commit": 1}
        assert sender.tally.bytes_saved == 3 * len(body)

    def test_files_that_only_look_alike_are_all_sent(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        alike = [bytearray(5 * SAMPLE_BYTES) for _ in range(3)]
        for number, body in enumerate(alike):
            body[SAMPLE_BYTES + 5] = number  # where no sample looks
        bodies = {str(number): bytes(body) for number, body in enumerate(alike)}
        hashed = desk.send(sender, write_tree(tmp_path / "tree", bodies))
        finish(sender)
        assert hashed == {path: digest(body) for path, body in bodies.items()}
        assert desk.driver.requests["commit"] == 3
        assert sender.tally.objects_new == 3

    def test_a_part_of_a_group_that_is_new_goes_into_a_shared_pack(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gather, "PACK_MEMBERS_MAX", 10)
        bodies = {f"{number:03}": b"%d" % number for number in range(100)}
        send_elsewhere(desk, write_tree(tmp_path / "before", {path: body for path, body in bodies.items() if path[-1] != "7"}))
        desk.send(sender, write_tree(tmp_path / "now", bodies))
        finish(sender)
        assert desk.sends() == ["put packs"]  # one new content in each of ten groups
        assert (sender.tally.objects_new, sender.tally.bytes_sent) == (10, 19)

    def test_groups_that_are_new_as_a_whole_are_packs_of_their_own(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gather, "PACK_MEMBERS_MAX", 10)
        monkeypatch.setattr(sender._outbox, "append", None)  # nothing is copied
        desk.send(sender, write_tree(tmp_path / "now", {f"{number:03}": b"%d" % number for number in range(100)}))
        finish(sender)
        assert desk.sends() == ["put packs"] * 10


class TestKnown:
    def test_what_the_store_has_is_not_sent(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", BODIES)
        send_elsewhere(desk, root)
        assert desk.send(sender, root) == {path: digest(body) for path, body in BODIES.items()}
        finish(sender)
        assert desk.driver.requests == {}
        assert (sender.tally.bytes_sent, sender.tally.bytes_new, sender.tally.bytes_saved) == (0, 0, 8050)

    def test_what_is_known_is_not_even_read(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write_tree(tmp_path / "tree", BODIES)
        send_elsewhere(desk, root)
        no_reading(monkeypatch)
        files = scan(root)
        digests = [digest(BODIES[str(file.path)]) for file in files]
        assert desk.send_found(sender, [Found(files, digests)]) == {path: digest(body) for path, body in BODIES.items()}
        finish(sender)
        assert (desk.driver.requests, desk.lookups, sender.tally.bytes_read) == ({}, [3], 0)

    def test_a_known_digest_that_the_store_lacks_is_read_and_sent(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        files = scan(write_tree(tmp_path / "tree", BODIES))
        hashed = desk.send_found(sender, [Found(files, [digest(BODIES[str(file.path)]) for file in files])])
        finish(sender)
        assert hashed == {path: digest(body) for path, body in BODIES.items()}
        assert sender.tally.objects_new == 3

    def test_a_believed_digest_is_not_what_is_stored_when_the_file_is_read(
        self, desk: Desk, sender: Sender, tmp_path: Path
    ) -> None:
        files = scan(write_tree(tmp_path / "tree", {"a": b"new"}))
        assert desk.send_found(sender, [Found(files, [digest(b"old")])]) == {"a": digest(b"new")}
        finish(sender)

    def test_a_large_file_that_became_known_meanwhile_is_not_committed(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write_tree(tmp_path / "tree", {"large": os.urandom(6000)})
        monkeypatch.setattr(sender._outbox, "find_known", lambda files: set())  # asked a moment too early
        send_elsewhere(desk, root)
        desk.send(sender, root)
        finish(sender)
        assert desk.driver.requests == {"stage": 6}
        assert (sender.tally.objects_new, sender.tally.bytes_new, sender.tally.bytes_saved) == (0, 0, 6000)

    def test_one_that_was_hashed_first_is_not_committed_either(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write_tree(tmp_path / "tree", {"large": os.urandom(6000)})
        send_large = sender._outbox.send_large

        def lose_the_race(files: Any) -> None:
            send_elsewhere(desk, root)
            send_large(files)

        monkeypatch.setattr(sender._outbox, "find_known", lambda files: {fingerprint for _, fingerprint in files})
        monkeypatch.setattr(sender._outbox, "send_large", lose_the_race)
        desk.send(sender, root)
        finish(sender)
        assert desk.driver.requests["commit"] == 0

    def test_an_interrupted_upload_of_a_large_file_is_continued(self, desk: Desk, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {"large": os.urandom(20 * BLOCK_BYTES)})
        first = desk.open_session()
        with desk.sender(first) as sender:
            desk.driver.refuses = "commit "
            with pytest.raises(UnavailableError):
                desk.send(sender, root)
        desk.driver.refuses = ""
        desk.doors.index.run(lambda c: end_upload(c, desk.doors.store.id, first.upload.id, "aborted"))
        desk.clear()
        with desk.sender() as sender:
            desk.send(sender, root)
            finish(sender)
            assert sender.tally.bytes_sent == 0
        assert desk.driver.requests == {"list_blocks": 1, "commit": 1}


class TestLookups:
    @pytest.mark.parametrize("group_files", [10, 60])
    def test_one_a_group_whatever_its_size(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_files: int
    ) -> None:
        monkeypatch.setattr(gather, "PACK_MEMBERS_MAX", group_files)
        root = write_tree(tmp_path / "tree", {f"{number:05}": b"%d" % number for number in range(3 * group_files)})
        desk.send(sender, root)
        finish(sender)
        assert desk.lookups == [group_files] * 3

    def test_one_a_batch_for_known_files(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        bodies = {f"{number:05}": b"%d" % number for number in range(60)}
        root = write_tree(tmp_path / "tree", bodies)
        send_elsewhere(desk, root)
        files = scan(root)
        batches = [Found(part, [digest(bodies[str(file.path)]) for file in part]) for part in (files[:30], files[30:])]
        desk.send_found(sender, batches)
        finish(sender)
        assert desk.lookups == [30, 30]

    def test_one_a_large_file(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {f"{number}": os.urandom(LARGE_BYTES + number + 1) for number in range(6)})
        desk.send(sender, root)
        finish(sender)
        assert desk.lookups == [1] * 6


class TestDry:
    def test_everything_is_counted_and_nothing_sent(self, desk: Desk, tmp_path: Path) -> None:
        bodies = {**BODIES, "twin": BODIES["small"], "large twin": BODIES["large"]}
        root = write_tree(tmp_path / "tree", bodies)
        with desk.sender(is_dry=True) as sender:
            assert desk.send(sender, root) == {path: digest(body) for path, body in bodies.items()}
            sender.finish()
        assert (desk.driver.requests, desk.blobs()) == ({}, {})
        tally = sender.tally
        assert (tally.objects_new, tally.bytes_new, tally.bytes_sent, tally.bytes_saved) == (3, 8050, 0, 6050)

    def test_known_digests_are_counted_without_reading(self, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = scan(write_tree(tmp_path / "tree", {**BODIES, "twin": BODIES["small"]}))
        no_reading(monkeypatch)
        digests = [digest(Path(file.os_path).read_bytes()) for file in files]
        with desk.sender(is_dry=True) as sender:
            desk.send_found(sender, [Found(files, digests)])
        assert (sender.tally.objects_new, sender.tally.bytes_new, sender.tally.bytes_saved) == (3, 8050, 50)


def send_and_finish(desk: Desk, root: Path) -> None:
    with desk.sender() as sender:
        desk.send(sender, root)
        sender.finish()


class TestFailures:
    def test_a_file_that_cannot_be_read_stops_the_sending_and_all_are_named(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gather, "PACK_MEMBERS_MAX", 5)
        root = write_tree(tmp_path / "tree", {f"{number:03}": b"%d" % number for number in range(150)})
        files = scan(root)
        for name in ("000", "070", "149"):
            (root / name).unlink()
        failures: dict[str, str] = {}
        desk.send(sender, files, failures, batch=5)
        assert sorted(failures) == ["000", "070", "149"]
        assert all("No such file" in reason for reason in failures.values())
        sender._outbox.settle(wait=True)
        assert sender.tally.bytes_read < 200  # the rest was only looked at
        assert len(desk.driver.events) < 40

    @pytest.mark.parametrize("size_bytes", [10, 2000, 6000])
    def test_one_failure_beside_good_files(self, desk: Desk, sender: Sender, tmp_path: Path, size_bytes: int) -> None:
        root = write_tree(tmp_path / "tree", {"bad": b"x" * size_bytes, "good": b"y" * size_bytes})
        files = scan(root)
        os.utime(root / "bad", ns=(1, 1))
        failures: dict[str, str] = {}
        hashed = desk.send(sender, files, failures)
        assert list(failures) == ["bad"]
        assert "bad" not in hashed
        assert "bad" not in desk.remembered
        assert all(state != "live" for key, state in desk.blobs().items() if digest(b"x" * size_bytes).hex() in key)

    def test_a_large_file_that_vanishes_after_it_was_hashed_is_a_failure(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write_tree(tmp_path / "tree", {"large": os.urandom(6000)})
        real = gather.__dict__["hash_blocks"]

        def hash_and_lose(file: object, block_bytes: int) -> object:
            hashes = real(file, block_bytes)
            (root / "large").unlink()
            return hashes

        monkeypatch.setattr(gather, "hash_blocks", hash_and_lose)
        monkeypatch.setattr(sender._outbox, "find_known", lambda files: {fingerprint for _, fingerprint in files})
        failures: dict[str, str] = {}
        desk.send(sender, root, failures)
        assert list(failures) == ["large"]
        assert "No such file" in failures["large"]

    def test_a_large_file_that_changed_between_the_passes_makes_no_blob(
        self, desk: Desk, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write_tree(tmp_path / "tree", {"large": b"l" * 6000})
        [file] = scan(root)
        real = gather.__dict__["hash_blocks"]

        def hash_and_change(file: object, block_bytes: int) -> object:
            hashes = real(file, block_bytes)
            (root / "large").write_bytes(b"l" * 3000 + b"m" * 3000)
            os.utime(root / "large", ns=(1, scanned_ns))
            return hashes

        scanned_ns = file.modified_ns
        monkeypatch.setattr(gather, "hash_blocks", hash_and_change)
        monkeypatch.setattr(sender._outbox, "find_known", lambda files: {fingerprint for _, fingerprint in files})
        failures: dict[str, str] = {}
        desk.send(sender, [file], failures)
        assert "changed while it was being read" in failures["large"]
        assert desk.driver.requests["commit"] == 0
        assert desk.states() == ["pending"]
        finish(sender)

    @pytest.mark.parametrize("size_bytes", [10, 2000, 6000])
    def test_an_error_of_the_service_is_raised_and_no_thread_is_left(self, desk: Desk, tmp_path: Path, size_bytes: int) -> None:
        root = write_tree(tmp_path / "tree", {"name of it": b"x" * size_bytes})
        desk.driver.refuses = {10: "put packs/", 2000: "put objects/", 6000: "stage "}[size_bytes]
        with pytest.raises(UnavailableError) as caught:
            send_and_finish(desk, root)
        assert any("name of it" in note for note in caught.value.__notes__)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("vds")]
        assert "live" not in desk.states()

    def test_who_stops_listening_leaves_no_thread(self, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gather, "PACK_MEMBERS_MAX", 3)
        files = scan(write_tree(tmp_path / "tree", {f"{number:04}": b"%d" % number for number in range(60)}))
        with desk.sender() as sender:
            ready = sender.send_files([Found(files, [None] * len(files))], {})
            next(ready)
            ready.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("vds")]

    def test_an_empty_tree_of_empty_files_sends_nothing(self, desk: Desk, sender: Sender, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {"a": b"", "b": b""})
        assert desk.send(sender, root) == {"a": EMPTY_RAW, "b": EMPTY_RAW}
        finish(sender)
        assert (desk.driver.requests, desk.lookups) == ({}, [])
