from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3

from tests.unit.engine.desk import Desk, scan
from vds.blobs.packs import PACK_TARGET_BYTES
from vds.engine import outbox as outbox_module
from vds.engine.outbox import INTENTS_MAX, Outbox
from vds.engine.resume import HEARTBEAT_S
from vds.errors import ConflictError, FormatError, UnavailableError
from vds.model.digest import EMPTY_RAW
from vds.progress import SilentProgress


@pytest.fixture
def outbox(desk: Desk) -> Iterator[Outbox]:
    made = desk.outbox()
    yield made
    made.close()


def digest(body: bytes) -> bytes:
    return blake3(body).digest()


def append(outbox: Outbox, *bodies: bytes) -> None:
    for body in bodies:
        outbox.count_new(digest(body), len(body))
        outbox.append(digest(body), body)


def live(desk: Desk, *bodies: bytes) -> bool:
    other = desk.outbox()
    try:
        return not other.find_new([digest(body) for body in bodies])
    finally:
        other.close()


def give_away(desk: Desk) -> None:
    """Let another upload take over what this one has under way."""
    other = desk.open_session().upload.id
    desk.doors.index.run(lambda c: c.exec_driver_sql(f"UPDATE blob SET upload_id = {other} WHERE state = 'pending'"))


class TestFindNew:
    def test_neither_what_the_store_has_nor_what_is_on_its_way(self, desk: Desk, outbox: Outbox) -> None:
        append(outbox, b"a")
        outbox.finish()
        append(outbox, b"b")
        assert outbox.find_new([digest(body) for body in (b"a", b"b", b"c")]) == {digest(b"c")}

    def test_nothing_is_looked_up_where_everything_is_clear(self, desk: Desk, outbox: Outbox) -> None:
        append(outbox, b"b")
        desk.clear()
        assert outbox.find_new([EMPTY_RAW, digest(b"b")]) == set()
        assert outbox.find_new([]) == set()
        assert desk.lookups == []

    def test_what_is_placed_is_forgotten_here(self, desk: Desk, outbox: Outbox) -> None:
        append(outbox, *[b"%d" % number for number in range(500)])
        assert len(outbox._in_flight) == 500
        outbox.finish()
        assert outbox._in_flight == set()
        assert live(desk, *[b"%d" % number for number in range(500)])


