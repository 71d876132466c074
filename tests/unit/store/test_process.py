"""Stores and versions in other processes and threads: pickled with their pin and no secret, forked, spawned, shared."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import vds
from tests.unit.store.trees import files_of, write_tree
from vds.errors import FormatError, NotFoundError
from vds.index.database import Database
from vds.store import Store, Version
from vds.store.handle import Address, Handle

FILES = {"a": b"1", "d/b": b"22", "d/c": b"333"}
THREADS = 8


@pytest.fixture
def version(disk_store: Store, tmp_path: Path) -> Version:
    return disk_store.namespace("team/raw").upload(write_tree(tmp_path / "tree", FILES)).version


def describe(pickled: bytes) -> tuple[int, str, dict[str, bytes], int]:
    """Return what another process sees of a pickled version, and that process's id."""
    version = pickle.loads(pickled)
    return version.number, version.uri, files_of(version), os.getpid()


def write_part(task: tuple[str, str]) -> str:
    """Write one part of a transaction, in a process of its own."""
    token, name = task
    with vds.join(token).part(name) as part:
        part.write_text(f"parts/{name}", name)
    return name


def commit_token(token: str) -> int:
    """Commit a transaction, in a process of its own."""
    return vds.join(token).commit(expected_parts=2).version.number


class TestPickle:
    def test_a_version_keeps_its_pin(self, disk_store: Store, version: Version, tmp_path: Path) -> None:
        pickled = pickle.dumps(version.at("d"))
        disk_store.namespace("team/raw").upload(write_tree(tmp_path / "tree", {"later": b"l"}))
        again = pickle.loads(pickled)
        assert again == version.at("d")
        assert (again.number, again.path, files_of(again)) == (1, "d", {"b": b"22", "c": b"333"})

    def test_a_store_keeps_its_address(self, disk_store: Store, version: Version) -> None:
        again = pickle.loads(pickle.dumps(disk_store))
        assert (again.url, again.id) == (disk_store.url, disk_store.id)
        assert again.get("team/raw@1") == version

    def test_unpickled_versions_share_one_handle(self, version: Version) -> None:
        pickled = pickle.dumps(version)
        assert pickle.loads(pickled)._handle is pickle.loads(pickled)._handle is version._handle

    def test_no_secret_travels(self) -> None:
        database = Database("postgresql://ada:s3cretpw@db.example/vds?password=s3cretpw")
        address = Address("az://data@account", database.address, False)
        pickled = pickle.dumps(Store(Handle(address, vds.connect)))  # type: ignore[arg-type]
        assert b"s3cretpw" not in pickled
        assert b"ada" not in pickled
        assert b"db.example" in pickled

    def test_a_pin_of_another_history_is_refused(self, version: Version) -> None:
        again = pickle.loads(pickle.dumps(version).replace(version.digest.hex.encode(), b"0" * 64))
        with pytest.raises(FormatError, match=r"is not the store the version came from|in this store, expected"):
            assert again.message
        with pytest.raises(FormatError):
            list(again.entries())

    def test_a_release_and_a_result_travel_too(self, disk_store: Store, version: Version) -> None:
        release = disk_store.dataset("customers").register(version)
        again = pickle.loads(pickle.dumps(release))
        assert (again.number, again.version) == (1, version)

    def test_a_store_that_is_gone_says_so(self, store: Store, tmp_path: Path) -> None:
        address = Address("memory://gone-with-its-process", "embedded", False)
        version = pickle.loads(
            pickle.dumps(store.namespace("n").upload(write_tree(tmp_path / "t", {"a": b"1"})).version).replace(
                store.url.encode(), store.url.encode()
            )
        )
        assert version.number == 1
        lost = pickle.loads(pickle.dumps(Store(Handle(address, version._handle._opener))))
        with pytest.raises(NotFoundError, match="is not a vds store"):
            lost.namespaces()


class TestProcesses:
    def test_spawned_processes_open_a_version(self, version: Version) -> None:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            seen = pool.map(describe, [pickle.dumps(version)] * 4, chunksize=1)
        assert {(number, uri) for number, uri, _, _ in seen} == {(1, "vds://team/raw@1/")}
        assert all(files == FILES for _, _, files, _ in seen)
        assert os.getpid() not in {pid for *_, pid in seen}

    def test_parts_and_the_commit_come_from_other_processes(self, disk_store: Store, version: Version) -> None:
        tx = disk_store.namespace("team/raw").transaction()
        tx.write_bytes("own", b"o")
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(write_part, [(tx.token, "one"), (tx.token, "two")], chunksize=1) == ["one", "two"]
            assert pool.apply(commit_token, (tx.token,)) == 2
        assert files_of(disk_store.namespace("team/raw").latest()) == {
            **FILES,
            "own": b"o",
            "parts/one": b"one",
            "parts/two": b"two",
        }

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_reads_and_writes_on_connections_of_its_own(self, disk_store: Store, version: Version) -> None:
        assert files_of(version) == FILES  # connections are open
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:  # pragma: no cover - the child is not measured
            answer: dict[str, Any] = {}
            try:
                answer = {path: body.decode() for path, body in files_of(version).items()}
                with disk_store.namespace("team/raw").transaction() as tx:
                    tx.write_bytes("child", b"c")
                answer["number"] = tx.version.number
            except BaseException as err:  # noqa: BLE001 - all of it is the parent's to see
                answer = {"error": repr(err)}
            finally:
                os.write(write_end, json.dumps(answer).encode())
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            answer = json.loads(pipe.read())
        os.waitpid(child, 0)
        assert answer == {**{path: body.decode() for path, body in FILES.items()}, "number": 2}
        assert disk_store.namespace("team/raw").latest().number == 2
        assert files_of(version) == FILES


class TestThreads:
    def test_one_version_is_read_by_many(self, version: Version) -> None:
        pickled = pickle.loads(pickle.dumps(version))
        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(lambda _: files_of(pickled), range(THREADS * 2))) == [FILES] * THREADS * 2

    def test_writers_of_one_namespace_all_get_through(self, disk_store: Store, tmp_path: Path) -> None:
        namespace = disk_store.namespace("team/raw")
        trees = [write_tree(tmp_path / f"tree{n}", {f"d{n}/f": str(n).encode(), "last": str(n).encode()}) for n in range(THREADS)]
        with ThreadPoolExecutor(THREADS) as pool:
            numbers = [result.version.number for result in pool.map(namespace.upload, trees)]
        assert sorted(numbers) == list(range(1, THREADS + 1))
        latest = namespace.latest()
        last = numbers.index(THREADS)
        assert files_of(latest) == {**{f"d{n}/f": str(n).encode() for n in range(THREADS)}, "last": str(last).encode()}
        log = namespace.log()
        assert [version.number for version in log] == list(range(THREADS, 0, -1))
        assert all(later.created_at > earlier.created_at for later, earlier in pairwise(log))

    def test_a_transaction_takes_files_from_many(self, disk_store: Store) -> None:
        with disk_store.namespace("team/raw").transaction() as tx, ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda n: tx.write_bytes(f"f{n}", str(n).encode()), range(THREADS * 4)))
        assert files_of(tx.version) == {f"f{n}": str(n).encode() for n in range(THREADS * 4)}
