"""Locked refs: a version for each, whatever the ref means by now; what moved, went away or differs is told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import vds
from tests.unit.store.trees import files_of, write_tree
from vds.engine.doors import Doors
from vds.engine.resolve import Resolution, resolve
from vds.errors import ConflictError, CorruptionError, EntryNotFoundError, FormatError, InvalidInputError, NotFoundError
from vds.model.lockfile import LOCK_NAME
from vds.model.ref import Ref, format_moment
from vds.store import Lock, Store
from vds.store.lock import lock_refs


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository to work in."""
    (tmp_path / "project" / ".git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def stored(disk_store: Store, tmp_path: Path) -> Store:
    """A store whose team/raw has two versions; customers:prod shows a directory of the first, customers:all all of it."""
    put(disk_store, tmp_path, {"clean/a": b"1", "clean/sub/b": b"22", "raw": b"333"})
    disk_store.dataset("customers").register("team/raw@1", "clean", tags=["prod"])
    disk_store.dataset("customers").register("team/raw@1", tags=["all"])
    put(disk_store, tmp_path, {"clean/a": b"1!", "clean/sub/b": b"22", "raw": b"333"})
    return disk_store


def put(store: Store, tmp_path: Path, files: dict[str, bytes], name: str = "team/raw") -> int:
    return store.namespace(name).upload(write_tree(tmp_path / "tree", files), show_progress=False).version.number


def lock(store: Store, *refs: str) -> Lock:
    lock_refs(refs, store)
    return vds.load_lock()


def move(store: Store) -> None:
    store.dataset("customers").tag("prod", "team/raw@2", reason="later")


class TestLocking:
    def test_what_is_kept_of_a_release_of_a_directory(self, stored: Store, project: Path) -> None:
        made = lock(stored, "customers:prod", "team/raw")
        assert list(made) == ["customers:prod", "team/raw"]
        row, version = made["customers:prod"], stored.get("customers:prod")
        assert (row.store, row.url, row.name, row.release, row.namespace, row.version, row.path) == (
            *(stored.id, stored.url, "customers", 1, "team/raw", 1, "clean"),
        )
        assert (row.digest, row.content_digest, row.files, row.bytes) == (version.digest, version.content_digest, 2, 3)
        raw = made["team/raw"]
        assert (raw.name, raw.release, raw.version, raw.path, raw.files, raw.bytes) == ("team/raw", None, 2, "", 3, 7)
        assert raw.content_digest == stored.get("team/raw@2").content_digest

    def test_the_same_again_writes_nothing(self, stored: Store, project: Path) -> None:
        lock(stored, "customers:prod", "team/raw")
        before = (project / LOCK_NAME).stat().st_mtime_ns, (project / LOCK_NAME).read_bytes()
        _, changes = lock_refs(["team/raw", "customers:prod"], stored)
        assert [change.before == change.after for change in changes] == [True, True]
        assert before == ((project / LOCK_NAME).stat().st_mtime_ns, (project / LOCK_NAME).read_bytes())

    def test_the_order_of_locking_does_not_show(self, stored: Store, project: Path) -> None:
        lock(stored, "customers:prod", "team/raw")
        once = (project / LOCK_NAME).read_bytes()
        (project / LOCK_NAME).unlink()
        lock(stored, "team/raw")
        lock(stored, "customers:prod")
        assert (project / LOCK_NAME).read_bytes() == once

    def test_only_what_is_named_moves(self, stored: Store, project: Path, tmp_path: Path) -> None:
        lock(stored, "customers:prod", "customers:all", "team/raw")
        move(stored)
        put(stored, tmp_path, {"other": b"4"})
        _, changes = lock_refs(["customers:prod"], stored)
        assert [(change.before and change.before.label, change.after.label) for change in changes] == [("1", "3")]
        found = vds.load_lock()
        assert [(ref, found[ref].label) for ref in found] == [("customers:all", "2"), ("customers:prod", "3"), ("team/raw", "2")]
        _, changes = lock_refs(None)
        assert [change.after.label for change in changes] == ["2", "3", "3"]

    def test_a_ref_has_one_row_however_it_is_written(self, stored: Store, project: Path) -> None:
        found = lock(stored, "team/raw@latest", "vds://customers:prod/", "customers:v1")
        assert list(found) == ["customers:prod", "customers:v1", "team/raw@latest"]
        found = lock(stored, "team/raw", "customers:1")
        assert list(found) == ["customers:prod", "customers:v1", "team/raw@latest"]
        assert found["team/raw"] == found["vds://team/raw@latest/"]
        assert "customers:1" in found
        assert "customers:2" not in found
        assert dict(found).keys() == found.keys()

    def test_all_or_nothing(self, stored: Store, project: Path) -> None:
        lock(stored, "team/raw")
        before = (project / LOCK_NAME).read_bytes()
        with pytest.raises(NotFoundError, match="no tag 'stage'"):
            lock_refs(["customers:prod", "customers:stage"], stored)
        assert (project / LOCK_NAME).read_bytes() == before

    def test_what_cannot_be_locked(self, stored: Store, project: Path) -> None:
        with pytest.raises(InvalidInputError, match="names the path"):
            lock_refs(["customers:prod/a"], stored)
        with pytest.raises(InvalidInputError, match="in which store"):
            lock_refs(["customers:prod"])
        with pytest.raises(NotFoundError, match=r"there is no .*vds\.lock"):
            lock_refs(None, stored)
        assert not (project / LOCK_NAME).exists()

    def test_a_change_of_someone_else_meanwhile_is_kept(
        self, stored: Store, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock(stored, "team/raw")

        def resolve_slowly(doors: Doors, ref: Ref) -> Resolution:
            (project / LOCK_NAME).write_text("format = 1\n")
            return resolve(doors, ref)

        monkeypatch.setattr("vds.store.lock.resolve", resolve_slowly)
        with pytest.raises(ConflictError, match="changed by someone else"):
            lock_refs(["customers:prod"], stored)
        assert (project / LOCK_NAME).read_text() == "format = 1\n"

    def test_what_a_version_holds_is_read_once(self, stored: Store, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lock(stored, "customers:prod")
        monkeypatch.setattr(vds.store.Version, "content_digest", property(lambda version: pytest.fail("read again")))
        lock(stored, "customers:prod")

    def test_a_pinned_run_locks_what_it_sees(self, stored: Store, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VDS_AS_OF", format_moment(stored.now()))
        move(stored)
        assert lock(stored, "customers:prod")["customers:prod"].release == 1


class TestWhere:
    def test_the_nearest_file_is_used(self, stored: Store, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lock(stored, "team/raw")
        (project / "deep" / "er").mkdir(parents=True)
        monkeypatch.chdir(project / "deep" / "er")
        assert vds.load_lock().path == project / LOCK_NAME
        assert lock_refs(["customers:prod"], stored)[0] == project / LOCK_NAME
        assert lock_refs(["customers:prod"], stored, LOCK_NAME)[0] == Path(LOCK_NAME)
        assert list(vds.load_lock()) == ["customers:prod"]
        assert list(vds.load_lock(project / LOCK_NAME)) == ["customers:prod", "team/raw"]

    def test_a_first_one_goes_beside_the_settings(self, stored: Store, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (project / "vds.toml").write_text('store = "../store"\n')
        (project / "deep").mkdir()
        monkeypatch.chdir(project / "deep")
        assert lock_refs(["team/raw"], stored)[0] == project / LOCK_NAME

    def test_none_and_damaged_ones(self, project: Path) -> None:
        with pytest.raises(NotFoundError, match=r"no vds\.lock"):
            vds.load_lock()
        with pytest.raises(NotFoundError, match=r"no other\.lock"):
            vds.load_lock("other.lock")
        (project / LOCK_NAME).write_text("format = 1\nformat = 2\n")
        with pytest.raises(InvalidInputError, match="line 2"):
            vds.load_lock()
        (project / LOCK_NAME).write_text("format = 7\n")
        with pytest.raises(FormatError, match="format 7"):
            vds.load_lock()


class TestReading:
    def test_the_locked_version_is_read_although_the_ref_moved(self, stored: Store, project: Path) -> None:
        made = lock(stored, "customers:prod", "team/raw")
        move(stored)
        for store in (stored, None):
            version = made.get("customers:prod", store)
            assert (version.uri, files_of(version)) == ("vds://team/raw@1/clean", {"a": b"1", "sub/b": b"22"})
            assert made.get("customers:prod/sub", store).uri == "vds://team/raw@1/clean/sub"
            assert made.get("vds://team/raw@latest/raw", store).uri == "vds://team/raw@2/raw"

    def test_the_ref_is_not_looked_at(self, stored: Store, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = lock(stored, "customers:prod")
        stored.dataset("customers").untag("prod")
        monkeypatch.setenv("VDS_AS_OF", "no moment")
        assert made.get("customers:prod", stored).number == 1

    def test_what_is_not_locked(self, stored: Store, project: Path) -> None:
        made = lock(stored, "customers:prod")
        with pytest.raises(NotFoundError, match="'team/raw' is not locked in") as caught:
            made.get("team/raw", stored)
        assert caught.value.hint == "vds lock team/raw"
        with pytest.raises(NotFoundError):
            made["customers:all"]
        with pytest.raises(InvalidInputError):
            made["no ref"]
        with pytest.raises(EntryNotFoundError):
            made.get("customers:prod/nothing", stored)

    def test_another_store_is_refused(self, stored: Store, project: Path, tmp_path: Path) -> None:
        made = lock(stored, "customers:prod")
        with vds.connect(tmp_path / "other", create=True) as other:
            put(other, tmp_path, {"a": b"1"})
            with pytest.raises(InvalidInputError, match="was locked in store"):
                made.get("customers:prod", other)
            assert made.check(other) == []  # its own store is asked

    def test_another_store_where_the_lock_says_is_refused(self, stored: Store, project: Path, tmp_path: Path) -> None:
        made = lock(stored, "customers:prod")
        stored.close()
        (tmp_path / "store").rename(tmp_path / "moved")
        with pytest.raises(NotFoundError):
            made.get("customers:prod")
        vds.connect(tmp_path / "store", create=True).close()
        with pytest.raises(InvalidInputError, match="was locked in store"):
            made.get("customers:prod")
        with pytest.raises(InvalidInputError, match="was locked in store"):
            made.check()
        with vds.connect(tmp_path / "moved") as moved:
            assert made.get("customers:prod", moved).number == 1
            assert made.check(moved) == []


def edited(project: Path, change: Callable[[str], str]) -> Lock:
    text = (project / LOCK_NAME).read_text()
    assert change(text) != text
    (project / LOCK_NAME).write_text(change(text))
    return vds.load_lock()


class TestChecking:
    def test_nothing_differs(self, stored: Store, project: Path) -> None:
        made = lock(stored, "customers:prod", "customers:2", "team/raw", "team/raw@1")
        assert made.check(stored) == made.check() == []

    def test_what_moved_and_what_is_gone(self, stored: Store, project: Path, tmp_path: Path) -> None:
        made = lock(stored, "customers:prod", "customers:all", "customers:2", "team/raw", "team/raw@1")
        move(stored)
        stored.dataset("customers").untag("all")
        put(stored, tmp_path, {"other": b"4"})
        found = made.check(stored)
        assert [(f.ref, f.kind, f.locked, f.found) for f in found] == [
            ("customers:all", "gone", "2", "gone"),
            ("customers:prod", "moved", "1", "3"),
            ("team/raw", "moved", "2", "3"),
        ]
        assert made.check() == found
        assert [f.ref for f in made.check(stored, ["customers:2", "vds://team/raw@latest/"])] == ["team/raw"]
        with pytest.raises(NotFoundError, match="is not locked"):
            made.check(stored, ["team/raw@2"])

    def test_a_version_that_is_missing(self, stored: Store, project: Path) -> None:
        lock(stored, "customers:prod")
        made = edited(project, lambda text: text.replace("\nversion = 1\n", "\nversion = 9\n"))
        assert [(f.kind, f.locked) for f in made.check(stored)] == [("missing", "1")]
        with pytest.raises(NotFoundError, match="locked to team/raw@9, which is not in the store"):
            made.get("customers:prod", stored)
        made = edited(project, lambda text: text.replace('namespace = "team/raw"', 'namespace = "team/none"'))
        assert [f.kind for f in made.check(stored)] == ["missing"]

    def test_a_version_that_differs(self, stored: Store, project: Path) -> None:
        lock(stored, "customers:prod")
        other = stored.get("team/raw@2").digest
        made = edited(project, lambda text: text.replace(stored.get("team/raw@1").digest, other))
        assert [f.kind for f in made.check(stored)] == ["differs"]
        with pytest.raises(CorruptionError, match="the store holds b3:"):
            made.get("customers:prod", stored)

    def test_a_release_of_another_directory_is_another_version(self, stored: Store, project: Path) -> None:
        lock(stored, "customers:prod")
        made = edited(project, lambda text: text.replace('path = "clean"', 'path = "clean/sub"'))
        assert [f.kind for f in made.check(stored)] == ["moved"]
