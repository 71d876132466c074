"""Expire, collect, undo and erase, from outside: what is left is whole, what goes is gone, and what is refused is untouched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import vds
from tests.support import SERVICES, Place, list_keys, make_place, read_version, write_tree
from vds.errors import CorruptionError, ErasedError, FormatError, InvalidInputError, NotFoundError, UploadError
from vds.model.digest import Digest
from vds.model.storelog import StoreRecord
from vds.ops.collect import CollectReport
from vds.store import Store

NAME = "team/raw"
LARGE = 1_200_000
ALL_AT_ONCE = {"grace_hours": 0, "max_share": 1, "show_progress": False}
PLACES = [
    "directory+sqlite",
    pytest.param("directory+postgresql", marks=SERVICES),
    pytest.param("azurite+postgresql", marks=SERVICES),
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    return make_place(request.param, request)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.connect(create=True) as made:
        yield made


def bodies(version: int, *, small: int = 4) -> dict[str, bytes]:
    """What a version holds: small files of its own, one that all versions have, one large."""
    chance = random.Random(version)
    files = {f"d/{number}.txt": f"{version}-{number} ".encode() * 400 for number in range(small)}
    return {**files, "always.txt": b"always", "large.bin": chance.randbytes(LARGE)}


def fill(store: Store, root: Path, versions: int = 5, name: str = NAME) -> list[dict[str, bytes]]:
    """Make versions, and return what each holds; the first is the empty one."""
    history: list[dict[str, bytes]] = [{}]
    for number in range(1, versions + 1):
        tree = write_tree(root / f"{name}-{number}".replace("/", "-"), bodies(number))
        store.namespace(name).upload(tree, mirror=True, show_progress=False)
        history.append(bodies(number))
    return history


def gc(store: Store, **terms: object) -> CollectReport:
    return store.gc(False, **{**ALL_AT_ONCE, **terms})  # type: ignore[arg-type]


def blob_keys(place: Place) -> set[str]:
    blobs = place.blobs()
    keys = {*list_keys(blobs, "objects/"), *list_keys(blobs, "packs/")}
    blobs.close()
    return keys


def log_records(place: Place) -> list[StoreRecord]:
    blobs = place.blobs()
    keys = list_keys(blobs, "store/")
    records = [StoreRecord.decode(blobs.read_range(key), key) for key in keys]
    blobs.close()
    return records


def expire_all_but(store: Store, keep: int) -> None:
    store.expire(NAME, keep_last=keep, dry_run=False)


class TestExpire:
    def test_a_dry_run_says_what_goes_and_changes_nothing(self, store: Store, place: Place, tmp_path: Path) -> None:
        fill(store, tmp_path)
        report = store.expire(NAME, keep_last=2)
        assert [one.number for one in report.versions] == [1, 2, 3]
        assert (report.kept, report.held, report.dry_run) == (2, 0, True)
        only_theirs = sum(len(body) for number in (1, 2, 3) for path, body in bodies(number).items() if path != "always.txt")
        assert (report.objects, report.size_bytes) == (15, only_theirs)
        assert len(store.namespace(NAME).log()) == 5
        assert [record.kind for record in log_records(place)] == ["namespace-created"]

    def test_expired_versions_are_not_read_and_the_others_are_whole(self, store: Store, place: Place, tmp_path: Path) -> None:
        history = fill(store, tmp_path)
        pinned = store.get(f"{NAME}@2")
        store.expire(NAME, keep_last=2, reason="too many", dry_run=False)
        namespace = store.namespace(NAME)
        assert [version.number for version in namespace.log()] == [5, 4]
        for number in (4, 5):
            assert read_version(namespace.get(number)) == history[number]
        for read in (lambda: namespace.get(2), lambda: list(pinned.entries()), lambda: store.resolve(f"{NAME}@2")):
            with pytest.raises(NotFoundError, match=r"version 2 of 'team/raw' was expired on 20"):
                read()
        record = log_records(place)[-1]
        assert (record.kind, record.fields["numbers"], record.fields["reason"]) == ("versions-expired", [[1, 3]], "too many")
        with pytest.raises(NotFoundError):
            store.expire(f"{NAME}@2", dry_run=False)
        with pytest.raises(NotFoundError):
            store.dataset("customers").register(f"{NAME}@2")
        with pytest.raises(NotFoundError):
            namespace.rollback(2)

    def test_what_is_released_stays_until_it_is_named(self, store: Store, tmp_path: Path) -> None:
        fill(store, tmp_path, 4)
        store.dataset("customers").tag("prod", f"{NAME}@1")
        store.dataset("customers").register(f"{NAME}@2")
        report = store.expire(NAME, keep_last=1, dry_run=False)
        assert ([one.number for one in report.versions], report.held) == ([3], 2)
        report = store.expire(NAME, keep_last=1, keep_tagged=False, dry_run=False)
        assert [one.number for one in report.versions] == [2]  # released, and no tag shows it
        assert [one.number for one in store.expire(f"{NAME}@1", dry_run=False).versions] == [1]
        with pytest.raises(NotFoundError, match="was expired"):
            store.get("customers:prod")

    def test_the_newest_never_expires(self, store: Store, tmp_path: Path) -> None:
        fill(store, tmp_path, 2)
        for number in (0, 2):
            with pytest.raises(InvalidInputError, match="cannot expire"):
                store.expire(f"{NAME}@{number}", dry_run=False)

    def test_without_a_rule_nothing_expires(self, store: Store, tmp_path: Path) -> None:
        fill(store, tmp_path, 2)
        with pytest.raises(NotFoundError, match="nothing says which versions"):
            store.expire(NAME, dry_run=False)
        with pytest.raises(InvalidInputError, match="nothing says which versions"):
            store.expire(dry_run=False)


class TestCollect:
    def test_a_dry_run_foresees_what_a_run_does(self, store: Store, place: Place, tmp_path: Path) -> None:
        fill(store, tmp_path)
        expire_all_but(store, 1)
        before = blob_keys(place)
        foreseen = store.gc(max_share=1, show_progress=False)
        assert foreseen.dry_run
        assert blob_keys(place) == before
        done = gc(store, grace_hours=24)
        assert (done.condemned_keys, done.repacked, done.deleted) == (foreseen.condemned_keys, foreseen.repacked, 0)
        assert done.condemned == 7  # four large objects, and the packs of three versions; the first holds always.txt too
        assert done.repacked == 1
        assert blob_keys(place) >= before  # only condemned: every byte is there

    def test_what_nobody_needs_goes_and_the_rest_is_whole(self, store: Store, place: Place, tmp_path: Path) -> None:
        history = fill(store, tmp_path)
        expire_all_but(store, 2)
        report = gc(store)
        assert report.deleted == report.condemned + report.repacked > 0
        assert len(blob_keys(place)) == 2 + 2 + 1  # large objects, packs, and what was left of the first one's
        for number in (4, 5):
            version = store.get(f"{NAME}@{number}")
            assert read_version(version) == history[number]
            assert version.verify().ok
        again = gc(store)
        assert (again.condemned, again.deleted, again.repacked) == (0, 0, 0)
        named = {key for record in log_records(place) if record.kind == "keys-deleting" for key in record.fields["keys"]}
        assert set(report.deleted_keys) == named

    def test_what_is_uploaded_again_is_there_again(self, store: Store, tmp_path: Path) -> None:
        history = fill(store, tmp_path, 3)
        expire_all_but(store, 1)
        condemned = gc(store, grace_hours=24)
        assert condemned.condemned
        again = store.namespace(NAME).upload(write_tree(tmp_path / "again", history[1]), "again", show_progress=False)
        gc(store)
        store.namespace(NAME).upload(write_tree(tmp_path / "once-more", history[2]), "more", show_progress=False)
        gc(store)
        version = store.namespace(NAME).latest()
        found = read_version(version)
        assert {path: found[f"again/{path}"] for path in history[1]} == history[1]
        assert {path: found[f"more/{path}"] for path in history[2]} == history[2]
        assert again.version.verify().ok

    def test_files_that_never_became_a_version(self, store: Store, place: Place, tmp_path: Path) -> None:
        fill(store, tmp_path, 1)
        before = blob_keys(place)
        tx = store.namespace(NAME).transaction()
        tx.write_bytes("x", b"x" * LARGE)
        assert gc(store).condemned == 0, "an open transaction's bytes are left alone"
        tx.abort()
        report = gc(store)
        assert report.condemned + report.abandoned == 1
        assert blob_keys(place) == before

    def test_an_open_transaction_survives_collection(self, store: Store, tmp_path: Path) -> None:
        fill(store, tmp_path, 3)
        with store.namespace(NAME).transaction() as tx:
            tx.write_bytes("x", b"x" * LARGE)
            tx.write_bytes("y", b"y")
            expire_all_but(store, 1)
            gc(store)
        assert read_version(store.namespace(NAME).latest())["x"] == b"x" * LARGE
        assert store.namespace(NAME).latest().verify().ok

    def test_a_share_above_the_limit_is_refused(self, store: Store, place: Place, tmp_path: Path) -> None:
        fill(store, tmp_path)
        expire_all_but(store, 1)
        before = blob_keys(place)
        assert "the limit is 50%" in store.gc(show_progress=False).refusal
        with pytest.raises(InvalidInputError, match=r"80% of the store's .* the limit is 50%") as caught:
            gc(store, max_share=0.5)
        assert "--max-share 0.8" in caught.value.hint
        assert blob_keys(place) == before
        assert gc(store, max_share=0.81).deleted

    @pytest.mark.parametrize("terms", [{"grace_hours": -1}, {"grace_hours": float("nan")}, {"max_share": 0}, {"max_share": 1.1}])
    def test_terms_that_make_no_sense(self, store: Store, terms: dict[str, float]) -> None:
        with pytest.raises(InvalidInputError):
            store.gc(**terms)  # type: ignore[arg-type]

    def test_nothing_to_do(self, store: Store) -> None:
        assert gc(store) == CollectReport()


class TestUndo:
    def test_versions_and_bytes_come_back(self, store: Store, place: Place, tmp_path: Path) -> None:
        history = fill(store, tmp_path)
        expire_all_but(store, 1)
        gc(store, grace_hours=24)
        report = store.undo_gc()
        assert report.restored == {NAME: [1, 2, 3, 4]}
        assert report.revived == 8
        for number in range(1, 6):
            assert read_version(store.get(f"{NAME}@{number}")) == history[number]
        assert log_records(place)[-1].kind == "versions-restored"
        gc(store)
        for number in range(1, 6):
            assert store.get(f"{NAME}@{number}").verify().ok

    def test_what_is_deleted_does_not_come_back(self, store: Store, tmp_path: Path) -> None:
        fill(store, tmp_path, 3)
        store.expire(f"{NAME}@1", dry_run=False)
        gc(store)
        store.expire(f"{NAME}@2", dry_run=False)
        gc(store, grace_hours=24)
        assert store.undo_gc().restored == {NAME: [2]}
        assert [version.number for version in store.namespace(NAME).log()] == [3, 2]
        assert store.get(f"{NAME}@2").verify().ok

    def test_nothing_to_undo(self, store: Store, tmp_path: Path) -> None:
        fill(store, tmp_path, 1)
        report = store.undo_gc()
        assert (report.revived, report.restored) == (0, {})


class TestRefusals:
    def test_a_damaged_journal(self, store: Store, place: Place, tmp_path: Path) -> None:
        fill(store, tmp_path, 2)
        blobs = place.blobs()
        key = list_keys(blobs, "journal/")[-1]
        body = blobs.read_range(key)
        blobs.delete_blob(key)
        with pytest.raises(CorruptionError, match="journal disagrees"):
            gc(store)
        blobs.put_if_absent(key, body.replace(b'"author"', b'"Author"'))
        with pytest.raises(CorruptionError, match="journal disagrees"):
            gc(store)
        blobs.close()

    def test_a_blob_that_is_gone_or_replaced(self, store: Store, place: Place, tmp_path: Path) -> None:
        fill(store, tmp_path, 2)
        expire_all_but(store, 1)
        blobs = place.blobs()
        key = list_keys(blobs, "objects/")[-1]
        blobs.delete_blob(key)
        with pytest.raises(CorruptionError, match=f"{key}' is gone"):
            gc(store)
        blobs.put_if_absent(key, b"another")
        with pytest.raises(CorruptionError, match=f"{key}' has 7 bytes"):
            gc(store)
        blobs.close()

    def test_an_index_that_is_older_than_its_store(self, store: Store, place: Place, tmp_path: Path) -> None:
        fill(store, tmp_path, 2)
        blobs = place.blobs()
        last = log_records(place)[-1]
        ahead = StoreRecord(last.store, last.number + 1, last.digest, "namespace-created", last.created_at, last.fields)
        blobs.put_if_absent(f"store/{ahead.number:016d}", ahead.encode())
        blobs.close()
        for refused in (
            lambda: gc(store),
            lambda: store.undo_gc(),
            lambda: store.expire(NAME, keep_last=1, dry_run=False),
            lambda: store.namespace(NAME).upload(write_tree(tmp_path / "new", {"n": b"n"}), show_progress=False),
        ):
            with pytest.raises(FormatError, match="older than its store"):
                refused()

    def test_the_last_copy_of_what_is_used_never_goes(self, store: Store, place: Place, tmp_path: Path) -> None:
        """Rows that are lost from the index must not take the bytes with them."""
        history = fill(store, tmp_path, 1)
        before = blob_keys(place)
        gc(store)  # which counts what is used
        database = place.database()
        database.run(lambda connection: connection.exec_driver_sql("DELETE FROM object"))
        database.run(lambda connection: connection.exec_driver_sql("UPDATE blob SET is_checked = 0"))
        with pytest.raises(CorruptionError, match="which is used and has no other place"):
            gc(store)
        database.close()
        assert blob_keys(place) == before
        assert history[1]

    @pytest.mark.parametrize("table", ["entry", "object"])
    def test_rows_that_are_lost_before_they_were_counted(self, store: Store, place: Place, tmp_path: Path, table: str) -> None:
        fill(store, tmp_path, 2)
        before = blob_keys(place)
        database = place.database()
        which = "path = 'large.bin'" if table == "entry" else "length_bytes > 1000000"
        database.run(lambda connection: connection.exec_driver_sql(f"DELETE FROM {table} WHERE {which}"))
        with pytest.raises(CorruptionError, match="nothing is collected while that is so"):
            gc(store)
        database.close()
        assert blob_keys(place) == before

    def test_read_only_stores_collect_nothing(self, store: Store, place: Place, tmp_path: Path) -> None:
        fill(store, tmp_path, 2)
        with vds.connect(place.url, index=place.index, read_only=True) as reader:
            assert reader.expire(NAME, keep_last=1).dry_run
            assert reader.gc(show_progress=False).dry_run
            for refused in (lambda: gc(reader), lambda: reader.expire(NAME, keep_last=1, dry_run=False), reader.undo_gc):
                with pytest.raises(PermissionError):
                    refused()


class TestErase:
    def test_a_small_and_a_large_content_are_gone_for_good(self, store: Store, place: Place, tmp_path: Path) -> None:
        history = fill(store, tmp_path, 2)
        small, large = history[1]["d/2.txt"], history[1]["large.bin"]
        digests = [store.get(f"{NAME}@{number}").digest for number in (1, 2)]
        for body in (small, large):
            assert [place.path for place in store.erase(Digest.of(body)).places]
            report = store.erase(Digest.of(body), reason="request 7", dry_run=False, show_progress=False)
            assert report.deleted_keys
        blobs = place.blobs()
        kept = [blobs.read_range(key) for key in blob_keys(place)]
        assert not any(small in body or large in body for body in kept)
        blobs.close()
        version = store.get(f"{NAME}@1")
        for path in ("d/2.txt", "large.bin"):
            with pytest.raises(ErasedError, match=r"was erased by .* on 20.*: request 7"):
                version.read_bytes(path)
        assert version.read_bytes("d/1.txt") == history[1]["d/1.txt"]
        assert [store.get(f"{NAME}@{number}").digest for number in (1, 2)] == digests
        assert set(version.verify().failures) == {"d/2.txt", "large.bin"}
        with pytest.raises(vds.errors.DownloadError, match="was erased by"):
            version.download(tmp_path / "out", show_progress=False)
        assert read_version(store.get(f"{NAME}@2")) == history[2]
        gc(store)
        assert store.get(f"{NAME}@1").read_bytes("d/3.txt") == history[1]["d/3.txt"]

    def test_it_cannot_be_uploaded_again(self, store: Store, tmp_path: Path) -> None:
        history = fill(store, tmp_path, 1)
        for path in ("d/2.txt", "large.bin"):
            store.erase(Digest.of(history[1][path]), reason="request 7", dry_run=False, show_progress=False)
        namespace = store.namespace(NAME)
        with pytest.raises(UploadError, match="was erased by") as caught:
            namespace.upload(write_tree(tmp_path / "again", history[1]), "again", show_progress=False)
        assert set(caught.value.failures) == {"d/2.txt", "large.bin"}
        with pytest.raises(ErasedError), namespace.transaction() as tx:
            tx.write_bytes("x", history[1]["d/2.txt"])
        with pytest.raises(ErasedError), namespace.transaction() as tx, tx.open("x") as file:
            file.write(history[1]["large.bin"])
        assert [version.number for version in namespace.log()] == [1]

    def test_histories_with_it_can_still_be_copied_and_rolled_back(self, store: Store, tmp_path: Path) -> None:
        history = fill(store, tmp_path, 2)
        store.erase(Digest.of(history[1]["d/2.txt"]), reason="request 7", dry_run=False, show_progress=False)
        assert store.namespace(NAME).rollback(1).version.number == 3
        assert store.namespace("other").copy(f"{NAME}@1").created
        with pytest.raises(ErasedError):
            store.get("other").read_bytes("d/2.txt")

    def test_copies_the_index_does_not_know_of_go_too(self, store: Store, place: Place, tmp_path: Path) -> None:
        history = fill(store, tmp_path, 1)
        blobs = place.blobs()
        [key] = list_keys(blobs, "packs/")
        blobs.copy_blob(key, "packs/00/01m8065kr4qmvkhy9wkt5d06gv.pack")
        store.erase(Digest.of(history[1]["d/2.txt"]), reason="request 7", dry_run=False, show_progress=False)
        assert not any(history[1]["d/2.txt"] in blobs.read_range(key) for key in blob_keys(place))
        blobs.close()

    def test_what_it_needs(self, store: Store, tmp_path: Path) -> None:
        history = fill(store, tmp_path, 1)
        digest = Digest.of(history[1]["d/2.txt"])
        with pytest.raises(InvalidInputError, match="needs a reason"):
            store.erase(digest, dry_run=False)
        with pytest.raises(InvalidInputError, match="empty file"):
            store.erase(Digest.of(b""), reason="x", dry_run=False)
        with pytest.raises(InvalidInputError, match="not a digest"):
            store.erase("b3:1", reason="x")
        with pytest.raises(NotFoundError, match="never had"):
            store.erase(Digest.of(b"never"), reason="x", dry_run=False)
        store.erase(digest, reason="first", dry_run=False, show_progress=False)
        store.erase(digest, reason="again", dry_run=False, show_progress=False)
        with pytest.raises(ErasedError, match="first"):
            store.get(NAME).read_bytes("d/2.txt")
