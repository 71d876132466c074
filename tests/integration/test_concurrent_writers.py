"""Several processes that write to one namespace at once: none sees an error, and nothing of anyone's is lost or mixed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import SERVICES, SHARED_PLACES, Checker, Entries, Place, make_place, overlay, run_together

WRITER = "tests.integration.writer"
NAMESPACE = "team/raw"

Said = list[dict[str, Any]]


def write(place: Place, kinds: list[str], commits: int) -> list[Said]:
    """Run a writer of each kind at once and return what each said."""
    tasks = [
        {"url": place.url, "index": place.index, "namespace": NAMESPACE, "kind": kind, "name": f"w{i}", "commits": commits}
        for i, kind in enumerate(kinds)
    ]
    return run_together(WRITER, tasks)


def check_line(place: Place) -> dict[int, Entries]:
    """Check the whole line of versions and return what each holds, by number."""
    checker = Checker(place, NAMESPACE)
    with place.connect() as store:
        versions = checker.check(store)
    return {version.number: checker.state[version.number][1] for version in versions}


def check_disjoint(place: Place, said: list[Said]) -> None:
    """Check that every commit made one version, laid over the one before."""
    commits = [(line["number"], line["files"]) for lines in said for line in lines]
    assert all(line["created"] and line["uploaded"] == len(line["files"]) for lines in said for line in lines)
    assert check_line(place) == dict(overlay(commits))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARED_PLACES)
def test_two_processes_commit_a_hundred_disjoint_versions(kind: str, request: pytest.FixtureRequest) -> None:
    place = make_place(kind, request)
    place.connect(create=True).close()
    said = write(place, ["disjoint"] * 2, 50)
    check_disjoint(place, said)
    assert sorted(line["number"] for lines in said for line in lines) == list(range(1, 101))
    for lines in said:  # each saw its own versions in the order in which it made them
        numbers = [line["number"] for line in lines]
        assert numbers == sorted(numbers)


@pytest.mark.slow
@SERVICES
def test_sixteen_processes_commit_disjoint_versions(request: pytest.FixtureRequest) -> None:
    place = make_place("directory+postgresql", request)
    place.connect(create=True).close()
    said = write(place, ["disjoint"] * 16, 5)
    check_disjoint(place, said)
    assert sorted(line["number"] for lines in said for line in lines) == list(range(1, 81))


@pytest.mark.parametrize("kind", SHARED_PLACES)
def test_processes_that_make_the_store_and_the_namespace_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    place = make_place(kind, request)
    place.connect(create=True).close()
    said = write(place, ["disjoint"] * 4, 1)  # each may find that there is no such namespace yet
    check_disjoint(place, said)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARED_PLACES)
def test_the_last_of_overlapping_uploads_wins_whole_files(kind: str, request: pytest.FixtureRequest) -> None:
    place = make_place(kind, request)
    place.connect(create=True).close()
    said = write(place, ["overlapping"] * 4, 6)
    numbers = sorted(line["number"] for lines in said for line in lines)
    assert numbers == list(range(1, 25))
    # Each path of each version holds the bytes of one upload, whole: the last that was acknowledged with this number or less.
    expected = dict(overlay([(line["number"], line["files"]) for lines in said for line in lines]))
    assert check_line(place) == expected


@pytest.mark.parametrize("kind", SHARED_PLACES)
def test_without_overwrite_the_first_writer_of_a_path_keeps_it(kind: str, request: pytest.FixtureRequest) -> None:
    place = make_place(kind, request)
    place.connect(create=True).close()
    said = write(place, ["keep"] * 4, 8)
    versions = check_line(place)
    seen: Entries = {}
    for number in sorted(versions):
        assert {path: versions[number][path] for path in seen} == seen
        seen = versions[number]
    assert len(seen) == 8 * 3
    written: dict[str, int] = dict.fromkeys(seen, 0)
    for line in (line for lines in said for line in lines):
        kept = set(line["changed_but_skipped"])
        assert kept <= set(line["files"])
        assert line["skipped"] == len(kept)  # the writers' bytes differ, so that all that is skipped is reported as differing
        assert line["uploaded"] == len(line["files"]) - len(kept)
        assert line["created"] is (line["uploaded"] > 0)
        for path in set(line["files"]) - kept:
            written[path] += 1
            assert seen[path] == line["files"][path]
    assert set(written.values()) == {1}
    assert len(versions) == sum(line["created"] for lines in said for line in lines)


@pytest.mark.parametrize("kind", SHARED_PLACES)
def test_a_mirror_equals_its_source_whatever_others_commit(kind: str, request: pytest.FixtureRequest) -> None:
    place = make_place(kind, request)
    place.connect(create=True).close()
    said = write(place, ["mirror", "beside", "beside"], 10)
    versions = {0: {}, **check_line(place)}
    assert len(versions) == 31
    mirrors = {line["number"]: line for line in said[0]}
    others = {line["number"]: line for lines in said[1:] for line in lines}
    for number in range(1, 31):
        before, after = versions[number - 1], versions[number]
        if number in others:
            assert after == {**before, **others[number]["files"]}
            continue
        source = {f"mirrored/{path}": digest for path, digest in mirrors[number]["files"].items()}
        outside = {path: digest for path, digest in before.items() if not path.startswith("mirrored/")}
        assert after == {**outside, **source}
        assert mirrors[number]["removed_paths"] == sorted(set(before) - set(after))
