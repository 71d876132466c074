"""Writers killed in the middle of what they do, two hundred times: nothing acknowledged is lost, nothing half done is seen."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support import SERVICES, make_place, run_together

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="victims are forked")]

NURSERY = "tests.fault.nursery"


def kill(kind: str, request: pytest.FixtureRequest, *, fresh: bool = False, **task: Any) -> None:
    """Run a nursery and check that it killed as often as it was to."""
    place = make_place(kind, request)
    (lines,) = run_together(NURSERY, [{"url": place.url, "index": place.index, "fresh": fresh, **task}])
    assert len(lines) == task["tries"]
    if not fresh:
        assert sum(line["acknowledged"] for line in lines) > 0  # else nothing was put to the test


@pytest.mark.parametrize("seed", range(7))
def test_writers_killed_on_a_directory_and_sqlite(seed: int, request: pytest.FixtureRequest) -> None:
    kill("directory+sqlite", request, seed=seed, tries=26, ways=["moment", "step", "syscall"])


@SERVICES
def test_writers_killed_on_azurite_and_postgresql(request: pytest.FixtureRequest) -> None:
    kill("azurite+postgresql", request, seed=100, tries=20, ways=["moment", "step"])


def test_writers_killed_at_each_step_of_making_the_store(request: pytest.FixtureRequest) -> None:
    kill("directory+sqlite", request, seed=200, tries=56, ways=["syscall"], fresh=True)
