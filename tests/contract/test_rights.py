"""Readers, writers and collectors with their own rights and no more: what is granted is enough, and keeps the rest out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from blake3 import blake3

import vds
import vds.engine.commit
from tests import services
from tests.rights import FILES, READS, SCHEMA, Site, forget, let_in, make_site, spoil_large
from tests.support import read_version, write_tree
from vds.blobs.driver import Buffer
from vds.errors import AccessDeniedError, ErasedError, OutcomeUnknownError, UnavailableError
from vds.index.damage import DamageRow, list_damage, put_damage
from vds.index.database import Connection, Database
from vds.index.placements import add_pending_blobs, drop_pending_blobs, find_placements, revive_blobs
from vds.model.access import ACCESSES, Access
from vds.store.connect import find_grants

pytestmark = pytest.mark.services


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Site:
    """A store of this test alone."""
    return make_site(database_url, tmp_path)


@pytest.fixture(scope="module")
def shared(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A store that nobody changes."""
    with services.fresh_database(postgres_url) as url:
        yield make_site(url, tmp_path_factory.mktemp("site"))


def commit_id_of(site: Site) -> str:
    with psycopg.connect(site.owner_url) as connection:
        row = connection.execute(f"SELECT commit_id FROM {SCHEMA}.version WHERE number = 1".encode()).fetchone()
        assert row is not None
        return str(row[0])


