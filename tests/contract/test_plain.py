"""Plain blobs as others wrote them, the same wherever they are; Azurite stands for the real service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import vds
from tests.plainsite import PLAIN_KINDS, DirectorySite, MemorySite, PlainSite, open_site
from vds.errors import ConflictError, InvalidInputError, NotFoundError
from vds.store.plain import PlainBlob, PlainContainer, open_plain

MIB = 1024 * 1024


@pytest.fixture(params=PLAIN_KINDS)
def site(request: pytest.FixtureRequest) -> Iterator[PlainSite]:
    with open_site(request.param, request) as made:
        yield made


@pytest.fixture
def plain(site: PlainSite) -> Iterator[PlainContainer]:
    with open_plain(site.url) as opened:
        yield opened


def get(plain: PlainContainer, name: str) -> PlainBlob:
    found = plain.find(name)
    assert found is not None
    return found


def names(plain: PlainContainer, prefix: str = "") -> list[str]:
    return [blob.name for blob in plain.list(prefix)]


def test_what_is_there_is_listed_by_name(site: PlainSite, plain: PlainContainer) -> None:
    for name in ["b.csv", "a/2.csv", "a/1.csv", "a-b", "a0", "naïve 100% #1?&+.bin", ".hidden"]:
        site.put(name, name.encode())
    assert names(plain) == sorted(site.names())
    assert names(plain, "a/") == ["a/1.csv", "a/2.csv"]
    assert names(plain, "a") == ["a-b", "a/1.csv", "a/2.csv", "a0"]  # a prefix of the text, as the service has it
    assert names(plain, "x") == []
    for blob in plain.list():
        assert blob.size_bytes == len(blob.name.encode())
        assert blob == plain.find(blob.name)
        assert blob.modified_at.tzinfo is not None
        assert plain.read_bytes(blob) == blob.name.encode()


def test_times_are_those_of_the_last_write(site: PlainSite, plain: PlainContainer) -> None:
    site.put("a", b"1")
    if not isinstance(site, DirectorySite):
        assert abs(get(plain, "a").modified_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_ranges(site: PlainSite, plain: PlainContainer) -> None:
    site.put("a", b"0123456789")
    blob = get(plain, "a")
    assert plain.read_bytes(blob, 3) == b"3456789"
    assert plain.read_bytes(blob, 3, 4) == b"3456"
    assert plain.read_bytes(blob, 8, 100) == b"89"
    assert plain.read_bytes(blob, 10) == plain.read_bytes(blob, 99, 1) == plain.read_bytes(blob, 0, 0) == b""
    for offset, size in [(-1, None), (0, -1)]:
        with pytest.raises(InvalidInputError):
            plain.read_bytes(blob, offset, size)


def test_a_download_is_whole_and_makes_its_directories(site: PlainSite, plain: PlainContainer, tmp_path: Path) -> None:
    body = os.urandom(20 * MIB + 7)
    site.put("models/large.bin", body)
    site.put("empty", b"")
    target = tmp_path / "new" / "dir" / "large.bin"
    plain.download(get(plain, "models/large.bin"), target)
    assert target.read_bytes() == body
    plain.download(get(plain, "empty"), target)
    assert target.read_bytes() == b""
    assert os.listdir(target.parent) == ["large.bin"]


@pytest.mark.parametrize("size", [0, 10, 9 * MIB])
def test_a_blob_that_changed_is_a_conflict(site: PlainSite, plain: PlainContainer, tmp_path: Path, size: int) -> None:
    site.put("a", b"x" * size)
    blob = get(plain, "a")
    target = tmp_path / "a"
    target.write_bytes(b"before")
    site.put("a", b"y" * size)
    for _ in range(2):
        with pytest.raises(ConflictError, match="'a'"):
            plain.read_bytes(blob)
        with pytest.raises(ConflictError, match="'a'"):
            plain.download(blob, target)
        assert target.read_bytes() == b"before"
        if site.names():
            site.delete("a")  # the second time round it is gone
    assert plain.find("a") is None
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".vds")] == []


def test_what_stands_for_a_directory_is_no_blob(site: PlainSite, plain: PlainContainer) -> None:
    if isinstance(site, DirectorySite):
        pytest.skip("directories have no such blobs")
    site.put("a", b"", {"hdi_isfolder": "true"})
    site.put("a/1", b"1")
    assert names(plain) == ["a/1"]
    assert plain.find("a") is None


def test_a_store_beside_them_is_left_out(site: PlainSite, plain: PlainContainer, tmp_path: Path) -> None:
    site.put("objects/ab/mine.csv", b"1")  # a directory of this name is not a store's as long as no store is there
    site.put("deep/objects/ab/mine.csv", b"1")
    before = site.names()
    assert names(plain) == before
    index = f"sqlite:///{tmp_path / 'index.sqlite'}"
    if isinstance(site, DirectorySite):
        with pytest.raises(InvalidInputError, match="not empty"):
            vds.connect(site.url, index=index, create=True)
    url = site.url if isinstance(site, MemorySite) else f"{site.url}/team/store"
    (tmp_path / "f.txt").write_bytes(b"f")
    with vds.connect(url, index=index, create=True) as store:
        store.namespace("a").upload_files([tmp_path / "f.txt"])
    assert len(site.names()) > len(before) + 4
    with open_plain(site.url) as again:
        assert names(again) == (["deep/objects/ab/mine.csv"] if isinstance(site, MemorySite) else before)
        assert again.find(next(name for name in site.names() if "packs/" in name)) is None
    if not isinstance(site, MemorySite):
        with open_plain(url) as inside:
            assert names(inside) == []


def test_a_prefix_is_seen_from_itself(request: pytest.FixtureRequest, site: PlainSite) -> None:
    site.put("raw/2026/a.csv", b"1")
    site.put("raw2/b.csv", b"2")
    if isinstance(site, MemorySite):
        pytest.skip("memory has no prefixes")
    with open_plain(f"{site.url}/raw") as plain:
        assert names(plain) == ["2026/a.csv"]
        assert plain.url.endswith("/raw")
        assert plain.read_bytes(get(plain, "2026/a.csv")) == b"1"


def test_a_place_that_is_not_there(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for url in [f"memory://no-{os.urandom(4).hex()}", (tmp_path / "none").as_uri()]:
        with open_plain(url) as plain, pytest.raises(NotFoundError):
            names(plain)


def test_nothing_leads_out_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_bytes(b"a")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    with open_plain(root.as_uri()) as plain:
        assert names(plain) == ["a"]
        for name in ["../secret", "link", "up/secret", "/etc/passwd", "", ".", "a/../a"]:
            assert plain.find(name) is None


@pytest.mark.services
def test_bytes_are_those_that_are_stored(request: pytest.FixtureRequest) -> None:
    from azure.storage.blob import ContentSettings

    from tests.plainsite import AzuriteSite

    with open_site("azurite", request) as site, open_plain(site.url) as plain:
        assert isinstance(site, AzuriteSite)
        settings = ContentSettings(content_encoding="gzip", content_type="text/csv")
        site.client.upload_blob("a.csv", b"no gzip at all", content_settings=settings)
        assert plain.read_bytes(get(plain, "a.csv")) == b"no gzip at all"
        site.put("raw//odd\\name", b"2")
        assert names(plain) == ["a.csv", "raw//odd\\name"] or names(plain) == ["a.csv", "raw//odd/name"]


def test_no_secret_in_what_it_says_of_itself() -> None:
    plain = open_plain("https://acct.blob.core.windows.net/data/raw?sv=1&sig=SASsecret")
    assert plain.url == "https://acct.blob.core.windows.net/data/raw"
    assert "SASsecret" not in repr(plain) + repr(plain._place.driver)
    plain.close()
