"""Exports into containers of a service: what stands there afterwards, what it cost, and what a second run does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas

import vds
import vds.blobs.azure
from tests.integration.watch import Requests, watch_blobs
from tests.support import write_tree
from vds.blobs.azure import AzureDriver
from vds.blobs.credential import _AZURITE_KEY
from vds.blobs.export import PathBlobs
from vds.blobs.location import AZURITE_ACCOUNT
from vds.errors import ConflictError, ExportError, InvalidInputError
from vds.model.digest import Digest
from vds.ops.exporting import MARKER_PATH
from vds.store import Store, Version

pytestmark = pytest.mark.services

MIB = 1024 * 1024
FILES: dict[str, bytes] = {
    **{f"train/{i:03}.txt": f"{i}\n".encode() for i in range(40)},
    "empty": b"",
    "copy of 3": b"3\n",
    "naïve 100% #1?&+.bin": os.urandom(MIB),
    "데이터/b~(1)'.csv": b"a,b\n",
    "middle.bin": os.urandom(3 * MIB + 1),
    "large.bin": os.urandom(20 * MIB + 7),
}


@pytest.fixture
def store(container_url: str, tmp_path: Path) -> Iterator[Store]:
    with vds.connect(f"{container_url}/store", index=f"sqlite:///{tmp_path / 'index.sqlite'}", create=True) as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Store]:
    """A store that no service can copy from."""
    with vds.connect(str(tmp_path / "store"), create=True) as opened:
        yield opened


def upload(store: Store, root: Path, files: Mapping[str, bytes]) -> Version:
    return store.namespace("team/raw").upload(write_tree(root, files), mirror=True, show_progress=False).version


@dataclass
class Target:
    """A container as others see it."""

    url: str
    client: ContainerClient
    requests: Requests = field(default_factory=Requests)

    @property
    def blobs(self) -> dict[str, bytes]:
        """Every blob in it, the marker's aside."""
        found = {name: self.client.download_blob(name).readall() for name in self.client.list_blob_names()}
        return {name.removeprefix("out/"): body for name, body in found.items() if not name.endswith(MARKER_PATH)}

    @property
    def marker(self) -> Any:
        """What the marker says; None when there is none."""
        blob = self.client.get_blob_client(f"out/{MARKER_PATH}")
        return json.loads(blob.download_blob().readall()) if blob.exists() else None


