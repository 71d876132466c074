from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.ops.stored import MODIFIED_NS, Stored
from tests.unit.ops.test_download import Counting, tree
from vds.errors import ConflictError, ExportError, InvalidInputError, NoSpaceError, UnavailableError
from vds.model.digest import Digest
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE, Entry
from vds.model.manifest import ContentHasher
from vds.model.path import entry_path
from vds.ops.export import ExportPlan, ExportResult, Origin, export, plan_export
from vds.ops.exporting import FOREIGN_NAMED_MAX, MARKER_PATH, Seen
from vds.progress import SilentProgress

FILES = {"a/1": b"one", "a/2": b"two", "b": b"", "c/데이터 %": b"one", "z": b"zz"}
ORIGIN = Origin("vds://team/raw@3/", "team/raw", 3, "", Digest.of(b"history"), datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC))


def run(stored: Stored, entries: list[Entry], url: Path | str, origin: Origin = ORIGIN, **options: object) -> ExportResult:
    return export(stored.source, origin, entries, url, SilentProgress(), **options)  # type: ignore[arg-type]


def content(root: Path) -> dict[str, bytes]:
    return {path: body for path, body in tree(root).items() if path != MARKER_PATH}


def test_files_and_a_marker_that_says_what_they_are(tmp_path: Path) -> None:
    stored, dst, progress = Stored(), tmp_path / "new" / "dst", Counting()
    entries = stored.version(FILES, executable=["z"])
    times = iter([10.0, 12.5])
    result = export(stored.source, ORIGIN, entries, str(dst), progress, clock=lambda: next(times))
    assert content(dst) == FILES
    assert sorted(os.listdir(dst)) == sorted([MARKER_PATH, "a", "b", "c", "z"])
    assert (result.url, result.files, result.placed, result.bytes, result.skipped) == (dst.as_uri(), 5, 5, 11, 0)
    assert (result.copied, result.foreign_count, result.seconds, result.dry_run) == (0, 0, 2.5, False)
    assert stored.driver.requests["read"] == 1
    assert progress.stages == [("comparing", 5, None), ("exporting", 5, 11)]
    assert (progress.files, progress.bytes) == (5, 11)
    hasher = ContentHasher()
    for entry in entries:
        hasher.add(entry.path, entry.digest.raw, entry.mode)
    assert json.loads((dst / MARKER_PATH).read_bytes()) == {
        "uri": "vds://team/raw@3/",
        "namespace": "team/raw",
        "version": 3,
        "path": "",
        "digest": ORIGIN.digest,
        "created_at": "2026-03-01T12:00:00.123456Z",
        "content_digest": Digest.from_raw(hasher.digest()),
        "files": 5,
        "bytes": 11,
    }
    assert (dst / MARKER_PATH).stat().st_mtime == pytest.approx(ORIGIN.created_at.timestamp(), abs=1)
    assert (dst / "z").stat().st_mtime_ns == MODIFIED_NS
    if os.name != "nt":
        assert (dst / "z").stat().st_mode & 0o100


def test_the_same_version_has_the_same_marker_anywhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stored = Stored()
        run(stored, stored.version(FILES), tmp_path / name)
    assert (tmp_path / "one" / MARKER_PATH).read_bytes() == (tmp_path / "two" / MARKER_PATH).read_bytes()


