"""What a check can mend, where from, and what it leaves alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vds.ops.goodcopies
import vds.ops.mendrecords
from tests.damages import RAW, RUN, Sample, delete, digests_of, flip, flip_at, make_sample, put_in_place, read_all, truncate
from tests.support import Place, write_tree
from vds.blobs.directory import DirectoryDriver
from vds.blobs.objects import stream_key
from vds.blobs.packs import PackBuilder
from vds.errors import AccessDeniedError, InvalidInputError, NotFoundError
from vds.model.digest import Digest
from vds.ops.fsck import FsckReport


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    scratch = tmp_path_factory.mktemp("sample")
    return make_sample(Place(str(scratch / "store")), scratch)


@pytest.fixture
def sample(original: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("VDS_CACHE_MAX", "0")
    return original.copy(tmp_path / "store")


@pytest.fixture
def backup(original: Sample, tmp_path: Path) -> Sample:
    """A copy of the container, without an index."""
    copy = original.copy(tmp_path / "backup")
    shutil.rmtree(copy.root / ".vds-index")
    return copy


def check(sample: Sample, **options: Any) -> FsckReport:
    with sample.place.connect() as store:
        report: FsckReport = store.fsck(chain=True, full=True, show_progress=False, **options)
    return report


def snapshot(root: Path) -> dict[str, bytes]:
    """Return every blob of a container."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".vds-" not in path.relative_to(root).as_posix()
    }


def is_sound(sample: Sample) -> bool:
    with sample.place.connect() as store:
        return read_all(store, sample.versions) == digests_of(sample.versions)


RECORDS: dict[str, Callable[[Sample], Path]] = {
    "a record with a list in a blob": lambda s: s.find("journal/*/0000000000000005").with_name(f"{1:016d}"),
    "a record with a list inline": lambda s: s.find("journal/*/0000000000000005").with_name(f"{2:016d}"),
    "the newest record": lambda s: s.find("journal/*/0000000000000005"),
    "a release": lambda s: s.find("datasets/*/*", 0),
    "a tag's move": lambda s: s.find("datasets/*/*", 1),
    "the first record of the log": lambda s: s.find("store/*", 0),
    "the last record of the log": lambda s: s.find("store/*", 1),
    "a claim": lambda s: s.find("namespaces/*", 0),
    "a change list": lambda s: s.find("changes/*/*"),
    "a checkpoint": lambda s: s.find("checkpoints/*/*"),
}


@pytest.mark.parametrize("what", RECORDS)
def test_what_is_missing_is_written_again_from_the_index(what: str, sample: Sample) -> None:
    path = RECORDS[what](sample)
    before = snapshot(sample.root)
    delete(path)
    assert not check(sample).ok
    report = check(sample, repair=True)
    assert report.ok
    assert {problem.repaired for problem in report.problems if problem.severity == "damage"} == {"written again from the index"}
    assert snapshot(sample.root) == before  # the same bytes, and nothing else
    assert check(sample).counts == {}


@pytest.mark.parametrize("what", RECORDS)
@pytest.mark.parametrize("damage", [truncate, flip])
def test_what_is_damaged_stays_unless_it_may_be_replaced(damage: Callable[[Path], None], what: str, sample: Sample) -> None:
    path = RECORDS[what](sample)
    before = snapshot(sample.root)
    damage(path)
    hurt = snapshot(sample.root)
    report = check(sample, repair=True)
    assert not report.ok
    assert snapshot(sample.root) == hurt
    assert not check(sample, repair=True, replace_damaged=True, dry_run=True).ok
    assert snapshot(sample.root) == hurt
    report = check(sample, replace_damaged=True)
    assert report.ok, report.problems
    assert snapshot(sample.root) == before
    assert check(sample).counts == {}


def test_all_of_them_at_once(sample: Sample, backup: Sample) -> None:
    before = snapshot(sample.root)
    for prefix in ("journal/*", "datasets/*", "store", "namespaces", "changes/*", "checkpoints/*"):
        for path in sample.root.glob(f"{prefix}/*"):
            delete(path)
    report = check(sample, repair=True)
    # Of records of the log each is known by its neighbours: of two in a row nobody but a copy knows.
    assert {problem.key for problem in report.problems if problem.severity == "damage" and not problem.repaired} == {
        backup.key(path) for path in backup.root.glob("store/*")
    }
    report = check(sample, repair_from=backup.root)
    assert report.ok, report.problems
    assert snapshot(sample.root) == before
    assert check(sample).counts == {}


