from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3

import vds
from tests.unit.store.trees import write_tree
from vds.engine.doors import Doors
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.files.statcache import StatCache
from vds.index.plan import Area
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.path import EntryPath
from vds.ops import survey as survey_module
from vds.ops.survey import AHEAD_BATCHES, Survey, View
from vds.progress import SilentProgress
from vds.store import Store, Version

_numbers = itertools.count(1)
OLD_NS = 10**18


def digest(body: bytes) -> bytes:
    return blake3(body).digest()


class KnownCache(StatCache):
    """Knows what it is told, and counts the batches it is asked for."""

    def __init__(self, known: Mapping[str, bytes]) -> None:
        super().__init__(b"root", None)
        self.known = known
        self.asked: list[int] = []

    def find(self, files: Sequence[SourceFile]) -> list[bytes | None]:
        self.asked.append(len(files))
        return [self.known.get(file.path) for file in files]


class CountingProgress(SilentProgress):
    def __init__(self) -> None:
        self.files_found = 0
        self.bytes_found = 0
        self.is_scanned = False
        self.told: list[tuple[int, int, int]] = []

    def found(self, files: int, bytes: int) -> None:
        self.files_found += files
        self.bytes_found += bytes

    def scanned(self) -> None:
        self.is_scanned = True

    def hashed(self, files: int, bytes: int, *, saved_bytes: int = 0) -> None:
        self.told.append((files, bytes, saved_bytes))


