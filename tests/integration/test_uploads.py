"""What an upload reads and sends: nothing that is known already, nothing twice, and nothing more once a file cannot be read."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

import vds.blobs.objects
import vds.engine.gather
from tests.integration.watch import Reads, Requests, watch_blobs, watch_reads
from tests.support import make_place, write_tree
from vds.blobs.memory import REQUESTS_AT_ONCE, MemoryDriver
from vds.engine.outbox import Outbox
from vds.errors import UploadError
from vds.model.entry import MODE_EXECUTABLE
from vds.pipeline import HASH_WORKERS
from vds.store import Store
from vds.store.results import UploadResult

MIB = 1024 * 1024
SIZES = {"small": 1000, "whole": 2 * MIB, "large": 9 * MIB}
"""A file for each way of sending: in a pack, in one request, in blocks."""


def content(name: str, size_bytes: int) -> bytes:
    """Return bytes that no other name has."""
    return blake3(name.encode()).digest(size_bytes)


def one_of_each(name: str = "", *, copies: int = 1) -> dict[str, bytes]:
    """Return files of every size, each as often as asked."""
    return {f"{kind}-{i}": content(name + kind, size) for kind, size in SIZES.items() for i in range(copies)}


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Return a new store in memory; what is remembered of files on this machine begins empty."""
    monkeypatch.setenv("VDS_CACHE", str(tmp_path / "cache"))
    with make_place("memory", request).connect(create=True) as opened:
        yield opened


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return watch_reads(monkeypatch)


