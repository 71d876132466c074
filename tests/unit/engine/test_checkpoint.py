"""Checkpoints after commits: when one is written, what is in it, and that nothing that goes wrong with one is felt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

import vds
from tests.support import list_keys
from tests.unit.store.trees import WatchedDriver, files_of, write_tree
from vds.engine import checkpoint as checkpoint_module
from vds.engine import commit as commit_module
from vds.engine.checkpoint import _step, write_checkpoint
from vds.engine.doors import Doors
from vds.engine.listspool import ListSpool
from vds.errors import AccessDeniedError, CorruptionError, NotFoundError, UnavailableError
from vds.index.entries import At
from vds.index.manifests import VERSION_ROWS
from vds.index.staging import end_upload
from vds.index.stores import NamespaceRow, find_namespace
from vds.model.checkpoint import CheckpointKey, parse_checkpoint_key
from vds.model.manifest import decode_change_list
from vds.store import Store, Version

NAME = "team/raw"
_numbers = itertools.count(1)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> WatchedDriver:
    made = WatchedDriver(f"checkpoint-{next(_numbers)}")
    monkeypatch.setattr("vds.blobs.open.MemoryDriver", lambda name: made)
    return made


@pytest.fixture
def store(driver: WatchedDriver) -> Iterator[Store]:
    with vds.connect(driver.url, create=True) as opened:
        yield opened


@pytest.fixture
def doors(store: Store) -> Doors:
    return store._handle.doors


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> int:
    """Look at the tail after each commit, and let it cost as much as three versions of one change; return that cost."""
    monkeypatch.setattr(checkpoint_module, "LOOK_EVERY", 1)
    monkeypatch.setattr(checkpoint_module, "TAIL_ROWS_MIN", 3 * (VERSION_ROWS + 1))
    return 3


def put(store: Store, **files: bytes) -> Version:
    """Commit a version with these files laid over the last one."""
    with store.namespace(NAME).transaction() as tx:
        for path, body in files.items():
            tx.write_bytes(path, body)
    version = tx.version
    assert version is not None
    return version


def grow(store: Store, versions: int) -> list[Version]:
    """Commit so many versions of one new file each."""
    return [put(store, **{f"f{next(_numbers)}": b"%d" % next(_numbers)}) for _ in range(versions)]


def found(doors: Doors) -> list[CheckpointKey]:
    """Return the checkpoints that count: their blobs are there and live, and the index knows them."""
    with doors.index.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT m.number, m.digest, m.row_count, b.key, b.state, b.size_bytes, b.etag FROM manifest m"
            " JOIN blob b ON b.id = m.blob_id WHERE m.kind = 'checkpoint' ORDER BY m.number"
        ).all()
    keys = []
    for row in rows:
        key = parse_checkpoint_key(row.key)
        assert key is not None, row.key
        blob = doors.blobs.find_blob(row.key)
        assert blob is not None
        assert (row.state, row.size_bytes, row.etag) == ("live", blob.size_bytes, blob.etag)
        assert (row.number, bytes(row.digest)) == (key.number, key.digest)
        assert row.row_count == len(decode_change_list(doors.blobs.read_range(row.key), key.digest))
        keys.append(key)
    return keys


def numbers(doors: Doors) -> list[int]:
    return [key.number for key in found(doors)]


def uploads(doors: Doors) -> dict[str, int]:
    """Return state → how many uploads are in it."""
    with doors.index.read() as connection:
        return {row[0]: row[1] for row in connection.exec_driver_sql("SELECT state, COUNT(*) FROM upload GROUP BY state")}


def pending(doors: Doors) -> list[tuple[str, str]]:
    """Return the state of each pending blob's upload, and its key's first segment."""
    with doors.index.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT u.state, b.key FROM blob b JOIN upload u ON u.id = b.upload_id WHERE b.state = 'pending'"
        )
        return [(row[0], row[1].split("/")[0]) for row in rows]


def namespace_of(doors: Doors) -> NamespaceRow:
    with doors.index.read() as connection:
        row = find_namespace(connection, doors.store.id, NAME)
    assert row is not None
    return row


@contextmanager
def counting(doors: Doors) -> Iterator[list[str]]:
    """Give a list of the statements that are executed meanwhile."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    engine = doors.index._live_engine()
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