class TestSharedPack:
    def test_contents_wait_for_company(self, desk: Desk, outbox: Outbox) -> None:
        append(outbox, b"a", b"b")
        append(outbox, b"c")
        assert desk.sends() == []
        outbox.finish()
        assert desk.sends() == ["put packs"]
        assert (desk.states(), live(desk, b"a", b"b", b"c")) == (["live"], True)

    def test_a_full_pack_leaves(self, desk: Desk, outbox: Outbox) -> None:
        bodies = [os.urandom(1_000_000) for _ in range(PACK_TARGET_BYTES // 1_000_000 + 1)]
        append(outbox, *bodies)
        assert outbox._shared is not None
        assert len(outbox._shared.members) == 1
        outbox.finish()
        assert desk.sends() == ["put packs"] * 2
        assert live(desk, *bodies)

    def test_what_was_appended_may_be_overwritten(self, desk: Desk, outbox: Outbox) -> None:
        body = bytearray(b"before")
        name = digest(bytes(body))
        outbox.count_new(name, 6)
        outbox.append(name, body)
        body[:] = b"after!"
        outbox.finish()
        [key] = desk.blobs()
        assert desk.driver.read_range(key).startswith(b"before")


class TestIntents:
    def test_they_are_written_before_the_first_byte_leaves(self, desk: Desk, outbox: Outbox) -> None:
        for number in range(20):
            append(outbox, b"%d" % number)
            outbox.flush()
        outbox.send_blobs([(digest(b"x"), b"x"), (digest(b"y"), b"y")], None, "two")
        outbox.finish()
        assert_intents_first(desk.driver.events)
        assert len([event for event in desk.driver.events if event.startswith("put")]) == 22

    def test_those_of_many_packs_are_written_together(self, desk: Desk, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        real = outbox._add_pending

        def add(keys: Any) -> list[int]:
            sizes.append(len(keys))
            return real(keys)

        monkeypatch.setattr(outbox, "_add_pending", add)
        for number in range(60):
            append(outbox, b"%d" % number)
            outbox.flush()
        assert sizes == [1, 2, 4, 8, INTENTS_MAX, INTENTS_MAX, INTENTS_MAX]
        outbox.finish()
        assert desk.states() == ["live"] * 60  # the unused ones are gone

    def test_after_the_end_it_begins_modestly_again(self, desk: Desk, outbox: Outbox) -> None:
        for number in range(10):
            append(outbox, b"%d" % number)
            outbox.flush()
        outbox.finish()
        desk.clear()
        append(outbox, b"more")
        outbox.finish()
        assert len([event for event in desk.driver.events if event.startswith("intent")]) == 1
        assert desk.states() == ["live"] * 11


def assert_intents_first(events: list[str]) -> None:
    """Check that every request for a key comes after the intent for it."""
    intended: set[str] = set()
    for event in events:
        kind, key = event.split()
        if kind == "intent":
            intended.add(key)
        elif key.startswith(("packs/", "objects/")):
            assert key in intended, event


class TestTakenOver:
    def test_a_blob_of_somebody_else_is_a_conflict(self, desk: Desk, outbox: Outbox) -> None:
        append(outbox, b"a")
        outbox.flush()
        give_away(desk)
        with pytest.raises(ConflictError, match="taken over or aborted") as caught:
            outbox.finish()
        assert caught.value.hint
        assert desk.states() == ["pending"]
        assert not live(desk, b"a")

    def test_unless_its_content_is_in_the_store(self, desk: Desk, outbox: Outbox) -> None:
        append(outbox, b"a")
        outbox.flush()
        give_away(desk)
        other = desk.outbox(desk.open_session())
        append(other, b"a")
        other.finish()
        other.close()
        outbox.finish()
        assert outbox._in_flight == set()
        assert desk.states() == ["live", "pending"]

    def test_a_part_of_it_is_not_enough(self, desk: Desk, outbox: Outbox) -> None:
        append(outbox, b"a", b"b")
        outbox.flush()
        give_away(desk)
        other = desk.outbox(desk.open_session())
        append(other, b"a")
        other.finish()
        other.close()
        with pytest.raises(ConflictError):
            outbox.finish()

    def test_who_was_quicker_with_the_same_content_does_no_harm(self, desk: Desk, outbox: Outbox) -> None:
        append(outbox, b"a")
        other = desk.outbox(desk.open_session())
        append(other, b"a")
        other.finish()
        other.close()
        outbox.finish()
        assert desk.states() == ["condemned", "live"]
        assert live(desk, b"a")


class TestStreams:
    def test_a_new_content_becomes_a_blob(self, desk: Desk, outbox: Outbox) -> None:
        stream = outbox.open_stream()
        assert stream.write(b"abc") == 3
        assert stream.finish() == (digest(b"abc"), 3)
        assert outbox._in_flight == set()
        outbox.finish()
        assert desk.sends() == ["put objects"]
        assert_intents_first(desk.driver.events)
        assert (desk.states(), live(desk, b"abc")) == (["live"], True)

    @pytest.mark.parametrize("is_placed", [False, True])
    def test_a_known_content_makes_no_blob(self, desk: Desk, outbox: Outbox, is_placed: bool) -> None:
        append(outbox, b"abc")
        if is_placed:
            outbox.finish()
        desk.clear()
        stream = outbox.open_stream()
        stream.write(b"abc")
        assert stream.finish() == (digest(b"abc"), 3)
        assert desk.sends() == []
        outbox.finish()

    def test_no_bytes_need_no_blob(self, desk: Desk, outbox: Outbox) -> None:
        assert outbox.open_stream().finish() == (EMPTY_RAW, 0)
        assert desk.sends() == []

    def test_a_dropped_one_leaves_a_pending_blob_at_most(self, desk: Desk, outbox: Outbox) -> None:
        stream = outbox.open_stream()
        stream.write(b"abc")
        stream.drop()
        stream.drop()
        assert (desk.sends(), desk.states()) == ([], ["pending"])


class TestErrors:
    def test_an_error_of_the_service_says_what_was_sent(self, desk: Desk, outbox: Outbox) -> None:
        desk.driver.refuses = "put packs/"
        append(outbox, b"a", b"b")
        with pytest.raises(UnavailableError) as caught:
            outbox.finish()
        assert caught.value.__notes__ == ["while sending a pack of 2 files"]
        assert not live(desk, b"a")

    def test_a_stale_index_ends_the_upload_before_anything_is_placed(self, desk: Desk) -> None:
        checks: list[int] = []

        def check() -> None:
            checks.append(1)
            raise FormatError("the index is older than the container")

        outbox = Outbox(desk.doors, desk.session.upload.id, SilentProgress(), check)
        append(outbox, b"a")
        with pytest.raises(FormatError):
            outbox.finish()
        outbox.close()
        assert checks == [1]
        assert desk.states() == ["pending"]

    def test_the_index_is_checked_once_and_only_when_something_is_sent(self, desk: Desk) -> None:
        checks: list[int] = []
        outbox = Outbox(desk.doors, desk.session.upload.id, SilentProgress(), lambda: checks.append(1))
        outbox.find_new([digest(b"a")])
        outbox.finish()
        assert checks == []
        append(outbox, b"a")
        outbox.flush()
        append(outbox, b"b")
        outbox.finish()
        outbox.close()
        assert checks == [1]


class TestBeat:
    def test_it_shows_now_and_then_that_the_upload_is_alive(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [1000.0]
        beats: list[int] = []
        monkeypatch.setattr(outbox_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
        monkeypatch.setattr(outbox_module, "heartbeat", lambda connection, upload_id: beats.append(upload_id))
        outbox = desk.outbox()
        outbox.beat()
        now[0] += HEARTBEAT_S - 1
        outbox.beat()
        assert beats == []
        now[0] += 1
        outbox.beat()
        outbox.beat()
        assert beats == [desk.session.upload.id]
        outbox.close()


def test_a_large_file_comes_out_of_settle(desk: Desk, outbox: Outbox, tmp_path: Path) -> None:
    body = os.urandom(10_000)
    (tmp_path / "large").write_bytes(body)
    [file] = scan(tmp_path)
    outbox.send_large([(file, "f", None)])
    assert list(outbox.large.values()) == ["f"]
    [sent] = outbox.settle(wait=True)
    assert (sent.digest, sent.sent_bytes) == (digest(body), len(body))
    assert outbox.large == {}
    assert live(desk, body)
    assert outbox.find_known([(10_000, "f"), (10_000, "g")]) == {"f"}
