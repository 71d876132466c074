"""Runs over every driver and both databases: what is recorded of them, and what one wrote undone."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import vds
from tests.support import SERVICES, make_place
from vds.errors import NotFoundError
from vds.store import Store

PLACES = [
    "directory+sqlite",
    pytest.param("memory+postgresql", marks=SERVICES),
    pytest.param("azurite+postgresql", marks=SERVICES),
]
PATHS = ["a", "b", "c/d", "c/e"]
Files = dict[str, str]


@pytest.fixture(params=PLACES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A new store of each kind."""
    place = make_place(request.param, request)
    with vds.connect(place.url, index=place.index, create=True) as opened:
        yield opened


def write(store: Store, name: str, files: dict[str, str | None]) -> int:
    """Write files, or remove those that are None, as one version, and return its number."""
    with store.namespace(name).transaction() as tx:
        for path, text in files.items():
            if text is None:
                tx.delete(path, missing_ok=True)
            else:
                tx.write_text(path, text)
    return tx.version.number


def contents(store: Store, name: str) -> Files:
    """Return the files of the newest version."""
    version = store.namespace(name).latest()
    return {str(entry.path): version.read_text(entry.path) for entry in version.entries()}


def test_what_a_run_reads_and_writes(store: Store) -> None:
    write(store, "team/raw", {"a": "1", "b": "2"})
    store.dataset("customers").register("team/raw@1", tags=["prod"])
    with store.run("train", inputs={"data": "customers:prod", "all": "team/raw"}, params={"lr": 0.1}) as run:
        number = write(store, "models", {"m": "x"})
        run.output(store.get(f"models@{number}"), "model", "out")
        assert run.info.status == "running"
    info = store.get_run(run.id)
    assert (info.name, info.kind, info.status, info.params, info.error) == ("train", "run", "completed", {"lr": "0.1"}, "")
    assert [(place.name, place.uri, place.asked) for place in info.inputs] == [
        ("data", "vds://team/raw@1/", "customers:prod"),
        ("all", "vds://team/raw@1/", "team/raw"),
    ]
    assert [(place.name, place.uri) for place in info.outputs] == [("model", "vds://models@1/")]
    assert info.written == ("models@1",)
    assert info.ended_at is not None
    assert info.ended_at >= info.started_at
    assert store.get("models@1").produced_by == info
    assert store.get("team/raw@1").produced_by is None
    assert [user.id for user in store.get("team/raw@1").used_by()] == [run.id]
    assert store.get("models@1").used_by() == []


def test_how_runs_end(store: Store) -> None:
    with pytest.raises(ValueError, match="bad data"), store.run("fails") as failed:
        raise ValueError("bad data")
    with pytest.raises(KeyboardInterrupt), store.run("stopped") as stopped:
        raise KeyboardInterrupt
    with pytest.raises(SystemExit), store.run("exits") as exits:
        raise SystemExit(3)
    with pytest.raises(SystemExit), store.run("is done") as done:
        raise SystemExit(0)
    found = {info.name: (info.status, info.error) for info in store.runs()}
    assert found == {
        "fails": ("failed", "ValueError: bad data"),
        "stopped": ("canceled", "interrupted"),
        "exits": ("failed", "exit code 3"),
        "is done": ("completed", ""),
    }
    for run in (failed, stopped, exits, done):
        before = run.status
        run.end("canceled")
        assert store.get_run(run.id).status == before, "the first end counts"


def test_steps_belong_to_the_run_around_them(store: Store) -> None:
    with store.run("outer") as outer, store.run("inner", kind="step", key="b3:1", key_parts={"code": "x"}) as inner:
        write(store, "made", {"a": "1"})
    write(store, "made", {"b": "1"})
    assert store.get_run(inner.id).parent == outer.id
    assert store.get_run(inner.id).written == ("made@1",)
    assert store.get_run(outer.id).written == ()
    assert store.get("made@2").produced_by is None
    assert [info.id for info in store.runs(parent="")] == [outer.id]
    assert [info.id for info in store.runs(key="b3:1", status="completed")] == [inner.id]
    assert store.runs(key="b3:2") == []
    assert store.runs("outer", status="failed") == []