def test_a_list_that_the_index_no_longer_has_comes_from_a_copy(sample: Sample, backup: Sample) -> None:
    """Of a version whose entries are set aside the index has no longer all rows."""
    with sample.place.connect() as store:
        store.expire(f"{RAW}@4", dry_run=False)
        store.gc(dry_run=False, show_progress=False)
    before = snapshot(sample.root)
    record = sample.find("journal/*/0000000000000005").with_name(f"{4:016d}")
    delete(record)
    assert not check(sample, repair=True).ok
    report = check(sample, repair_from=backup.root)
    assert report.ok
    assert [problem.repaired for problem in report.problems if problem.kind == "record-missing"] == ["written again from a copy"]
    assert snapshot(sample.root) == before


def test_a_record_of_the_log_that_the_index_does_not_hold_comes_from_a_copy(sample: Sample, tmp_path: Path) -> None:
    with sample.place.connect() as store:
        store.expire(f"{RAW}@4", dry_run=False, reason="only the log says why")
        store.expire(f"{RAW}@3", dry_run=False, reason="and so")
    backup = sample.copy(tmp_path / "backup")
    for number in (2, 3):
        delete(sample.find("store/*", number) if number == 2 else sample.find("store/*", 2))
    assert not check(sample, repair=True).ok
    report = check(sample, repair_from=backup.root)
    assert report.ok, report.problems
    assert snapshot(sample.root) == snapshot(backup.root)


def test_a_copy_whose_record_is_another_one_is_not_believed(sample: Sample, backup: Sample) -> None:
    with sample.place.connect() as store:
        store.expire(f"{RAW}@4", dry_run=False)
        store.gc(dry_run=False, show_progress=False)
    record = sample.find("journal/*/0000000000000005").with_name(f"{4:016d}")
    delete(record)
    flip(backup.find("journal/*/0000000000000005").with_name(f"{4:016d}"))
    assert not check(sample, repair_from=backup.root).ok
    assert not record.exists()


