"""Rebuilds killed at each of their steps: the store serves as before or refuses, and the next rebuild makes it whole."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support import SERVICES, make_place, run_together

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="victims are forked")]


def kill(kind: str, request: pytest.FixtureRequest, **task: Any) -> list[dict[str, Any]]:
    place = make_place(kind, request)
    (lines,) = run_together("tests.fault.remaker", [{"url": place.url, "index": place.index, **task}])
    return lines


def test_a_rebuild_killed_after_each_step(request: pytest.FixtureRequest) -> None:
    lines = kill("directory+sqlite", request, seed=1, tries=200, how="step")
    assert not lines[-1]["killed"]  # it was killed at all of its steps
    assert len(lines) > 20
    found = [line["found"] for line in lines]
    # From the record that fences the old index on it is refused to who writes, until the new one serves.
    assert found[0] == "served"
    assert "refused" in found
    assert found[-1] == "served"


def test_a_rebuild_killed_at_any_moment(request: pytest.FixtureRequest) -> None:
    lines = kill("directory+sqlite", request, seed=2, tries=12, how="moment")
    assert sum(line["killed"] for line in lines) > 3


@SERVICES
def test_a_rebuild_killed_on_postgresql(request: pytest.FixtureRequest) -> None:
    lines = kill("directory+postgresql", request, seed=3, tries=200, how="step")
    assert not lines[-1]["killed"]
    assert "refused" in [line["found"] for line in lines]