class TestWhenItIsDue:
    def test_it_is_written_when_the_tail_has_grown_too_long(self, store: Store, doors: Doors, often: int) -> None:
        put(store, a=b"1")  # the first version is as good as a checkpoint
        grow(store, often - 1)
        assert numbers(doors) == []
        grow(store, 1)
        assert numbers(doors) == [1 + often]
        grow(store, often - 1)
        assert numbers(doors) == [1 + often]
        grow(store, 1)
        assert numbers(doors) == [1 + often, 1 + 2 * often]
        assert uploads(doors) == {"committed": 7 + 2}
        assert pending(doors) == []

    def test_it_holds_all_entries_of_its_version(self, store: Store, doors: Doors, often: int, tmp_path: Path) -> None:
        tree = write_tree(tmp_path / "tree", {"b/c": b"", "a\u00e9": b"x", "run": b"#!"}, executable=["run"])
        store.namespace(NAME).upload(tree)
        version = grow(store, often)[-1]
        [key] = found(doors)
        rows = decode_change_list(doors.blobs.read_range(str(key)), key.digest)
        entries = [(e.path, e.digest.raw, e.size_bytes, e.mode, e.modified_ns) for e in version.entries()]
        assert [tuple(row) for row in rows] == entries
        assert len(rows) == 3 + often

    def test_a_version_with_more_files_may_have_a_longer_tail(
        self, store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint_module, "LOOK_EVERY", 1)
        monkeypatch.setattr(checkpoint_module, "TAIL_ROWS_MIN", 0)
        put(store, **{f"{number:03}": b"%d" % number for number in range(VERSION_ROWS + 1)})
        put(store, more=b"1")  # one change makes the tail as long as the version before had files
        assert numbers(doors) == []
        put(store, more=b"2")
        assert numbers(doors) == [3]

    def test_a_version_that_changed_all_its_files_begins_the_tail_anew(
        self, store: Store, doors: Doors, often: int, tmp_path: Path
    ) -> None:
        for turn in range(3 * often):
            tree = write_tree(tmp_path / "tree", {"a": b"%d" % turn, "b": b"%d" % turn})
            store.namespace(NAME).upload(tree, mirror=True)
        assert numbers(doors) == []
        grow(store, often)
        assert numbers(doors) == [4 * often]

    def test_most_commits_ask_for_nothing_more(self, store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
        assert checkpoint_module.LOOK_EVERY == 16
        monkeypatch.setattr(commit_module, "SWEEP_EVERY", 1000)
        grow(store, 13)
        costs = []
        for _ in range(3):
            with counting(doors) as statements:
                grow(store, 1)
            costs.append(len(statements))
        assert [version.number for version in store.namespace(NAME).log(limit=1)] == [16]
        with monkeypatch.context() as patched, counting(doors) as without:
            patched.setattr(commit_module, "keep_tail_short", lambda *arguments: None)
            grow(store, 1)
        # The 16th: a read transaction of two statements, where the tail is found short.
        assert costs == [len(without), len(without), len(without) + 3]

    def test_a_commit_of_many_changes_is_looked_at_at_once(
        self, store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint_module, "FRAME_ROWS_MAX", 10)
        monkeypatch.setattr(checkpoint_module, "TAIL_ROWS_MIN", 10)
        put(store, **{f"a{number}": b"1" for number in range(20)})
        put(store, **{f"b{number}": b"1" for number in range(9)})
        assert numbers(doors) == []
        put(store, **{f"c{number}": b"1" for number in range(10)})
        assert numbers(doors) == [3]

    @pytest.mark.parametrize(
        ("versions", "step"), [(0, 16), (15, 16), (16, 16), (511, 16), (512, 32), (1023, 32), (1024, 64), (50_000, 2048)]
    )
    def test_a_long_tail_is_measured_less_often(self, versions: int, step: int) -> None:
        assert _step(versions) == step

    def test_a_tail_is_not_measured_between_its_steps(self, store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoint_module, "LOOK_EVERY", 1)
        monkeypatch.setattr(checkpoint_module, "_step", lambda versions: 3)
        measured = []

        def measure_tail(connection: Any, at: At, checkpoint: int) -> int:
            measured.append(at.number)
            return 0

        monkeypatch.setattr(checkpoint_module, "measure_tail", measure_tail)
        grow(store, 7)
        assert measured == [3, 6]

    def test_nothing_is_written_for_a_commit_that_changes_nothing(self, store: Store, doors: Doors, often: int) -> None:
        put(store, a=b"1")
        grow(store, often)
        with counting(doors) as statements:
            assert not put_same(store)
        assert not [text for text in statements if "manifest" in text]


def put_same(store: Store) -> bool:
    with store.namespace(NAME).transaction() as tx:
        tx.write_bytes("a", b"1")
    assert tx.result is not None
    return tx.result.created


class TestWriting:
    def test_once_is_enough(self, store: Store, doors: Doors) -> None:
        grow(store, 2)
        assert write_checkpoint(doors, namespace_of(doors), 1)
        assert not write_checkpoint(doors, namespace_of(doors), 1)
        assert write_checkpoint(doors, namespace_of(doors), 2)
        assert numbers(doors) == [1, 2]
        assert len(list_keys(doors.blobs, "checkpoints/")) == 2

    def test_the_empty_version_needs_none_and_an_emptied_one_may_have_one(self, store: Store, doors: Doors) -> None:
        put(store, a=b"1")
        with store.namespace(NAME).transaction() as tx:
            tx.delete("a")
        assert not write_checkpoint(doors, namespace_of(doors), 0)
        assert write_checkpoint(doors, namespace_of(doors), 2)
        assert numbers(doors) == [2]

    def test_an_intent_is_there_before_the_first_byte(self, store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
        grow(store, 1)
        seen = []
        real = ListSpool.put

        def put_watched(spool: ListSpool, *arguments: Any) -> Any:
            seen.append((pending(doors), list_keys(doors.blobs, "checkpoints/")))
            return real(spool, *arguments)

        monkeypatch.setattr(ListSpool, "put", put_watched)
        assert write_checkpoint(doors, namespace_of(doors), 1)
        assert seen == [([("open", "checkpoints")], [])]

    def test_of_two_writers_one_counts(self, store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
        grow(store, 1)
        others: list[bool] = []
        real = ListSpool.put

        def put_second(spool: ListSpool, *arguments: Any) -> Any:
            monkeypatch.setattr(ListSpool, "put", real)
            others.append(write_checkpoint(doors, namespace_of(doors), 1))
            return real(spool, *arguments)

        monkeypatch.setattr(ListSpool, "put", put_second)
        assert not write_checkpoint(doors, namespace_of(doors), 1)
        assert others == [True]
        assert numbers(doors) == [1]
        # What the loser wrote is the blob of an upload that has ended: nobody counts on it, and collection takes it.
        assert pending(doors) == [("aborted", "checkpoints")]
        assert len(list_keys(doors.blobs, "checkpoints/")) == 2

    def test_one_that_was_taken_for_dead_does_not_count(
        self, store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grow(store, 1)
        real = ListSpool.put

        def put_late(spool: ListSpool, *arguments: Any) -> Any:
            sent = real(spool, *arguments)
            doors.index.run(lambda c: c.exec_driver_sql("UPDATE blob SET state = 'deleting' WHERE state = 'pending'"))
            return sent

        monkeypatch.setattr(ListSpool, "put", put_late)
        assert not write_checkpoint(doors, namespace_of(doors), 1)
        assert numbers(doors) == []
        monkeypatch.undo()
        assert write_checkpoint(doors, namespace_of(doors), 1)

    def test_a_version_that_is_not_visible_has_none(self, store: Store, doors: Doors, driver: WatchedDriver) -> None:
        grow(store, 1)
        driver.refused = "journal/"
        with pytest.raises(vds.errors.OutcomeUnknownError):
            grow(store, 1)
        with pytest.raises(NotFoundError, match="has no version 2, its latest is 1"):
            write_checkpoint(doors, namespace_of(doors), 2)
        assert list_keys(doors.blobs, "checkpoints/") == []

    def test_an_expired_version_has_none(self, store: Store, doors: Doors) -> None:
        grow(store, 2)
        doors.index.run(lambda c: c.exec_driver_sql("UPDATE version SET expired_us = 1 WHERE number = 1"))
        with pytest.raises(NotFoundError, match="was expired on"):
            write_checkpoint(doors, namespace_of(doors), 1)
        assert list_keys(doors.blobs, "checkpoints/") == []

    @pytest.mark.parametrize(
        "damage",
        [
            "DELETE FROM entry WHERE path = 'a'",
            "DELETE FROM entry WHERE path = 'empty'",
            "UPDATE entry SET size_bytes = 9 WHERE path = 'a'",
        ],
    )
    def test_an_index_that_lost_entries_does_not_pass_that_on(self, store: Store, doors: Doors, damage: str) -> None:
        put(store, a=b"1", b=b"2", empty=b"")
        doors.index.run(lambda c: c.exec_driver_sql(damage))
        with pytest.raises(CorruptionError, match="of version 1 of 'team/raw', which has 3 files of 2 bytes") as caught:
            write_checkpoint(doors, namespace_of(doors), 1)
        assert "fsck" in caught.value.hint
        assert list_keys(doors.blobs, "checkpoints/") == []
        assert uploads(doors) == {"committed": 1}

    def test_a_reader_writes_none(self, store: Store, doors: Doors, driver: WatchedDriver) -> None:
        grow(store, 1)
        with vds.connect(driver.url, read_only=True) as reader, pytest.raises(AccessDeniedError, match="opened with"):
            write_checkpoint(reader._handle.doors, namespace_of(doors), 1)
        assert list_keys(doors.blobs, "checkpoints/") == []


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def killing(real: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def work(*arguments: Any, **more: Any) -> Any:
        if after:
            real(*arguments, **more)
        raise Killed

    return work


class TestWhatGoesWrong:
    def test_a_container_that_takes_no_checkpoint_is_not_felt(
        self, store: Store, doors: Doors, driver: WatchedDriver, often: int
    ) -> None:
        put(store, a=b"1")
        driver.refused = "checkpoints/"
        versions = grow(store, often + 2)
        assert [version.number for version in versions] == [2, 3, 4, 5, 6]
        assert all(version.verify().ok for version in versions)
        assert numbers(doors) == []
        assert pending(doors) == [("aborted", "checkpoints")] * 3  # each of the last three tried
        driver.refused = ""
        grow(store, 1)
        assert numbers(doors) == [7]

    def test_a_lost_answer_to_the_put_leaves_nothing_that_counts(self, store: Store, doors: Doors, driver: WatchedDriver) -> None:
        grow(store, 1)
        driver.answerless = "checkpoints/"
        with pytest.raises(UnavailableError):
            write_checkpoint(doors, namespace_of(doors), 1)
        assert numbers(doors) == []
        assert pending(doors) == [("aborted", "checkpoints")]
        driver.answerless = ""
        assert write_checkpoint(doors, namespace_of(doors), 1)

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize(
        "step",
        ["add_upload", "add_pending_blob", "put_if_absent", "finish_checkpoint", "end_upload"],
    )
    def test_a_crash_at_any_step_is_harmless(
        self,
        store: Store,
        doors: Doors,
        driver: WatchedDriver,
        step: str,
        after: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        versions = grow(store, 2)
        with monkeypatch.context() as patched:
            patched.setattr("vds.engine.checkpoint.end_upload", killing(print, after=False))  # so nothing is tidied
            if step == "put_if_absent":
                patched.setattr(driver, step, killing(driver.put_if_absent, after=after))
            elif step == "end_upload":
                patched.setattr("vds.index.manifests.end_upload", killing(end_upload, after=after))
            else:
                patched.setattr(checkpoint_module, step, killing(getattr(checkpoint_module, step), after=after))
            with pytest.raises(Killed):
                write_checkpoint(doors, namespace_of(doors), 2)
        assert numbers(doors) == []
        assert {state for state, _ in pending(doors)} <= {"open"}
        assert write_checkpoint(doors, namespace_of(doors), 2)
        assert numbers(doors) == [2]
        assert files_of(versions[-1]) == files_of(store.get(NAME))
