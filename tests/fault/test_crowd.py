"""Eight writers, readers and a collector, killed at any moment: nothing acknowledged is lost, nothing kept is unreadable.

`make soak` kills a thousand times and more; the seed is in the output of a failure.
"""

from __future__ import annotations

import os

import pytest

from tests.support import SERVICES, make_place, run_together

KILLS = int(os.environ.get("VDS_TEST_KILLS", "50"))
SEED = int(os.environ.get("VDS_TEST_SEED", "1"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(6 * 3600),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked"),
]


@pytest.mark.parametrize("kind", ["directory+sqlite", pytest.param("azurite+postgresql", marks=SERVICES)])
def test_a_crowd_that_is_killed_at_random(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.PROCESS_TIMEOUT_S", 6 * 3600.0)
    place = make_place(kind, request)
    [[facts]] = run_together("tests.fault.crowd", [{"url": place.url, "index": place.index, "seed": SEED, "kills": KILLS}])
    print(facts)
    assert facts["kills"] == KILLS
    assert facts["acknowledged"] > KILLS / 10, "else nothing was put to the test"
    assert facts["expired"] > 0
    # A request that was on its way when its sender died may come in after the last look: a blob a kill at most.
    assert facts["garbage"] <= max(2, KILLS // 20)
