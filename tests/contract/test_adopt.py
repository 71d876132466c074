"""Adopted blobs: versions of what others wrote, the same wherever that is; Azurite stands for the real service."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

import vds
from tests.plainsite import AzuriteSite, DirectorySite, MemorySite, PlainSite, open_site
from tests.support import ROOT, read_tree, read_version, write_tree
from vds.blobs.outside import AdoptedChangedError
from vds.errors import ConflictError, CorruptionError, ErasedError, InvalidInputError, NotFoundError, UploadError
from vds.model.digest import Digest
from vds.store import Namespace, Store
from vds.store.plain import open_plain

MIB = 1024 * 1024
FILES = {
    "preprocessed/a.csv": b"a,b\n1,2\n",
    "preprocessed/deep/b.csv": b"b" * 5000,
    "preprocessed/large.bin": os.urandom(9 * MIB + 3),
    "preprocessed/naïve 100% #1?&+.bin": os.urandom(MIB + 1),
    "preprocessed/empty": b"",
    "preprocessed2/not.csv": b"not me",
    "preprocessed.csv": b"nor me",
}
BELOW = {path: body for path, body in FILES.items() if path.startswith("preprocessed/")}
LARGE = "preprocessed/large.bin"
GONE = {"gone": lambda site, name: site.delete(name), "changed": lambda site, name: site.put(name, FILES[name])}


@dataclass
class Scene:
    """A store, and plain blobs in the same container or elsewhere."""

    site: PlainSite
    store: Store
    url: str
    index: str

    @property
    def raw(self) -> Namespace:
        return self.store.namespace("team/raw")

    def adopt(self, prefix: str = "preprocessed", **given: object) -> vds.store.UploadResult:
        return self.raw.adopt(self.site.url, prefix, show_progress=False, **given)  # type: ignore[arg-type]

    def read(self, version: vds.Version | None = None) -> dict[str, bytes]:
        return read_version(version or self.raw.latest())

    def collect(self) -> None:
        """Collect everything that nobody needs any more, at once."""
        for _ in range(3):
            self.store.gc(dry_run=False, grace_hours=0, max_share=1.0, show_progress=False)


@pytest.fixture(
    params=[
        "memory+memory",
        "directory+directory",
        pytest.param("memory+memory+postgresql", marks=pytest.mark.services),
        pytest.param("azurite+azurite", marks=pytest.mark.services),
        pytest.param("azurite+beside", marks=pytest.mark.services),
        pytest.param("azurite+directory", marks=pytest.mark.services),
    ]
)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """Where the plain blobs are + where the store is (`beside` them: in one container) + its index, if that is not SQLite."""
    kind, home, *rest = request.param.split("+")
    with open_site(kind, request) as site:
        for name, body in FILES.items():
            site.put(name, body)
        url = {
            "memory": f"memory://store-{os.urandom(4).hex()}",
            "directory": (tmp_path / "store").as_uri(),
            "azurite": request.getfixturevalue("container_url") if home == "azurite" else "",
            "beside": f"{site.url}/team/store",
        }[home]
        index = request.getfixturevalue("database_url") if rest else f"sqlite:///{tmp_path / 'index.sqlite'}"
        with vds.connect(url, index=index, create=True) as store:
            yield Scene(site, store, url, index)


def test_what_is_adopted_is_read_like_any_file(scene: Scene, tmp_path: Path) -> None:
    before = [name for name in scene.site.names() if "team/store" not in name]
    result = scene.adopt(message="as it is", labels={"from": "there"})
    assert (result.created, result.uploaded, result.bytes_sent, result.objects_new) == (True, 5, 0, 4)
    assert result.bytes_read == result.bytes_new == sum(map(len, BELOW.values()))
    assert result.uri == "vds://team/raw@1/preprocessed"
    version = scene.raw.latest()
    assert (version.message, dict(version.labels), version.operation) == ("as it is", {"from": "there"}, "adopt")
    assert scene.read(version) == BELOW
    version.download(tmp_path / "out", show_progress=False)
    assert read_tree(tmp_path / "out") == BELOW
    assert {str(entry.path): bytes(body) for entry, body in version.stream()} == BELOW
    with version.open(LARGE) as file:
        file.seek(5 * MIB)
        assert file.read(100) == FILES[LARGE][5 * MIB : 5 * MIB + 100]
    assert version.fetch(LARGE).read_bytes() == FILES[LARGE]
    assert version.verify().ok
    modified_ns = {str(entry.path): entry.modified_ns for entry in version.entries()}
    with open_plain(scene.site.url) as plain:
        for blob in plain.list("preprocessed/"):
            assert abs(modified_ns[blob.name] - blob.modified_at.timestamp() * 1e9) < 1e6
    assert [name for name in scene.site.names() if "team/store" not in name] == before


def test_again_adopts_nothing_and_reads_nothing(scene: Scene) -> None:
    scene.adopt()
    again = scene.adopt()
    assert (again.created, again.bytes_read, again.objects_new, again.skipped) == (False, 0, 0, 5)
    scene.site.put("preprocessed/new.csv", b"new")
    third = scene.adopt()
    assert (third.uploaded, third.bytes_read, third.version.number) == (1, 3, 2)


@pytest.mark.parametrize(
    ("prefix", "target", "expected"),
    [
        ("", None, lambda name: name),
        ("preprocessed/", "raw/2026", lambda name: "raw/2026/" + name.removeprefix("preprocessed/")),
        ("preprocessed", "", lambda name: name.removeprefix("preprocessed/")),
    ],
)
def test_where_it_goes(scene: Scene, prefix: str, target: str | None, expected: object) -> None:
    chosen = BELOW if prefix else FILES
    scene.adopt(prefix, target_path=target)
    assert scene.read() == {expected(name): body for name, body in chosen.items()}  # type: ignore[operator]


def test_one_blob(scene: Scene) -> None:
    scene.adopt("preprocessed.csv", target_path="x")
    scene.adopt("preprocessed.csv")
    assert scene.read() == {"x/preprocessed.csv": b"nor me", "preprocessed.csv": b"nor me"}


def test_a_prefix_in_the_url(scene: Scene) -> None:
    if isinstance(scene.site, MemorySite):
        pytest.skip("memory has no prefixes")
    scene.raw.adopt(f"{scene.site.url}/preprocessed", "deep", show_progress=False)
    assert scene.read() == {"deep/b.csv": FILES["preprocessed/deep/b.csv"]}


@pytest.mark.parametrize("name", [*BELOW, LARGE])
@pytest.mark.parametrize("how", ["gone", "changed", "other"])
def test_a_change_of_the_blob_is_told_when_it_is_read(scene: Scene, tmp_path: Path, name: str, how: str) -> None:
    if not FILES[name]:
        pytest.skip("what has no bytes is not read")
    scene.adopt()
    version = scene.raw.latest()
    if how == "gone":
        scene.site.delete(name)
    else:
        scene.site.put(name, FILES[name] if how == "changed" else FILES[name][::-1])
    with pytest.raises(AdoptedChangedError, match="deleted since" if how == "gone" else "changed since") as caught:
        version.read_bytes(name)
    assert isinstance(caught.value, CorruptionError)
    assert repr(name) in caught.value.message
    assert scene.site.url.rpartition("/")[2] in caught.value.message
    assert "vds adopt" in caught.value.hint
    with pytest.raises(vds.errors.DownloadError, match="since it was adopted"):
        version.download(tmp_path / "out", show_progress=False)
    others = {path: body for path, body in BELOW.items() if path != name}
    assert read_tree(tmp_path / "out") == others
    assert not version.verify().ok


def test_collection_never_touches_them(scene: Scene, tmp_path: Path) -> None:
    before = {name for name in scene.site.names() if "team/store" not in name}
    scene.adopt()
    scene.collect()
    assert scene.read() == BELOW
    scene.raw.upload(write_tree(tmp_path / "src", {"mine": b"mine"}), mirror=True, show_progress=False, allow_shrink=True)
    scene.store.expire(keep_last=1, dry_run=False)
    scene.collect()
    assert {name for name in scene.site.names() if "team/store" not in name} == before
    assert scene.store.fsck(full=True, show_progress=False).ok
    scene.adopt()
    assert scene.read() == {**BELOW, "mine": b"mine"}
    scene.collect()
    assert scene.read() == {**BELOW, "mine": b"mine"}


def test_what_nobody_needs_may_go_there_too(scene: Scene, tmp_path: Path) -> None:
    scene.adopt()
    scene.raw.upload(write_tree(tmp_path / "src", {"mine": b"mine"}), mirror=True, show_progress=False, allow_shrink=True)
    scene.store.expire(keep_last=1, dry_run=False)
    for name in BELOW:
        scene.site.delete(name)
    scene.collect()
    assert scene.store.fsck(show_progress=False).ok
    report = scene.store.gc(grace_hours=0, show_progress=False)
    assert (report.condemned, report.deleted, report.waiting) == (0, 0, 0)


def test_an_upload_does_not_count_on_them(scene: Scene, tmp_path: Path) -> None:
    scene.adopt()
    source = write_tree(tmp_path / "src", BELOW)
    again = scene.raw.upload(source, show_progress=False)
    assert (again.created, again.objects_new) == (False, 4)  # the same files, with bytes of our own now
    assert again.bytes_sent == sum(map(len, BELOW.values()))
    for name in BELOW:
        scene.site.delete(name)
    assert scene.read() == BELOW
    assert scene.raw.get(1).verify().ok
    scene.collect()
    assert scene.store.fsck(full=True, show_progress=False).ok
    assert scene.raw.upload(source, show_progress=False).bytes_sent == 0


def test_an_unchanged_file_is_sent_although_the_version_has_it(scene: Scene, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "src", BELOW)
    scene.store.namespace("other").upload(source, show_progress=False)  # this machine knows the digests from here on
    scene.store.namespace("other").upload(write_tree(tmp_path / "none", {"x": b"x"}), mirror=True, show_progress=False)
    scene.store.expire(keep_last=1, dry_run=False)
    scene.collect()
    scene.adopt()
    again = scene.raw.upload(source, show_progress=False)
    assert (again.created, again.bytes_sent) == (False, sum(map(len, BELOW.values())))


def test_what_the_store_has_is_not_adopted(scene: Scene, tmp_path: Path) -> None:
    scene.store.namespace("other").upload(write_tree(tmp_path / "src", BELOW), show_progress=False)
    result = scene.adopt()
    assert (result.uploaded, result.objects_new) == (5, 0)
    for name in BELOW:
        scene.site.delete(name)
    assert scene.read() == BELOW


def test_the_same_content_twice_lies_in_one_of_them(scene: Scene) -> None:
    scene.site.put("preprocessed/copy.csv", FILES["preprocessed/a.csv"])
    assert scene.adopt().objects_new == 4
    assert scene.read() == {**BELOW, "preprocessed/copy.csv": FILES["preprocessed/a.csv"]}


@pytest.mark.parametrize("how", ["adopt", "upload", "repair"])
def test_damage_is_found_and_mended(scene: Scene, tmp_path: Path, how: str) -> None:
    scene.adopt()
    name = "preprocessed/deep/b.csv"
    scene.site.delete(name)
    scene.site.put("preprocessed/a.csv", b"other bytes")
    report = scene.store.fsck(show_progress=False)
    assert not report.ok
    found = [problem for problem in report.problems if problem.severity == "damage"]
    assert {problem.kind for problem in found} == {"object-damaged"}
    assert {problem.digest for problem in found} == {str(Digest.of(FILES[one])) for one in (name, "preprocessed/a.csv")}
    assert any(repr(name) in problem.detail and "deleted" in problem.detail for problem in found)
    assert any("'preprocessed/a.csv'" in problem.detail and "changed" in problem.detail for problem in found)
    assert [touch.path for problem in found for touch in problem.touches]
    with pytest.raises(CorruptionError):
        scene.store.gc(dry_run=False, show_progress=False)
    if how == "adopt":
        scene.site.put("elsewhere/one", FILES[name])
        scene.site.put("elsewhere/two", FILES["preprocessed/a.csv"])
        scene.adopt("elsewhere", target_path="again")
    elif how == "upload":
        scene.store.namespace("other").upload(write_tree(tmp_path / "src", BELOW), show_progress=False)
    else:
        mended = scene.store.fsck(repair_from=write_tree(tmp_path / "src", BELOW), show_progress=False)
        assert mended.ok
    assert {path: body for path, body in scene.read().items() if path in BELOW} == BELOW
    assert scene.store.fsck(full=True, show_progress=False).ok
    scene.collect()
    assert {path: body for path, body in scene.read().items() if path in BELOW} == BELOW


def test_damage_that_was_not_looked_for_is_mended_by_adopting_again(scene: Scene) -> None:
    scene.adopt()
    for name, body in BELOW.items():
        scene.site.put(name, body)  # the same bytes, another etag
    with pytest.raises(AdoptedChangedError):
        scene.read()
    again = scene.adopt()
    assert (again.created, again.objects_new) == (False, 4)
    assert scene.read() == BELOW


def test_a_new_index_finds_them(scene: Scene, tmp_path: Path) -> None:
    scene.adopt()
    scene.site.put("preprocessed/a.csv", b"newer")
    scene.adopt()
    source = write_tree(tmp_path / "src", {"preprocessed/deep/b.csv": FILES["preprocessed/deep/b.csv"]})
    scene.raw.upload(source, show_progress=False)
    scene.site.put("preprocessed/large.bin", FILES[LARGE])  # another etag, adopted again: the newest record counts
    scene.adopt()
    scene.site.delete("preprocessed/deep/b.csv")
    scene.store.close()
    scene.index = f"sqlite:///{tmp_path / 'new.sqlite'}"
    Path(tmp_path / "new.sqlite").unlink(missing_ok=True)
    vds.rebuild_index(scene.url, index=scene.index, show_progress=False)
    with vds.connect(scene.url, index=scene.index) as store:
        latest = store.namespace("team/raw").latest()
        assert read_version(latest) == {**BELOW, "preprocessed/a.csv": b"newer"}
        report = store.fsck(full=True, show_progress=False)
        lost = [problem for problem in report.problems if problem.severity == "damage"]
        assert [problem.digest for problem in lost] == [str(Digest.of(FILES["preprocessed/a.csv"]))]  # of version 1
        scene.site.put("mend", FILES["preprocessed/a.csv"])
        store.namespace("team/raw").adopt(scene.site.url, "mend", show_progress=False)
        assert read_version(store.namespace("team/raw").get(1)) == BELOW
        scene.store = store
        scene.collect()
        assert store.fsck(full=True, show_progress=False).ok
        again = store.namespace("team/raw").adopt(scene.site.url, "preprocessed", show_progress=False)
        assert (again.created, again.objects_new) == (False, 0)


def test_a_rebuild_after_a_collection(scene: Scene, tmp_path: Path) -> None:
    scene.adopt()
    scene.raw.upload(write_tree(tmp_path / "src", {"mine": b"mine"}), mirror=True, show_progress=False, allow_shrink=True)
    scene.store.expire(keep_last=1, dry_run=False)
    scene.collect()
    scene.store.close()
    index = f"sqlite:///{tmp_path / 'new.sqlite'}"
    vds.rebuild_index(scene.url, index=index, show_progress=False)
    with vds.connect(scene.url, index=index) as store:
        assert read_version(store.namespace("team/raw").latest()) == {"mine": b"mine"}
        assert store.fsck(full=True, show_progress=False).ok
        store.namespace("team/raw").adopt(scene.site.url, "preprocessed", show_progress=False)
        assert read_version(store.namespace("team/raw").latest()) == {**BELOW, "mine": b"mine"}
    for name in BELOW:
        assert name in scene.site.names()


def test_without_the_index(scene: Scene) -> None:
    scene.adopt()
    scene.store.close()
    from vds.store.noindex import open_version

    assert read_version(open_version(scene.url, "team/raw")) == BELOW


def test_an_erased_content_stays_where_it_lies(scene: Scene) -> None:
    scene.adopt()
    name = "preprocessed/a.csv"
    planned = scene.store.erase(str(Digest.of(FILES[name])), show_progress=False)
    assert len(planned.outside) == 1
    report = scene.store.erase(str(Digest.of(FILES[name])), reason="request 4711", dry_run=False, show_progress=False)
    [outside] = report.outside
    assert repr(name) in outside
    assert scene.site.url.rpartition("/")[2] in outside
    assert report.deleted_keys == []
    assert name in scene.site.names()
    with pytest.raises(ErasedError):
        scene.raw.latest().read_bytes(name)
    with pytest.raises(UploadError, match="erased"):
        scene.adopt()
    scene.collect()
    assert scene.store.fsck(full=True, show_progress=False).ok


def test_a_dry_run_does_nothing(scene: Scene) -> None:
    planned = scene.adopt(dry_run=True)
    assert (planned.uploaded, planned.objects_new, planned.dry_run, planned.created_namespace) == (5, 4, True, True)
    assert list(scene.store.namespaces()) == []
    scene.adopt("preprocessed/deep")
    planned = scene.adopt(dry_run=True)
    assert (planned.uploaded, planned.skipped, planned.objects_new) == (4, 1, 3)
    assert scene.raw.latest().number == 1
    assert planned.uploaded == scene.adopt().uploaded


def test_several_adopt_the_same_at_once(scene: Scene, tmp_path: Path) -> None:
    def run(number: int) -> None:
        namespace = scene.store.namespace(f"n/{number % 3}")
        if number % 2:
            namespace.upload(source, show_progress=False)
        else:
            namespace.adopt(scene.site.url, "preprocessed", show_progress=False)

    source = write_tree(tmp_path / "src", BELOW)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, range(6)))
    for number in range(3):
        assert read_version(scene.store.namespace(f"n/{number}").latest()) == BELOW
    scene.collect()
    for name in BELOW:
        scene.site.delete(name)
    for number in range(3):
        assert read_version(scene.store.namespace(f"n/{number}").latest()) == BELOW  # the uploads took the places over
    assert scene.store.fsck(full=True, show_progress=False).ok


def test_an_expected_parent(scene: Scene) -> None:
    scene.adopt("preprocessed/deep", expected_parent=0)
    with pytest.raises(ConflictError, match="expected 0"):
        scene.adopt(expected_parent=0)


@pytest.mark.parametrize("name", ["a//b.csv", "a/./b", "a\nb"])
def test_names_that_are_no_paths_are_all_named(scene: Scene, name: str) -> None:
    if not isinstance(scene.site, MemorySite):
        pytest.skip("others do not hold such names as they are")
    scene.site.put(f"preprocessed/{name}", b"1")
    scene.site.put("preprocessed/back\\slash", b"2")
    scene.site.put("preprocessed/" + "x" * 256, b"3")
    with pytest.raises(UploadError) as caught:
        scene.adopt()
    assert set(caught.value.failures) == {f"preprocessed/{name}", "preprocessed/back\\slash", "preprocessed/" + "x" * 256}
    assert list(scene.store.namespaces()) == []


def test_two_forms_of_one_name(scene: Scene) -> None:
    if isinstance(scene.site, DirectorySite):
        pytest.skip("some disks do not hold both")
    scene.site.put("preprocessed/cafe\u0301", b"1")
    scene.adopt()
    assert scene.raw.latest().read_bytes("preprocessed/caf\u00e9") == b"1"
    scene.site.put("preprocessed/caf\u00e9", b"2")
    with pytest.raises(UploadError, match="same path"):
        scene.adopt()


def test_empty_blobs_that_stand_for_directories(scene: Scene) -> None:
    if isinstance(scene.site, DirectorySite):
        pytest.skip("directories have no such blobs")
    scene.site.put("preprocessed/deep", b"")
    scene.site.put("preprocessed/", b"")
    scene.site.put("preprocessed", b"", {"hdi_isfolder": "true"})
    result = scene.adopt()
    assert result.uploaded == 5
    assert scene.read() == BELOW


def test_a_file_and_a_directory_at_once(scene: Scene) -> None:
    if isinstance(scene.site, DirectorySite):
        pytest.skip("directories have no such blobs")
    scene.site.put("preprocessed/deep", b"a file")
    with pytest.raises(ConflictError, match="file and a directory"):
        scene.adopt()


def test_what_is_not_there(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match="preproces"):
        scene.adopt("preproces")
    with pytest.raises(InvalidInputError):
        scene.adopt("/preprocessed")
    assert list(scene.store.namespaces()) == []


def test_other_processes_read_them(scene: Scene) -> None:
    if isinstance(scene.site, MemorySite):
        pytest.skip("memory is this process's")
    scene.adopt()
    code = (
        "import pickle, sys; version = pickle.loads(sys.stdin.buffer.read());"
        f" sys.stdout.buffer.write(version.read_bytes({LARGE!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(scene.raw.latest()),
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "VDS_INDEX": scene.index, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == FILES[LARGE]


def test_the_cache_serves_them_when_they_are_gone(scene: Scene, tmp_path: Path) -> None:
    scene.adopt()
    version = scene.raw.latest()
    version.download(tmp_path / "first", show_progress=False)
    for name in BELOW:
        scene.site.delete(name)
    version.download(tmp_path / "out", show_progress=False)
    assert read_tree(tmp_path / "out") == BELOW


def test_they_are_exported(scene: Scene, tmp_path: Path) -> None:
    scene.adopt()
    scene.raw.latest().export(str(tmp_path / "out"), show_progress=False)
    found = {path: body for path, body in read_tree(tmp_path / "out").items() if not path.startswith("_VDS")}
    assert found == BELOW


def test_urls_to_share(scene: Scene) -> None:
    scene.adopt()
    version = scene.raw.latest()
    if not isinstance(scene.site, AzuriteSite):
        with pytest.raises(InvalidInputError, match="not in an Azure storage account"):
            version.share(LARGE)
        return
    [shared] = version.share(LARGE)
    assert requests.get(shared.url, timeout=30).content == FILES[LARGE]


def test_versions_are_copied_with_them(scene: Scene) -> None:
    scene.adopt()
    scene.store.namespace("other").copy("team/raw")
    assert read_version(scene.store.namespace("other").latest()) == BELOW


def test_a_blob_that_changes_while_it_is_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from vds.blobs.plain import PlainPlace

    read = PlainPlace.read

    def meddle(place: PlainPlace, blob: object, offset: int, length: int) -> bytes:
        if blob.name == LARGE and not meddled:  # type: ignore[attr-defined]
            meddled.append(1)
            scene.site.put(LARGE, FILES[LARGE])
        return read(place, blob, offset, length)  # type: ignore[arg-type]

    meddled: list[int] = []
    monkeypatch.setattr(PlainPlace, "read", meddle)
    with pytest.raises(UploadError, match="changed or deleted while it was read") as caught:
        scene.adopt()
    assert set(caught.value.failures) == {LARGE}
    assert scene.adopt().uploaded == 5
    assert scene.read() == BELOW


@pytest.mark.services
def test_a_shared_store_takes_nothing_that_one_machine_has(container_url: str, tmp_path: Path) -> None:
    with vds.connect(container_url, index=f"sqlite:///{tmp_path / 'i.sqlite'}", create=True) as store:
        for url in [(tmp_path / "x").as_uri(), "memory://x"]:
            with pytest.raises(InvalidInputError, match="from here only"):
                store.namespace("a").adopt(url, show_progress=False)


@pytest.mark.services
def test_a_credential_of_their_own(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    from vds.blobs.credential import _AZURITE_KEY
    from vds.blobs.location import AZURITE_ACCOUNT

    with open_site("azurite", request) as site, vds.connect(str(tmp_path / "store"), create=True) as store:
        assert isinstance(site, AzuriteSite)
        site.put("a.csv", b"1")
        sas = generate_container_sas(
            AZURITE_ACCOUNT,
            site.client.container_name,
            account_key=_AZURITE_KEY,
            permission=ContainerSasPermissions(read=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        store.namespace("a").adopt(f"{site.url}?{sas}", show_progress=False)
        assert read_version(store.namespace("a").latest()) == {"a.csv": b"1"}
        secret = sas.partition("sig=")[2].partition("&")[0]
        for path in (tmp_path / "store").rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes()
        site.delete("a.csv")
        with pytest.raises(AdoptedChangedError) as caught:
            read_version(store.namespace("a").latest())
        assert secret not in caught.value.message + caught.value.hint
