"""A moment of a store that others write to all the time: each ref has one answer as of it, at once and ever after."""

from __future__ import annotations

import subprocess
import sys
from itertools import count

import pytest

import vds
from tests.support import ROOT, SERVICES, Helper, Place, make_place
from vds.errors import NotFoundError
from vds.model.ref import format_moment

PINNER = "tests.integration.pinner"
WRITERS, TURNS = 3, 25
REFS = [ref for i in range(WRITERS) for ref in (f"ns{i}", f"ns{i}@latest~1", f"ds{i}:prod", f"ds{i}:latest")]

Answers = dict[str, tuple[int, str] | None]


def answers(store: vds.Store, moment: str, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Return what every ref means in a run that is pinned to `moment`; None where it means nothing."""
    found: Answers = {}
    with monkeypatch.context() as patch:
        patch.setenv("VDS_AS_OF", moment)
        for ref in REFS:
            try:
                resolved = store.resolve(ref)
                assert resolved.pinned
                found[ref] = (resolved.number, resolved.digest)
            except NotFoundError:
                found[ref] = None
    return found


def collect(place: Place, helpers: list[Helper], monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Answers, ...]]:
    """Name moments while the writers write, and return what each meant at once, and a little later."""
    seen: dict[str, tuple[Answers, ...]] = {}
    with place.connect() as store:
        for turn in count():
            if all(helper.process.poll() is not None for helper in helpers):
                return seen
            own = store.namespace("own").upload_files([__file__], target_path=str(turn), show_progress=False).version
            moment = format_moment(store.now())
            with monkeypatch.context() as patch:
                patch.setenv("VDS_AS_OF", moment)
                assert store.get("own") == own  # acknowledged before, so it is part of it
            seen[moment] = tuple(answers(store, moment, monkeypatch) for _ in range(3))
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    "kind",
    [
        "directory+sqlite",
        pytest.param("directory+postgresql", marks=SERVICES),
        pytest.param("azurite+postgresql", marks=SERVICES),
    ],
)
def test_each_moment_has_one_answer(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place(kind, request)
    place.connect(create=True).close()
    tasks = [
        {"url": place.url, "index": place.index, "namespace": f"ns{i}", "dataset": f"ds{i}", "turns": TURNS}
        for i in range(WRITERS)
    ]
    helpers = [Helper.start(PINNER, task) for task in tasks]
    try:
        for helper in helpers:
            helper.wait_ready()
        for helper in helpers:
            helper.go()
        seen = collect(place, helpers, monkeypatch)
        assert [helper.finish()[-1]["number"] for helper in helpers] == [TURNS] * WRITERS
    finally:
        for helper in helpers:
            helper.stop()
    assert len(seen) > 3
    moments = sorted(seen)
    assert list(seen) == moments  # they never go back
    with place.connect() as store:
        for moment in moments:
            assert {str(found) for found in seen[moment]} == {str(answers(store, moment, monkeypatch))}, moment
    # The writers were at it: what the refs mean has moved on between the moments.
    assert len({str(seen[moment][0]) for moment in moments}) > 3


_CHILD = """
import sys, vds
with vds.connect(sys.argv[1], read_only=True) as store:
    print(store.get("ns0").number, store.resolve("ds0:prod").number)
"""


def test_processes_that_are_started_inherit_it(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place("directory+sqlite", request)
    with place.connect(create=True) as store:
        for turn in range(2):
            with store.namespace("ns0").transaction() as tx:
                tx.write_text("a", str(turn))
            store.dataset("ds0").register(tx.version, tags=["prod"])
            if not turn:
                moment = format_moment(store.now())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def child() -> str:
        return subprocess.run([sys.executable, "-c", _CHILD, place.url], capture_output=True, text=True, check=True).stdout

    assert child() == "2 2\n"
    monkeypatch.setenv("VDS_AS_OF", moment)
    assert child() == "1 1\n"