def test_again_reads_no_blob_and_writes_nothing(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version(FILES)
    run(stored, entries, tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    stored.driver.requests.clear()
    result = run(stored, entries, tmp_path)
    assert (result.placed, result.bytes, result.skipped) == (0, 0, 5)
    assert stored.driver.requests == {}
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_a_marker_that_is_missing_or_another_is_written_anew(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version(FILES)
    run(stored, entries, tmp_path)
    marker = (tmp_path / MARKER_PATH).read_bytes()
    (tmp_path / MARKER_PATH).unlink()
    run(stored, entries, tmp_path)
    assert (tmp_path / MARKER_PATH).read_bytes() == marker
    run(stored, entries, tmp_path, replace(ORIGIN, number=4))
    assert json.loads((tmp_path / MARKER_PATH).read_bytes())["version"] == 4


def test_other_content_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    stored = Stored()
    run(stored, stored.version(FILES), tmp_path)
    marker = (tmp_path / MARKER_PATH).read_bytes()
    changed = {**FILES, "a/1": b"ONE", "z": b"longer", "new": b"new"}
    entries = stored.version(changed)
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match="'a/1', 'z'") as caught:
            run(stored, entries, tmp_path, dry_run=dry_run)
        assert caught.value.paths == ("a/1", "z")
        assert "--overwrite" in caught.value.hint
    assert content(tmp_path) == FILES
    assert (tmp_path / MARKER_PATH).read_bytes() == marker
    result = run(stored, entries, tmp_path, replace(ORIGIN, number=4), overwrite=True)
    assert (result.placed, result.skipped) == (3, 3)
    assert content(tmp_path) == changed


def test_many_conflicts_are_cut(tmp_path: Path) -> None:
    stored = Stored()
    files = {f"{i:03}": b"x" for i in range(150)}
    run(stored, stored.version(files), tmp_path)
    with pytest.raises(ConflictError, match="and 140 more") as caught:
        run(stored, stored.version(dict.fromkeys(files, b"y")), tmp_path)
    assert len(caught.value.paths) == 100


def test_files_that_are_not_of_the_version_stay_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "x").write_bytes(b"x")
    (tmp_path / "README").write_bytes(b"mine")
    stored = Stored()
    result = run(stored, stored.version(FILES), tmp_path)
    assert (result.foreign_count, result.plan.foreign) == (2, ("README", "old/x"))
    assert content(tmp_path) == {**FILES, "README": b"mine", "old/x": b"x"}


def test_foreign_files_are_named_up_to_a_limit() -> None:
    seen = Seen()
    for i in range(FOREIGN_NAMED_MAX + 1):
        seen.add_foreign(str(i))
    assert (len(seen.foreign), seen.foreign_count) == (FOREIGN_NAMED_MAX, FOREIGN_NAMED_MAX + 1)


def test_an_export_that_stops_leaves_no_marker_and_goes_on(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version(FILES)
    run(stored, entries, tmp_path)
    newer = stored.version({**FILES, "z": b"newer"})
    stored.driver.down = True
    with pytest.raises(UnavailableError):
        run(stored, newer, tmp_path, overwrite=True)
    assert content(tmp_path) == FILES
    assert not (tmp_path / MARKER_PATH).exists()
    stored.driver.down = False
    result = run(stored, newer, tmp_path, overwrite=True)
    assert (result.placed, result.skipped) == (1, 4)
    assert (tmp_path / MARKER_PATH).exists()


def test_a_damaged_object_fails_alone_and_leaves_no_marker(tmp_path: Path) -> None:
    stored = Stored()
    entries = stored.version(FILES)
    placement = stored.placements[Digest.of(b"two").raw]
    stored.driver.damaged[placement.key] = placement.offset_bytes
    with pytest.raises(ExportError, match="a/2: object") as caught:
        run(stored, entries, tmp_path)
    assert caught.value.failures.keys() == {"a/2"}
    assert "goes on from here" in caught.value.hint
    assert content(tmp_path) == {path: body for path, body in FILES.items() if path != "a/2"}
    assert not (tmp_path / MARKER_PATH).exists()


def test_patterns_choose(tmp_path: Path) -> None:
    stored = Stored()
    result = run(stored, stored.version(FILES), tmp_path, allow_patterns=["a/*", "z"], ignore_patterns="a/2")
    assert content(tmp_path) == {"a/1": b"one", "z": b"zz"}
    assert result.files == json.loads((tmp_path / MARKER_PATH).read_bytes())["files"] == 2


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    stored, dst = Stored(), tmp_path / "dst"
    result = run(stored, stored.version(FILES), dst, dry_run=True)
    assert (result.placed, result.bytes, result.dry_run) == (5, 11, True)
    assert [entry.path for entry in result.plan.to_add] == sorted(FILES)
    assert not dst.exists()
    assert stored.driver.requests["read"] == 0


def test_an_empty_version_is_a_marker(tmp_path: Path) -> None:
    assert run(Stored(), [], tmp_path / "dst").files == 0
    assert os.listdir(tmp_path / "dst") == [MARKER_PATH]


@pytest.mark.parametrize("path", [MARKER_PATH, f"{MARKER_PATH}/x"])
def test_a_version_that_has_the_markers_name(tmp_path: Path, path: str) -> None:
    stored = Stored()
    entries = stored.version({path: b"theirs", "a": b"a"})
    with pytest.raises(InvalidInputError, match="where the marker of an export goes") as caught:
        run(stored, entries, tmp_path / "dst")
    assert "--ignore" in caught.value.hint
    assert not (tmp_path / "dst").exists()
    assert run(stored, entries, tmp_path / "dst", ignore_patterns=f"{MARKER_PATH}*").files == 1


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_store_is_no_target(tmp_path: Path, below: str) -> None:
    record = tmp_path / "store" / "format" / "0000000000000001"
    record.parent.mkdir(parents=True)
    record.write_bytes(b"{}")
    stored = Stored()
    with pytest.raises(InvalidInputError, match="lie in one another"):
        run(stored, stored.version(FILES), tmp_path / "store" / below)
    assert tree(tmp_path) == {"store/format/0000000000000001": b"{}"}


def test_what_holds_the_store_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored()
    monkeypatch.setattr(type(stored.driver), "url", (tmp_path / "deep" / "store").as_uri())
    for target in (tmp_path, tmp_path / "deep", tmp_path / "deep" / "store"):
        with pytest.raises(InvalidInputError, match="lie in one another"):
            run(stored, stored.version(FILES), target)
    assert run(stored, stored.version(FILES), tmp_path / "deep" / "stored").placed == 5


def test_a_path_is_a_directory_and_a_word_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored = Stored()
    for url in (Path("one"), "./two", (tmp_path / "three").as_uri()):
        assert run(stored, stored.version(FILES), url).placed == 5
    assert sorted(os.listdir(tmp_path)) == ["one", "three", "two"]


@pytest.mark.parametrize(("url", "reason"), [("plain", "is a name"), ("memory://no-place", "memory of this process")])
def test_what_is_no_place(url: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        run(Stored(), [], url)


def test_names_that_a_directory_does_not_hold(tmp_path: Path) -> None:
    stored = Stored()
    with pytest.raises(ExportError, match="keeps its own records") as caught:
        run(stored, stored.version({".vds/x": b"x", "a": b"a"}), tmp_path / "dst")
    assert caught.value.failures.keys() == {".vds/x"}
    assert not (tmp_path / "dst").exists()


def test_a_full_disk_is_found_before_the_first_byte(tmp_path: Path) -> None:
    stored = Stored()
    run(stored, stored.version({"a": b"a"}), tmp_path)
    before = tree(tmp_path)
    huge = Entry(entry_path("huge"), Digest.of(b"huge"), 1 << 62, MODE_FILE, MODIFIED_NS)
    with pytest.raises(NoSpaceError) as caught:
        run(stored, [*stored.version({"a": b"a"}), huge], tmp_path, replace(ORIGIN, number=4))
    assert caught.value.needed_bytes == 1 << 62
    assert tree(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="modes are not kept")
def test_another_mode_is_other_content(tmp_path: Path) -> None:
    stored = Stored()
    run(stored, stored.version({"run": b"#!"}), tmp_path)
    entries = stored.version({"run": b"#!"}, executable=["run"])
    with pytest.raises(ConflictError):
        run(stored, entries, tmp_path)
    run(stored, entries, tmp_path, overwrite=True)
    assert (tmp_path / "run").stat().st_mode & 0o100


def test_the_plan_is_decided_without_looking() -> None:
    entries = [Entry(entry_path(path), Digest.of(b""), 0, MODE_EXECUTABLE, 0) for path in ("a", "b", "c")]
    seen = Seen(equal={"b"}, other={"c": "etag"}, foreign=["x"], foreign_count=1)
    assert plan_export(entries, seen) == ExportPlan((entries[0],), (entries[2],), (entries[1],), ("x",))
