"""Opening a store: what is one, which index serves it, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import vds
from tests.unit.store.conftest import CONNECT
from tests.unit.store.trees import WatchedDriver, files_of, write_tree
from vds.blobs.directory import DirectoryDriver
from vds.errors import FormatError, InvalidInputError, NotFoundError
from vds.index.database import Database
from vds.index.migrate import upgrade
from vds.model.format import FORMAT, format_key
from vds.store import Store

INDEX = Path(".vds-index") / "index.sqlite"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", {"a": b"1", "d/b": b"2"})


class TestCreate:
    def test_a_store_is_made_once(self, tmp_path: Path, tree: Path) -> None:
        with vds.connect(tmp_path / "s", create=True) as first:
            first.namespace("team/raw").upload(tree)
        with vds.connect(tmp_path / "s", create=True) as again, vds.connect(str(tmp_path / "s")) as plain:
            assert again.id == plain.id == first.id
            assert files_of(plain.namespace("team/raw").latest()) == {"a": b"1", "d/b": b"2"}
            assert (plain.url, plain.index, plain.read_only) == ((tmp_path / "s").as_uri(), "embedded", False)
            assert repr(plain) == f"<Store {plain.url}>"

    def test_a_closed_store_opens_itself_again(self, disk_store: Store, tree: Path) -> None:
        version = disk_store.namespace("team/raw").upload(tree).version
        disk_store.close()
        disk_store.close()
        assert files_of(version)["a"] == b"1"

    def test_a_directory_with_other_things_in_it_is_left_alone(self, tree: Path) -> None:
        with pytest.raises(InvalidInputError, match="is not empty, and not a store"):
            vds.connect(tree, create=True)
        assert sorted(path.name for path in tree.iterdir()) == ["a", "d"]

    def test_what_is_no_store_says_how_to_make_one(self, tmp_path: Path) -> None:
        for url in [str(tmp_path / "none"), "memory://never-made"]:
            with pytest.raises(NotFoundError, match="is not a vds store") as caught:
                vds.connect(url)
            assert caught.value.hint.startswith("vds init ")
        assert not (tmp_path / "none").exists()

    def test_making_and_promising_not_to_write_contradict(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="create=True writes"):
            vds.connect(tmp_path / "s", create=True, read_only=True)
        assert not (tmp_path / "s").exists()

    def test_a_shared_container_must_name_its_index(self, driver: WatchedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(driver), "url", property(lambda self: "https://account.blob.core.windows.net/data"))
        with pytest.raises(InvalidInputError, match="say which index serves it") as caught:
            vds.connect("az://data@account", create=True)
        assert "--index" in caught.value.hint
        assert driver.puts == {}

    @pytest.mark.parametrize("url", ["", "ftp://x/y", "https://", "memory://", "az://nowhere", "file://host/x"])
    def test_a_url_that_does_not_parse(self, url: str) -> None:
        with pytest.raises(InvalidInputError):
            vds.connect(url)


class TestSettings:
    def test_nothing_configured_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        with pytest.raises(NotFoundError, match="no store is configured") as caught:
            vds.connect()
        assert "vds init" in caught.value.hint
        with pytest.raises(NotFoundError, match="no location and no configured store"):
            vds.connect("prod")

    def test_the_nearest_settings_file_names_the_store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "vds.toml").write_text('store = "./here"\n[stores.other]\nurl = "./there"\n')
        (tmp_path / "deep/down").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "deep/down")
        with vds.connect(create=True) as here, vds.connect("other", create=True) as there:
            assert (here.url, there.url) == ((tmp_path / "here").as_uri(), (tmp_path / "there").as_uri())
        monkeypatch.setenv("VDS_STORE", "other")
        with vds.connect() as chosen:
            assert chosen.id == there.id
        monkeypatch.setenv("VDS_STORE", "")
        with pytest.raises(InvalidInputError, match="is empty"):
            vds.connect()


class TestIndex:
    def test_a_file_of_ones_own_serves_the_store(self, tmp_path: Path, tree: Path) -> None:
        url = f"sqlite:///{tmp_path}/elsewhere/index.db"
        with vds.connect(tmp_path / "s", index=url, create=True) as store:
            store.namespace("team/raw").upload(tree)
        assert not (tmp_path / "s" / INDEX).exists()
        with vds.connect(tmp_path / "s") as again:
            assert again.index == url
            assert again.namespace("team/raw").latest().number == 1

    def test_a_second_index_is_refused(self, tmp_path: Path, disk_store: Store) -> None:
        other = Database(tmp_path / "other.db")
        upgrade(other)
        other.close()
        for url in [f"sqlite:///{tmp_path}/other.db", f"sqlite:///{tmp_path}/new.db"]:
            with pytest.raises((InvalidInputError, FormatError)):
                vds.connect(disk_store.url, index=url)
        with pytest.raises(InvalidInputError, match="served by another index: the embedded one"):
            vds.connect(disk_store.url, index=f"sqlite:///{tmp_path}/other.db")
        with pytest.raises(InvalidInputError, match="served by another index"):
            vds.connect(disk_store.url, index=f"sqlite:///{tmp_path}/other.db", create=True)

    def test_an_embedded_index_is_refused_for_a_store_that_has_another(self, tmp_path: Path) -> None:
        vds.connect(tmp_path / "s", index=f"sqlite:///{tmp_path}/index.db", create=True).close()
        with pytest.raises((InvalidInputError, FormatError)):
            vds.connect(tmp_path / "s", index="embedded")

    def test_an_index_that_is_missing_is_never_made_anew(self, tmp_path: Path, disk_store: Store) -> None:
        disk_store.close()
        shutil.rmtree(tmp_path / "store" / ".vds-index")
        for read_only in (False, True):
            with pytest.raises(FormatError, match="embedded index is not on this machine"):
                vds.connect(tmp_path / "store", read_only=read_only)
        assert not (tmp_path / "store" / INDEX).exists()

    def test_an_index_that_lost_its_store_is_refused(self, tmp_path: Path, disk_store: Store, tree: Path) -> None:
        disk_store.namespace("team/raw").upload(tree)
        disk_store.close()
        shutil.rmtree(tmp_path / "store" / ".vds-index")
        empty = Database(tmp_path / "store" / INDEX)
        upgrade(empty)
        empty.close()
        with pytest.raises(FormatError, match="does not know store"):
            vds.connect(tmp_path / "store")

    def test_an_older_index_names_the_command_that_upgrades_it(self, tmp_path: Path, disk_store: Store) -> None:
        disk_store.close()
        database = Database(tmp_path / "store" / INDEX)
        database.run(lambda c: c.exec_driver_sql("DROP TABLE alembic_version"))
        database.close()
        with pytest.raises(FormatError) as caught:
            vds.connect(tmp_path / "store")
        assert caught.value.hint == "vds index upgrade"

    def test_an_upgrade_of_a_new_index_is_harmless(self, tmp_path: Path, disk_store: Store) -> None:
        before, after = vds.upgrade_index(disk_store.url)
        assert before == after
        with pytest.raises(NotFoundError, match="is not a vds store"):
            vds.upgrade_index(tmp_path / "none")

    def test_a_network_file_system_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CONNECT, "is_network_file_system", lambda path: "nfs4")
        with pytest.raises(InvalidInputError, match=r"cannot be kept on a network file system.*is nfs4") as caught:
            vds.connect(tmp_path / "s", index=f"sqlite:///{tmp_path}/index.db", create=True)
        assert "PostgreSQL" in caught.value.hint
        with pytest.raises(InvalidInputError, match="network file system"):
            vds.connect(tmp_path / "s", create=True)
        assert not (tmp_path / "index.db").exists()

    def test_a_directory_on_a_network_keeps_its_index_on_this_machine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        share = tmp_path / "share"
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr(CONNECT, "is_network_file_system", lambda path: "nfs4" if Path(path).is_relative_to(share) else None)
        with vds.connect(share, create=True) as store:
            found = [path for path in tmp_path.rglob("*.sqlite") if path.stem == store.id]
        assert len(found) == 1
        assert not found[0].is_relative_to(share)


class TestFormat:
    def rewrite(self, driver: WatchedDriver, **changes: object) -> None:
        raw = json.loads(driver.read_range(format_key(1)))
        driver.put_if_absent(format_key(2), json.dumps({**raw, **changes}).encode())

    def test_a_store_of_a_newer_format_is_refused(self, watched: Store, driver: WatchedDriver) -> None:
        self.rewrite(driver, format=FORMAT + 1, min_writer=FORMAT + 1)
        with pytest.raises(FormatError, match=f"needs a vds of format {FORMAT + 1}") as caught:
            vds.connect(driver.url)
        assert caught.value.hint == "pip install --upgrade vds"
        with vds.connect(driver.url, read_only=True) as reader:
            assert reader.id == watched.id

    def test_a_store_that_readers_cannot_read_is_refused_to_them_too(self, watched: Store, driver: WatchedDriver) -> None:
        self.rewrite(driver, min_reader=FORMAT + 1)
        with pytest.raises(FormatError):
            vds.connect(driver.url, read_only=True)

    def test_a_rebuilt_store_fences_the_index_before(self, watched: Store, driver: WatchedDriver) -> None:
        raw = json.loads(driver.read_range(format_key(1)))
        self.rewrite(driver, index={**raw["index"], "incarnation": "another"})
        for read_only in (False, True):
            with pytest.raises(FormatError, match="older than its store") as caught:
                vds.connect(driver.url, read_only=read_only)
            assert caught.value.hint == "vds index rebuild"


class TestReadOnly:
    def test_it_writes_nothing_at_all(self, tmp_path: Path, disk_store: Store, tree: Path) -> None:
        disk_store.namespace("team/raw").upload(tree)
        disk_store.close()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if "-shm" not in path.name}
        with vds.connect(disk_store.url, read_only=True) as reader:
            version = reader.namespace("team/raw").latest()
            assert files_of(version) == {"a": b"1", "d/b": b"2"}
            assert version.content_digest.startswith("b3:")
            assert version.verify().ok
            assert reader.doctor().ok
        after = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if "-shm" not in path.name}
        assert {path: after.get(path) for path in before if path.is_file()} == {
            path: time for path, time in before.items() if path.is_file()
        }


class TestStaleIndex:
    def keep(self, tmp_path: Path, store: Store) -> Path:
        store.close()
        return shutil.copytree(tmp_path / "store" / ".vds-index", tmp_path / "kept")

    def restore(self, tmp_path: Path, store: Store) -> None:
        store.close()
        shutil.rmtree(tmp_path / "store" / ".vds-index")
        shutil.copytree(tmp_path / "kept", tmp_path / "store" / ".vds-index")

    def test_an_old_copy_that_misses_a_namespace_is_refused_when_opened(
        self, tmp_path: Path, disk_store: Store, tree: Path
    ) -> None:
        self.keep(tmp_path, disk_store)
        disk_store.namespace("team/raw").upload(tree)
        self.restore(tmp_path, disk_store)
        with pytest.raises(FormatError, match="older than its store") as caught:
            vds.connect(disk_store.url)
        assert caught.value.hint == "vds index rebuild"

    def test_an_old_copy_that_misses_a_version_is_refused_at_the_next_write(
        self, tmp_path: Path, disk_store: Store, tree: Path
    ) -> None:
        disk_store.namespace("team/raw").upload(tree)
        self.keep(tmp_path, disk_store)
        disk_store.namespace("team/raw").upload(tree, "again")
        self.restore(tmp_path, disk_store)
        journal = sorted(blob.key for blob in DirectoryDriver(tmp_path / "store").list_blobs("journal/"))
        with vds.connect(disk_store.url) as stale:
            namespace = stale.namespace("team/raw")
            for write in (
                lambda: namespace.upload(tree, "other"),
                lambda: namespace.copy("team/raw@1", "x"),
                lambda: namespace.rollback(0),
                lambda: namespace.transaction(),
            ):
                with pytest.raises(FormatError, match="the container holds version 2 of 'team/raw'"):
                    write()
            assert namespace.latest().number == 1
        assert sorted(blob.key for blob in DirectoryDriver(tmp_path / "store").list_blobs("journal/")) == journal


class TestDoctor:
    def test_all_is_well(self, disk_store: Store) -> None:
        report = disk_store.doctor(write_test=True)
        assert report.ok, report
        assert [check.name for check in report.checks][-1] == "container writable"
        assert [blob.key for blob in DirectoryDriver(Path(disk_store.url[7:])).list_blobs("doctor/")] == []

    def test_trouble_is_reported_not_raised(self, watched: Store, driver: WatchedDriver) -> None:
        driver.refused = "doctor/"
        report = watched.doctor(write_test=True)
        assert [check.name for check in report.checks if not check.ok] == ["container writable"]

    def test_a_stale_index_shows(self, watched: Store, driver: WatchedDriver) -> None:
        driver.put_if_absent(f"store/{9:016d}", b"{}")
        assert watched.doctor().ok
        with watched._handle.doors.index.read() as connection:
            last = connection.exec_driver_sql("SELECT MAX(log_seq) FROM store").scalar_one()
        driver.put_if_absent(f"store/{last + 1:016d}", b"{}")
        (bad,) = [check for check in watched.doctor().checks if not check.ok]
        assert (bad.name, bad.hint) == ("index and store agree", "vds index rebuild")
