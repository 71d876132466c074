"""Sixty-four writers commit to one namespace at once: none fails, and what each was told is there, once."""

from __future__ import annotations

import pytest

from tests.support import SERVICES, Checker, make_place, overlay, run_together

NAMESPACE = "team/raw"
PROCESSES, THREADS, COMMITS = 4, 16, 2


@pytest.mark.slow
@SERVICES
def test_sixty_four_writers_lose_nothing(request: pytest.FixtureRequest) -> None:
    place = make_place("directory+postgresql", request)
    place.connect(create=True).close()
    shares = [list(range(first, PROCESSES * THREADS, PROCESSES)) for first in range(PROCESSES)]
    same = {"url": place.url, "index": place.index, "namespace": NAMESPACE, "commits": COMMITS}
    said = run_together("tests.integration.crowd", [{**same, "writers": writers} for writers in shares])
    acknowledged = [(line["number"], line["files"]) for lines in said for line in lines]
    assert sorted(number for number, _ in acknowledged) == list(range(1, PROCESSES * THREADS * COMMITS + 1))
    checker = Checker(place, NAMESPACE)
    with place.connect() as store:
        versions = checker.check(store)
    # Each version is the one before it with the file of the writer that was told its number, in the container and in the index.
    assert {version.number: checker.state[version.number][1] for version in versions} == dict(overlay(acknowledged))