def test_no_input_no_run(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.run("train", inputs=["nothing@1"])
    assert store.runs() == []
    with pytest.raises(NotFoundError):
        store.get_run("01jk0000000000000000000000")


def test_undo_in_every_namespace(store: Store) -> None:
    write(store, "one", {"a": "1", "b": "1"})
    write(store, "two", {"x": "1"})
    store.dataset("d").register("one@1", tags=["prod"])
    with store.run("bad") as bad:
        number = write(store, "one", {"a": "bad", "new": "bad"})
        write(store, "two", {"x": None, "y": "bad"})
        write(store, "fresh", {"only": "bad"})
        store.dataset("d").tag("prod", store.get(f"one@{number}"))
        store.dataset("d").tag("first", store.get(f"one@{number}"))
    write(store, "one", {"b": "theirs"})
    with store.run("reader", inputs=["one@2"]) as reader:
        pass
    foreseen = store.rollback_run(bad.id)
    assert foreseen.dry_run
    assert contents(store, "one") == {"a": "bad", "b": "theirs", "new": "bad"}, "a dry run does nothing"
    report = store.rollback_run(bad.id, reason="mislabelled", dry_run=False)
    assert contents(store, "one") == {"a": "1", "b": "theirs"}
    assert contents(store, "two") == {"x": "1"}
    assert contents(store, "fresh") == {}
    assert [(one.namespace, one.undone) for one in report.namespaces] == [("fresh", (1,)), ("one", (2,)), ("two", (2,))]
    assert [(one.restored, one.removed) for one in report.namespaces] == [
        (one.restored, one.removed) for one in foreseen.namespaces
    ]
    assert [info.id for info in report.readers] == [reader.id]
    assert {(move.tag, move.before, move.after) for move in report.tags} == {("d:prod", 2, 1), ("d:first", 2, None)}
    assert {tag: release.number for tag, release in store.dataset("d").tags().items()} == {"prod": 1}
    assert store.dataset("d").history("prod")[0].reason == f"rollback of run {bad.id}: mislabelled"
    again = store.rollback_run(bad.id, dry_run=False)
    assert not any(one.created for one in again.namespaces)
    assert store.get("one@2").read_text("a") == "bad", "history stays"


def test_undo_takes_steps_too(store: Store) -> None:
    with store.run("pipeline", kind="pipeline") as pipeline:
        write(store, "one", {"a": "1"})
        with store.run("step", kind="step"):
            write(store, "one", {"b": "1"})
    report = store.rollback_run(pipeline.id, dry_run=False)
    assert contents(store, "one") == {}
    assert report.namespaces[0].undone == (1, 2)
    with pytest.raises(NotFoundError):
        store.rollback_run("01jk0000000000000000000000")


def test_undo_of_what_has_expired(store: Store) -> None:
    write(store, "one", {"a": "1"})
    with store.run("bad") as bad:
        write(store, "one", {"a": "bad"})
    store.expire("one@1", dry_run=False)
    with pytest.raises(NotFoundError, match="was expired"):
        store.rollback_run(bad.id, dry_run=False)
    assert contents(store, "one") == {"a": "bad"}


@pytest.mark.parametrize("seed", range(12))
def test_undo_of_any_history(store: Store, seed: int) -> None:
    """Held against a plain list of states: a path that the run was the last to change is as it was before its last streak."""
    chance = random.Random(seed)
    states: list[tuple[str, Files]] = [("", {})]
    runs = {"bad": store.run("bad"), "other": store.run("other")}
    with runs["bad"], runs["other"]:
        pass  # they have ended, and still write: the environment tells who
    for _ in range(chance.randint(3, 9)):
        who = chance.choice(["bad", "other", ""])
        change: dict[str, str | None] = {
            path: chance.choice([None, "1", "2", "3"]) for path in chance.sample(PATHS, chance.randint(1, 3))
        }
        before = states[-1][1]
        after = {path: text for path, text in {**before, **change}.items() if text is not None}
        if after == before:
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VDS_RUN", runs[who].id if who else "")
            write(store, "one", change)
        states.append((who, after))
    store.rollback_run(runs["bad"].id, dry_run=False)
    expected: Files = {}
    for path in PATHS:
        number = len(states) - 1
        while number and (states[number][0] == "bad" or states[number][1].get(path) == states[number - 1][1].get(path)):
            number -= 1
        changed_last = next(
            (who for (who, now), (_, then) in zip(states[:0:-1], states[-2::-1], strict=True) if now.get(path) != then.get(path)),
            "",
        )
        text = states[number][1].get(path) if changed_last == "bad" else states[-1][1].get(path)
        if text is not None:
            expected[path] = text
    if len(states) > 1:
        assert contents(store, "one") == expected
