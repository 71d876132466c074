"""A run at work in one process: whose writes are its, what is kept out of its record, how it is heard of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

import vds
from tests.support import ROOT
from vds.errors import AccessDeniedError, ConflictError, InvalidInputError
from vds.index import runs as index_runs
from vds.index.database import now_us
from vds.index.sql import text
from vds.model.run import RUN_FIELD, RunRecord, run_key
from vds.ops import runs as ops
from vds.provenance import RUN_VARIABLE, find_run, working_for
from vds.store import Store


def write(store: Store, name: str = "made") -> str:
    """Write a version and return the run that it names."""
    with store.namespace(name).transaction() as tx:
        tx.write_bytes(os.urandom(4).hex(), b"x")
    return tx.version.provenance.get(RUN_FIELD, "")


def test_whose_a_write_is(store: Store) -> None:
    with store.run("outer") as outer:
        assert write(store) == outer.id == os.environ[RUN_VARIABLE]
        with store.run("inner") as inner:
            assert write(store) == inner.id == os.environ[RUN_VARIABLE]
        assert write(store) == outer.id == os.environ[RUN_VARIABLE]
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(write(store)))
        thread.start()
        thread.join()
        assert found == [outer.id], "a thread of the program's works for its run"
    assert write(store) == ""
    assert RUN_VARIABLE not in os.environ


def test_runs_of_two_threads(store: Store) -> None:
    first, second = store.run("first"), store.run("second")
    begun, over = threading.Event(), threading.Event()
    found: list[str] = []

    def work() -> None:
        with second:
            begun.set()
            over.wait(10)
            found.append(write(store))

    with first:
        thread = threading.Thread(target=work)
        thread.start()
        begun.wait(10)
        assert write(store) == first.id
        over.set()
        thread.join()
    assert found == [second.id]
    assert RUN_VARIABLE not in os.environ


def test_who_works_for_a_run_without_saying_so(store: Store) -> None:
    with working_for("01jk0000000000000000000000", is_inherited=False):
        assert find_run() == "01jk0000000000000000000000"
        assert RUN_VARIABLE not in os.environ
    assert find_run() == ""


def test_what_is_no_run_in_the_environment(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "$RUN")
    assert write(store) == ""
    monkeypatch.setenv(RUN_VARIABLE, "01jk0000000000000000000000")
    assert write(store) == "01jk0000000000000000000000"
    info = store.get("made").produced_by
    assert info is not None
    assert (info.id, info.status) == ("01jk0000000000000000000000", None), "another store's"


def test_no_secrets(store: Store) -> None:
    params = {
        "password": "hunter2",
        "db_token": "t0k",
        "url": "https://x/y?sig=abcdefgh",
        "plain": "ok",
        "dsn": "postgresql://u:pw@h/d",
    }
    run = store.run("train", params=params)
    run.end("failed", "cannot read https://acct.blob.core.windows.net/c?sv=1&sig=abcdefgh")
    doors = store._handle.doors
    records = b"".join(doors.blobs.read_range(key) for key in (run_key(run.id, has_ended=False), run_key(run.id, has_ended=True)))
    shown = repr(run.info) + records.decode()
    for secret in ("hunter2", "t0k", "abcdefgh", ":pw@"):
        assert secret not in shown, secret
    assert run.info.params["plain"] == "ok"


@pytest.mark.parametrize(
    "params", [{"": "x"}, {"a": "x" * 20_000}, {"a": "\0"}, {"a": "\ud800"}, {str(n): "x" for n in range(1025)}]
)
def test_params_that_cannot_be(store: Store, params: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        store.run("train", params=params)
    assert store.runs() == []


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 513])
def test_names_that_cannot_be(store: Store, name: str) -> None:
    with pytest.raises(InvalidInputError):
        store.run(name)


def test_a_store_for_reading(disk_store: Store) -> None:
    with vds.connect(disk_store.url, read_only=True) as reading:
        with pytest.raises(AccessDeniedError):
            reading.run("train")
        assert reading.runs() == []


def test_an_ended_run_is_over(store: Store) -> None:
    run = store.run("train")
    run.end()
    with pytest.raises(ConflictError, match="has ended"), run:
        pass


def test_two_outputs_of_one_name(store: Store) -> None:
    write(store)
    write(store)
    run = store.run("train")
    run.output("made@1", "model")
    run.output("made@1", "model")
    with pytest.raises(InvalidInputError, match="is vds://made@1/ already"):
        run.output("made@2", "model")
    assert len(run.info.outputs) == 1
    run.end()


def test_an_end_whose_answer_was_lost(store: Store) -> None:
    """The record is there, the row does not say so: the first end counts, whoever ends it again."""
    doors = store._handle.doors
    run = store.run("train")
    ops.end(doors, run.id, "failed", error="first")
    doors.index.run(
        lambda connection: connection.execute(
            text("UPDATE run SET status = 'running', ended_us = NULL WHERE uid = :u"), {"u": run.id}
        )
    )
    assert ops.end(doors, run.id, "completed") == "failed"
    assert (run.info.status, run.info.error) == ("failed", "first")
    key = run_key(run.id, has_ended=True)
    assert RunRecord.decode(doors.blobs.read_range(key), key).status == "failed"
    run.end()


def test_silence_is_abandonment(store: Store) -> None:
    run = store.run("train")
    doors = store._handle.doors

    def age(connection: object, seconds: int) -> None:
        connection.execute(  # type: ignore[attr-defined]
            text("UPDATE run SET process = '', heartbeat_us = :t WHERE uid = :u"),
            {"u": run.id, "t": now_us(connection) - seconds * 1_000_000},  # type: ignore[arg-type]
        )

    limit_s = index_runs.SILENT_US // 1_000_000
    doors.index.run(lambda connection: age(connection, limit_s - 5))
    assert store.get_run(run.id).status == "running"
    doors.index.run(lambda connection: age(connection, limit_s + 5))
    assert store.get_run(run.id).status == "abandoned"
    assert [info.id for info in store.runs(status="abandoned")] == [run.id]
    assert store.runs(status="running") == []
    ops.beat(doors, run.id)
    assert store.get_run(run.id).status == "running"
    run.end()


_KILLED = """
import sys, vds
store = vds.connect(sys.argv[1])
with store.run("killed") as run:
    store.namespace("made").transaction().abort()
    print(run.id, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere only silence tells")
def test_a_process_that_vanished(disk_store: Store) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, disk_store.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    run = process.stdout.readline().strip()
    assert disk_store.get_run(run).status == "running"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert disk_store.get_run(run).status == "abandoned"


def test_a_version_pickles_with_its_run(disk_store: Store) -> None:
    with disk_store.run("train") as run:
        write(disk_store)
    assert disk_store.get("made@1").produced_by == disk_store.get_run(run.id)


def test_vds_run_finds_the_store(disk_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with vds.run("by url", store=disk_store.url) as one, vds.run("by store", store=disk_store) as two:
        pass
    monkeypatch.setenv("VDS_STORE", disk_store.url)
    with vds.run("by setting") as three:
        pass
    assert {info.id for info in disk_store.runs()} == {one.id, two.id, three.id}
    assert disk_store.get_run(two.id).parent == one.id
