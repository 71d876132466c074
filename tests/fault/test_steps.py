"""A fault of every kind at every step of a scripted flow: a call succeeds or raises one of our errors, and a retry converges."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import vds
from tests.fault.faults import KINDS, DiedError, Door, Faults, Kind, inject, make_quick
from tests.support import Checker, Place, read_version, write_tree
from vds.errors import OutcomeUnknownError, VdsError
from vds.index.database import Database
from vds.index.migrate import upgrade

NAMESPACE, DATASET = "team/raw", "customers"
FLOW_CALLS_MAX = 400

FIRST = {"a": b"one", "d/b": b"two", "d/empty": b""}
LARGE = bytes(range(256)) * 6000  # 1.5 MB: three blocks
STREAM = LARGE[::-1]


@dataclass
class Flow:
    """A scripted use of one store. Each step may be run again after it went wrong, and then does what was left to do.

    Attributes:
        acknowledged: the versions whose makers were told so: number → content digest.
    """

    place: Place
    work: Path
    acknowledged: dict[int, str] = field(default_factory=dict)

    @property
    def steps(self) -> list[Callable[[vds.Store], None]]:
        return [self.upload, self.upload_large, self.transaction, self.overwrite, self.tag, self.rollback]

    def upload(self, store: vds.Store) -> None:
        result = store.namespace(NAMESPACE).upload(self.tree("first", FIRST), show_progress=False)
        self.take(result.version)

    def upload_large(self, store: vds.Store) -> None:
        files = {"large": LARGE, "small": b"beside it"}
        self.take(store.namespace(NAMESPACE).upload(self.tree("large", files), "big", show_progress=False).version)

    def transaction(self, store: vds.Store) -> None:
        with store.namespace(NAMESPACE).transaction("several changes") as tx:
            tx.write_bytes("t/bytes", b"written")
            with tx.open("t/stream") as file:
                file.write(STREAM)
            tx.delete("d/b", missing_ok=True)
        self.take(tx.version)

    def overwrite(self, store: vds.Store) -> None:
        result = store.namespace(NAMESPACE).upload(self.tree("bad", {"a": b"bad"}), show_progress=False)
        self.take(result.version)

    def tag(self, store: vds.Store) -> None:
        dataset = store.dataset(DATASET)
        release = dataset.register(f"{NAMESPACE}@2", tags=["first"])
        dataset.tag("prod", release)

    def rollback(self, store: vds.Store) -> None:
        self.take(store.namespace(NAMESPACE).rollback(2).version)

    def tree(self, name: str, files: dict[str, bytes]) -> Path:
        return write_tree(self.work / name, files)

    def take(self, version: vds.Version) -> None:
        digest = str(version.content_digest)
        assert self.acknowledged.setdefault(version.number, digest) == digest


def run(flow: Flow, faults: Faults, *, reopen: bool = True) -> int:
    """Run a flow and return how often a step went wrong: then all is mended, the store checked, and the step run again.

    Without `reopen` the open store is used on, and what is left queued is for the retry to publish.
    """
    faults_seen = 0
    checker = Checker(flow.place, NAMESPACE)
    store = None
    for step in [lambda store: None, *flow.steps]:
        while True:
            try:
                store = store or flow.place.connect(create=True)
                step(store)
                break
            except (VdsError, DiedError) as err:
                error = err
            faults_seen += 1
            assert faults_seen == 1, f"another error, {error!r}, after all was mended"
            faults.disarm()
            if reopen or store is None:
                if store is not None:
                    store.close()
                store = flow.place.connect(create=True)
                check(store, checker, flow)
            if isinstance(error, OutcomeUnknownError) and error.commit_id:
                made = store.outcome(error.commit_id)
                assert made is None or made.number == store.namespace(NAMESPACE).latest().number
    assert store is not None
    faults.disarm()
    if not reopen:  # whoever opens the store writes what is still queued, such as the note that the namespace was made
        store.close()
        store = flow.place.connect()
    check(store, checker, flow)
    check_end(store)
    store.close()
    return faults_seen


def check(store: vds.Store, checker: Checker, flow: Flow) -> None:
    """Check what must hold at any time."""
    versions = checker.check(store)
    assert {v.number: str(v.content_digest) for v in versions if v.number in flow.acknowledged} == flow.acknowledged
    assert len({v.commit_id for v in versions}) == len(versions)


def check_end(store: vds.Store) -> None:
    """Check where the flow ends, whatever went wrong on its way: each step took effect exactly once."""
    versions = store.namespace(NAMESPACE).log()[::-1]
    assert [v.operation for v in versions] == ["upload", "upload", "transaction", "upload", "rollback"]
    second = {**FIRST, "big/large": LARGE, "big/small": b"beside it"}
    assert read_version(versions[1]) == read_version(versions[4]) == second
    assert versions[1].content_digest == versions[4].content_digest
    third = {**second, "t/bytes": b"written", "t/stream": STREAM}
    del third["d/b"]
    assert read_version(versions[2]) == third
    assert read_version(versions[3]) == {**third, "a": b"bad"}
    assert store.get(f"{DATASET}:prod").number == store.get(f"{DATASET}:first").number == 2
    assert [(event.kind, event.tag) for event in store.dataset(DATASET).history()[::-1]] == [
        ("register", None),
        ("tag", "first"),
        ("tag", "prod"),
    ]


@pytest.fixture(scope="module")
def empty_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of an index that has its tables: making them takes longer than a flow."""
    path = tmp_path_factory.mktemp("index") / "empty.sqlite"
    database = Database(path)
    upgrade(database)
    database.close()
    return path


@pytest.fixture
def flows(empty_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Flow]:
    """Return what makes a flow on a fresh store in memory."""
    make_quick(monkeypatch)

    def make() -> Flow:
        name = f"steps-{uuid.uuid4().hex}"
        index = shutil.copy(empty_index, tmp_path / f"{name}.sqlite")
        return Flow(Place(f"memory://{name}", f"sqlite:///{index}"), tmp_path / "trees")

    return make


def test_the_flow_without_a_fault(flows: Callable[[], Flow]) -> None:
    assert run(flows(), Faults()) == 0


def run_all(flows: Callable[[], Flow], faults: Faults, kind: Kind, *, reopen: bool) -> None:
    """Run the flow again and again, with the fault at its first call, at its second, and so on."""
    seen = 0
    for at in range(1, FLOW_CALLS_MAX):
        faults.at, faults.kind, faults.calls, faults.fired = at, kind, 0, ""
        try:
            seen += run(flows(), faults, reopen=reopen)
        except BaseException:
            print(f"the fault was {kind} at call {at}: {faults.fired}")
            raise
        if not faults.fired:
            break  # the whole flow has fewer calls
    assert not faults.fired
    assert at > 20
    assert seen > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", ["blobs", "index"])
def test_a_fault_at_every_step(door: Door, kind: Kind, flows: Callable[[], Flow], monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults()
    inject(monkeypatch, door, faults)
    run_all(flows, faults, kind, reopen=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("door", ["blobs", "index"])
def test_a_retry_on_the_open_store(door: Door, kind: Kind, flows: Callable[[], Flow], monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults()
    inject(monkeypatch, door, faults)
    run_all(flows, faults, kind, reopen=False)