class TestReaders:
    @pytest.mark.parametrize("verb", READS)
    def test_everything_can_be_read(self, shared: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str) -> None:
        driver = shared.login("reader", monkeypatch)
        with shared.connect(read_only=True) as store:
            assert READS[verb](store, tmp_path) not in (False, None)
        assert driver.refused == {}

    def test_an_outcome_can_be_asked_for(self, shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        shared.login("reader", monkeypatch)
        with shared.connect(read_only=True) as store:
            version = store.outcome(commit_id_of(shared))
            assert version is not None
            assert version.number == 1
            assert store.outcome("unknown") is None

    def test_reading_changes_nothing_even_for_who_may(
        self, shared: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """As the owner, whom nobody would stop: all of it leaves every row and every blob as it was."""
        monkeypatch.setenv("VDS_INDEX", f"{shared.owner_url}?schema={SCHEMA}")
        before = shared.snapshot()
        with shared.connect(read_only=True) as store:
            for verb, read in READS.items():
                (tmp_path / verb).mkdir()
                read(store, tmp_path / verb)
            store.outcome(commit_id_of(shared))
        assert shared.snapshot() == before

    def test_the_database_refuses_what_a_reading_store_would_write(self, shared: Site) -> None:
        database = Database(f"{shared.owner_url}?schema={SCHEMA}", read_only=True)
        with pytest.raises(AccessDeniedError, match="read-only transaction"):
            database.run(lambda c: c.exec_driver_sql("UPDATE upload SET heartbeat_us = 0"))
        database.close()

    def test_a_reader_writes_nothing_that_a_crash_left(self, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        left = site.login("writer", monkeypatch)
        put = left.put_if_absent

        def refuse(key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
            if key.startswith("journal/"):
                raise UnavailableError("the service is down")
            return put(key, body, metadata)

        monkeypatch.setattr(left, "put_if_absent", refuse)
        with site.connect() as store, pytest.raises(OutcomeUnknownError):
            store.namespace("team/raw").upload(write_tree(tmp_path / "t", {"new.txt": b"n"}), show_progress=False)
        before = site.snapshot()
        assert before["journal_queue"] != []
        driver = site.login("reader", monkeypatch)
        with site.connect(read_only=True) as store:
            assert store.namespace("team/raw").latest().number == 2
            assert [check.detail for check in store.doctor().checks if check.name == "journal queue"] == [
                "1 records waiting to be written"
            ]
        assert (driver.refused, site.snapshot()) == ({}, before)
        site.login("writer", monkeypatch)
        with site.connect() as store:  # who may write does it, on opening
            assert store.namespace("team/raw").latest().number == 3

    def test_a_reader_cannot_write(self, shared: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        shared.login("reader", monkeypatch)
        before = shared.snapshot()
        tree = write_tree(tmp_path / "t", {"new.txt": b"n"})
        with shared.connect() as store, pytest.raises(AccessDeniedError) as caught:
            store.namespace("team/raw").upload(tree, show_progress=False)
        assert "vds index grants" in caught.value.hint
        with shared.connect(read_only=True) as store, pytest.raises(AccessDeniedError, match="read_only=True"):
            store.namespace("team/raw").upload(tree, show_progress=False)
        assert shared.snapshot() == before


class TestWriters:
    @pytest.fixture
    def store(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[vds.Store]:
        self.driver = site.login("writer", monkeypatch)
        monkeypatch.setattr(vds.engine.commit, "INLINE_CHANGES_BYTES_MAX", 0)  # each change list is a blob of its own
        with site.connect() as store:
            yield store
        assert set(self.driver.refused) <= {"delete"}

    def test_uploads_of_all_kinds(self, store: vds.Store, tmp_path: Path) -> None:
        raw, tree = store.namespace("team/raw"), tmp_path / "t"
        raw.upload(write_tree(tree, {**FILES, "d.bin": b"d" * 9_000_000}), show_progress=False)
        write_tree(tree, {"a.txt": b"once more", "e.txt": b"e"})
        skipping = raw.upload(tree, overwrite=False, show_progress=False)
        assert skipping.version.number == 4
        mirrored = raw.upload(tree, "sub", mirror=True, show_progress=False)
        assert read_version(mirrored.version.at("sub"))["a.txt"] == b"once more"
        raw.upload_files([tree / "a.txt"], relative_root=tree, show_progress=False)
        made = store.namespace("team/new").upload(tree, show_progress=False)
        assert made.version.number == 1
        assert made.version.content_digest  # which is kept

    def test_copy_rollback_and_revert(self, store: vds.Store) -> None:
        raw = store.namespace("team/raw")
        assert raw.revert(2).version.number == 3
        assert raw.rollback(2).version.number == 4
        store.namespace("team/good").copy("customers:prod", "in")
        assert read_version(store.get("team/good@1").at("in")) == FILES

    def test_transactions_and_parts(self, store: vds.Store, tmp_path: Path) -> None:
        raw = store.namespace("team/raw")
        with raw.transaction("several") as tx:
            tx.write_bytes("w.bin", b"w")
            tx.copy("team/raw@1", "copied")
            tx.move("a.txt", "moved.txt")
            tx.delete("sub/b.txt")
            with tx.open("streamed.bin") as file:
                file.write(b"s" * 3_000_000)
            tx.upload(write_tree(tmp_path / "t", {"t.txt": b"t"}), "up", show_progress=False)
        assert tx.version.number == 3
        token = raw.transaction("in parts").token
        for name in ("one", "two", "one"):
            with vds.join(token).part(name) as part:
                part.write_text(f"{name}.txt", name)
        vds.join(token).commit(expected_parts=2)
        raw.transaction("dropped").abort()
        assert raw.latest().read_text("two.txt") == "two"

    def test_datasets(self, store: vds.Store) -> None:
        dataset = store.dataset("customers")
        release = dataset.register("team/raw@2", tags=["next"])
        dataset.tag("prod", release)
        dataset.untag("next")
        store.dataset("new").register("team/raw@1")
        assert dataset.tags()["prod"].number == release.number

    def test_an_interrupted_upload_is_taken_over(self, store: vds.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tree = write_tree(tmp_path / "t", {"large.bin": bytes(range(256)) * 80_000})

        def refuse(*_: object) -> str:
            raise UnavailableError("the service is down")

        with monkeypatch.context() as patch:
            patch.setattr(self.driver, "commit_blocks", refuse)
            with pytest.raises(UnavailableError):
                store.namespace("team/raw").upload(tree, show_progress=False)
        again = store.namespace("team/raw").upload(tree, show_progress=False)
        assert again.version.read_bytes("large.bin") == (tree / "large.bin").read_bytes()

    def test_what_happens_now_and_then(self, store: vds.Store, site: Site, tmp_path: Path) -> None:
        """A content that is damaged and comes again; intents that are not needed; bytes that collection had given up."""
        database = Database(site.urls["writer"])
        digest = blake3(FILES["sub/c.bin"]).digest()
        with database.read() as connection:
            place = find_placements(connection, 1, [digest])[digest]
        for detail in ("bytes differ", "found again"):
            row = DamageRow(digest, place.blob_id, detail)
            database.run(partial(put_damage, store_id=1, found=[row]))
        again = write_tree(tmp_path / "again", {"c.bin": FILES["sub/c.bin"]})
        store.namespace("team/again").upload(again, show_progress=False)
        with database.read() as connection:
            moved = find_placements(connection, 1, [digest])[digest]
            assert list_damage(connection, 1) == []
        assert moved.blob_id != place.blob_id
        spare = database.run(lambda c: add_pending_blobs(c, 1, ["packs/spare"], 1))
        database.run(lambda c: drop_pending_blobs(c, 1, spare))
        with psycopg.connect(site.owner_url, autocommit=True) as owner:
            owner.execute(f"UPDATE {SCHEMA}.blob SET state = 'condemned' WHERE id = {moved.blob_id}".encode())
        assert database.run(lambda c: revive_blobs(c, [moved.blob_id])) == 1
        database.close()

    def test_what_fsck_finds_is_noted_and_mended(self, store: vds.Store, site: Site, tmp_path: Path) -> None:
        spoil_large(site)
        report = store.fsck(full=True, resume=False, show_progress=False)
        assert not report.ok
        with psycopg.connect(site.owner_url) as connection:
            found = connection.execute(f"SELECT count(*) FROM {SCHEMA}.damage".encode()).fetchone()
        assert found == (1,)
        forget(site, "journal/", "namespaces/")
        copies = write_tree(tmp_path / "copies", FILES)
        report = store.fsck(full=True, resume=False, repair=True, repair_from=copies, show_progress=False)
        assert report.ok
        assert report.mended
        assert read_version(store.get("team/raw@1")) == FILES
        assert store.fsck(full=True, resume=False, show_progress=False).ok

    def test_a_doctor_who_may_not_delete_says_so(self, store: vds.Store) -> None:
        report = store.doctor(write_test=True)
        assert report.ok
        assert "deleting is not allowed" in report.checks[-1].detail
        assert self.driver.refused == {"delete": 1}


def executing(statement: str) -> Callable[[Connection], object]:
    return lambda connection: connection.exec_driver_sql(statement)


class TestCollectors:
    @pytest.fixture
    def store(self, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[vds.Store]:
        self.driver = site.login("collector", monkeypatch)
        with site.connect() as store:
            vds.join(store.transactions()[0].token).abort()  # what it began from would have to stay
            for number in range(3, 7):  # the packs of versions that go hold little of what stays
                files = {f"own/{number}-{n}.txt": b"%d %d" % (number, n) * 3000 for n in range(6)}
                files |= {"always.txt": b"always", "large.bin": bytes([number]) * 1_500_000}
                tree = write_tree(tmp_path / str(number), files)
                store.namespace("team/raw").upload(tree, mirror=True, show_progress=False)
            yield store
        assert self.driver.refused == {}

    def test_collecting(self, store: vds.Store, site: Site) -> None:
        raw, newest = store.namespace("team/raw"), read_version(store.get("team/raw"))
        assert [one.number for one in store.expire("team/raw", keep_last=2, dry_run=False).versions] == [2, 3, 4]
        assert store.gc(False, max_share=1, show_progress=False).condemned
        store.undo_gc(dry_run=False)
        assert [version.number for version in raw.log()] == [6, 5, 4, 3, 2, 1]
        store.expire("team/raw", keep_last=1, keep_tagged=False, dry_run=False)
        keys = {blob.key for blob in self.driver.list_blobs()}
        for _ in range(2):
            store.gc(False, grace_hours=0, max_share=1, show_progress=False)
        assert read_version(raw.latest()) == newest
        gone = {key for key in keys - {blob.key for blob in self.driver.list_blobs()} if not key.startswith("store/")}
        assert gone
        with psycopg.connect(site.owner_url) as connection:
            found = connection.execute(f"SELECT count(*) FROM {SCHEMA}.blob WHERE state = 'deleted'".encode()).fetchone()
        assert found is not None
        assert found[0] >= len(gone)

    def test_erasing(self, store: vds.Store) -> None:
        digest = next(entry.digest for entry in store.get("team/raw").entries() if entry.path == "always.txt")
        store.erase(digest, reason="personal data", dry_run=False, show_progress=False)
        with pytest.raises(ErasedError, match="personal data"):
            store.get("team/raw").read_bytes("always.txt")
        assert store.get("team/raw").read_bytes("own/6-1.txt") == b"6 1" * 3000

    def test_what_a_writer_may_not(self, store: vds.Store, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        store.expire("team/raw", keep_last=1, dry_run=False)
        digest = next(store.get("team/raw").entries()).digest
        driver = site.login("writer", monkeypatch)
        before = site.snapshot()
        with site.connect() as writer:
            with pytest.raises(AccessDeniedError):
                writer.expire("team/raw@1", dry_run=False)
            with pytest.raises(AccessDeniedError):
                writer.gc(False, grace_hours=0, max_share=1, show_progress=False)
            with pytest.raises(AccessDeniedError):
                writer.erase(digest, reason="x", dry_run=False, show_progress=False)
        assert (driver.refused, site.snapshot()["version"]) == ({}, before["version"])
        assert site.snapshot()["blobs"] == before["blobs"]


FORBIDDEN: dict[Access, tuple[str, ...]] = {
    "reader": (
        "INSERT INTO upload SELECT * FROM upload",
        "UPDATE version SET content_digest = NULL",
        "DELETE FROM journal_queue",
        "SELECT * FROM blob FOR SHARE",
        "SELECT nextval('blob_id_seq')",
    ),
    "writer": (
        "UPDATE store SET incarnation = 'mine'",
        "DELETE FROM version",
        "DELETE FROM entry",
        "UPDATE version SET expired_us = 1",
        "UPDATE version SET digest = ''",
        "UPDATE entry SET digest = ''",
        "UPDATE tag_event SET release = 1",
        "DELETE FROM release",
        "UPDATE counted SET number = 1",
        "INSERT INTO erased SELECT * FROM erased",
    ),
    "collector": (
        "UPDATE store SET incarnation = 'mine'",
        "DELETE FROM store",
        "DELETE FROM version",
        "DELETE FROM tag_event",
        "DELETE FROM erased",
        "UPDATE version SET digest = ''",
        "UPDATE alembic_version SET version_num = '0000'",
        "CREATE TABLE mine (id int)",
        "TRUNCATE staged",
    ),
}


@pytest.mark.parametrize("access", ACCESSES)
def test_the_rest_is_out_of_reach(shared: Site, access: Access) -> None:
    database = Database(shared.urls[access])
    for statement in FORBIDDEN[access]:
        with pytest.raises(AccessDeniedError) as caught:
            database.run(executing(statement))
        assert "permission denied" in str(caught.value), statement
    database.close()


def test_who_was_granted_nothing_does_not_get_in(shared: Site) -> None:
    parts = urlsplit(shared.owner_url)
    role = f"stranger-{shared.name[-8:]}"
    with psycopg.connect(shared.owner_url) as owner:
        owner.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'pw'".encode())
    index = parts._replace(netloc=f"{role}:pw@{parts.hostname}:{parts.port}", query=f"schema={SCHEMA}").geturl()
    with pytest.raises(AccessDeniedError):
        vds.connect(f"memory://{shared.name}", index=index, read_only=True)


def test_only_the_owner_upgrades(site: Site) -> None:
    with psycopg.connect(site.owner_url) as owner:
        owner.execute(f"UPDATE {SCHEMA}.alembic_version SET version_num = '0003'".encode())
    owner_name = str(urlsplit(site.owner_url).username)
    with pytest.raises(AccessDeniedError, match=f"'{owner_name}' owns them") as caught:
        vds.upgrade_index(f"memory://{site.name}", index=site.urls["collector"])
    assert caught.value.hint == f"run vds index upgrade as {owner_name}"


class TestGrants:
    def test_they_may_be_run_again(self, site: Site) -> None:
        with psycopg.connect(site.owner_url) as owner:
            for access, url in site.urls.items():
                role = str(urlsplit(url).username)
                for statement in find_grants(access, role, f"memory://{site.name}", index=url).sql:
                    owner.execute(statement.encode())

    def test_any_name_of_a_role(self, database_url: str, tmp_path: Path) -> None:
        index = f"{database_url}?schema=odd"
        with vds.connect(tmp_path / "s", index=index, create=True):
            pass
        role = f"o\"brien'; DROP TABLE entry --{uuid.uuid4().hex[:8]}"
        with psycopg.connect(database_url) as owner:
            owner.execute(('CREATE ROLE "' + role.replace('"', '""') + '"').encode())
            for statement in find_grants("collector", role, tmp_path / "s", index=index).sql:
                owner.execute(statement.encode())
            found = owner.execute("SELECT has_table_privilege(%s, 'odd.entry', 'DELETE')", (role,)).fetchone()
        assert found == (True,)

    def test_without_a_schema_they_are_for_public(self, database_url: str, tmp_path: Path) -> None:
        with vds.connect(tmp_path / "s", index=database_url, create=True) as store:
            store.namespace("team/raw").upload(write_tree(tmp_path / "t", FILES), show_progress=False)
        role = f"reader-{uuid.uuid4().hex[:8]}"
        index = let_in(database_url, str(tmp_path / "s"), {"reader": role})["reader"]
        with vds.connect(tmp_path / "s", index=index, read_only=True) as store:
            assert read_version(store.get("team/raw")) == FILES
