from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.unit.engine.desk import Desk
from vds.engine.large import Intent
from vds.engine.resume import HEARTBEAT_S, SILENT_US, _machine, _start_of, begin_large, is_abandoned, is_gone, own_process
from vds.engine.session import Session
from vds.index.resume import ResumableRow
from vds.index.staging import end_upload

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by /proc")


def ended_process() -> str:
    """Return what a process is called that has ended."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    name = "/".join([*_machine(), str(child.pid), _start_of(child.pid)])
    assert not is_gone(name)
    child.communicate()
    return name


@pytest.fixture(scope="module")
def gone() -> str:
    return ended_process()


class TestProcess:
    @linux_only
    def test_this_process_is_not_gone_and_an_ended_one_is(self, gone: str) -> None:
        assert own_process() == own_process()
        assert not is_gone(own_process())
        assert gone != own_process()
        assert is_gone(gone)

    @linux_only
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_nothing_is_known_of_other_machines_boots_and_containers(self, gone: str, place: int) -> None:
        parts = gone.split("/")
        parts[place] += "x"
        assert not is_gone("/".join(parts))

    @linux_only
    def test_a_pid_that_was_given_to_another_process_is_gone(self) -> None:
        *parts, start = own_process().split("/")
        assert is_gone("/".join([*parts, str(int(start) - 1)]))

    @linux_only
    def test_processes_of_one_machine_differ_in_pid_and_start(self, gone: str) -> None:
        here, there = own_process().split("/"), gone.split("/")
        assert len(here) == 5
        assert here[:3] == there[:3]
        assert here[3] == str(os.getpid()) != there[3]

    @pytest.mark.parametrize(
        "text", ["", "/", "host", "////", "a/b/c/d/e", "a/b/c/-1/e", "a/b/c/1/e/f", "a/b/c/1", "\0/\n/é/x/y"]
    )
    def test_nonsense_is_not_known_to_be_gone(self, text: str) -> None:
        assert not is_gone(text)

    @linux_only
    @pytest.mark.parametrize("pid", ["", "x", "-1", "1.5", "../1"])
    def test_a_nonsense_pid_of_this_machine_is_not_known_to_be_gone(self, pid: str) -> None:
        assert not is_gone("/".join([*own_process().split("/")[:3], pid, "1"]))

    def test_where_nothing_tells_processes_apart_nothing_is_gone(self, monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
        host = gone.split("/")[0]
        monkeypatch.setattr("vds.engine.resume._machine", lambda: (host, "", ""))
        assert not is_gone(f"{host}///999999999/1")


def row(**more: object) -> ResumableRow:
    values = {"blob_id": 1, "key": "k", "upload_id": 5, "upload_state": "open", "process": own_process()}
    return ResumableRow(**{**values, "heartbeat_us": 0, "now_us": 0, **more})  # type: ignore[arg-type]


class TestAbandoned:
    def test_who_is_at_work_is_left_alone(self) -> None:
        assert not is_abandoned(row(), 6)
        assert not is_abandoned(row(process=""), 6)
        assert not is_abandoned(row(now_us=SILENT_US), 6)

    @pytest.mark.parametrize("state", ["aborted", "committed"])
    def test_an_upload_that_ended_left_it(self, state: str) -> None:
        assert is_abandoned(row(upload_state=state), 6)

    def test_silence_means_it_is_left(self) -> None:
        assert is_abandoned(row(now_us=SILENT_US + 1), 6)
        assert is_abandoned(row(process="", now_us=SILENT_US + 1), 6)
        assert SILENT_US > 3 * HEARTBEAT_S * 1_000_000

    @linux_only
    def test_a_process_that_is_gone_left_it(self, gone: str) -> None:
        assert is_abandoned(row(process=gone), 6)

    def test_a_file_of_the_same_upload_is_never_taken(self, gone: str) -> None:
        for left in (row(upload_state="aborted"), row(process=gone), row(now_us=2 * SILENT_US)):
            assert not is_abandoned(left, left.upload_id)


def begin(desk: Desk, session: Session, fingerprint: str = "f", digest: bytes | None = None) -> Intent:
    store_id = desk.doors.store.id
    return desk.doors.index.run(lambda c: begin_large(c, store_id, session.upload.id, fingerprint, digest))


def end(desk: Desk, session: Session) -> None:
    desk.doors.index.run(lambda c: end_upload(c, desk.doors.store.id, session.upload.id, "aborted"))


class TestBeginLarge:
    def test_the_intent_is_written_down(self, desk: Desk) -> None:
        made = begin(desk, desk.session)
        assert not made.is_resumed
        assert desk.blobs() == {made.key: "pending"}
        assert made.key.startswith("objects/~~/")
        assert begin(desk, desk.session, digest=b"d" * 32).key.startswith(f"objects/{(b'd' * 32).hex()[:2]}/")

    def test_what_an_ended_upload_left_is_continued_by_one(self, desk: Desk) -> None:
        left = begin(desk, desk.session)
        end(desk, desk.session)
        first, second = begin(desk, desk.open_session()), begin(desk, desk.open_session())
        assert first == Intent(left.blob_id, left.key, is_resumed=True)
        assert second.key != left.key
        assert not second.is_resumed

    @linux_only
    def test_what_a_killed_process_left_is_continued(self, desk: Desk, gone: str) -> None:
        left = begin(desk, desk.open_session(process=gone))
        assert begin(desk, desk.session) == Intent(left.blob_id, left.key, is_resumed=True)

    def test_files_of_one_upload_and_of_one_at_work_are_left_alone(self, desk: Desk) -> None:
        at_work = desk.open_session(process=own_process())
        keys = {begin(desk, session).key for session in (at_work, at_work, desk.session)}
        assert len(keys) == 3

    def test_another_fingerprint_is_another_file(self, desk: Desk) -> None:
        begin(desk, desk.session, "f")
        end(desk, desk.session)
        assert not begin(desk, desk.open_session(), "g").is_resumed

    def test_a_key_that_names_another_digest_is_left_alone(self, desk: Desk) -> None:
        left = begin(desk, desk.session, digest=b"d" * 32)
        end(desk, desk.session)
        assert not begin(desk, desk.open_session()).is_resumed  # nobody knows yet what is in the file
        assert not begin(desk, desk.open_session(), digest=b"e" * 32).is_resumed
        assert begin(desk, desk.open_session(), digest=b"d" * 32).blob_id == left.blob_id
