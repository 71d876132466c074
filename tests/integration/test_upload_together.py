"""Uploads beside each other in one process, in parts of a transaction, and around a fork: none disturbs another."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

from tests.integration.watch import watch_blobs
from tests.support import NEEDS_FORK, Checker, Place, exit_code, in_fork, list_keys, make_place, read_version, write_tree
from vds.blobs.directory import DirectoryDriver
from vds.store import Store

MIB = 1024 * 1024
NAMESPACE = "team/raw"
THREADS = 8


def content(name: str, size_bytes: int) -> bytes:
    """Return bytes that no other name has."""
    return blake3(name.encode()).digest(size_bytes)


def tree_of(name: str) -> dict[str, bytes]:
    """Return files that only this name has, and some that all have."""
    own = {f"{i}": content(f"{name} {i}", 500 + i) for i in range(60)}
    return own | {"whole": content(name, MIB + 1), "shared": content("shared", 3 * MIB), "large": content("large", 9 * MIB)}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return a place whose store was made."""
    monkeypatch.setenv("VDS_CACHE", str(tmp_path / "cache"))
    made = make_place("directory+sqlite", request)
    made.connect(create=True).close()
    return made


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.connect() as opened:
        yield opened


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[[str], Path]:
    """Return what writes the files of a name."""
    return lambda name: write_tree(tmp_path / "trees" / name, tree_of(name))


def test_threads_upload_beside_each_other(store: Store, place: Place, make_tree: Callable[[str], Path]) -> None:
    trees = {f"t{i}": make_tree(f"t{i}") for i in range(THREADS)}
    barrier = threading.Barrier(THREADS)

    def upload(name: str) -> int:
        barrier.wait()
        return store.namespace(NAMESPACE).upload(trees[name], name, show_progress=False).version.number

    with ThreadPoolExecutor(THREADS) as pool:
        numbers = list(pool.map(upload, trees))
    assert sorted(numbers) == list(range(1, THREADS + 1))
    versions = Checker(place, NAMESPACE).check(store)
    expected = {f"{name}/{path}": body for name in trees for path, body in tree_of(name).items()}
    assert read_version(versions[-1]) == expected
    assert all("vds" not in thread.name for thread in threading.enumerate())


def test_parts_with_equal_large_files(store: Store, place: Place, make_tree: Callable[[str], Path]) -> None:
    names = ["one", "two", "three"]
    trees = {name: make_tree(name) for name in names}
    barrier = threading.Barrier(len(names))

    def write(name: str) -> None:
        barrier.wait()
        with transaction.part(name) as part:
            part.upload(trees[name], name, show_progress=False)
            part.write_bytes(f"{name}/bytes", name.encode())

    with store.namespace(NAMESPACE).transaction() as transaction:
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(write, names))
        result = transaction.commit(expected_parts=len(names))
    expected = {f"{name}/{path}": body for name in names for path, body in {**tree_of(name), "bytes": name.encode()}.items()}
    assert read_version(result.version) == expected
    Checker(place, NAMESPACE).check(store)


def test_a_part_that_fails_leaves_the_others_whole(
    store: Store, make_tree: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = watch_blobs(monkeypatch, DirectoryDriver)
    tree = make_tree("one")
    with store.namespace(NAMESPACE).transaction() as transaction:
        with suppress(ZeroDivisionError), transaction.part("bad") as part:
            part.upload(tree, "bad", show_progress=False)
            raise ZeroDivisionError
        requests.clear()
        with transaction.part("good") as part:
            part.upload(tree, "good", show_progress=False)
    assert transaction.result is not None
    assert requests.content_puts == 0  # what the failed part had sent is there
    assert read_version(transaction.result.version) == {f"good/{path}": body for path, body in tree_of("one").items()}


@NEEDS_FORK
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_parent_and_child_both_upload_after_a_fork(store: Store, place: Place, make_tree: Callable[[str], Path]) -> None:
    before, inside, beside = make_tree("before"), make_tree("inside"), make_tree("beside")
    store.namespace(NAMESPACE).upload(before, "before", show_progress=False)
    child = in_fork(lambda: _upload_and_check(store, inside))
    _upload_and_check(store, beside)
    assert exit_code(child) == 0
    versions = Checker(place, NAMESPACE).check(store)
    assert len(versions) == 3
    expected = {f"{name}/{path}": body for name in ("before", "inside", "beside") for path, body in tree_of(name).items()}
    assert read_version(versions[-1]) == expected


def _upload_and_check(store: Store, tree: Path) -> None:
    result = store.namespace(NAMESPACE).upload(tree, tree.name, show_progress=False)
    assert result.created
    assert {path: result.version.read_bytes(f"{tree.name}/{path}") for path in tree_of(tree.name)} == tree_of(tree.name)


@NEEDS_FORK
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_an_upload_does_not_hold_it_up(
    store: Store, place: Place, make_tree: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, other = make_tree("one"), make_tree("two")
    children: list[int] = []
    numbers = itertools.count()
    requests = watch_blobs(monkeypatch, DirectoryDriver)

    def fork_once(call: str) -> None:
        if call == "stage_block" and next(numbers) == 0:  # in a thread of the upload; the child goes on counting
            children.append(in_fork(lambda: _upload_and_check(store, other)))

    requests.before = fork_once
    result = store.namespace(NAMESPACE).upload(tree, "one", show_progress=False)
    assert [exit_code(child) for child in children] == [0]
    assert result.version.verify().ok
    versions = Checker(place, NAMESPACE).check(store)
    expected = {f"{name}/{path}": body for name in ("one", "two") for path, body in tree_of(name).items()}
    assert read_version(versions[-1]) == expected
    assert len(list_keys(place.blobs(), "packs/")) == 2
