"""What a check reads, what it keeps of what it finds, and how it goes on after a kill."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import vds.ops.checkbytes
from tests.damages import RAW, RUN, Sample, delete, flip, make_sample
from tests.support import Place, write_tree
from vds.blobs.directory import DirectoryDriver
from vds.blobs.driver import Blob
from vds.blobs.packs import PACK_BYTES_MAX
from vds.engine.doors import Doors
from vds.errors import ConflictError, InvalidInputError
from vds.files.fsckprogress import FsckProgress, progress_directory
from vds.index.inspect import BlobRow
from vds.ops.damagenotes import BlobVerdict
from vds.ops.findings import HINTS, KINDS, PROBLEMS_MAX, Findings, Problem
from vds.ops.fsck import SAVE_EVERY_S, SHARDS_MAX, FsckReport, FsckTerms, fsck
from vds.progress import SilentProgress

ALL_BLOBS = 10
"""Of the sample: two lists, three whole objects, five packs."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    scratch = tmp_path_factory.mktemp("sample")
    return make_sample(Place(str(scratch / "store")), scratch)


@pytest.fixture
def sample(original: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return original.copy(tmp_path / "store")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The key of every read of a blob's bytes."""
    keys: list[str] = []
    read_range = DirectoryDriver.read_range

    def counted(self: DirectoryDriver, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        keys.append(key)
        return read_range(self, key, offset_bytes, length_bytes)

    monkeypatch.setattr(DirectoryDriver, "read_range", counted)
    return keys


def check(sample: Sample, terms: FsckTerms, *, seconds: Iterator[float] | None = None) -> FsckReport:
    """Check, with a clock that shows these seconds, or that stands still."""
    clock = itertools.repeat(0.0) if seconds is None else seconds
    with sample.place.connect() as store:
        return fsck(store._handle.doors, terms, SilentProgress(), clock=lambda: next(clock))


def is_of_objects(key: str) -> bool:
    return key.startswith(("objects/", "packs/"))


@pytest.mark.parametrize(
    ("terms", "match"),
    [
        (FsckTerms(sample=0.0), "not a share"),
        (FsckTerms(sample=-1.0), "not a share"),
        (FsckTerms(sample=1.000001), "not a share"),
        (FsckTerms(sample=float("nan")), "not a share"),
        (FsckTerms(shard=(0, 7)), "not a shard"),
        (FsckTerms(shard=(8, 7)), "not a shard"),
        (FsckTerms(shard=(1, SHARDS_MAX + 1)), "not a shard"),
        (FsckTerms(full=True, sample=0.5), "full reads everything"),
        (FsckTerms(full=True, shard=(1, 2)), "full reads everything"),
        (FsckTerms(structure=False), "nothing is to be checked"),
    ],
)
def test_terms_that_make_no_sense(terms: FsckTerms, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        terms.check()
    assert caught.value.hint


def test_terms_at_their_limits() -> None:
    for terms in (FsckTerms(sample=1.0), FsckTerms(sample=1e-9), FsckTerms(shard=(7, 7)), FsckTerms(shard=(1, SHARDS_MAX))):
        assert terms.check() is terms
    assert FsckTerms(structure=False, chain=True).check().reads_bytes is False


def test_the_daily_check_reads_records_and_no_object(sample: Sample, reads: list[str]) -> None:
    report = check(sample, FsckTerms())
    assert (report.ok, report.examined.objects, report.examined.lists) == (True, 0, 0)
    assert report.examined.blobs == ALL_BLOBS
    assert not any(map(is_of_objects, reads))
    assert not any(key.startswith(("changes/", "checkpoints/")) for key in reads)
    assert len([key for key in reads if key.startswith("journal/")]) == 6


def test_the_chain_reads_every_list_and_no_object(sample: Sample, reads: list[str]) -> None:
    report = check(sample, FsckTerms(structure=False, chain=True))
    assert (report.ok, report.examined.lists, report.examined.blobs) == (True, 7, 0)
    assert {key.partition("/")[0] for key in reads} == {
        "format",
        "store",
        "namespaces",
        "journal",
        "changes",
        "checkpoints",
        "datasets",
    }


def test_all_bytes_are_read_once(sample: Sample, reads: list[str]) -> None:
    report = check(sample, FsckTerms(structure=False, full=True))
    assert report.ok
    assert sorted(filter(is_of_objects, reads)) == sorted(
        key for key in {sample.key(path) for path in sample.root.rglob("*") if path.is_file()} if is_of_objects(key)
    )
    assert not any(key.startswith("journal/") for key in reads)


def test_shards_are_all_and_each_once(sample: Sample, reads: list[str]) -> None:
    read: list[set[str]] = []
    for number in range(1, 4):
        reads.clear()
        check(sample, FsckTerms(structure=False, shard=(number, 3)))
        read.append(set(reads))
        reads.clear()
        check(sample, FsckTerms(structure=False, shard=(number, 3)))
        assert set(reads) == read[-1]  # the same again
    everything = set().union(*read)
    assert len([key for key in everything if key.startswith(("objects/", "packs/", "changes/", "checkpoints/"))]) == ALL_BLOBS
    assert sum(len(keys - {"format/0000000000000001"}) for keys in read) == ALL_BLOBS


def test_a_sample_is_chosen_by_its_seed(sample: Sample, reads: list[str]) -> None:
    chosen: set[frozenset[str]] = set()
    for number in range(8):
        reads.clear()
        report = check(sample, FsckTerms(structure=False, sample=0.4, seed=f"seed {number}"))
        assert report.seed == f"seed {number}"
        once = frozenset(reads)
        reads.clear()
        check(sample, FsckTerms(structure=False, sample=0.4, seed=f"seed {number}"))
        assert frozenset(reads) == once
        chosen.add(once)
    assert len(chosen) > 4
    seeds = {check(sample, FsckTerms(structure=False, sample=0.4)).seed for _ in range(2)}
    assert len(seeds) == 2


def test_a_sample_that_is_none_takes_one(sample: Sample, reads: list[str]) -> None:
    report = check(sample, FsckTerms(structure=False, sample=1e-9, seed="x"))
    assert report.ok
    assert len({key for key in reads if not key.startswith("format/")}) == 1


def test_a_sample_of_all_is_all(sample: Sample) -> None:
    assert (
        check(sample, FsckTerms(structure=False, sample=1.0)).examined
        == check(sample, FsckTerms(structure=False, full=True)).examined
    )


class KilledError(BaseException):
    """Stands for the end of the process."""


def kill_after(monkeypatch: pytest.MonkeyPatch, blobs: int) -> list[str]:
    """Let the process die when it is about to read one blob more, and return the keys of those it read."""
    read: list[str] = []
    read_blob = vds.ops.checkbytes.read_blob

    def dying(doors: Doors, row: BlobRow, blob: Blob) -> BlobVerdict:
        if len(read) == blobs:
            raise KilledError
        read.append(row.key)
        return read_blob(doors, row, blob)

    monkeypatch.setattr(vds.ops.checkbytes, "read_blob", dying)
    monkeypatch.setattr(vds.ops.checkbytes, "WORKERS", 1)
    return read


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("killed_after", [0, 1, 2, 6, ALL_BLOBS - 1])
def test_a_killed_check_goes_on(killed_after: int, dry_run: bool, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(sample.find("changes/*/*"))  # the first of all
    flip(sample.pack_file(sample.versions[RAW, 1]["small/00"]))
    whole = check(sample, FsckTerms(full=True, resume=False, dry_run=dry_run))
    with monkeypatch.context() as patch:
        patch.setattr(vds.ops.checkbytes, "HELD_BYTES_MAX", 1)  # one blob at a time
        first = kill_after(patch, killed_after)
        with pytest.raises(KilledError):
            check(sample, FsckTerms(full=True, dry_run=dry_run), seconds=itertools.count(0.0, SAVE_EVERY_S))
    with monkeypatch.context() as patch:
        second = kill_after(patch, 1000)
        report = check(sample, FsckTerms(full=True, dry_run=dry_run))
    assert report.resumed is (killed_after > 0)
    assert report.counts == whole.counts == {"object-damaged": 1, "list-damaged": 1}
    assert report.problems == whole.problems
    # What was done is not done again, but for what was found damaged; and nothing is left out.
    assert set(first) & set(second) <= {problem.key for problem in report.problems}
    assert {*first, *second} == {sample.key(path) for path in sample.root.glob("*/*/*") if path.parts[-3] in KINDS_OF_BLOBS}
    assert not report.ok
    again = check(sample, FsckTerms(full=True))
    assert not again.resumed  # the one before came to its end


KINDS_OF_BLOBS = ("objects", "packs", "changes", "checkpoints")


def test_a_check_of_another_kind_begins_anew(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(vds.ops.checkbytes, "HELD_BYTES_MAX", 1)
        kill_after(patch, 5)
        with pytest.raises(KilledError):
            check(sample, FsckTerms(full=True), seconds=itertools.count(0.0, SAVE_EVERY_S))
    assert not check(sample, FsckTerms(shard=(1, 1))).resumed
    assert not check(sample, FsckTerms(full=True, resume=False)).resumed
    (file,) = (sample.root.parent / "data").rglob("*-full.json")
    state = json.loads(file.read_text())
    file.write_text(json.dumps({**state, "incarnation": "another"}))
    assert not check(sample, FsckTerms(full=True)).resumed


@pytest.mark.parametrize("change", [{"after": 7}, {"again": 5}, {"objects": "many"}, {"size_bytes": None}])
def test_a_state_that_is_none_begins_anew(change: dict[str, object], sample: Sample) -> None:
    with sample.place.connect() as store:
        doors = store._handle.doors
        state = {"incarnation": doors.store.incarnation, "after": "packs/", "again": [], "objects": 0, "size_bytes": 0}
        with FsckProgress(progress_directory(), doors.store.uid, "full") as kept:
            kept.save({**state, **change})
    report = check(sample, FsckTerms(full=True))
    assert report.resumed is (change == {"after": 7})  # which is a text as good as any
    assert report.ok


def test_two_long_checks_at_once(sample: Sample) -> None:
    with sample.place.connect() as store:
        uid = store.id
    with FsckProgress(progress_directory(), uid, "full"):
        with pytest.raises(ConflictError, match="another vds fsck"):
            check(sample, FsckTerms(full=True))
        assert check(sample, FsckTerms(full=True, resume=False)).ok
        assert check(sample, FsckTerms(sample=0.5)).ok


def test_a_pack_that_is_cut_loses_what_is_gone_and_no_more(sample: Sample) -> None:
    small = sample.versions[RAW, 1]
    path = sample.pack_file(small["small/05"])
    body = path.read_bytes()
    keep = body.index(small["small/03"]) + len(small["small/03"])
    path.write_bytes(body[:keep])
    report = check(sample, FsckTerms())  # the size shows in a listing; what is left is looked at then
    touched = {touch.path for problem in report.problems for touch in problem.touches}
    after = {name for name in small if name.startswith("small/") and body.index(small[name]) >= keep}
    assert touched == after
    assert report.counts == {"blob-differs": 1, "blob-mislabelled": 1, "object-damaged": len(after)}


def test_a_pack_that_is_far_too_long(sample: Sample) -> None:
    path = sample.pack_file(sample.versions[RUN, 1]["log"])
    with open(path, "r+b") as file:
        file.truncate(PACK_BYTES_MAX + 1)
    report = check(sample, FsckTerms())
    assert report.counts == {"blob-differs": 1, "blob-mislabelled": 1}  # the object in it is whole


def test_bytes_that_nobody_could_check_are_told(sample: Sample) -> None:
    """The check of a body in a pack's table is of no use to readers here, and to a rebuild it is."""
    path = sample.pack_file(sample.versions[RUN, 1]["log"])
    body = bytearray(path.read_bytes())
    body[-60] ^= 1  # in the last eight bytes of the only row
    path.write_bytes(body)
    report = check(sample, FsckTerms(full=True))
    assert "blob-mislabelled" in report.counts
    assert "object-damaged" not in report.counts


def test_what_leaves_use_while_it_is_read_is_not_judged(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sample.object_file(sample.versions[RAW, 1]["whole"])
    key = sample.key(path)
    read_objects = vds.ops.checkbytes._read_objects

    def collected_meanwhile(doors: Doors, row: BlobRow, blob: Blob) -> BlobVerdict:
        if row.key == key:
            sample.sql("UPDATE blob SET state = 'deleting' WHERE key = :key", key=key)
            delete(path)
        return read_objects(doors, row, blob)

    monkeypatch.setattr(vds.ops.checkbytes, "_read_objects", collected_meanwhile)
    report = check(sample, FsckTerms(structure=False, full=True))
    assert report.counts == {}


def test_what_leaves_use_while_it_is_looked_at_again_is_no_finding(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sample.object_file(sample.versions[RAW, 1]["whole"])
    key = sample.key(path)
    find_blob = DirectoryDriver.find_blob
    found: list[str] = []

    def collected_meanwhile(self: DirectoryDriver, asked: str) -> Blob | None:
        if asked == key:
            found.append(asked)
            if len(found) == 2:  # the first time it is listed: too late, or so it seems
                sample.sql("UPDATE blob SET state = 'deleting' WHERE key = :key", key=key)
            return None
        return find_blob(self, asked)

    monkeypatch.setattr(DirectoryDriver, "find_blob", collected_meanwhile)
    report = check(sample, FsckTerms(structure=False, shard=(1, 1)))
    assert (len(found), report.counts) == (2, {})


@pytest.mark.parametrize("collects", [False, True])
def test_what_is_written_while_it_is_checked_is_no_finding(
    collects: bool, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads, then collections too, between the reading of the index and the listing of the container, at every listing."""
    list_blobs = DirectoryDriver.list_blobs
    numbers = itertools.count()
    source = sample.root.parent / "more"

    def work(store: vds.Store, number: int) -> None:
        store.namespace(f"new/{number}").upload(source, show_progress=False)
        made = store.namespace(RAW).upload(source, show_progress=False).version
        if not collects:
            store.dataset("customers").register(RAW, tags=[f"t{number}"])
            return
        if made.number > 6:
            store.expire(f"{RAW}@{made.number - 1}", dry_run=False)
        store.gc(dry_run=False, grace_hours=0, show_progress=False)

    def listed(self: DirectoryDriver, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        if prefix != "format/":
            number = next(numbers)
            monkeypatch.setattr(DirectoryDriver, "list_blobs", list_blobs)
            write_tree(source, {f"f{number}": b"%d" % number * 99, "large": b"%d" % number * 1_100_000})
            with sample.place.connect() as store:
                work(store, number)
            monkeypatch.setattr(DirectoryDriver, "list_blobs", listed)
        return list_blobs(self, prefix, start_after)

    with sample.place.connect() as store:
        monkeypatch.setattr(DirectoryDriver, "list_blobs", listed)
        report = store.fsck(chain=True, full=True, resume=False, show_progress=False)
    assert next(numbers) >= 8
    assert set(report.counts) <= {"check-skipped"}, report.problems
    monkeypatch.setattr(DirectoryDriver, "list_blobs", list_blobs)
    assert check(sample, FsckTerms(chain=True, full=True)).counts == {}


class TestFindings:
    def test_the_same_thing_counts_once(self) -> None:
        findings = Findings()
        for _ in range(2):
            findings.add("blob-missing", "packs/1", "one")
            findings.add("object-damaged", "packs/1", "one", digest=b"1" * 32)
            findings.add("object-damaged", "packs/2", "the same object elsewhere", digest=b"1" * 32)
            findings.add("blob-pending", detail="3 blobs")
            findings.add("blob-pending", detail="4 blobs")
        assert dict(findings.counts) == {"blob-missing": 1, "object-damaged": 1, "blob-pending": 2}

    def test_of_each_kind_so_many_are_kept_and_all_are_counted(self) -> None:
        findings = Findings()
        for number in range(PROBLEMS_MAX + 1):
            findings.add("blob-orphan", f"packs/{number}")
            if number < PROBLEMS_MAX:
                findings.add("blob-missing", f"packs/{number}")
        assert dict(findings.counts) == {"blob-orphan": PROBLEMS_MAX + 1, "blob-missing": PROBLEMS_MAX}
        assert len(findings.of("blob-orphan")) == len(findings.of("blob-missing")) == PROBLEMS_MAX

    def test_garbage_and_notes_are_no_damage(self) -> None:
        findings = Findings()
        for kind, (severity, _) in KINDS.items():
            if severity != "damage":
                findings.add(kind, "key")
        assert findings.is_well
        findings.add("blob-missing", "key")
        assert not findings.is_well

    def test_what_is_mended_is_damage_no_more(self) -> None:
        findings = Findings()
        findings.add("blob-missing", "1")
        findings.add("blob-missing", "2")
        findings.mend("blob-missing", "1", how="by hand")
        findings.mend("blob-missing", "1", how="again")
        findings.mend("blob-missing", "3", how="never found")
        assert not findings.is_well
        assert [problem.repaired for problem in findings.of("blob-missing")] == ["by hand", ""]
        findings.mend("blob-missing", "2", how="by hand")
        assert findings.is_well
        assert findings.mended == findings.counts

    def test_what_is_mended_beyond_what_is_kept(self) -> None:
        findings = Findings()
        for number in range(PROBLEMS_MAX + 5):
            findings.add("blob-replaced", f"packs/{number}")
        for number in range(PROBLEMS_MAX + 5):
            assert not findings.is_well
            findings.mend("blob-replaced", f"packs/{number}", how="read")
        assert findings.is_well

    def test_damage_comes_first(self) -> None:
        findings = Findings()
        findings.add("blob-orphan", "packs/1")
        findings.add("object-damaged", "packs/2", digest=b"2" * 32)
        findings.add("object-damaged", "packs/1", digest=b"1" * 32)
        found = list(findings.problems())
        assert [problem.severity for problem in found] == ["damage", "damage", "garbage"]
        assert [problem.key for problem in found] == ["packs/1", "packs/2", "packs/1"]
        assert findings.digests_of("object-damaged") == [b"2" * 32, b"1" * 32]

    def test_a_digest_of_any_length(self) -> None:
        findings = Findings()
        findings.add("object-unplaced", digest=b"short")
        assert findings.digests_of("object-unplaced") == [b"short"]

    def test_every_kind_says_how_bad_it_is(self) -> None:
        assert {severity for severity, _ in KINDS.values()} == {"damage", "garbage", "note"}
        assert set(HINTS) <= set(KINDS)
        assert Problem("blob-orphan").severity == "garbage"
        with pytest.raises(AssertionError):
            Findings().add("unheard-of")
