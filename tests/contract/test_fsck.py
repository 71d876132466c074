"""What `fsck` finds in an index and its container, under both databases: each contradiction, and nothing in a sound store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

import vds
from tests import services
from tests.damages import DATASET, RAW, RUN, Sample, delete, digests_of, flip, make_sample, read_all, truncate
from tests.support import Place, write_tree
from vds.blobs.driver import BlobDriver
from vds.blobs.objects import fresh_ulid, object_key, pack_key
from vds.engine.doors import Doors
from vds.engine.journal import add_store_record, publish_store_record
from vds.errors import FormatError
from vds.index.damage import DamageRow, find_damaged, list_damage, put_damage
from vds.index.database import Connection
from vds.index.placements import add_pending_blob, find_live, find_placements, finish_blob
from vds.model.claim import NamespaceClaim
from vds.model.content import Member
from vds.model.digest import Digest
from vds.model.version import canonical_json
from vds.ops.counting import count_everything
from vds.ops.findings import KINDS
from vds.ops.fsck import FsckReport

SERVICES = pytest.mark.services


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=SERVICES)])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    """One store of this module, which nobody changes."""
    scratch = tmp_path_factory.mktemp("sample")
    url = str(scratch / "store")
    if request.param == "sqlite":
        yield make_sample(Place(url), scratch)
        return
    with services.fresh_database(request.getfixturevalue("postgres_url")) as index:
        yield make_sample(Place(url, index), scratch)


@pytest.fixture
def sample(original: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sample]:
    """A copy of the store, index and all."""
    monkeypatch.setenv("VDS_CACHE_MAX", "0")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    root = tmp_path / "store"
    shutil.copytree(original.root, root)
    if original.place.index is None:
        yield Sample(Place(str(root)), original.versions)
        return
    with _copied_database(original.place.index) as index:
        yield Sample(Place(str(root), index), original.versions)


@contextmanager
def _copied_database(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    name = f"copy_{fresh_ulid()}"
    server = urlunsplit(parts._replace(path="/postgres"))
    with psycopg.connect(server, autocommit=True) as connection:
        # Nobody may be connected to a database that is copied.
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [parts.path[1:]])
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {parts.path[1:]}".encode())
    try:
        yield urlunsplit(parts._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def check(sample: Sample, **options: Any) -> FsckReport:
    with sample.place.connect() as store:
        report: FsckReport = store.fsck(show_progress=False, **options)
    return report


def test_a_sound_store_is_sound(sample: Sample) -> None:
    for read_only in (True, False):
        with vds.connect(sample.place.url, index=sample.place.index, read_only=read_only) as store:
            report = store.fsck(chain=True, full=True, show_progress=False)
        assert (report.ok, report.problems, report.counts) == (True, (), {})
    distinct = {body for files in sample.versions.values() for body in files.values() if body}
    assert report.examined.objects == len(distinct)
    assert report.examined.size_bytes > sum(map(len, distinct))  # tables of packs, and lists
    assert (report.examined.records, report.examined.lists) == (6 + 4 + 2 + 2, 7)


def blobs(sample: Sample) -> BlobDriver:
    return sample.place.blobs()


def doors(sample: Sample, work: Callable[[Doors], object]) -> None:
    with sample.place.connect() as store:
        work(store._handle.doors)


NUMBER_2 = "namespace_id = 1 AND number = 2"
SMALL_5 = "(SELECT digest FROM entry WHERE namespace_id = 1 AND path = 'small/05')"


def add_row_of_deleted_blob(sample: Sample) -> None:
    sample.sql("INSERT INTO blob (store_id, key, state, changed_us) VALUES (1, :key, 'deleted', 0)", key=pack_key(fresh_ulid()))
    sample.sql(
        "INSERT INTO object (store_id, digest, blob_id, offset_bytes, length_bytes)"
        " SELECT 1, :digest, MAX(id), 0, 5 FROM blob WHERE state = 'deleted'",
        digest=Digest.of(b"gone").raw,
    )


def add_deleted_blob_that_is_there(sample: Sample) -> None:
    key = pack_key(fresh_ulid())
    blobs(sample).put_if_absent(key, b"still here")
    sample.sql("INSERT INTO blob (store_id, key, state, changed_us) VALUES (1, :key, 'deleted', 0)", key=key)


def doom(sample: Sample) -> None:
    key = sample.key(sample.object_file(sample.versions[RAW, 1]["whole"]))

    def tell(opened: Doors) -> None:
        fields = {"keys": [key], "size_bytes": 1, "why": "gc", "author": "ada"}
        publish_store_record(opened, opened.index.run(lambda c: add_store_record(c, opened.store, "keys-deleting", fields)))

    doors(sample, tell)


def say_without_index(kind: str, fields: dict[str, object]) -> Callable[[Sample], None]:
    """Have the store's log say what the index did not do."""

    def tell(sample: Sample) -> None:
        doors(
            sample,
            lambda opened: publish_store_record(
                opened, opened.index.run(lambda c: add_store_record(c, opened.store, kind, fields))
            ),
        )

    return tell


