"""The engine between index and container: what crashed writers left is finished, what was collected is revived or sent again."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import pytest

import vds
from tests.unit.store.trees import WatchedDriver, files_of, write_tree
from vds.engine import commit as commit_module
from vds.engine import journal as journal_module
from vds.engine import listspool as listspool_module
from vds.engine import namespaces as namespaces_module
from vds.engine.commit import ObjectsGoneError
from vds.engine.doors import Doors
from vds.engine.namespaces import ensure_namespace
from vds.errors import ConflictError, CorruptionError, NoSpaceError, UnavailableError
from vds.index import sweep as sweep_module
from vds.index.commit import PlanAgain
from vds.model.manifest import decode_change_list
from vds.model.version import name_digest
from vds.store import Store

_numbers = itertools.count(1)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> WatchedDriver:
    made = WatchedDriver(f"engine-{next(_numbers)}")
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
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", {"a": b"1", "d/b": b"2"})


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def crash(*arguments: Any, **more: Any) -> None:
    raise Killed


def upload_and_crash(store: Store, tree: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit a version, and end before its record is written."""
    with monkeypatch.context() as patched:
        patched.setattr(commit_module, "publish", crash)
        with pytest.raises(Killed):
            store.namespace("team/raw").upload(tree, place)


class TestPublish:
    def test_the_next_writer_finishes_what_a_crash_left_before_its_own(
        self, store: Store, driver: WatchedDriver, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal_module, "HELP_OTHERS_AFTER_S", 0)
        for place in ("one", "two"):
            upload_and_crash(store, tree, place, monkeypatch)
        assert driver.puts["journal"] == 0
        assert store.namespace("team/raw").latest().number == 0
        result = store.namespace("team/raw").upload(tree, "three")
        assert result.version.number == 3
        assert driver.puts["journal"] == 3
        assert [version.number for version in store.namespace("team/raw").log()] == [3, 2, 1]

    def test_a_session_finishes_what_is_overdue(
        self, store: Store, driver: WatchedDriver, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload_and_crash(store, tree, "one", monkeypatch)
        store.namespace("team/raw").transaction().abort()
        assert store.namespace("team/raw").latest().number == 0  # its writer may still be at it
        monkeypatch.setattr(journal_module, "OVERDUE_US", -1)
        store.namespace("team/raw").transaction().abort()
        assert store.namespace("team/raw").latest().number == 1

    def test_a_record_written_just_before_a_crash_is_taken_as_written(
        self, store: Store, driver: WatchedDriver, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(journal_module, "remove_record", crash)
            with pytest.raises(Killed):
                store.namespace("made").transaction()
        with vds.connect(driver.url) as opener:
            opener.namespace("made").upload(tree)
        assert driver.puts["store"] == 1

    def test_an_opener_writes_every_line(
        self, store: Store, driver: WatchedDriver, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload_and_crash(store, tree, "one", monkeypatch)
        with vds.connect(driver.url) as opener:
            assert opener.namespace("team/raw").latest().number == 1
            assert opener.doctor().checks[-1].detail == "empty"


def set_states(doors: Doors, state: str) -> None:
    doors.index.run(lambda c: c.exec_driver_sql(f"UPDATE blob SET state = '{state}' WHERE state = 'live'"))


def collecting(doors: Doors, state: str, times: int) -> Callable[..., Any]:
    """Return a planner that lets a collector in after each of the first plans."""
    real, left = commit_module.plan, [times]

    def plan(*arguments: Any) -> Any:
        planned = real(*arguments)
        if left[0]:
            left[0] -= 1
            set_states(doors, state)
        return planned

    return plan


class TestCollected:
    def test_a_condemned_blob_is_revived_and_nothing_is_sent_again(
        self, store: Store, doors: Doors, driver: WatchedDriver, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit_module, "plan", collecting(doors, "condemned", 1))
        result = store.namespace("team/raw").upload(tree)
        assert (result.version.number, driver.puts["packs"]) == (1, 1)
        assert files_of(result.version) == {"a": b"1", "d/b": b"2"}

    def test_what_is_being_deleted_is_sent_again_under_a_fresh_key(
        self, store: Store, doors: Doors, driver: WatchedDriver, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit_module, "plan", collecting(doors, "deleting", 1))
        result = store.namespace("team/raw").upload(tree)
        assert (result.version.number, driver.puts["packs"]) == (1, 2)
        with doors.index.read() as connection:
            gone = connection.exec_driver_sql("SELECT key FROM blob WHERE state = 'deleting'").scalars().all()
        assert len(gone) == 1
        assert driver.delete_blob(gone[0])
        assert files_of(result.version) == {"a": b"1", "d/b": b"2"}

    def test_it_gives_up_after_a_while_and_nothing_is_visible(
        self, store: Store, doors: Doors, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit_module, "plan", collecting(doors, "deleting", 99))
        with pytest.raises(ObjectsGoneError, match="were collected before the commit"):
            store.namespace("team/raw").upload(tree)
        assert (store.namespaces(), store.transactions()) == ([], [])

    def test_a_copy_of_condemned_bytes_revives_them(self, store: Store, doors: Doors, driver: WatchedDriver, tree: Path) -> None:
        source = store.namespace("team/raw").upload(tree).version
        set_states(doors, "condemned")
        assert store.namespace("to").copy(source).version.number == 1
        with doors.index.read() as connection:
            states = connection.exec_driver_sql("SELECT DISTINCT state FROM blob").scalars().all()
        assert states == ["live"]


class TestBusy:
    def test_it_gives_up_when_others_always_come_first(self, store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rounds = []

        def someone_was_first(*arguments: Any) -> PlanAgain:
            rounds.append(arguments)
            return PlanAgain()

        monkeypatch.setattr(commit_module, "ROUNDS_MAX", 4)
        monkeypatch.setattr(commit_module, "commit_staged", someone_was_first)
        with pytest.raises(UnavailableError, match="others committed to the same paths 4 times"):
            store.namespace("team/raw").upload(tree)
        assert len(rounds) == 4
        assert store.namespaces() == []

    def test_an_abort_by_another_holder_stops_the_sender(self, store: Store, tree: Path) -> None:
        tx = store.namespace("team/raw").transaction()
        vds.join(tx.token).abort()
        with pytest.raises(ConflictError, match="was aborted"):
            tx.upload(tree)


class TestNames:
    def test_a_name_claimed_before_a_crash_keeps_its_id(
        self, doors: Doors, driver: WatchedDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(namespaces_module, "_add", crash)
            with pytest.raises(Killed):
                ensure_namespace(doors, "team/raw")
        claim = driver.read_range(f"namespaces/{name_digest('team/raw')}")
        row, _ = ensure_namespace(doors, "team/raw")
        assert row.uid.encode() in claim
        assert driver.puts["namespaces"] == 1

    def test_a_name_claimed_in_other_letters_is_refused(
        self, doors: Doors, driver: WatchedDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(namespaces_module, "_add", crash)
            with pytest.raises(Killed):
                ensure_namespace(doors, "Team/Raw")
        with pytest.raises(ConflictError, match="'Team/Raw' exists, 'team/raw' differs from it only in case"):
            ensure_namespace(doors, "team/raw")

    @pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"id": "x"}'])
    def test_a_damaged_claim_is_corruption(self, doors: Doors, driver: WatchedDriver, body: bytes) -> None:
        driver.put_if_absent(f"namespaces/{name_digest('team/raw')}", body)
        with pytest.raises(CorruptionError, match=r"namespace record .namespaces/"):
            ensure_namespace(doors, "team/raw")


class TestSending:
    def test_equal_contents_are_sent_once(self, store: Store, driver: WatchedDriver, tmp_path: Path) -> None:
        body = b"l" * (1 << 20)
        tree = write_tree(tmp_path / "twins", {"a": b"s", "b": b"s", "large": body, "large2": body, "empty": b""})
        result = store.namespace("team/raw").upload(tree)
        assert (result.objects_new, result.bytes_sent) == (2, (1 << 20) + 1)
        assert (driver.puts["packs"], driver.puts["objects"]) == (1, 1)
        assert result.version.verify().ok

    def test_every_blob_was_written_down_before_its_first_byte_left(
        self, store: Store, doors: Doors, driver: WatchedDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unknown: list[str] = []
        real = driver._watch

        def watch(key: str, put: Callable[[], str]) -> str:
            if key.startswith(("packs/", "objects/", "changes/")):
                with doors.index.read() as connection:
                    row = connection.exec_driver_sql("SELECT state FROM blob WHERE key = ?", (key,)).scalar_one_or_none()
                if row != "pending":
                    unknown.append(key)
            return real(key, put)

        monkeypatch.setattr(driver, "_watch", watch)
        names = {f"{number:04d}" + "x" * 200: str(number).encode() for number in range(600)}
        store.namespace("team/raw").upload(write_tree(tmp_path / "many", {**names, "large": b"l" * (1 << 20)}))
        with store.namespace("team/raw").transaction() as tx, tx.open("stream") as file:
            file.write(b"s" * (1 << 20))
        assert unknown == []
        assert driver.puts["objects"] == 2


class TestSweep:
    def test_a_commit_takes_what_it_staged_with_it(self, store: Store, doors: Doors, tree: Path) -> None:
        store.namespace("team/raw").upload(tree)
        assert count_rows_of(doors) == (0, 0)

    def test_many_rows_go_too(self, store: Store, doors: Doors, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sweep_module, "FEW_ROWS_MAX", 1)
        calls: list[object] = []

        def sweep(*given: Any) -> bool:
            calls.append(given)
            return sweep_module.sweep_rows(*given)

        monkeypatch.setattr(commit_module, "sweep_rows", sweep)
        store.namespace("team/raw").upload(tree)  # of two files
        assert calls
        assert count_rows_of(doors) == (0, 0)

    def test_the_rows_of_parts_go_too(self, store: Store, doors: Doors) -> None:
        with store.namespace("team/raw").transaction() as tx:
            tx.write_bytes("a", b"1")
            with tx.part("other") as part:
                part.write_bytes("b", b"2")
        assert count_rows_of(doors) == (0, 0)

    def test_what_a_crash_left_goes_with_a_later_commit(
        self, store: Store, doors: Doors, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload_and_crash(store, tree, "one", monkeypatch)
        left = count_rows_of(doors)
        assert left[0] > 0
        monkeypatch.setattr(commit_module, "SWEEP_EVERY", 2)
        store.namespace("team/other").upload(tree)
        assert count_rows_of(doors) == left  # its own went
        store.namespace("team/other").upload(tree, "again")
        assert count_rows_of(doors) == (0, 0)

    def test_rows_that_cannot_be_swept_do_not_harm_the_commit(
        self, store: Store, doors: Doors, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object) -> bool:
            raise UnavailableError("not now")

        with monkeypatch.context() as patched:
            patched.setattr(commit_module, "sweep_few", lambda *arguments: False)
            patched.setattr(commit_module, "sweep_rows", fail)
            assert store.namespace("team/raw").upload(tree).version.number == 1
        assert count_rows_of(doors)[0] > 0

    def test_it_stops_somewhere(self, store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[object] = []

        def never_done(*arguments: object) -> bool:
            calls.append(arguments)
            return True

        monkeypatch.setattr(commit_module, "sweep_few", lambda *arguments: False)
        monkeypatch.setattr(commit_module, "sweep_rows", never_done)
        monkeypatch.setattr(commit_module, "SWEEPS_MAX", 3)
        store.namespace("team/raw").upload(tree)
        assert len(calls) == 3

    def test_a_large_commit_has_the_tables_counted(self, store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        counted: list[object] = []
        monkeypatch.setattr(sweep_module, "FEW_ROWS_MAX", 1)
        monkeypatch.setattr(commit_module, "count_rows", counted.append)
        monkeypatch.setattr(commit_module, "COUNT_CHANGES_MIN", 3)
        store.namespace("team/raw").upload(tree)  # of two files
        assert not counted
        monkeypatch.setattr(commit_module, "COUNT_CHANGES_MIN", 2)
        store.namespace("team/raw").upload(tree, "again")
        assert len(counted) == 1


def count_rows_of(doors: Doors) -> tuple[int, int]:
    """Return how many staged rows and how many parts the index holds."""
    with doors.index.read() as connection:
        staged, parts = (connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one() for table in ("staged", "part"))
        return staged, parts


class TestChangeLists:
    def test_one_too_long_for_memory_is_the_same(self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tree = write_tree(tmp_path / "many", {f"{number:03}": b"%d" % number for number in range(300)})
        monkeypatch.setattr(commit_module, "INLINE_CHANGES_BYTES_MAX", 100)
        monkeypatch.setattr(listspool_module, "SPOOL_BYTES_MAX", 1)
        monkeypatch.setattr(listspool_module, "SPOOL_READ_BYTES", 7)
        version = store.namespace("team/raw").upload(tree).version
        assert files_of(version) == {f"{number:03}": b"%d" % number for number in range(300)}
        assert version.verify().ok
        with store._handle.doors.index.read() as connection:
            [key] = connection.exec_driver_sql("SELECT key FROM blob WHERE key LIKE 'changes/%' AND state = 'live'").scalars()
        digest = bytes.fromhex(key.rpartition("/")[2].partition(".")[0])
        rows = decode_change_list(store._handle.doors.blobs.read_range(key), digest)
        assert [row.path for row in rows] == sorted(files_of(version))

    def test_a_temporary_directory_that_cannot_take_it_is_told(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class FullDisk(SpooledTemporaryFile[bytes]):
            def rollover(self) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(listspool_module, "SPOOL_BYTES_MAX", 1000)
        monkeypatch.setattr(listspool_module, "SpooledTemporaryFile", FullDisk)
        namespace = store.namespace("team/raw")
        tree = write_tree(tmp_path / "many", {f"{number:04}": b"%d" % number for number in range(200)})
        with pytest.raises(NoSpaceError, match="No space left on device") as caught:
            namespace.upload(tree)
        assert "TMPDIR" in (caught.value.hint or "")
        assert list(namespace.log()) == []
        monkeypatch.undo()
        assert namespace.upload(tree).uploaded == 200