@pytest.fixture
def requests(store: Store, monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Return what is asked of the container from now on; making the store is over."""
    return watch_blobs(monkeypatch, MemoryDriver)


def upload(store: Store, directory: Path, namespace: str = "a/raw", target: str | None = None) -> UploadResult:
    return store.namespace(namespace).upload(directory, target, show_progress=False)


def test_an_unchanged_tree_is_neither_read_nor_asked_about(
    store: Store, tmp_path: Path, reads: Reads, requests: Requests
) -> None:
    files = {f"d{i % 7}/{i:03d}": content(str(i), i * 10) for i in range(600)}
    tree = write_tree(tmp_path / "tree", {**files, **one_of_each()})
    first = upload(store, tree)  # written a moment ago: what was read is to be remembered all the same
    assert first.uploaded == 603
    reads.opened.clear()
    reads.read_bytes = 0
    requests.clear()
    again = upload(store, tree)
    assert (again.created, again.version.number, again.skipped) == (False, 1, 603)
    assert (again.bytes_read, again.bytes_sent, again.bytes_saved) == (0, 0, first.bytes_read)
    assert (reads.opened, reads.read_bytes) == ({}, 0)
    assert requests.calls == {}


def test_of_a_tree_with_few_changes_only_those_are_read_and_sent(
    store: Store, tmp_path: Path, reads: Reads, requests: Requests
) -> None:
    tree = write_tree(tmp_path / "tree", {f"{i:03d}": content(str(i), 5000) for i in range(300)})
    upload(store, tree)
    changed = {f"{i:03d}": content(f"new {i}", 5001) for i in (0, 150, 299)}
    write_tree(tree, changed)
    reads.opened.clear()
    requests.clear()
    result = upload(store, tree)
    assert reads.opened == dict.fromkeys(changed, 1)
    assert (result.bytes_read, result.bytes_sent, result.modified) == (3 * 5001, 3 * 5001, 3)
    assert (requests.puts["packs"], requests.puts["objects"]) == (1, 0)
    assert {path: result.version.read_bytes(path) for path in changed} == changed
    assert result.version.verify().ok


def test_touched_files_are_read_and_not_sent(store: Store, tmp_path: Path, reads: Reads, requests: Requests) -> None:
    tree = write_tree(tmp_path / "tree", one_of_each(copies=2))
    upload(store, tree)
    for kind in SIZES:
        os.utime(tree / f"{kind}-1", ns=(1, 1))
    reads.opened.clear()
    requests.clear()
    result = upload(store, tree)
    assert set(reads.opened) == {f"{kind}-1" for kind in SIZES}
    assert (result.bytes_read, result.bytes_sent, result.created) == (sum(SIZES.values()), 0, False)
    assert (requests.content_puts, requests.staged) == (0, [])


def test_a_file_made_executable_makes_a_version_and_sends_nothing(store: Store, tmp_path: Path, requests: Requests) -> None:
    tree = write_tree(tmp_path / "tree", {"run": b"#!/bin/sh\n", "data": b"1"})
    upload(store, tree)
    (tree / "run").chmod(0o755)
    requests.clear()
    result = upload(store, tree)
    assert (result.created, result.modified, result.bytes_sent) == (True, 1, 0)
    assert result.version.entry("run").mode == MODE_EXECUTABLE
    assert requests.content_puts == 0


def test_what_the_store_has_is_never_sent(store: Store, tmp_path: Path, requests: Requests) -> None:
    tree = write_tree(tmp_path / "tree", one_of_each())
    upload(store, tree)
    elsewhere = Path(shutil.copytree(tree, tmp_path / "elsewhere"))
    requests.clear()
    results = [
        upload(store, tree, target="another/path"),
        upload(store, tree, "another/namespace"),
        upload(store, elsewhere, "other/files"),
    ]
    shutil.rmtree(tmp_path / "cache")
    results.append(upload(store, tree, "nothing/remembered"))
    with store.namespace("a/raw").transaction() as tx:
        tx.write_bytes("bytes", content("small", SIZES["small"]))
        tx.upload(tree, "staged", show_progress=False)
    assert tx.result is not None
    for result in [*results, tx.result]:
        assert (result.created, result.bytes_sent, result.bytes_new, result.objects_new) == (True, 0, 0, 0)
        assert result.version.verify().ok
    assert (requests.content_puts, requests.staged) == (0, [])


@pytest.mark.parametrize("copies", [2, 7])
def test_equal_files_of_one_upload_are_sent_once(store: Store, tmp_path: Path, requests: Requests, copies: int) -> None:
    files = one_of_each(copies=copies)
    result = upload(store, write_tree(tmp_path / "tree", files))
    assert (result.uploaded, result.objects_new, result.bytes_new) == (3 * copies, 3, sum(SIZES.values()))
    assert requests.puts["packs"] == 1
    assert requests.puts["objects"] == 2
    assert sorted(size_bytes for _, _, size_bytes in requests.staged) == [MIB, 8 * MIB]
    assert result.bytes_sent == sum(SIZES.values())
    assert {str(entry.path): result.version.read_bytes(entry.path) for entry in result.version.entries()} == files


def test_large_files_that_are_alike_only_where_they_are_sampled(store: Store, tmp_path: Path, requests: Requests) -> None:
    one = content("large", 9 * MIB)
    files = {"1": one, "2": one[: 2 * MIB] + b"another" + one[2 * MIB + 7 :], "3": one}
    result = upload(store, write_tree(tmp_path / "tree", files))
    assert (result.objects_new, requests.puts["objects"]) == (2, 2)
    assert {str(entry.path): result.version.read_bytes(entry.path) for entry in result.version.entries()} == files


def test_an_equal_large_file_found_after_the_first_arrived_is_not_sent(
    store: Store, tmp_path: Path, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, new = content("known", 9 * MIB), content("new", 9 * MIB)
    upload(store, write_tree(tmp_path / "first", {"known": known}))
    tree = write_tree(tmp_path / "tree", {"1-new": new, **{f"2-known-{i}": known for i in range(8)}, "3-new": new})
    settle = Outbox.settle
    # Whatever is on its way has arrived whenever anybody looks.
    monkeypatch.setattr(Outbox, "settle", lambda self, *, wait=False: settle(self, wait=True))
    requests.clear()
    result = upload(store, tree)
    assert result.bytes_sent == 9 * MIB
    assert len(requests.staged) == 2


@pytest.mark.parametrize("kind", SIZES)
def test_a_stream_of_known_content_commits_nothing(store: Store, tmp_path: Path, requests: Requests, kind: str) -> None:
    upload(store, write_tree(tmp_path / "tree", one_of_each()))
    requests.clear()
    with store.namespace("a/raw").transaction() as tx, tx.open("stream") as file:
        file.write(content(kind, SIZES[kind]))
    assert requests.content_puts == 0
    assert requests.calls["commit_blocks"] == 0
    assert tx.version.read_bytes("stream") == content(kind, SIZES[kind])


def test_after_a_file_that_cannot_be_read_nothing_more_is_sent(
    store: Store, tmp_path: Path, reads: Reads, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vds.engine.gather, "PACK_MEMBERS_MAX", 16)
    files = {f"{i:04d}": content(str(i), 100) for i in range(1600)}
    # The large one is met last, long after the first failure.
    tree = write_tree(tmp_path / "tree", {**files, "large": content("large", 9 * MIB)})
    reads.refused = {"0100", "0777", "1599", "large"}
    sent_before: list[int] = []
    reads.on_refusal = lambda: sent_before.append(requests.puts["packs"])
    with pytest.raises(UploadError) as raised:
        upload(store, tree)
    assert set(raised.value.failures) == reads.refused
    assert all("Permission denied" in reason for reason in raised.value.failures.values())
    # The groups that were read meanwhile, and the packs that had been handed over, may still go out: of a hundred, few.
    read_meanwhile, handed_over = 2 * HASH_WORKERS, 2 * REQUESTS_AT_ONCE + 2
    assert requests.puts["packs"] - sent_before[0] <= read_meanwhile + handed_over
    assert (requests.puts["objects"], requests.staged) == (0, [])
    assert requests.puts["journal"] == 0
    assert store.namespace("a/raw").latest().number == 0


def test_a_large_file_on_its_way_is_given_up_after_a_file_that_cannot_be_read(
    store: Store, tmp_path: Path, reads: Reads, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vds.blobs.objects, "BLOCK_BYTES_MIN", MIB)
    large = content("large", 9 * MIB)
    tree = write_tree(tmp_path / "tree", {"1-large": large, "2-bad": b"bad"})
    reads.refused = {"2-bad"}
    given_up, give_up = threading.Event(), Outbox.give_up

    def give_up_and_tell(self: Outbox) -> None:
        give_up(self)
        given_up.set()

    monkeypatch.setattr(Outbox, "give_up", give_up_and_tell)
    requests.before = lambda name: assert_(name != "stage_block" or given_up.wait(30))
    with pytest.raises(UploadError) as raised:
        upload(store, tree)
    assert raised.value.failures.keys() == {"2-bad"}
    # Of nine blocks those that were under way, and one that was being read for each of them.
    assert 1 <= len(requests.staged) <= 2 * REQUESTS_AT_ONCE
    assert requests.content_puts == 0
    requests.before = lambda name: None
    reads.refused = set()
    assert upload(store, tree).version.read_bytes("1-large") == large
    assert len(requests.staged) == 9  # together: what was sent the first time was not sent again


def assert_(is_true: bool) -> None:
    assert is_true
