"""Reading a container's own records: in order, every one of them, and whatever is wrong as a value among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import pytest

from tests.unit.blobs.spy import SpyDriver
from vds.blobs.driver import Blob
from vds.blobs.objects import DIGEST_METADATA, fresh_ulid, object_key, pack_key, stream_key
from vds.blobs.packs import PackBuilder
from vds.blobs.records import (
    PIECE_BYTES,
    Found,
    Gap,
    PlacedBlob,
    list_claims,
    list_placements,
    open_changes,
    read_events,
    read_journal,
    read_journals,
    read_store_log,
)
from vds.errors import CorruptionError, FormatError, UnavailableError
from vds.model.claim import NamespaceClaim
from vds.model.content import Member
from vds.model.digest import Digest
from vds.model.event import DatasetEvent
from vds.model.manifest import ChangeListEncoder, ChangeRow, changes_key
from vds.model.storelog import StoreRecord, store_key
from vds.model.version import NO_PARENT, RECORD_BYTES_MAX, ChangeListRef, VersionRecord, journal_key, record_digest

STORE, OTHER = fresh_ulid(), fresh_ulid()
WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
EMPTY_LIST = ChangeListRef(ChangeListEncoder().digest, 0, inline=b"VDSCHG1\n")


def version(namespace: str, number: int, parent: bytes, message: str = "") -> VersionRecord:
    return VersionRecord(
        STORE,
        namespace,
        "team/raw",
        number,
        parent,
        fresh_ulid(),
        WHEN,
        "upload",
        "me",
        message,
        {},
        {},
        EMPTY_LIST,
        0,
        0,
        0,
        0,
        0,
    )


def put_journal(driver: SpyDriver, namespace: str, count: int) -> list[bytes]:
    """Write a chain of versions and return their digests, that before the first among them."""
    digests = [NO_PARENT]
    for number in range(1, count + 1):
        body = version(namespace, number, digests[-1]).encode()
        driver.put_if_absent(journal_key(namespace, number), body)
        digests.append(record_digest("vds version 1", body))
    return digests


def shown(items: Iterable[Found[VersionRecord] | Gap]) -> list[int | str]:
    """Return numbers of records, and of gaps their kind and the number in their key."""
    return [item.record.number if isinstance(item, Found) else f"{item.kind} {item.key[-2:].lstrip('0')}" for item in items]


class Driver(SpyDriver):
    """Counts listings too."""

    def list_blobs(self, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        self._count("list")
        return super().list_blobs(prefix, start_after)


@pytest.fixture
def driver() -> SpyDriver:
    return Driver()


def test_a_whole_chain_comes_in_order_with_its_digests(driver: SpyDriver) -> None:
    namespace = fresh_ulid()
    digests = put_journal(driver, namespace, 12)
    items = list(read_journal(driver, STORE, namespace))
    assert [item.digest for item in items if isinstance(item, Found)] == digests[1:]
    assert shown(items) == list(range(1, 13))
    assert items[2].key == journal_key(namespace, 3)
    assert shown(read_journal(driver, STORE, namespace, start=5, parent=digests[4])) == list(range(5, 13))
    assert shown(read_journal(driver, STORE, namespace, start=5, parent=None)) == list(range(5, 13))
    assert shown(read_journal(driver, STORE, namespace, start=13, parent=digests[12])) == []
    assert shown(read_journal(driver, STORE, fresh_ulid())) == []


def alter(driver: SpyDriver, key: str, change: Callable[[bytes], bytes]) -> None:
    body = driver.read_range(key)
    driver.delete_blob(key)
    driver.put_if_absent(key, change(body))


@pytest.mark.parametrize(
    ("number", "change", "expected"),
    [
        (1, lambda body: body[:-9], ["damaged 1", 2, 3, 4]),
        (2, lambda body: body[:-9], [1, "damaged 2", 3, 4]),
        (4, lambda body: body[:-9], [1, 2, 3, "damaged 4"]),
        (2, lambda body: b"", [1, "damaged 2", 3, 4]),
        (2, lambda body: b"x" * (RECORD_BYTES_MAX + 1), [1, "damaged 2", 3, 4]),
        (2, lambda body: body.replace(b'"message":""', b'"message":"?"'), [1, "chain 2", 3, 4]),
        (4, lambda body: body.replace(b'"message":""', b'"message":"?"'), [1, 2, 3, 4]),  # nobody vouches for the last
        (2, lambda body: body.replace(STORE.encode(), OTHER.encode()), [1, "damaged 2", 3, 4]),
        (2, lambda body: body.replace(b'"number":2', b'"number":3'), [1, "damaged 2", 3, 4]),
    ],
)
def test_what_is_wrong_stands_in_its_place(
    driver: SpyDriver, number: int, change: Callable[[bytes], bytes], expected: list[int | str]
) -> None:
    namespace = fresh_ulid()
    put_journal(driver, namespace, 4)
    alter(driver, journal_key(namespace, number), change)
    assert shown(read_journal(driver, STORE, namespace)) == expected


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ([1], ["missing 1", 2, 3, 4, 5]),
        ([2, 3], [1, "missing 2", 4, 5]),
        ([2, 4], [1, "missing 2", 3, "missing 4", 5]),
        ([5], [1, 2, 3, 4]),
    ],
)
def test_holes_are_values_too(driver: SpyDriver, gone: list[int], expected: list[int | str]) -> None:
    namespace = fresh_ulid()
    put_journal(driver, namespace, 5)
    for number in gone:
        driver.delete_blob(journal_key(namespace, number))
    assert shown(read_journal(driver, STORE, namespace)) == expected


def test_a_hole_says_how_large_it_is(driver: SpyDriver) -> None:
    namespace = fresh_ulid()
    put_journal(driver, namespace, 5)
    driver.delete_blob(journal_key(namespace, 2))
    [gap] = [item for item in read_journal(driver, STORE, namespace) if isinstance(item, Gap)]
    assert gap.detail == "record 2 is not there, 3 is"
    driver.delete_blob(journal_key(namespace, 3))
    [gap] = [item for item in read_journal(driver, STORE, namespace) if isinstance(item, Gap)]
    assert gap.detail == "record 2 to 3 is not there, 4 is"


def test_the_first_is_held_against_what_the_caller_knows(driver: SpyDriver) -> None:
    namespace = fresh_ulid()
    put_journal(driver, namespace, 3)
    assert shown(read_journal(driver, STORE, namespace, start=2, parent=NO_PARENT)) == ["chain 2", 3]


def test_a_key_that_is_none_is_told(driver: SpyDriver) -> None:
    namespace = fresh_ulid()
    put_journal(driver, namespace, 2)
    for name in ("0", "00000000000000001", "000000000000000x", "0000000000000000"):
        driver.put_if_absent(f"journal/{namespace}/{name}", b"?")
    lines = read_journals(driver, STORE)
    _, items = next(lines)
    found = list(items)
    lines.close()
    assert sorted(item.record.number for item in found if isinstance(item, Found)) == [1, 2]
    assert {item.detail for item in found if isinstance(item, Gap)} == {"it is not the key of a record"}
    assert len(found) == 6


def flat(driver: SpyDriver) -> list[tuple[str, list[int | str]]]:
    return [(uid, shown(items)) for uid, items in read_journals(driver, STORE)]


def test_many_lines_come_out_of_one_listing(driver: SpyDriver) -> None:
    names = sorted(fresh_ulid() for _ in range(5))
    for count, namespace in enumerate(names, start=1):
        put_journal(driver, namespace, count)
    driver.delete_blob(journal_key(names[3], 2))
    driver.requests.clear()
    assert flat(driver) == [
        *((namespace, list(range(1, count + 1))) for count, namespace in enumerate(names[:3], start=1)),
        (names[3], [1, "missing 2", 3, 4]),
        (names[4], [1, 2, 3, 4, 5]),
    ]
    assert driver.requests == {"list": 1, "read": 14}


def test_a_service_that_does_not_answer_is_no_gap(driver: SpyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = fresh_ulid()
    put_journal(driver, namespace, 2)

    def fail(*args: object) -> bytes:
        raise UnavailableError("no answer")

    monkeypatch.setattr(driver, "read_range", fail)
    with pytest.raises(UnavailableError):
        list(read_journal(driver, STORE, namespace))


def test_the_log_the_claims_and_the_events(driver: SpyDriver) -> None:
    namespace = fresh_ulid()
    record = StoreRecord(STORE, 1, NO_PARENT, "namespace-created", WHEN, {"namespace": namespace, "name": "team/raw"})
    driver.put_if_absent(store_key(1), record.encode())
    driver.put_if_absent(store_key(2), b"?")
    [first, second] = read_store_log(driver, STORE)
    assert isinstance(first, Found)
    assert (first.record, first.digest) == (record, record.digest)
    assert isinstance(second, Gap)
    assert second.kind == "damaged"

    claim = NamespaceClaim(namespace, "team/raw")
    driver.put_if_absent(claim.key, claim.encode())
    driver.put_if_absent("namespaces/" + "0" * 64, claim.encode())
    assert [item.key if isinstance(item, Gap) else item for item in list_claims(driver)] == ["namespaces/" + "0" * 64, claim]

    event = DatasetEvent(STORE, "customers", 1, NO_PARENT, "tag", "prod", 1, None, "me", "", WHEN)
    driver.put_if_absent(event.key, event.encode())
    elsewhere = f"datasets/{'1' * 64}/{1:016d}"
    driver.put_if_absent(elsewhere, event.encode())
    found = {prefix: list(items) for prefix, items in read_events(driver, STORE)}
    [own] = found[event.key[:-16]]
    assert isinstance(own, Found)
    assert own.record == event
    [other] = found[elsewhere[:-16]]
    assert isinstance(other, Gap)
    assert "of dataset 'customers'" in other.detail


def rows(count: int) -> list[ChangeRow]:
    return [ChangeRow(f"{number:08d}", Digest.of(b"%d" % number).raw, number, 0o644, number) for number in range(count)]


def put_list(driver: SpyDriver, count: int) -> ChangeListRef:
    encoder = ChangeListEncoder()
    body = b"".join(encoder.frames(rows(count)))
    key = changes_key(encoder.digest, fresh_ulid())
    driver.put_if_absent(key, body)
    return ChangeListRef(encoder.digest, count, key=key)


@pytest.mark.parametrize("piece_bytes", [PIECE_BYTES, 1000])
def test_a_list_is_read_piece_by_piece(driver: SpyDriver, monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    monkeypatch.setattr("vds.blobs.records.PIECE_BYTES", piece_bytes)
    ref = put_list(driver, 5000)
    assert list(open_changes(driver, ref)) == rows(5000)
    assert ref.key is not None
    blob = driver.find_blob(ref.key)
    assert blob is not None
    assert driver.requests["read"] == -(-blob.size_bytes // piece_bytes)


def test_a_list_in_its_record_needs_no_request(driver: SpyDriver) -> None:
    encoder = ChangeListEncoder()
    body = b"".join(encoder.frames(rows(3)))
    driver.requests.clear()
    assert list(open_changes(driver, ChangeListRef(encoder.digest, 3, inline=body))) == rows(3)
    assert driver.requests == {}


def test_a_list_that_is_not_what_was_written(driver: SpyDriver) -> None:
    ref = put_list(driver, 100)
    assert ref.key is not None
    with pytest.raises(CorruptionError, match="99"):
        list(open_changes(driver, ChangeListRef(ref.digest, 99, key=ref.key)))
    with pytest.raises(CorruptionError, match="digest"):
        list(open_changes(driver, ChangeListRef(NO_PARENT, 100, key=ref.key)))
    alter(driver, ref.key, lambda body: body[:-1])
    with pytest.raises(CorruptionError):
        list(open_changes(driver, ref))
    driver.delete_blob(ref.key)
    with pytest.raises(CorruptionError, match="missing"):
        list(open_changes(driver, ref))


def test_every_blob_says_what_it_holds(driver: SpyDriver) -> None:
    whole, stream = Digest.of(b"whole"), Digest.of(b"stream")
    keys = [object_key(whole.raw, fresh_ulid()), stream_key(fresh_ulid()), pack_key(fresh_ulid())]
    driver.put_if_absent(keys[0], b"whole")
    driver.put_if_absent(keys[1], b"stream", {DIGEST_METADATA: str(stream)})
    builder = PackBuilder()
    members = [Member(Digest.of(body).raw, builder.append(Digest.of(body).raw, body), len(body)) for body in (b"one", b"three")]
    driver.put_if_absent(keys[2], builder.finish())
    found = {item.key: item for item in list_placements(driver) if isinstance(item, PlacedBlob)}
    assert {key: list(found[key].members) for key in keys} == {
        keys[0]: [Member(whole.raw, 0, 5)],
        keys[1]: [Member(stream.raw, 0, 6)],
        keys[2]: members,
    }
    blob = driver.find_blob(keys[2])
    assert blob is not None
    assert (found[keys[2]].size_bytes, found[keys[2]].etag) == (blob.size_bytes, blob.etag)


@pytest.mark.parametrize(
    "key",
    [
        "objects/00/short",
        f"objects/00/{'1' * 64}.01m8065kr4qmvkhy9wkt5d06gv",
        f"objects/{'1' * 2}/{'1' * 64}",
        stream_key("01m8065kr4qmvkhy9wkt5d06gv"),
        "packs/00/x.pack",
    ],
)
def test_a_blob_that_says_nothing_is_a_gap(driver: SpyDriver, key: str) -> None:
    driver.put_if_absent(key, b"?" * 200)
    [gap] = list_placements(driver)
    assert isinstance(gap, Gap)
    assert (gap.key, gap.kind) == (key, "damaged")


def test_a_pack_of_a_newer_vds_ends_it(driver: SpyDriver) -> None:
    builder = PackBuilder()
    builder.append(Digest.of(b"1").raw, b"1")
    body = bytearray(builder.finish())
    body[-44] = 2
    driver.put_if_absent(pack_key(fresh_ulid()), body)
    with pytest.raises(FormatError):
        list(list_placements(driver))