def made_up(*paths: str) -> list[SourceFile]:
    return [SourceFile(EntryPath(path), "", 3, OLD_NS, OLD_NS, 1, MODE_FILE) for path in paths]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with vds.connect(f"memory://survey-{next(_numbers)}", create=True) as opened:
        yield opened


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return for how long the survey would have slept; nobody waits."""
    delays_s: list[float] = []
    monkeypatch.setattr(survey_module, "time", SimpleNamespace(time_ns=lambda: 2 * OLD_NS, sleep=delays_s.append))
    return delays_s


class Desk:
    """A version, and surveys of sources held against it."""

    def __init__(self, store: Store, tmp_path: Path) -> None:
        self._store = store
        self._tmp_path = tmp_path
        self._name = f"team/raw{next(_numbers)}"
        self.doors: Doors = store._handle.doors
        self.progress = CountingProgress()

    def version(self, bodies: Mapping[str, bytes], *, executable: Sequence[str] = ()) -> Version:
        root = write_tree(self._tmp_path / "version", bodies, executable=executable)
        return self._store.namespace(self._name).upload(root, show_progress=False).version

    def view(self, version: Version, target: str = "", *, mirror: bool = False) -> View:
        area = Area(self.doors.store.id, version._resolved.namespace.id, 0)
        return View(self.doors, area, version.number, target, [] if mirror else None)

    def survey(
        self, files: Sequence[SourceFile], known: Mapping[str, bytes], view: View | None, target: str = ""
    ) -> tuple[Survey, dict[str, bytes | None]]:
        """Look over files and return what needs something: path → digest."""
        survey = Survey(iter(files), target, KnownCache(known), self.progress, view)
        found: dict[str, bytes | None] = {}
        for paths, digests in survey.found():
            assert paths
            found.update(zip([file.path for file in paths], digests, strict=True))
        return survey, found


@pytest.fixture
def desk(store: Store, tmp_path: Path) -> Desk:
    return Desk(store, tmp_path)


BODIES = {"a": b"one", "b/c": b"two", "b/d": b"thr", "e": b"fou"}
KNOWN = {path: digest(body) for path, body in BODIES.items()}


class TestCompare:
    def test_unchanged_files_need_nothing_and_are_counted(self, desk: Desk) -> None:
        survey, found = desk.survey(made_up(*BODIES), KNOWN, desk.view(desk.version(BODIES)))
        assert found == {}
        assert (survey.unchanged, survey.unchanged_bytes) == (4, 12)
        assert desk.progress.told == [(4, 12, 12)]
        assert (desk.progress.files_found, desk.progress.bytes_found, desk.progress.is_scanned) == (4, 12, True)

    def test_what_changed_comes_through(self, desk: Desk) -> None:
        view = desk.view(desk.version(BODIES))
        files = made_up("a", "b/c", "b/d", "e", "new")
        files[1] = files[1]._replace(mode=MODE_EXECUTABLE)
        known = {**KNOWN, "e": digest(b"other"), "new": digest(b"two")}
        del known["b/d"]
        survey, found = desk.survey(files, known, view)
        assert found == {"b/c": digest(b"two"), "b/d": None, "e": digest(b"other"), "new": digest(b"two")}
        assert (survey.unchanged, survey.unchanged_bytes) == (1, 3)

    def test_an_executable_file_is_unchanged_as_one(self, desk: Desk) -> None:
        view = desk.view(desk.version(BODIES, executable=["a"]))
        files = made_up(*BODIES)
        assert desk.survey(files, KNOWN, view)[1] == {"a": KNOWN["a"]}
        files[0] = files[0]._replace(mode=MODE_EXECUTABLE)
        assert desk.survey(files, KNOWN, replace(view, _page=[], _position=0, _after="", _is_ended=False))[1] == {}

    def test_without_a_version_everything_comes_through(self, desk: Desk) -> None:
        survey, found = desk.survey(made_up(*BODIES), {"a": KNOWN["a"]}, None)
        assert found == {"a": KNOWN["a"], "b/c": None, "b/d": None, "e": None}
        assert survey.unchanged == 0

    def test_an_empty_version_holds_nothing(self, desk: Desk) -> None:
        version = desk.version(BODIES)
        view = replace(desk.view(version, mirror=True), version=0)
        assert desk.survey(made_up(*BODIES), KNOWN, view)[1] == KNOWN
        assert view.missing == []

    def test_a_source_without_files(self, desk: Desk) -> None:
        view = desk.view(desk.version(BODIES), mirror=True)
        assert desk.survey([], KNOWN, view)[1] == {}
        assert view.missing == sorted(BODIES)

    def test_missing_paths_are_found_for_a_mirror(self, desk: Desk) -> None:
        view = desk.view(desk.version(BODIES), mirror=True)
        survey, found = desk.survey(made_up("a", "b/cc", "d"), KNOWN, view)
        assert found == {"b/cc": None, "d": None}
        assert view.missing == ["b/c", "b/d", "e"]
        assert survey.unchanged == 1

    def test_nobody_asks_for_missing_paths_otherwise(self, desk: Desk) -> None:
        view = desk.view(desk.version(BODIES))
        desk.survey(made_up("a"), KNOWN, view)
        assert view.missing is None


class TestTarget:
    def test_paths_are_held_against_those_below_the_target(self, desk: Desk) -> None:
        version = desk.version({**{f"to/{path}": body for path, body in BODIES.items()}, "to-do": b"x", "a": b"x", "too/a": b"y"})
        view = desk.view(version, "to", mirror=True)
        survey, found = desk.survey(made_up("a", "b/c", "e"), {**KNOWN, "e": digest(b"other")}, view, "to")
        assert found == {"e": digest(b"other")}
        assert view.missing == ["to/b/d"]
        assert survey.unchanged == 2

    @pytest.mark.parametrize("files", [(), ("a",)])
    def test_a_file_where_the_target_is_to_be_is_missing_from_a_mirror(self, desk: Desk, files: tuple[str, ...]) -> None:
        view = desk.view(desk.version({"to": b"a file", "to-do": b"x", "a": b"one"}), "to", mirror=True)
        survey, found = desk.survey(made_up(*files), KNOWN, view, "to")
        assert found == {path: KNOWN[path] for path in files}
        assert view.missing == ["to"]
        assert survey.unchanged == 0


class TestPages:
    @pytest.mark.parametrize("target", ["", "to"])
    @pytest.mark.parametrize("page_rows", [1, 7, 100])
    @pytest.mark.parametrize("batch_files", [3, 1000])
    def test_a_version_of_many_pages(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, target: str, page_rows: int, batch_files: int
    ) -> None:
        monkeypatch.setattr("vds.index.entries.BATCH_ROWS", page_rows)
        monkeypatch.setattr(survey_module, "BATCH_FILES", batch_files)
        names = [f"{number:02}é" for number in range(20)]
        prefix = f"{target}/" if target else ""
        view = desk.view(desk.version({prefix + name: b"one" for name in names}), target, mirror=True)
        here = sorted([*names[::2], "05x", "07x", "99"])
        survey, found = desk.survey(made_up(*here), {name: digest(b"one") for name in names}, view, target)
        assert list(found) == ["05x", "07x", "99"]
        assert view.missing == [prefix + name for name in names[1::2]]
        assert survey.unchanged == 10

    def test_each_row_is_read_once(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vds.index.entries.BATCH_ROWS", 7)
        real, rows = survey_module.__dict__["read_view_page"], list[int]()

        def read(*arguments: Any) -> list[Any]:
            page: list[Any] = real(*arguments)
            rows.append(len(page))
            return page

        monkeypatch.setattr(survey_module, "read_view_page", read)
        names = [f"{number:02}" for number in range(20)]
        desk.survey(made_up(*names), {}, desk.view(desk.version(dict.fromkeys(names, b"one"))))
        assert rows in ([7, 7, 6], [7, 7, 6, 0])


class TestAhead:
    def take(self, monkeypatch: pytest.MonkeyPatch, batches: int, taken: int) -> tuple[int, CountingProgress]:
        """Return how many batches were scanned when so many had been taken."""
        monkeypatch.setattr(survey_module, "BATCH_FILES", 4)
        scanned = [0]

        def files() -> Iterator[SourceFile]:
            for number in range(4 * batches):
                scanned[0] = number // 4 + 1
                yield made_up(f"{number:06}")[0]

        progress = CountingProgress()
        found = Survey(files(), "", KnownCache({}), progress).found()
        for _ in range(taken):
            next(found)
        return scanned[0], progress

    def test_nothing_is_scanned_before_it_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.take(monkeypatch, 100, 0)[0] == 0

    @pytest.mark.parametrize("taken", [1, 2, 5, AHEAD_BATCHES // 2])
    def test_two_batches_are_scanned_for_each_one_taken(self, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
        assert self.take(monkeypatch, 1000, taken)[0] == 2 * taken

    @pytest.mark.parametrize("taken", [AHEAD_BATCHES + 5, 200, 500])
    def test_the_scan_runs_so_far_ahead_and_no_farther(self, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
        assert taken + AHEAD_BATCHES - 1 <= self.take(monkeypatch, 1000, taken)[0] <= taken + AHEAD_BATCHES + 1

    def test_totals_of_a_small_source_are_known_halfway(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scanned, progress = self.take(monkeypatch, 20, 11)
        assert (scanned, progress.is_scanned, progress.files_found) == (20, True, 80)

    def test_every_file_comes_once_and_in_order(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(survey_module, "BATCH_FILES", 2)
        paths = [f"{number:04}" for number in range(2 * AHEAD_BATCHES + 55)]
        assert list(desk.survey(made_up(*paths), {}, None)[1]) == paths


class TestSettling:
    def test_files_written_just_now_are_waited_for(self, desk: Desk, slept: list[float], tmp_path: Path) -> None:
        [file] = scan_directory(write_tree(tmp_path / "tree", {"a": b"1"}), ScanReport())
        young = file._replace(modified_ns=2 * OLD_NS - 1_000_001, changed_ns=2 * OLD_NS - 1_000_001)
        assert desk.survey([young], {}, None)[1] == {"a": None}
        [slept_s] = slept
        assert 0.015 < slept_s < 0.025

    def test_what_is_old_or_known_is_not(self, desk: Desk, slept: list[float]) -> None:
        [old, young] = made_up("old", "young")
        young = young._replace(modified_ns=2 * OLD_NS - 1_000_001)
        desk.survey([old, young], {"young": digest(b"x")}, None)
        assert slept == []