def test_a_kill_between_deleting_and_writing_is_mended(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sample.find("journal/*/0000000000000005")
    before = snapshot(sample.root)
    flip(path)

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(vds.ops.mendrecords, "put_record", killed)
        with pytest.raises(KilledError):
            check(sample, replace_damaged=True)
    assert not path.exists()
    assert check(sample, repair=True).ok
    assert snapshot(sample.root) == before


def hurt_objects(sample: Sample) -> set[str]:
    """Damage an object of each kind, and return the paths that have them."""
    body = sample.versions[RAW, 5]
    flip(sample.object_file(body["whole"]))
    delete(sample.find("objects/~~/*"))
    pack = sample.pack_file(body["small/00"])
    flip_at(pack, pack.read_bytes().index(body["small/05"]) + 7)
    truncate(sample.pack_file(sample.versions[RUN, 1]["log"]))
    return {"whole", "stream", "small/05", "log"}


def touched(report: FsckReport) -> set[str]:
    return {touch.path for problem in report.problems for touch in problem.touches if not problem.repaired}


def test_objects_come_from_files_of_any_name(sample: Sample, tmp_path: Path) -> None:
    hurt = hurt_objects(sample)
    assert touched(check(sample)) == hurt
    files = sample.versions[RAW, 5] | sample.versions[RUN, 1]
    copies = {f"kept/{number}": body for number, (_, body) in enumerate(sorted(files.items()))}
    write_tree(tmp_path / "files", {**copies, "other": b"of no use", "wrong": files["small/05"][::-1]})
    before = snapshot(sample.root)
    report = check(sample, repair_from=tmp_path / "files")
    assert report.ok, report.problems
    after = snapshot(sample.root)
    assert {key: body for key, body in after.items() if key in before} == before  # fresh keys: nothing was overwritten
    made = after.keys() - before.keys()
    assert sum(key.startswith("objects/~~/") for key in made) == 2
    assert sum(key.startswith("packs/") for key in made) == 1  # the small ones share one
    assert is_sound(sample)
    assert check(sample).ok
    with sample.place.connect() as store:
        assert store.transactions() == []
        store.gc(dry_run=False, grace_hours=0, show_progress=False)
        store.gc(dry_run=False, grace_hours=0, show_progress=False)
    assert is_sound(sample)
    assert check(sample).counts == {}


def test_only_files_that_can_be_it_are_read(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(sample.object_file(sample.versions[RAW, 1]["whole"]))
    right = sample.versions[RAW, 1]["whole"]
    write_tree(tmp_path / "files", {"a": right, "b": right[::-1], "c": right[:-1], "d": b"", "e": right + b"x"})
    hashed: list[str] = []
    hash_file = vds.ops.goodcopies._hash

    def noted(file: Any) -> Any:
        hashed.append(str(file.path))
        return hash_file(file)

    monkeypatch.setattr(vds.ops.goodcopies, "_hash", noted)
    assert check(sample, repair_from=tmp_path / "files").ok
    assert sorted(hashed) == ["a", "b"]


def test_a_file_that_changes_meanwhile_is_no_copy(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurt_objects(sample)
    files = sample.versions[RAW, 5] | sample.versions[RUN, 1]
    root = write_tree(tmp_path / "files", {name.replace("/", "-"): body for name, body in files.items()})
    read = vds.ops.goodcopies._read_file

    def changed(path: str) -> Any:
        body = bytearray(Path(path).read_bytes())
        body[-1] ^= 1
        Path(path).write_bytes(body)
        return read(path)

    monkeypatch.setattr(vds.ops.goodcopies, "_read_file", changed)
    before = snapshot(sample.root)
    report = check(sample, repair_from=root)
    assert not report.ok
    assert touched(report) == {"whole", "stream", "small/05", "log"}
    assert snapshot(sample.root) == before  # not a byte of them was kept


def test_a_file_that_goes_away_meanwhile_is_no_copy(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurt_objects(sample)
    files = sample.versions[RAW, 5] | sample.versions[RUN, 1]
    root = write_tree(tmp_path / "files", {name.replace("/", "-"): body for name, body in files.items()})
    read = vds.ops.goodcopies._read_file

    def gone(path: str) -> Any:
        Path(path).unlink()
        return read(path)

    monkeypatch.setattr(vds.ops.goodcopies, "_read_file", gone)
    assert touched(check(sample, repair_from=root)) == {"whole", "stream", "small/05", "log"}


def test_a_file_that_may_not_be_read_is_no_copy(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(sample.object_file(sample.versions[RAW, 1]["whole"]))
    root = write_tree(tmp_path / "files", {"a": sample.versions[RAW, 1]["whole"], "b": sample.versions[RAW, 1]["whole"]})
    opened = os.open

    def refused(path: Any, *options: Any, **more: Any) -> int:
        if str(path).endswith("files/a"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *options, **more)

    monkeypatch.setattr(os, "open", refused)
    report = check(sample, repair_from=root)
    assert report.ok
    assert any(problem.repaired.endswith("/b") for problem in report.problems)


def test_objects_come_from_another_container(sample: Sample, backup: Sample) -> None:
    hurt_objects(sample)
    kept = snapshot(backup.root)
    report = check(sample, repair_from=str(backup.root))
    assert report.ok, report.problems
    assert is_sound(sample)
    assert snapshot(backup.root) == kept
    assert check(sample).ok


def test_objects_that_the_copy_has_elsewhere(sample: Sample, backup: Sample) -> None:
    """Under another generation of their key, as a stream, in another pack; where they were they are damaged there too."""
    body = sample.versions[RAW, 5]
    hurt_objects(sample)
    whole = backup.object_file(body["whole"])
    shutil.move(whole, whole.with_name(whole.name[:-1] + ("0" if whole.name[-1] != "0" else "1")))
    blobs = DirectoryDriver(backup.root)
    builder = PackBuilder()
    builder.append(Digest.of(body["small/05"]).raw, body["small/05"])
    blobs.put_if_absent("packs/00/01m808s6wdygc02kx52d3pf5p8.pack", builder.finish())
    pack = backup.pack_file(body["small/00"])
    flip_at(pack, pack.read_bytes().index(body["small/05"]) + 7)
    stream = backup.find("objects/~~/*")
    key = stream_key("01m808s6wdygc02kx52d3pf5p8")
    blobs.copy_blob(backup.key(stream), key)
    delete(stream)
    report = check(sample, repair_from=backup.root)
    assert report.ok, report.problems
    where = {problem.repaired.split(" ")[2].partition("/")[0] for problem in report.problems if "copied" in problem.repaired}
    assert where == {"objects", "packs"}
    assert is_sound(sample)


def test_a_copy_that_is_damaged_too_is_of_no_use(sample: Sample, backup: Sample) -> None:
    body = sample.versions[RAW, 5]["whole"]
    flip(sample.object_file(body))
    put_in_place(backup.object_file(body), backup.object_file(sample.versions[RAW, 5]["twin"]))
    before = snapshot(sample.root)
    report = check(sample, repair_from=backup.root)
    assert touched(report) == {"whole"}
    assert snapshot(sample.root) == before


def test_an_object_that_is_nowhere_in_the_index(sample: Sample, backup: Sample) -> None:
    sample.sql("DELETE FROM object WHERE digest = (SELECT digest FROM entry WHERE path = 'whole')")
    report = check(sample)
    assert set(report.counts) == {"object-unplaced"}
    assert touched(report) == {"whole"}
    assert check(sample, repair_from=backup.root).ok
    assert is_sound(sample)


def test_damage_that_nobody_needs_is_forgotten(sample: Sample) -> None:
    """It would keep collection from running for ever."""
    body = sample.versions[RAW, 4]["small/06"]
    with sample.place.connect() as store:
        store.expire(f"{RAW}@4", dry_run=False)
        store.gc(dry_run=False, show_progress=False)
    pack = sample.pack_file(body)
    flip_at(pack, pack.read_bytes().index(body) + 5)
    report = check(sample)
    assert not report.ok
    assert touched(report) == set()
    assert not check(sample, repair=True).ok  # an undo would bring the version back, and need it
    sample.sql("DELETE FROM expired_entry")
    report = check(sample, repair=True)
    assert report.ok, report.problems
    assert {problem.repaired.partition(":")[0] for problem in report.problems} == {"forgotten"}
    with sample.place.connect() as store:
        store.gc(dry_run=False, grace_hours=0, show_progress=False)
    assert is_sound(sample) is False  # the fourth version has expired
    assert check(sample).counts == {}


@pytest.mark.parametrize("damage", ["table", "label"])
def test_what_a_blob_does_not_say_it_holds_is_moved_out(damage: str, sample: Sample) -> None:
    if damage == "table":
        pack = sample.pack_file(sample.versions[RAW, 5]["small/00"])
        pack.write_bytes(pack.read_bytes()[:-20])
    else:
        shutil.rmtree(sample.root / ".vds-meta" / "objects")
    assert is_sound(sample)  # here nothing is lost; to a rebuild it is
    report = check(sample)
    assert "blob-mislabelled" in report.counts
    report = check(sample, repair=True)
    assert report.ok, report.problems
    assert check(sample).counts == {}
    gaps = vds.rebuild_index(sample.place.url, show_progress=False).gaps
    assert {gap.kind for gap in gaps} == {"blob"}  # what is left of the old one: nothing is missed of it
    assert is_sound(sample)


def test_a_dry_run_says_what_could_be_mended(sample: Sample, backup: Sample) -> None:
    hurt_objects(sample)
    delete(sample.find("journal/*/0000000000000005"))
    before, database = snapshot(sample.root), (sample.root / ".vds-index" / "index.sqlite").read_bytes()
    report = check(sample, repair_from=backup.root, dry_run=True)
    assert not report.ok
    assert dict(report.mended) == {}
    details = [problem.detail for problem in report.problems if problem.kind in ("object-damaged", "record-missing")]
    assert len(details) == 5
    assert all("it can be copied from" in detail or "it can be written again from the index" in detail for detail in details)
    assert snapshot(sample.root) == before
    assert (sample.root / ".vds-index" / "index.sqlite").read_bytes() == database
    with vds.connect(sample.place.url, read_only=True) as store:
        assert store.fsck(repair_from=backup.root, dry_run=True, show_progress=False).counts["record-missing"] == 1
        with pytest.raises(AccessDeniedError):
            store.fsck(repair_from=backup.root, show_progress=False)


def test_a_place_that_is_none(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no directory"):
        check(sample, repair_from=tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InvalidInputError, match="no directory"):
        check(sample, repair_from=tmp_path / "file")
    with pytest.raises(NotFoundError, match="not a vds store"):
        check(sample, repair_from="memory://nobody-made-it")
    (tmp_path / "half" / "format").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="not a vds store"):
        check(sample, repair_from=tmp_path / "half")


def test_a_directory_of_a_plain_name(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that could be a store's name in vds.toml is a directory here."""
    flip(sample.object_file(sample.versions[RAW, 1]["whole"]))
    write_tree(tmp_path / "originals", {"a": sample.versions[RAW, 1]["whole"]})
    monkeypatch.chdir(tmp_path)
    assert check(sample, repair_from="originals").ok


def test_the_right_to_delete_is_needed_for_replacing_alone(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> bool:
        raise AccessDeniedError("no right to delete")

    monkeypatch.setattr(DirectoryDriver, "delete_blob", refused)
    delete(sample.find("datasets/*/*", 1))
    delete(sample.find("changes/*/*"))
    assert check(sample, repair=True).ok
    truncate(sample.find("datasets/*/*", 1))
    before = snapshot(sample.root)
    with pytest.raises(AccessDeniedError):
        check(sample, replace_damaged=True)
    assert snapshot(sample.root) == before
