"""Versions and transactions handed to other workers: spawned, forked, threads; each opens what it needs by itself."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import vds
from tests.integration.opener import read_counted, read_pickled, read_through_fsspec
from tests.integration.relay import Relay
from tests.support import (
    NEEDS_FORK,
    SERVICES,
    SHARED_PLACES,
    Checker,
    Place,
    exit_code,
    in_fork,
    make_place,
    read_version,
    run_together,
    write_tree,
)
from vds.fs import VdsFileSystem

SPAWNED, LOADERS, THREADS, PARTS, FORKS = 32, 64, 16, 8, 6
FILES = {f"small/{i:03d}": f"content {i}".encode() for i in range(40)} | {"large": b"x" * 1_100_000}


@pytest.fixture
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = make_place(request.param, request)
    if made.index is not None:
        monkeypatch.setenv("VDS_INDEX", made.index)  # where the password is; addresses travel without it
    return made


def fill(store: vds.Store, work: Path) -> vds.Version:
    return store.namespace("team/raw").upload(write_tree(work / "src", FILES), show_progress=False).version


@pytest.mark.slow
@pytest.mark.parametrize("place", SHARED_PLACES, indirect=True)
def test_a_version_is_opened_in_spawned_workers(place: Place, tmp_path: Path) -> None:
    with place.connect(create=True) as store:
        version = fill(store, tmp_path)
        pickled = pickle.dumps(version)
        if place.index is not None:
            assert place.index.partition("@")[0].rpartition(":")[2].encode() not in pickled  # the password
        digest = str(version.content_digest)
        workers = SPAWNED if place.url.startswith("azurite") else 4
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
            said = list(pool.map(read_pickled, [pickled] * workers))
        assert len({pid for pid, *_ in said}) == workers
        assert {tuple(facts) for _, *facts in said} == {(digest, len(FILES), "content 7")}


@pytest.mark.slow
@pytest.mark.services
def test_loader_workers_make_no_connection_to_the_index(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Relay(database_url) as relay:
        monkeypatch.setenv("VDS_INDEX", relay.url)
        with vds.connect(tmp_path / "store", create=True) as store:
            pickled = pickle.dumps(fill(store, tmp_path))
            before = relay.counted
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(16, mp_context=context, max_tasks_per_child=1) as pool:
                said = list(pool.map(read_counted, [pickled] * LOADERS))
            assert len({pid for pid, *_ in said}) == LOADERS
            assert len({count for _, count, _ in said}) == 1
            assert (before > 0, relay.counted - before) == (True, 0)


@pytest.mark.slow
def test_loader_workers_open_no_sqlite_file(tmp_path: Path) -> None:
    with vds.connect(tmp_path / "store", create=True) as store:
        pickled = pickle.dumps(fill(store, tmp_path))
        with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            said = list(pool.map(read_counted, [pickled] * 8))
        assert [opened for *_, opened in said] == [[]] * 8


@pytest.mark.slow
def test_a_file_system_goes_to_a_worker_with_its_versions(tmp_path: Path) -> None:
    with vds.connect(tmp_path / "store", create=True) as store:
        store.dataset("customers").register(fill(store, tmp_path), tags=["prod"])
        system = VdsFileSystem(store=str(tmp_path / "store"))
        assert system.isfile("customers:prod/large")
        pickled = pickle.dumps(system)
        later = write_tree(tmp_path / "later", {"small/007": b"later"})
        store.dataset("customers").tag("prod", store.namespace("team/raw").upload(later, show_progress=False).version)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert pool.submit(read_through_fsspec, pickled).result() == (FILES["small/007"], [])


@NEEDS_FORK
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # since 3.12; here none runs
@pytest.mark.parametrize("place", SHARED_PLACES, indirect=True)
def test_forked_workers_read_and_write_beside_their_parent(place: Place, tmp_path: Path) -> None:
    checker = Checker(place, "team/raw")
    with place.connect(create=True) as store:
        version = fill(store, tmp_path)

        def work(name: str) -> None:
            assert read_version(version) == FILES
            for turn in range(3):
                source = write_tree(tmp_path / f"{name}-{turn}", {f"{name}/{turn}": name.encode()})
                assert store.namespace("team/raw").upload(source, show_progress=False).created

        children = [in_fork(lambda name=name: work(name)) for name in ("c1", "c2", "c3")]  # type: ignore[misc]
        work("parent")
        assert read_version(version) == FILES
        assert [exit_code(pid) for pid in children] == [0, 0, 0]
        assert len(checker.check(store)) == 1 + 4 * 3


@NEEDS_FORK
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("place", SHARED_PLACES, indirect=True)
def test_workers_forked_while_another_thread_writes(place: Place, tmp_path: Path) -> None:
    with place.connect(create=True) as store:
        version = fill(store, tmp_path)
        namespace = store.namespace("team/raw")
        is_over = threading.Event()
        written = 0

        def write() -> int:
            count = 0
            while not is_over.is_set():
                source = write_tree(tmp_path / f"t{count}", {f"thread/{count}": b"t"})
                assert namespace.upload(source, show_progress=False).created
                count += 1
            return count

        def work(number: int) -> None:
            assert read_version(version) == FILES
            source = write_tree(tmp_path / f"c{number}", {f"child/{number}": b"c"})
            assert namespace.upload(source, show_progress=False).created

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                codes = [exit_code(in_fork(partial(work, number))) for number in range(FORKS)]
            finally:
                is_over.set()
            written = writing.result()
        assert codes == [0] * FORKS
        assert len(Checker(place, "team/raw").check(store)) == 1 + written + FORKS


@NEEDS_FORK
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("place", SHARED_PLACES, indirect=True)
def test_a_parent_that_closes_its_store_takes_nothing_from_its_children(place: Place, tmp_path: Path) -> None:
    checker = Checker(place, "team/raw")
    store = place.connect(create=True)
    fill(store, tmp_path)
    opened, closed = os.pipe(), os.pipe()

    def work() -> None:
        namespace = store.namespace("team/raw")
        namespace.upload(write_tree(tmp_path / "c1", {"child/1": b"1"}), show_progress=False)
        os.write(opened[1], b"x")
        assert os.read(closed[0], 1) == b"x"  # here the parent lets go of the database that both have open
        namespace.upload(write_tree(tmp_path / "c2", {"child/2": b"2"}), show_progress=False)

    child = in_fork(work)
    assert os.read(opened[0], 1) == b"x"
    store.close()
    os.write(closed[1], b"x")
    assert exit_code(child) == 0
    for descriptor in (*opened, *closed):
        os.close(descriptor)
    with place.connect() as again:
        assert len(checker.check(again)) == 3
        assert read_version(again.get("team/raw")) == {**FILES, "child/1": b"1", "child/2": b"2"}


@pytest.mark.parametrize("place", ["memory+sqlite", *SHARED_PLACES], indirect=True)
def test_threads_share_a_version_and_a_namespace(place: Place, tmp_path: Path) -> None:
    with place.connect(create=True) as store:
        version = fill(store, tmp_path)

        def work(number: int) -> int:
            assert read_version(version) == FILES
            source = write_tree(tmp_path / str(number), {f"thread/{number}": str(number).encode()})
            return int(store.namespace("team/raw").upload(source, show_progress=False).version.number)

        with ThreadPoolExecutor(THREADS) as pool:
            numbers = list(pool.map(work, range(THREADS)))
        assert sorted(numbers) == list(range(2, THREADS + 2))
        expected = {**FILES, **{f"thread/{number}": str(number).encode() for number in range(THREADS)}}
        assert read_version(store.get("team/raw")) == expected


@pytest.mark.slow
@pytest.mark.parametrize("place", ["directory+sqlite", pytest.param("azurite+postgresql", marks=SERVICES)], indirect=True)
def test_processes_write_the_parts_of_one_transaction(place: Place, tmp_path: Path) -> None:
    directory = str(write_tree(tmp_path / "tree", {"tree/large": b"y" * 1_200_000, "tree/common": b"the same for all"}))
    with place.connect(create=True) as store:
        fill(store, tmp_path)
        transaction = store.namespace("team/raw").transaction("sixteen hands")
        transaction.write_bytes("from the first", b"hello")
        task = {"token": transaction.token, "directory": directory, "parts": PARTS}
        names = [f"shard-{number}" for number in range(PARTS)]
        said = run_together("tests.integration.opener", [{**task, "part": name} for name in names])
        assert said == [[{"part": name}] for name in names]
        assert store.namespace("team/raw").latest().number == 1  # nothing shows before the commit
        assert [part.name for part in transaction.parts()] == names
        ((committed,),) = run_together("tests.integration.opener", [{**task, "part": None}])
        expected = {**FILES, "from the first": b"hello"}
        for name in names:
            expected |= {f"{name}/{index}": f"{name} {index}".encode() for index in range(5)}
            expected |= {f"{name}/tree/large": b"y" * 1_200_000, f"{name}/tree/common": b"the same for all"}
        assert committed == {"number": 2, "files": len(expected)}
        assert read_version(store.get("team/raw@2")) == expected
        assert len(Checker(place, "team/raw").check(store)) == 2
