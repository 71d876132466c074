"""A driver that reaches adopted blobs: what it never does, and whom it does not follow."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.plainsite import DirectorySite, MemorySite
from vds.blobs.directory import DirectoryDriver
from vds.blobs.driver import BlobDriver
from vds.blobs.memory import MemoryDriver
from vds.blobs.objects import DIGEST_METADATA, fresh_ulid
from vds.blobs.open import open_driver
from vds.blobs.outside import RECORDS_KEPT, AdoptedChangedError, RoutedDriver, check_adoptable, list_adoptions, unrouted
from vds.blobs.plain import name_place, parse_place
from vds.blobs.records import Gap
from vds.errors import AccessDeniedError, CorruptionError, InvalidInputError
from vds.model.adoption import AdoptedBlob, AdoptionRecord, adopted_key, record_key
from vds.model.digest import Digest

STORE = "01j8zq6k3v0000000000000000"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
BODY = b"0123456789"


def adopt(driver: BlobDriver, container: str, name: str, etag: str, body: bytes = BODY) -> str:
    """Write a record of one blob, and return the key that stands for it."""
    record = AdoptionRecord(STORE, container, [AdoptedBlob(name, etag, len(body), Digest.of(body).raw)]).encode()
    key = record_key(fresh_ulid(), record)
    driver.put_if_absent(key, record)
    return adopted_key(key, 0)


@pytest.fixture
def site() -> MemorySite:
    return MemorySite(f"outside-{os.urandom(4).hex()}")


@pytest.fixture
def inner() -> MemoryDriver:
    driver = MemoryDriver(f"inside-{os.urandom(4).hex()}")
    driver.create_container()
    return driver


@pytest.fixture
def key(site: MemorySite, inner: MemoryDriver) -> str:
    site.put("a.csv", BODY)
    return adopt(inner, site.url, "a.csv", site._container.blobs["a.csv"].etag)


def test_an_adopted_blob_is_read_in_ranges(inner: MemoryDriver, key: str) -> None:
    driver = RoutedDriver(inner)
    assert driver.read_range(key) == BODY
    assert driver.read_range(key, 3, 4) == b"3456"
    target = bytearray(5)
    driver.read_range_into(key, 5, memoryview(target))
    assert bytes(target) == b"56789"
    found = driver.find_blob(key)
    assert found is not None
    assert (found.key, found.size_bytes) == (key, 10)
    with pytest.raises(CorruptionError, match="cannot read 5 to 11"):
        driver.read_range(key, 5, 6)


def test_it_is_never_deleted_written_or_listed(inner: MemoryDriver, site: MemorySite, key: str) -> None:
    driver = RoutedDriver(inner)
    before = sorted(inner._container.blobs)
    assert driver.delete_blob(key) is False
    assert driver.delete_blob(key, "any") is False
    assert inner.delete_blob(key) is False  # whoever knows nothing of such keys finds nothing to delete either
    calls: list[Any] = [
        lambda: driver.put_if_absent(key, b"x"),
        lambda: driver.stage_block(key, "0000", b"x"),
        lambda: driver.commit_blocks(key, []),
        lambda: driver.list_blocks(key),
    ]
    for call in calls:
        with pytest.raises(AssertionError):
            call()
    assert sorted(inner._container.blobs) == before == [blob.key for blob in driver.list_blobs()]
    assert site.names() == ["a.csv"]


def test_a_change_is_told(inner: MemoryDriver, site: MemorySite, key: str) -> None:
    driver = RoutedDriver(inner)
    site.put("a.csv", BODY)
    with pytest.raises(AdoptedChangedError, match=r"'a\.csv' in 'memory://outside-.*' was changed since") as caught:
        driver.read_range(key)
    assert caught.value.kind == "adopted-changed"
    site.delete("a.csv")
    with pytest.raises(AdoptedChangedError, match="was deleted since"):
        driver.read_range(key)
    assert driver.find_blob(key) is None


def test_a_container_that_went_with_it(inner: MemoryDriver, tmp_path: Path) -> None:
    site = DirectorySite(tmp_path / "plain")
    site.put("a.csv", BODY)
    driver = RoutedDriver(inner)
    key = adopt(inner, site.url, "a.csv", "any")
    (tmp_path / "plain" / "a.csv").unlink()
    (tmp_path / "plain").rmdir()
    assert driver.find_blob(key) is None
    with pytest.raises(AdoptedChangedError, match="was deleted since"):
        driver.read_range(key)


def test_a_record_that_is_gone_or_damaged(inner: MemoryDriver, key: str) -> None:
    record = key.rpartition("/")[0]
    assert RoutedDriver(inner).find_outside(f"{record}/0") is not None
    with pytest.raises(CorruptionError, match="has no blob 7"):
        RoutedDriver(inner).read_range(f"{record}/7")
    stored = inner._container.blobs[record]
    inner._container.blobs[record] = type(stored)(stored.body.replace(b"a.csv", b"b.csv"), stored.etag, {})
    with pytest.raises(CorruptionError, match="not what its key names"):
        RoutedDriver(inner).read_range(key)
    [gap] = list_adoptions(inner)
    assert isinstance(gap, Gap)
    assert gap.key == record
    inner.delete_blob(record)
    with pytest.raises(CorruptionError, match="is missing"):
        RoutedDriver(inner).read_range(key)
    assert RoutedDriver(inner).find_blob(key) is None
    assert list(list_adoptions(inner)) == []


def test_a_copy_has_the_bytes_and_their_digest(inner: MemoryDriver, site: MemorySite, key: str) -> None:
    driver = RoutedDriver(inner)
    driver.copy_blob(key, "objects/~~/x")
    found = inner.find_blob("objects/~~/x")
    assert found is not None
    assert dict(found.metadata) == {DIGEST_METADATA: str(Digest.of(BODY))}
    assert inner.read_range("objects/~~/x") == BODY
    assert driver.copy_blob("objects/~~/x", "objects/~~/y")


def test_records_are_read_once_and_a_bounded_number_is_kept(
    inner: MemoryDriver, site: MemorySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("a.csv", BODY)
    etag = site._container.blobs["a.csv"].etag
    keys = [adopt(inner, site.url, "a.csv", etag) for _ in range(RECORDS_KEPT + 10)]
    driver, read = RoutedDriver(inner), list[str]()
    original = inner.read_range

    def note(key: str, *bounds: int) -> bytes:
        read.append(key)
        return original(key, *bounds)

    monkeypatch.setattr(inner, "read_range", note)
    for key in keys:
        for _ in range(3):
            assert driver.read_range(key) == BODY
    assert len(read) == len(keys)
    assert len(driver._records) == RECORDS_KEPT


def test_the_stores_own_container_needs_no_name(inner: MemoryDriver) -> None:
    own = MemorySite(inner.url.removeprefix("memory://"))
    own.put("plain name.csv", BODY)
    key = adopt(inner, "", "plain name.csv", own._container.blobs["plain name.csv"].etag)
    assert RoutedDriver(inner).read_range(key) == BODY


def test_urls_of_adopted_blobs_are_those_of_their_container() -> None:
    class Signed(MemoryDriver):
        @property
        def url(self) -> str:
            return "https://acct.blob.core.windows.net/data/store"

        def sign_reads(self, blobs: Any, **times: Any) -> list[str]:
            return [f"own:{key}" for key, _ in blobs]

    inner = Signed(f"signed-{os.urandom(4).hex()}")
    inner.create_container()
    name_place(parse_place("https://other.blob.core.windows.net/plain"), KEY)
    key = adopt(inner, "https://other.blob.core.windows.net/plain", "a b/x.csv", "e")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    urls = RoutedDriver(inner).sign_reads(
        [("objects/a", "1"), (key, "x.csv"), ("objects/b", "2")], starts_at=now, expires_at=now + timedelta(hours=1)
    )
    assert (urls[0], urls[2]) == ("own:objects/a", "own:objects/b")
    assert urls[1].startswith("https://other.blob.core.windows.net/plain/a%20b/x.csv?")
    assert "sig=" in urls[1]


@pytest.mark.parametrize(
    "container",
    [
        "https://storage.example.org/data",
        "https://acct.blob.core.windows.net.example.org/data",
        "http://acct.blob.core.windows.net/data",
        "https://10.1.2.3:443/acct/data",
        "file:///etc",
        "memory://other",
    ],
)
def test_a_record_does_not_lead_anywhere(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=secret")
    driver = RoutedDriver(open_driver("https://home.blob.core.windows.net/data", KEY))
    with pytest.raises(AccessDeniedError, match=r"adopted from|said to lie in"):
        driver.open_outside(container)


def test_a_record_may_lead_to_what_is_known() -> None:
    driver = RoutedDriver(open_driver("https://home.example.org:444/home/data", KEY))
    assert driver.open_outside("https://home.example.org:444/home/other").url.endswith("/home/other")
    assert driver.open_outside("https://acct.blob.core.windows.net/plain").url.endswith("/plain")
    with pytest.raises(AccessDeniedError, match="not known") as caught:
        driver.open_outside("https://private.example.org:444/x/plain")
    assert "open_plain" in caught.value.hint
    name_place(parse_place("https://private.example.org:444/x/plain/some/prefix"), KEY)
    assert driver.open_outside("https://private.example.org:444/x/plain").url.endswith("/x/plain")


def test_what_others_could_not_reach_is_not_adopted(tmp_path: Path) -> None:
    def check(home: str, place: str) -> None:
        check_adoptable(parse_place(home), parse_place(place))

    disk, cloud = tmp_path.as_uri(), "az://data@acct"
    for home, place in [(cloud, cloud), (disk, cloud), (disk, disk), ("memory://a", disk), ("memory://a", "memory://b")]:
        check(home, place)
    for home, place in [(cloud, disk), (cloud, "memory://a"), (disk, "memory://a")]:
        with pytest.raises(InvalidInputError, match="from here only"):
            check(home, place)


def test_it_can_be_taken_off(tmp_path: Path) -> None:
    inner = DirectoryDriver(tmp_path)
    assert unrouted(RoutedDriver(inner)) is inner
    assert unrouted(inner) is inner
    assert repr(inner) in repr(RoutedDriver(inner))