@pytest.fixture
def target(container_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Another container of the same account, not made yet; calls to it are counted."""
    name = container_url.rpartition("/")[2].replace("test-", "plain-")
    base = container_url.rpartition("/")[0]
    account_url = f"http://{base.removeprefix('azurite://')}/{AZURITE_ACCOUNT}"
    with ContainerClient(account_url, name, _AZURITE_KEY) as client:
        requests = watch_blobs(monkeypatch, PathBlobs)
        for call in ("put_file", "copy_file", "commit_file"):
            _count(monkeypatch, requests, call)
        yield Target(f"{base}/{name}/out", client, requests)


def _count(monkeypatch: pytest.MonkeyPatch, requests: Requests, name: str) -> None:
    function = getattr(PathBlobs, name)

    def call(*args: Any) -> None:
        requests.before(name)
        with requests.lock:
            requests.calls[name] += 1
        function(*args)

    monkeypatch.setattr(PathBlobs, name, call)


def test_whole_objects_are_copied_by_the_service_and_others_put(store: Store, target: Target, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", FILES)
    result = version.export(target.url, show_progress=False)
    assert target.blobs == FILES
    assert (result.files, result.placed, result.skipped, result.copied) == (len(FILES), len(FILES), 0, 3)
    assert result.bytes == sum(map(len, FILES.values()))
    assert (target.requests.calls["copy_file"], target.requests.calls["put_file"]) == (3, len(FILES) - 3 + 1)
    assert (target.requests.calls["list_blobs"], target.requests.calls["stage_block"]) == (2, 0)
    assert target.marker == {
        "uri": "vds://team/raw@1/",
        "namespace": "team/raw",
        "version": 1,
        "path": "",
        "digest": version.digest,
        "created_at": version.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "content_digest": version.content_digest,
        "files": len(FILES),
        "bytes": result.bytes,
    }
    properties = target.client.get_blob_client("out/middle.bin").get_blob_properties()
    assert properties.metadata == {"vds_digest": Digest.of(FILES["middle.bin"])}


def test_again_sends_nothing(store: Store, target: Target, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", FILES)
    version.export(target.url, show_progress=False)
    target.requests.clear()
    result = version.export(target.url, show_progress=False)
    assert (result.placed, result.bytes, result.skipped) == (0, 0, len(FILES))
    assert target.requests.calls == {"list_blobs": 1}


def test_from_elsewhere_everything_is_read_checked_and_sent(local: Store, target: Target, tmp_path: Path) -> None:
    version = upload(local, tmp_path / "src", FILES)
    result = version.export(target.url, show_progress=False)
    assert target.blobs == FILES
    assert (result.copied, target.requests.calls["copy_file"]) == (0, 0)
    assert target.requests.calls["commit_file"] == 1
    assert sorted(size for _, _, size in target.requests.staged) == [4 * MIB + 7, 8 * MIB, 8 * MIB]
    assert target.marker["files"] == len(FILES)


def test_a_large_object_is_copied_in_blocks(
    store: Store, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vds.blobs.azure, "COPY_ONE_REQUEST_BYTES_MAX", 6 * MIB)
    version = upload(store, tmp_path / "src", FILES)
    assert version.export(target.url, show_progress=False).copied == 3
    assert target.blobs == FILES
    blocks, _ = target.client.get_blob_client("out/large.bin").get_block_list("committed")
    assert [block.size for block in blocks] == [6 * MIB, 6 * MIB, 6 * MIB, 2 * MIB + 7]


def test_a_copy_that_is_refused_comes_by_here(
    store: Store, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = upload(store, tmp_path / "src", FILES)
    monkeypatch.setattr(AzureDriver, "_source_of_copy", lambda driver, key: (f"{driver._blob(key).url}-gone", {}))
    result = version.export(target.url, show_progress=False)
    assert (result.copied, target.requests.calls["copy_file"]) == (0, 3)
    assert target.blobs == FILES


def test_a_run_that_was_stopped_goes_on(store: Store, target: Target, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", FILES)
    calls = iter(range(1000))

    def stop(name: str) -> None:
        if name == "put_file" and next(calls) == 10:
            raise KeyboardInterrupt

    target.requests.before = stop
    with pytest.raises(KeyboardInterrupt):
        version.export(target.url, show_progress=False)
    assert target.marker is None
    there = target.blobs
    assert 0 < len(there) < len(FILES)
    assert there.items() <= FILES.items()
    target.requests.before = lambda name: None
    result = version.export(target.url, show_progress=False)
    assert (result.skipped, result.placed) == (len(there), len(FILES) - len(there))
    assert target.blobs == FILES
    assert target.marker["version"] == 1  # type: ignore[index]  # mypy remembers the None of before


def test_other_content_is_kept_unless_it_may_be_overwritten(store: Store, target: Target, tmp_path: Path) -> None:
    first = upload(store, tmp_path / "src", FILES)
    first.export(target.url, show_progress=False)
    changed = {**FILES, "train/001.txt": b"one", "middle.bin": os.urandom(2 * MIB), "large.bin": os.urandom(9 * MIB)}
    del changed["train/000.txt"]
    second = upload(store, tmp_path / "src2", changed)
    for dry_run in (True, False):
        with pytest.raises(ConflictError) as caught:
            second.export(target.url, show_progress=False, dry_run=dry_run)
        assert caught.value.paths == ("large.bin", "middle.bin", "train/001.txt")
        assert "--overwrite" in caught.value.hint
    assert target.blobs == FILES
    assert target.marker["version"] == 1
    result = second.export(target.url, show_progress=False, overwrite=True)
    assert (result.placed, result.copied, result.skipped) == (3, 2, len(changed) - 3)
    assert target.blobs == {**changed, "train/000.txt": FILES["train/000.txt"]}
    assert (result.foreign_count, result.plan.foreign) == (1, ("train/000.txt",))
    assert target.marker["version"] == 2


def test_a_replaced_file_that_comes_by_here(local: Store, target: Target, tmp_path: Path) -> None:
    upload(local, tmp_path / "src", FILES).export(target.url, show_progress=False)
    changed = {**FILES, "train/001.txt": b"one", "large.bin": os.urandom(9 * MIB)}
    second = upload(local, tmp_path / "src2", changed)
    assert second.export(target.url, show_progress=False, overwrite=True).placed == 2
    assert target.blobs == changed


def test_who_writes_meanwhile_is_not_overwritten(store: Store, target: Target, tmp_path: Path) -> None:
    first = upload(store, tmp_path / "src", FILES)
    first.export(target.url, show_progress=False)
    second = upload(store, tmp_path / "src2", {**FILES, "train/001.txt": b"one", "middle.bin": os.urandom(MIB), "new": b"new"})
    theirs = {"train/001.txt", "middle.bin", "new"}

    def meddle(name: str) -> None:
        if name == "delete_blob":  # the marker of the older export: everything was looked at by then
            for path in theirs:
                target.client.upload_blob(f"out/{path}", b"theirs", overwrite=True)

    target.requests.before = meddle
    with pytest.raises(ExportError) as caught:
        second.export(target.url, show_progress=False, overwrite=True)
    assert caught.value.failures.keys() == theirs
    assert "somebody else" in caught.value.failures["new"]
    assert {target.blobs[path] for path in theirs} == {b"theirs"}
    assert target.marker is None


def test_what_was_removed_meanwhile_is_missed(store: Store, target: Target, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", {"a": b"a", "b": b"b"})
    lists = iter(range(10))

    def meddle(name: str) -> None:
        if name == "list_blobs" and next(lists) == 1:
            target.client.delete_blob("out/a")
            target.client.upload_blob("out/b", b"other", overwrite=True)

    target.requests.before = meddle
    with pytest.raises(ExportError) as caught:
        version.export(target.url, show_progress=False)
    assert caught.value.failures.keys() == {"a", "b"}
    assert target.marker is None


def test_a_lost_answer_is_no_conflict(store: Store, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = upload(store, tmp_path / "src", FILES)
    put, copy = AzureDriver.put_if_absent, AzureDriver._copy_from

    def put_twice(driver: AzureDriver, *args: Any) -> str:
        put(driver, *args)
        return put(driver, *args)

    def copy_twice(driver: AzureDriver, *args: Any) -> str:
        copy(driver, *args)
        return copy(driver, *args)

    monkeypatch.setattr(PathBlobs, "put_if_absent", put_twice)
    monkeypatch.setattr(PathBlobs, "_copy_from", copy_twice)
    assert version.export(target.url, show_progress=False).placed == len(FILES)
    assert target.blobs == FILES


def test_a_damaged_object_fails_alone_and_leaves_no_marker(
    local: Store, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = upload(local, tmp_path / "src", FILES)
    for blob in Path(tmp_path / "store" / "objects").rglob("*"):
        if blob.is_file() and blob.stat().st_size == len(FILES["large.bin"]):
            blob.chmod(0o600)
            with blob.open("r+b") as file:
                file.seek(10 * MIB)
                file.write(b"damage")
    with pytest.raises(ExportError) as caught:
        version.export(target.url, show_progress=False)
    assert caught.value.failures.keys() == {"large.bin"}
    assert "is corrupt" in caught.value.failures["large.bin"]
    assert target.blobs == {path: body for path, body in FILES.items() if path != "large.bin"}
    assert target.marker is None


def test_a_dry_run_makes_nothing(store: Store, target: Target, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", FILES)
    result = version.export(target.url, show_progress=False, dry_run=True)
    assert (result.placed, result.skipped, result.dry_run) == (len(FILES), 0, True)
    assert not target.client.exists()


def test_a_store_is_no_target(store: Store, target: Target, container_url: str, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", {"a": b"a"})
    before = {blob.name for blob in ContainerClient(target.client.url.rpartition("/")[0], *_named(container_url)).list_blobs()}
    for url in (f"{container_url}/store", f"{container_url}/store/deep/er", container_url):
        with pytest.raises(InvalidInputError, match="lie in one another"):
            version.export(url, show_progress=False)
    client = ContainerClient(target.client.url.rpartition("/")[0], *_named(container_url))
    assert {blob.name for blob in client.list_blobs()} == before
    beside = f"{container_url}/stored"  # begins alike, and lies beside it
    assert version.export(beside, show_progress=False).placed == 1


def _named(container_url: str) -> tuple[str, str]:
    return container_url.rpartition("/")[2], _AZURITE_KEY


def test_a_part_with_patterns(store: Store, target: Target, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", FILES)
    version.export(target.url, "train", allow_patterns="00?.txt", ignore_patterns=["003*"], show_progress=False)
    assert sorted(target.blobs) == [f"00{i}.txt" for i in range(10) if i != 3]
    marker = target.marker
    assert (marker["path"], marker["uri"], marker["files"]) == ("train", "vds://team/raw@1/train", 9)
    assert marker["content_digest"] != version.at("train").content_digest


def test_names_that_the_service_does_not_keep(store: Store, target: Target, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", {"ok": b"", "dir./a": b"", "end.": b"", "d/" * 253 + "a": b""})
    with pytest.raises(ExportError) as caught:
        version.export(target.url, show_progress=False)
    assert caught.value.failures.keys() == {"dir./a", "end.", "d/" * 253 + "a"}
    assert not target.client.exists()


def test_a_url_with_a_sas_of_its_own(store: Store, target: Target, tmp_path: Path) -> None:
    version = upload(store, tmp_path / "src", FILES)
    target.client.create_container()
    sas = generate_container_sas(
        AZURITE_ACCOUNT,
        target.client.container_name,
        account_key=_AZURITE_KEY,
        permission=ContainerSasPermissions(read=True, list=True, create=True, write=True, delete=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    result = version.export(f"{target.url}?{sas}", show_progress=False)
    assert "sig" not in result.url
    assert result.copied == 3
    assert target.blobs == FILES