def count_wrong(statement: str) -> Callable[[Sample], None]:
    def miscount(sample: Sample) -> None:
        doors(sample, count_everything)
        sample.sql(statement)

    return miscount


def expire_quietly(sample: Sample) -> None:
    sample.sql(f"UPDATE version SET expired_us = 5 WHERE {NUMBER_2}")


def queue(body: bytes | None) -> Callable[[Sample], None]:
    """Let the newest record of team/raw wait, as it is or with another body."""

    def wait(sample: Sample) -> None:
        key = sample.key(sample.find("journal/*/0000000000000005"))
        sample.sql(
            "INSERT INTO journal_queue (store_id, line, owner_id, number, key, body) VALUES (1, 'version', 1, 5, :key, :body)",
            key=key,
            body=blobs(sample).read_range(key) if body is None else body,
        )

    return wait


def break_rule(sample: Sample) -> None:
    """Add an entry that ends before it begins: what SQLite says of itself tells."""

    def work(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
            connection.exec_driver_sql("UPDATE counted SET number = 0")
            connection.exec_driver_sql("UPDATE blob SET state = 'unheard of' WHERE key LIKE 'changes/%'")
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = OFF")

    sample.run(work)


def damage_older_format(sample: Sample) -> None:
    first = sample.find("format/*")
    first.with_name(f"{2:016d}").write_bytes(first.read_bytes())
    truncate(first)


def claim(uid: str, name: str) -> Callable[[Sample], object]:
    made = NamespaceClaim(uid, name)
    return lambda sample: (sample.root / made.key).write_bytes(made.encode())


def write(key: str) -> Callable[[Sample], object]:
    return lambda sample: blobs(sample).put_if_absent(key, b"something")


def lose_label(sample: Sample) -> None:
    shutil.rmtree(sample.root / ".vds-meta" / "objects")


def lose_list(sample: Sample) -> None:
    sample.sql("DELETE FROM manifest WHERE kind = 'changes'")
    sample.sql("UPDATE blob SET state = 'deleted' WHERE key LIKE 'changes/%'")


def misread_list(sample: Sample) -> None:
    sample.sql("UPDATE manifest SET row_count = row_count + 1 WHERE kind = 'changes'")


def add_next_record(sample: Sample) -> None:
    newest = sample.find("journal/*/0000000000000005")
    newest.with_name(f"{6:016d}").write_bytes(newest.read_bytes())


def add_foreign_line(sample: Sample) -> None:
    (sample.root / "journal" / fresh_ulid()).mkdir()
    add = sorted((sample.root / "journal").iterdir())[-1] / f"{1:016d}"
    add.write_bytes(sample.find("journal/*/0000000000000001").read_bytes())


FOUND: dict[str, tuple[Callable[[Sample], object], set[str]]] = {
    "a count": (
        lambda s: s.sql(f"UPDATE version SET file_count = file_count + 1 WHERE {NUMBER_2}"),
        {"totals-differ", "record-differs"},
    ),
    "a message": (lambda s: s.sql(f"UPDATE version SET message = 'other' WHERE {NUMBER_2}"), {"record-differs"}),
    "labels that are no JSON": (lambda s: s.sql(f"UPDATE version SET labels = '{{' WHERE {NUMBER_2}"), {"record-differs"}),
    "a time beyond time": (lambda s: s.sql(f"UPDATE version SET created_us = {2**62} WHERE {NUMBER_2}"), {"record-differs"}),
    "the reason of a tag's move": (
        lambda s: s.sql("UPDATE tag_event SET reason = 'other' WHERE number = 4"),
        {"record-differs"},
    ),
    "what a release shows": (lambda s: s.sql("UPDATE release SET path = 'other' WHERE number = 2"), {"record-differs"}),
    "a row of a version": (
        lambda s: s.sql(f"DELETE FROM version WHERE {NUMBER_2}"),
        {"line-broken", "release-lost", "record-differs"},
    ),
    "an event": (lambda s: s.sql("DELETE FROM tag_event WHERE number = 3"), {"line-broken"}),
    "a head": (lambda s: s.sql("UPDATE namespace SET head_digest = :d WHERE id = 1", d=bytes(32)), {"line-broken"}),
    "a placement": (lambda s: s.sql(f"DELETE FROM object WHERE digest = {SMALL_5}"), {"object-unplaced"}),
    "a length": (
        lambda s: s.sql(f"UPDATE object SET length_bytes = length_bytes - 1 WHERE digest = {SMALL_5}"),
        {"object-unplaced"},
    ),
    "an offset": (
        lambda s: s.sql(f"UPDATE object SET offset_bytes = 1000000 WHERE digest = {SMALL_5}"),
        {"object-misplaced"},
    ),
    "a file with the digest of none": (
        lambda s: s.sql("UPDATE entry SET size_bytes = 1 WHERE path = 'empty'"),
        {"object-unplaced", "totals-differ"},
    ),
    "two files in one": (
        lambda s: s.sql("UPDATE entry SET end_version = 3 WHERE path = 'small/03' AND end_version = 2"),
        {"interval-overlap", "totals-differ"},
    ),
    "too many uses": (
        count_wrong(f"UPDATE object_use SET uses = uses + 1 WHERE digest = {SMALL_5}"),
        {"uses-differ"},
    ),
    "too few uses": (count_wrong(f"DELETE FROM object_use WHERE digest = {SMALL_5}"), {"uses-differ"}),
    "uses of nothing": (
        lambda s: s.sql("INSERT INTO object_use (store_id, digest, uses) VALUES (1, :d, 1)", d=bytes(32)),
        {"uses-differ"},
    ),
    "an entry set aside": (
        lambda s: s.sql("INSERT INTO expired_entry SELECT e.*, 1 FROM entry e WHERE path = 'whole'"),
        {"set-aside-needed"},
    ),
    "an expiry that nobody recorded": (expire_quietly, {"log-differs"}),
    "an expiry that nobody made": (
        say_without_index(
            "versions-expired", {"namespace": "01aryz6s41000g40r40m30e20a", "numbers": [[1, 1]], "author": "", "reason": ""}
        ),
        set(),
    ),
    "an erasure that nobody made": (
        say_without_index("object-erased", {"digest": str(Digest.of(b"x")), "author": "", "reason": "r"}),
        {"log-differs"},
    ),
    "an erasure that nobody recorded": (
        lambda s: s.sql("INSERT INTO erased VALUES (1, :d, 1, 'ada', 'r')", d=bytes(32)),
        {"log-differs"},
    ),
    "a namespace that nobody made": (
        say_without_index("namespace-created", {"namespace": "01aryz6s41000g40r40m30e20a", "name": "new"}),
        {"log-differs"},
    ),
    "another index": (
        say_without_index("index-replaced", {"incarnation": fresh_ulid(), "address": "embedded", "host": ""}),
        {"log-differs"},
    ),
    "a blob that was deleted and is used": (doom, {"blob-doomed"}),
    "a record that waits": (queue(None), {"record-queued"}),
    "another record that waits": (queue(canonical_json({"a": 1})), {"queue-damaged"}),
    "an older format record": (damage_older_format, {"format-damaged"}),
    "a claim of nothing": (claim(fresh_ulid(), "nobody/wrote"), {"claim-unused"}),
    "a claim for another": (claim(fresh_ulid(), RUN), {"claim-differs"}),
    "a blob nobody knows": (write(object_key(Digest.of(b"x").raw, fresh_ulid())), {"blob-orphan"}),
    "a pack nobody knows": (write(pack_key(fresh_ulid())), {"blob-orphan"}),
    "a stream nobody knows": (write(f"objects/~~/{fresh_ulid()}"), {"blob-orphan"}),
    "a key that is none of ours": (write("objects/aa/holiday.jpg"), {"key-foreign"}),
    "a record that is none of ours": (write("store/readme"), {"key-foreign"}),
    "a blob that was deleted": (add_deleted_blob_that_is_there, {"blob-undeleted"}),
    "a placement in a blob that was deleted": (add_row_of_deleted_blob, {"placement-stale"}),
    "a blob on its way": (lambda s: s.run(lambda c: add_pending_blob(c, 1, pack_key(fresh_ulid()), 99)), {"blob-pending"}),
    "a stream without its digest": (lose_label, {"blob-mislabelled"}),
    "a list that the index forgot": (lose_list, {"list-missing", "blob-undeleted"}),
    "a list that the index misreads": (misread_list, {"list-missing"}),
    "a gap that a rebuild left": (
        lambda s: s.sql("INSERT INTO gap VALUES (1, 'journal/x', 'journal', 1, 7, 9, 'it was gone', 1)"),
        {"rebuild-gap"},
    ),
    "a line of nobody": (add_foreign_line, {"record-unknown"}),
}


@pytest.mark.parametrize("what", FOUND)
def test_a_contradiction_is_found(what: str, sample: Sample) -> None:
    hurt, kinds = FOUND[what]
    hurt(sample)
    with vds.connect(sample.place.url, index=sample.place.index, read_only=True) as store:
        report = store.fsck(show_progress=False)
    assert set(report.counts) == kinds, report.problems
    assert report.ok is not any(KINDS[kind][0] == "damage" for kind in kinds)
    assert {problem.kind for problem in report.problems} == kinds


def test_a_record_that_the_index_does_not_know(sample: Sample) -> None:
    add_next_record(sample)
    with vds.connect(sample.place.url, index=sample.place.index, read_only=True) as store:
        report = store.fsck(show_progress=False)
    assert report.counts == {"record-unknown": 1}
    assert "rebuild" in report.problems[0].detail


def test_a_broken_rule_of_the_tables(sample: Sample) -> None:
    if sample.place.index is not None:
        pytest.skip("PostgreSQL looks after its own pages")
    break_rule(sample)
    report = check(sample, dry_run=True)  # SQLite knows no rules of a file that it opened for reading
    assert report.counts["index-damaged"] == 1
    assert "CHECK" in next(problem for problem in report.problems if problem.kind == "index-damaged").detail


CHAIN: dict[str, tuple[str, set[str]]] = {
    "a content": (
        "UPDATE entry SET digest = (SELECT digest FROM entry WHERE path = 'small/07'), size_bytes ="
        " (SELECT size_bytes FROM entry WHERE path = 'small/07') WHERE path = 'small/05'",
        {"entries-differ", "totals-differ"},
    ),
    "a mode": ("UPDATE entry SET mode = 493 WHERE path = 'small/05'", {"entries-differ"}),
    "a time": ("UPDATE entry SET modified_ns = modified_ns + 1 WHERE path = 'stream'", {"entries-differ"}),
    "a time of a checkpoint": ("UPDATE entry SET modified_ns = modified_ns + 1 WHERE path = 'small/05'", {"entries-differ"}),
    "a file": ("DELETE FROM entry WHERE path = 'stream'", {"entries-differ", "totals-differ"}),
    "a file that was removed": (
        "UPDATE entry SET end_version = 4611686018427387904 WHERE path = 'small/04'",
        {"entries-differ", "totals-differ"},
    ),
    "a path": ("UPDATE entry SET path = 'small/05b' WHERE path = 'small/05'", {"entries-differ"}),
    "a beginning": (
        "UPDATE entry SET first_version = 4 WHERE path = 'stream'",
        {"entries-differ", "totals-differ"},
    ),
    "an end": (
        "UPDATE entry SET end_version = 3 WHERE path = 'small/04'",
        {"entries-differ", "totals-differ"},
    ),
}


@pytest.mark.parametrize("what", CHAIN)
def test_entries_that_no_list_made(what: str, sample: Sample) -> None:
    statement, kinds = CHAIN[what]
    sample.sql(statement)
    assert set(check(sample, chain=True, dry_run=True).counts) == kinds


def test_a_content_digest_that_was_kept(sample: Sample) -> None:
    with sample.place.connect() as store:
        _ = store.get(RAW).content_digest
        assert store.fsck(chain=True, show_progress=False).ok
    sample.sql("UPDATE version SET content_digest = :d WHERE content_digest IS NOT NULL", d=bytes(32))
    assert set(check(sample, chain=True).counts) == {"content-differs"}


def test_lists_of_versions_that_expired(sample: Sample) -> None:
    with sample.place.connect() as store:
        store.expire([f"{RAW}@3", f"{RAW}@4"], dry_run=False, reason="old")
        store.gc(dry_run=False, show_progress=False)
        report = store.fsck(chain=True, full=True, show_progress=False)
        assert (report.ok, report.counts) == (True, {})
        store.gc(dry_run=False, grace_hours=0, show_progress=False)
        store.gc(dry_run=False, grace_hours=0, show_progress=False)
        report = store.fsck(chain=True, full=True, show_progress=False)
        assert (report.ok, report.counts) == (True, {})
    sample.sql("UPDATE entry SET mode = 493 WHERE path = 'small/06' AND first_version = 5")
    assert set(check(sample, chain=True).counts) == {"entries-differ"}
    sample.sql("UPDATE entry SET mode = 420 WHERE path = 'small/06' AND first_version = 5")
    assert check(sample, chain=True).ok
    sample.sql("DELETE FROM entry WHERE path = 'stream'")  # which one of those that expired had added
    assert check(sample, structure=False, chain=True).counts == {"entries-differ": 1}


def test_a_replay_that_begins_with_a_checkpoint(sample: Sample) -> None:
    with sample.place.connect() as store:
        store.dataset(DATASET).untag("prod")
        for number in (1, 2, 3):
            store.expire(f"{RAW}@{number}", dry_run=False, reason="old")
        for _ in range(3):
            store.gc(dry_run=False, grace_hours=0, show_progress=False)
        report = store.fsck(chain=True, full=True, show_progress=False)
    assert {kind for kind in report.counts if KINDS[kind][0] == "damage"} == set()
    assert not list(sample.root.glob("changes/*/*"))  # so no list of the first versions is left
    checkpoint = sample.find("checkpoints/*/*")
    assert report.examined.lists >= 3
    delete(checkpoint)
    assert "blob-missing" in check(sample, chain=True).counts


def test_an_object_that_is_damaged_is_not_counted_on(sample: Sample) -> None:
    body = sample.versions[RAW, 1]["whole"]
    digest = Digest.of(body).raw
    flip(sample.object_file(body))
    with sample.place.connect() as store:
        opened = store._handle.doors
        assert store.fsck(show_progress=False).ok  # nothing shows in a listing
        report = store.fsck(full=True, show_progress=False)
        (problem,) = report.problems
        assert (problem.kind, problem.digest) == ("object-damaged", str(Digest.of(body)))
        assert [(touch.namespace, touch.path, touch.first_version, touch.last_version) for touch in problem.touches] == [
            (RAW, "whole", 1, None)
        ]
        assert (problem.releases, problem.tags) == ((f"{DATASET}:1",), ())
        with opened.index.read() as connection:
            assert find_live(connection, opened.store.id, [digest, Digest.of(b"unknown").raw]) == set()
            assert [row.digest for row in list_damage(connection, opened.store.id)] == [digest]
        with pytest.raises(vds.errors.CorruptionError, match="damaged"):
            store.gc(dry_run=False, show_progress=False)


def test_uploading_a_file_again_heals_it(sample: Sample, tmp_path: Path) -> None:
    body, small = sample.versions[RAW, 5]["whole"], sample.versions[RAW, 5]["small/05"]
    with sample.place.connect() as store:
        source = write_tree(tmp_path / "again", sample.versions[RAW, 5])
        for _ in range(2):
            unchanged = store.namespace(RAW).upload(source, show_progress=False)
        assert unchanged.bytes_read == 0
        flip(sample.object_file(body))
        delete(sample.pack_file(small))
        assert not store.fsck(full=True, show_progress=False).ok
        # The same files once more, not one of them changed: what is damaged is sent, and no version is made.
        result = store.namespace(RAW).upload(source, show_progress=False)
        assert not result.created
        assert result.bytes_sent >= len(body) + len(small)
        lost = {"small/03", "small/04", "small/06"}  # what only the first version had
        report = store.fsck(full=True, show_progress=False)
        assert {touch.path for problem in report.problems for touch in problem.touches} == lost
        found, sound = read_all(store, sample.versions), digests_of(sample.versions)
        assert {place[2] for place in sound if found[place] != sound[place]} == lost
        # And those from wherever they are left.
        first = tmp_path / "first"
        first.mkdir()
        for path in lost:
            (first / path.replace("/", "-")).write_bytes(sample.versions[RAW, 1][path])
        report = store.fsck(full=True, repair_from=first, show_progress=False)
        assert report.ok
        assert report.mended == report.counts
        assert read_all(store, sample.versions) == sound
        assert store.fsck(chain=True, full=True, show_progress=False).ok
        store.gc(dry_run=False, grace_hours=0, show_progress=False)


def test_a_placement_that_replaces_a_damaged_one(sample: Sample) -> None:
    body = sample.versions[RAW, 1]["whole"]
    digest, other = Digest.of(body).raw, Digest.of(sample.versions[RAW, 1]["twin"]).raw
    with sample.place.connect() as store:
        index, store_id = store._handle.doors.index, store._handle.doors.store.id
        with index.read() as connection:
            old = find_placements(connection, store_id, [digest, other])
            moves = _moves(connection, old[digest].blob_id)
        index.run(lambda c: put_damage(c, store_id, [DamageRow(digest, old[digest].blob_id, "bad")]))
        new = index.run(lambda c: add_pending_blob(c, store_id, object_key(digest, fresh_ulid()), 7))
        members = [Member(digest, 0, len(body)), Member(other, len(body), 5)]
        assert index.run(lambda c: finish_blob(c, store_id, new, 7, 2 * len(body), "etag", members))
        with index.read() as connection:
            now = find_placements(connection, store_id, [digest, other])
            assert (now[digest].blob_id, now[other]) == (new, old[other])  # a good one stays where it is
            assert _moves(connection, old[digest].blob_id) == moves + 1
            assert find_damaged(connection, store_id, [digest]) == set()
            assert find_live(connection, store_id, [digest, other]) == {digest, other}
            state = connection.exec_driver_sql(f"SELECT state FROM blob WHERE id = {old[digest].blob_id}").scalar_one()
            assert state == "condemned"  # nothing is left in it
        # What a check that looked at the old one says now comes too late.
        index.run(lambda c: put_damage(c, store_id, [DamageRow(digest, old[digest].blob_id, "bad")]))
        with index.read() as connection:
            assert find_damaged(connection, store_id, [digest]) == set()


def _moves(connection: Connection, blob_id: int) -> int:
    return int(connection.exec_driver_sql(f"SELECT moves FROM blob WHERE id = {blob_id}").scalar_one())


def test_what_is_whole_again_is_forgotten(sample: Sample) -> None:
    path = sample.object_file(sample.versions[RAW, 1]["whole"])
    kept = path.with_name(".kept")
    shutil.copy2(path, kept)
    delete(path)
    assert set(check(sample).counts) == {"blob-missing", "object-damaged"}
    shutil.copy2(kept, path)  # as an undelete brings it back
    assert check(sample).ok
    with sample.place.connect() as store:
        opened = store._handle.doors
        with opened.index.read() as connection:
            assert list_damage(connection, opened.store.id) == []


def test_who_only_reads_writes_nothing(sample: Sample) -> None:
    flip(sample.object_file(sample.versions[RAW, 1]["whole"]))
    sample.sql("DELETE FROM object_check")
    for read_only in (True, False):
        with vds.connect(sample.place.url, index=sample.place.index, read_only=read_only) as store:
            assert not store.fsck(full=True, dry_run=not read_only, show_progress=False).ok
            opened = store._handle.doors
            with opened.index.read() as connection:
                assert list_damage(connection, opened.store.id) == []
                assert connection.exec_driver_sql("SELECT COUNT(*) FROM object_check").scalar_one() == 0
    with (
        vds.connect(sample.place.url, index=sample.place.index, read_only=True) as store,
        pytest.raises(vds.errors.AccessDeniedError),
    ):
        store.fsck(repair=True, show_progress=False)


def test_checks_of_pieces_are_filled_in_and_corrected(sample: Sample) -> None:
    def checks(connection: Connection) -> list[tuple[bytes, int, bytes]]:
        rows = connection.exec_driver_sql("SELECT digest, piece_bytes, checks FROM object_check ORDER BY digest")
        return [(bytes(row[0]), row[1], bytes(row[2])) for row in rows]

    database = sample.place.database()
    with database.read() as connection:
        before = checks(connection)
    assert len(before) == 3
    sample.sql("DELETE FROM object_check WHERE digest = :d", d=before[0][0])
    sample.sql("UPDATE object_check SET checks = :c WHERE digest = :d", c=bytes(len(before[1][2])), d=before[1][0])
    report = check(sample, full=True)
    assert (report.ok, report.counts, report.mended) == (True, {"checks-differ": 1}, {"checks-differ": 1})
    with database.read() as connection:
        assert checks(connection) == before
    database.close()


def test_a_store_that_was_moved_without_its_times(sample: Sample) -> None:
    for path in sample.root.rglob("*"):
        if path.is_file() and ".vds-" not in str(path):
            path.touch()
    report = check(sample)
    assert set(report.counts) == {"blob-replaced"}
    assert not report.ok
    report = check(sample, full=True)
    assert report.ok
    assert report.mended == report.counts
    assert check(sample).counts == {}


def test_a_stale_index_mends_nothing(sample: Sample) -> None:
    first = sample.find("store/*", 1)
    first.with_name(f"{3:016d}").write_bytes(first.read_bytes())
    delete(sample.find("journal/*/0000000000000001"))
    with pytest.raises(FormatError, match="older than its store"):
        check(sample, repair=True)


def test_another_store_in_the_same_database(sample: Sample, tmp_path: Path) -> None:
    index = sample.place.index or f"sqlite:///{sample.root / '.vds-index' / 'index.sqlite'}"
    sample.sql(f"UPDATE version SET file_count = file_count + 1 WHERE {NUMBER_2}")
    flip(sample.object_file(sample.versions[RAW, 1]["whole"]))
    assert not check(sample, full=True).ok
    with vds.connect(tmp_path / "other", index=index, create=True) as store:
        store.namespace(RAW).upload(write_tree(tmp_path / "src", {"a": b"a"}), show_progress=False)
        report = store.fsck(chain=True, full=True, show_progress=False)
    assert (report.counts, report.examined.objects) == ({}, 1)
