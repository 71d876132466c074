"""Any sequence of calls on a store against a list of plain dicts: every version reads back as the model says, until it expires.

Names expire, bytes are collected, packs made anew, the index is thrown away and made from the container, and all the while every
version that is left holds what the model holds. 200 histories of 50 steps on either database; `make soak` takes more.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import vds
from vds.errors import ConflictError, EntryNotFoundError, InvalidInputError, NotFoundError, VdsError
from vds.store import Store, Transaction, UploadResult, Version

Files = dict[str, bytes]

# Neighbours of "/" in byte order, files against directories, names beyond ASCII.
PATHS = ["a", "a/b", "a/b/c", "a-x", "a0", "d/x", "d/y", "é/ü"]
PLACES = ["", "a", "a/b", "d", "é", "none"]
NAMES = ["team/raw", "team/good"]
TAGS = ["prod", "test"]

bodies = st.sampled_from([b"", b"1", b"22", b"333"])
trees = st.dictionaries(st.sampled_from(PATHS), bodies, min_size=1, max_size=4).filter(lambda files: is_sound(files))
names = st.sampled_from(NAMES)
places = st.sampled_from(PLACES)
picks = st.integers(0, 99)

_numbers = itertools.count(1)


def is_sound(files: Files) -> bool:
    """Return whether no file is a directory too."""
    return not any(other.startswith(path + "/") for path in files for other in files)


def is_under(path: str, place: str) -> bool:
    return not place or path == place or path.startswith(place + "/")


def placed(files: Files, place: str) -> Files:
    return {f"{place}/{path}" if place else path: body for path, body in files.items()}


def seen_from(files: Files, place: str) -> Files:
    """Return the files at or below a place, as seen from there."""
    cut = len(place) + 1 if place else 0
    return {path[cut:] or path.rpartition("/")[2]: body for path, body in files.items() if is_under(path, place)}


class StoreMachine(RuleBasedStateMachine):
    """A store in memory, beside a list of dicts for each namespace and a list of releases.

    Attributes:
        index: the database; None for a file of SQLite.
        expired: the versions whose names are gone, and can be given back.
        collected: those that cannot.
    """

    index: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.url = f"memory://machine-{next(_numbers)}"
        self.scratch = Path(tempfile.mkdtemp(prefix="vds-machine-"))
        self.place = self.index or f"sqlite:///{self.scratch}/index.sqlite"
        self.store = vds.connect(self.url, index=self.place, create=True)
        self.history: dict[str, list[Files]] = {name: [{}] for name in NAMES}
        self.releases: list[tuple[str, int]] = []
        self.tags: dict[str, int] = {}
        self.expired: set[tuple[str, int]] = set()
        self.collected: set[tuple[str, int]] = set()
        self.read: set[tuple[str, int]] = set()  # versions read since something was last done that may move or take bytes

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.scratch)

    @initialize(files=trees)
    def begin(self, files: Files) -> None:
        for name in NAMES:
            self.expect(name, files, lambda n=name: self.store.namespace(n).upload(self.tree(files), show_progress=False))  # type: ignore[misc]

    @rule(name=names, files=trees, place=places)
    def upload(self, name: str, files: Files, place: str) -> None:
        wanted = {**self.latest(name), **placed(files, place)}
        self.expect(name, wanted, lambda: self.store.namespace(name).upload(self.tree(files), place, show_progress=False))

    @rule(name=names, files=trees, place=places)
    def upload_what_is_new(self, name: str, files: Files, place: str) -> None:
        before, ours = self.latest(name), placed(files, place)
        result = self.expect(
            name,
            {**ours, **before},
            lambda: self.store.namespace(name).upload(self.tree(files), place, overwrite=False, show_progress=False),
        )
        if result is not None:
            differing = sorted(path for path in ours if path in before and ours[path] != before[path])
            assert result.changed_but_skipped == differing

    @rule(name=names, files=trees, place=places)
    def mirror(self, name: str, files: Files, place: str) -> None:
        kept = {path: body for path, body in self.latest(name).items() if not is_under(path, place)}
        self.expect(
            name,
            {**kept, **placed(files, place)},
            lambda: self.store.namespace(name).upload(self.tree(files), place, mirror=True, show_progress=False),
        )

    @rule(name=names, source=names, pick=picks, place=places, into=places, mirror=st.booleans())
    def copy(self, name: str, source: str, pick: int, place: str, into: str, mirror: bool) -> None:
        number = pick % len(self.history[source])
        taken = seen_from(self.history[source][number], place)
        ref = f"{source}@{number}/{place}" if place else f"{source}@{number}"
        if self.is_gone(source, number):
            with pytest.raises(NotFoundError):
                self.store.namespace(name).copy(ref, into, mirror=mirror)
            return
        kept = {path: b for path, b in self.latest(name).items() if not (mirror and is_under(path, into))}
        if place and not taken:
            with pytest.raises(EntryNotFoundError):
                self.store.namespace(name).copy(ref, into, mirror=mirror)
            return
        self.expect(
            name,
            {**kept, **placed(taken, into)},
            lambda: self.store.namespace(name).copy(ref, into, mirror=mirror),
        )

    @rule(name=names, pick=picks, place=places)
    def roll_back(self, name: str, pick: int, place: str) -> None:
        number = pick % len(self.history[name])
        if self.is_gone(name, number):
            with pytest.raises(NotFoundError, match="was expired"):
                self.store.namespace(name).rollback(number, place)
            return
        kept = {path: body for path, body in self.latest(name).items() if not is_under(path, place)}
        back = {path: body for path, body in self.history[name][number].items() if is_under(path, place)}
        self.expect(name, {**kept, **back}, lambda: self.store.namespace(name).rollback(number, place))

    @rule(name=names, pick=picks)
    def revert(self, name: str, pick: int) -> None:
        versions = self.history[name]
        number = pick % len(versions)
        if number == 0:
            with pytest.raises(InvalidInputError):
                self.store.namespace(name).revert(0)
            return
        if self.is_gone(name, number) or self.is_gone(name, number - 1):
            with pytest.raises(NotFoundError, match="was expired"):
                self.store.namespace(name).revert(number)
            return
        before, after = versions[number - 1], versions[number]
        changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
        touched = any(
            earlier.get(path) != later.get(path) for earlier, later in itertools.pairwise(versions[number:]) for path in changed
        )
        wanted = {path: body for path, body in self.latest(name).items() if path not in changed}
        wanted.update({path: before[path] for path in changed if path in before})
        try:
            if self.expect(name, wanted, lambda: self.store.namespace(name).revert(number)) is None:
                return  # a conflict, for the one reason or the other
        except ConflictError:
            assert touched
            return
        # What was changed and changed back by versions that are all gone is as if it had not been.
        assert not touched or any(self.is_gone(name, later) for later in range(number + 1, len(versions)))

    @rule(name=names, data=st.data())
    def transact(self, name: str, data: st.DataObject) -> None:
        files = dict(self.latest(name))
        tx = self.store.namespace(name).transaction()
        for _ in range(data.draw(st.integers(1, 4))):
            kind = data.draw(st.sampled_from(["write", "stream", "delete", "move", "part"]))
            path = data.draw(st.sampled_from(PATHS))
            body = data.draw(bodies)
            if kind == "write":
                tx.write_bytes(path, body)
                files[path] = body
            elif kind == "stream":
                with tx.open(path) as file:
                    file.write(body)
                files[path] = body
            elif kind == "part":
                with vds.join(tx.token).part(f"part-{path.replace('/', '-')}") as part:
                    part.write_bytes(f"parts/{path}/p", path.encode())
                files[f"parts/{path}/p"] = path.encode()
            elif kind == "delete":
                place = data.draw(st.sampled_from(PLACES[1:]))
                gone = [p for p in files if is_under(p, place) and not p.startswith("parts/")]
                assert tx.delete(place, missing_ok=True) == len(gone)
                files = {p: b for p, b in files.items() if p not in gone}
            else:
                files = self.move(tx, files, data.draw(st.sampled_from(PLACES[1:])), data.draw(st.sampled_from(PATHS)))
        if self.expect(name, files, lambda: tx.commit()) is None:
            tx.abort()

    def move(self, tx: Transaction, files: Files, source: str, target: str) -> Files:
        moved = {target + path[len(source) :]: body for path, body in files.items() if is_under(path, source)}
        if is_under(source, target) or is_under(target, source):
            with pytest.raises(InvalidInputError):
                tx.move(source, target)
            return files
        if not moved:
            with pytest.raises(EntryNotFoundError):
                tx.move(source, target)
            return files
        tx.move(source, target)
        return {**{path: body for path, body in files.items() if not is_under(path, source)}, **moved}

    @rule(name=names, pick=picks, tag=st.sampled_from(TAGS))
    def tag(self, name: str, pick: int, tag: str) -> None:
        number = pick % len(self.history[name])
        if number == 0:
            with pytest.raises(InvalidInputError):
                self.store.dataset("customers").tag(tag, f"{name}@0")
            return
        if self.is_gone(name, number):
            with pytest.raises(NotFoundError, match="was expired"):
                self.store.dataset("customers").tag(tag, f"{name}@{number}")
            return
        release = self.store.dataset("customers").tag(tag, f"{name}@{number}")
        if (name, number) not in self.releases:
            self.releases.append((name, number))
        assert release.number == self.releases.index((name, number)) + 1
        self.tags[tag] = release.number

    @precondition(lambda self: self.tags)
    @rule(tag=st.sampled_from(TAGS))
    def untag(self, tag: str) -> None:
        if self.tags.pop(tag, None) is not None:
            self.store.dataset("customers").untag(tag)

    @rule(name=names, keep=st.integers(1, 3), is_strict=st.booleans())
    def expire(self, name: str, keep: int, is_strict: bool) -> None:
        versions = self.kept(name)
        tagged = {self.releases[release - 1] for release in self.tags.values()}
        held = tagged if is_strict else set(self.releases)
        wanted = [number for number in versions[:-keep] if (name, number) not in held]
        report = self.store.expire(name, keep_last=keep, keep_tagged=not is_strict, dry_run=False)
        assert [one.number for one in report.versions] == wanted
        self.expired.update((name, number) for number in wanted)

    @rule(name=names, pick=picks)
    def expire_one(self, name: str, pick: int) -> None:
        versions = self.kept(name)
        number = versions[pick % len(versions)] if versions else 0
        if not versions or number == versions[-1]:
            with pytest.raises(InvalidInputError):
                self.store.expire(f"{name}@{number}", dry_run=False)
            return
        self.store.expire(f"{name}@{number}", dry_run=False)
        self.expired.add((name, number))

    @rule(at_once=st.booleans(), repack=st.booleans())
    def collect(self, at_once: bool, repack: bool) -> None:
        foreseen = self.store.gc(repack=repack, max_share=1, show_progress=False)
        report = self.store.gc(False, grace_hours=0 if at_once else 24, repack=repack, max_share=1, show_progress=False)
        assert (report.condemned_keys, report.repacked) == (foreseen.condemned_keys, foreseen.repacked)
        assert report.left == {}
        self.read.clear()
        if at_once:
            self.collected |= self.expired
            self.expired.clear()
            assert report.waiting == 0

    @rule()
    def undo_collection(self) -> None:
        report = self.store.undo_gc()
        restored = {(name, number) for name, numbers in report.restored.items() for number in numbers}
        assert (restored, report.lost) == (self.expired, {})
        self.expired.clear()
        self.read.clear()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = vds.connect(self.url, index=self.place)

    @rule(pick=picks)
    def rebuild(self, pick: int) -> None:
        """Make the index anew from the container, now and then after it was lost: nothing that is left may change."""
        self.store.close()
        self.read.clear()
        if self.index is None and pick % 4 == 0:
            for path in self.scratch.glob("index.sqlite*"):
                path.unlink()
        report = vds.rebuild_index(self.url, index=self.place, show_progress=False)
        assert not report.gaps
        self.store = vds.connect(self.url, index=self.place)
        self.collected |= self.expired
        self.expired.clear()

    @invariant()
    def the_latest_versions_are_the_models(self) -> None:
        for name, versions in self.history.items():
            if len(versions) > 1:
                latest = self.store.namespace(name).latest()
                assert latest.number == len(versions) - 1
                if (name, latest.number) not in self.read:
                    assert contents(latest) == versions[-1]
                    self.read.add((name, latest.number))

    @invariant()
    def the_tags_are_the_models(self) -> None:
        if self.releases:
            shown = self.store.dataset("customers").tags()
            assert {tag: release.number for tag, release in shown.items()} == self.tags

    def expect(self, name: str, wanted: Files, call: Callable[[], UploadResult]) -> UploadResult | None:
        """Make a call that should lead to `wanted`; a clash of file and directory is the one thing that may stop it."""
        versions = self.history[name]
        if not is_sound(wanted):
            with pytest.raises(ConflictError):
                call()
            return None
        result = call()
        assert result.created is (wanted != versions[-1])
        if result.created:
            versions.append(wanted)
        assert (result.version.namespace, result.version.number) == (name, len(versions) - 1)
        return result

    def latest(self, name: str) -> Files:
        return self.history[name][-1]

    def is_gone(self, name: str, number: int) -> bool:
        return (name, number) in self.expired or (name, number) in self.collected

    def kept(self, name: str) -> list[int]:
        return [number for number in range(1, len(self.history[name])) if not self.is_gone(name, number)]

    def tree(self, files: Files) -> Path:
        root = self.scratch / str(next(_numbers))
        for path, body in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(body)
        return root


def contents(version: Version) -> Files:
    return {entry.path: version.read_bytes(entry.path) for entry in version.entries()}


class CheckedMachine(StoreMachine):
    """Looks at the whole history once, at the end."""

    def teardown(self) -> None:
        try:
            for name, versions in self.history.items():
                self.check(self.store, name, versions)
        finally:
            super().teardown()

    def check(self, store: Store, name: str, versions: list[Files]) -> None:
        namespace = store.namespace(name)
        if len(versions) == 1:
            return
        assert [version.number for version in namespace.log()] == self.kept(name)[::-1]
        by_content: dict[str, Files] = {}
        for number, files in enumerate(versions):
            if self.is_gone(name, number):
                with pytest.raises(NotFoundError, match="was expired"):
                    namespace.get(number)
                continue
            version = namespace.get(number)
            assert contents(version) == files
            assert (version.file_count, version.size_bytes) == (len(files), sum(map(len, files.values())))
            assert by_content.setdefault(version.content_digest, files) == files
            if self.is_gone(name, number // 2):
                continue
            base = versions[number // 2]
            differing = [path for path in {*base, *files} if base.get(path) != files.get(path)]
            assert [change.path for change in namespace.diff(number // 2, number)] == sorted(differing, key=str.encode)
        left = [files for number, files in enumerate(versions) if not self.is_gone(name, number)]
        assert len(by_content) == len({tuple(sorted(files.items())) for files in left})


EXAMPLES = int(os.environ.get("VDS_TEST_EXAMPLES", "200"))
STEPS = int(os.environ.get("VDS_TEST_STEPS", "50"))

# Each part draws histories of its own, so that two workers can share them.
PARTS = range(4)

profile = settings(
    max_examples=max(1, EXAMPLES // len(PARTS)),
    stateful_step_count=STEPS,
    deadline=None,
    derandomize="VDS_TEST_EXAMPLES" not in os.environ,  # in CI the same steps every time; a longer run looks for new ones
    print_blob=True,  # what repeats a failure
    # Making a failing history of 50 steps shorter takes many minutes: VDS_TEST_SHRINK=1 does it.
    phases=[phase for phase in Phase if phase is not Phase.shrink or "VDS_TEST_SHRINK" in os.environ],
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def run_part(machine: type[CheckedMachine], part: int) -> None:
    run_state_machine_as_test(seed(part)(machine) if profile.derandomize else machine, settings=profile)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", PARTS)
def test_any_history_on_sqlite(part: int) -> None:
    class OnSqlite(CheckedMachine):
        pass

    run_part(OnSqlite, part)


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", PARTS)
def test_any_history_on_postgresql(database_url: str, part: int) -> None:
    class OnPostgres(CheckedMachine):
        index = database_url  # one database for all of them, as many stores may share one

    run_part(OnPostgres, part)


def test_the_model_itself() -> None:
    """A model that accepts anything would prove nothing."""
    assert is_sound({"a": b"", "a-": b"", "a0": b""})
    assert not is_sound({"a": b"", "a/b": b""})
    assert seen_from({"d/x": b"1", "dx": b"2"}, "d") == {"x": b"1"}
    assert seen_from({"d/x": b"1"}, "d/x") == {"x": b"1"}
    assert placed({"x": b"1"}, "d") == {"d/x": b"1"}
    assert issubclass(ConflictError, VdsError)
