"""Any sequence of calls on a store against a list of plain dicts: every version reads back as the model says, for ever."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import vds
from vds.errors import ConflictError, EntryNotFoundError, InvalidInputError, VdsError
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
    """A store in memory, beside a list of dicts for each namespace and a list of releases."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"memory://machine-{next(_numbers)}"
        self.store = vds.connect(self.url, create=True)
        self.scratch = Path(tempfile.mkdtemp(prefix="vds-machine-"))
        self.history: dict[str, list[Files]] = {name: [{}] for name in NAMES}
        self.releases: list[tuple[str, int]] = []
        self.tags: dict[str, int] = {}

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
        before, after = versions[number - 1], versions[number]
        changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
        touched = any(
            earlier.get(path) != later.get(path) for earlier, later in itertools.pairwise(versions[number:]) for path in changed
        )
        wanted = {path: body for path, body in self.latest(name).items() if path not in changed}
        wanted.update({path: before[path] for path in changed if path in before})
        if touched:
            with pytest.raises(ConflictError):
                self.store.namespace(name).revert(number)
            return
        self.expect(name, wanted, lambda: self.store.namespace(name).revert(number))

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

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = vds.connect(self.url)

    @invariant()
    def the_latest_versions_are_the_models(self) -> None:
        for name, versions in self.history.items():
            if len(versions) > 1:
                latest = self.store.namespace(name).latest()
                assert (latest.number, contents(latest)) == (len(versions) - 1, versions[-1])

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
        assert [version.number for version in namespace.log()] == list(range(len(versions) - 1, 0, -1))
        by_content: dict[str, Files] = {}
        for number, files in enumerate(versions):
            version = namespace.get(number)
            assert contents(version) == files
            assert (version.file_count, version.size_bytes) == (len(files), sum(map(len, files.values())))
            assert by_content.setdefault(version.content_digest, files) == files
            base = versions[number // 2]
            differing = [path for path in {*base, *files} if base.get(path) != files.get(path)]
            assert [change.path for change in namespace.diff(number // 2, number)] == sorted(differing, key=str.encode)
        assert len(by_content) == len({tuple(sorted(files.items())) for files in versions})


TestStoreMachine = CheckedMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,  # the same steps on every run: a failure here is one a colleague can repeat
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_the_model_itself() -> None:
    """A model that accepts anything would prove nothing."""
    assert is_sound({"a": b"", "a-": b"", "a0": b""})
    assert not is_sound({"a": b"", "a/b": b""})
    assert seen_from({"d/x": b"1", "dx": b"2"}, "d") == {"x": b"1"}
    assert seen_from({"d/x": b"1"}, "d/x") == {"x": b"1"}
    assert placed({"x": b"1"}, "d") == {"d/x": b"1"}
    assert issubclass(ConflictError, VdsError)
