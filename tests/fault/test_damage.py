"""Stored bytes that are not what they must be: reads say so and name the blob, and never return wrong bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import vds
from tests.support import Checker, Place, read_tree, write_tree
from vds.errors import CorruptionError, DownloadError, FormatError, InvalidInputError, NotFoundError
from vds.model.version import VERSION_CONTEXT, VersionRecord, name_digest, record_digest

NAMESPACE = "team/raw"
FILES = {f"small/{i}": f"content {i}".encode() * 9 for i in range(5)} | {"large": bytes(range(256)) * 5000}
MANY = 3000  # files whose change list does not fit into the record


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 0x10
    path.write_bytes(body)


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    path.write_bytes(b"z" * path.stat().st_size)


DAMAGES = [truncate, cut_to_nothing, flip, delete, replace]
Damage = Callable[[Path], None]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(str(tmp_path / "store"))
    with made.connect(create=True) as store:
        store.namespace(NAMESPACE).upload(write_tree(tmp_path / "src", FILES), show_progress=False)
    return made


def find_one(place: Place, prefix: str) -> Path:
    """Return the file of the one blob below `prefix`."""
    blobs = place.blobs()
    (blob,) = blobs.list_blobs(prefix)
    return Path(place.url) / blob.key


def check_reads(store: vds.Store, key: str, hurt: set[str], dst: Path) -> None:
    """Check that each file is either itself or an error that names its blob, whichever way it is read."""
    version = store.namespace(NAMESPACE).latest()
    seen, errors = set(), list[CorruptionError]()
    for path, body in FILES.items():
        reads: list[Callable[[], bytes]] = [
            lambda path=path: version.read_bytes(path),  # type: ignore[misc]
            lambda path=path: version.read_bytes(path, 3, 4),  # type: ignore[misc]
            lambda path=path: version.open(path).read(),  # type: ignore[misc]
        ]
        for read, expected in zip(reads, [body, body[3:7], body], strict=True):
            try:
                assert read() == expected
            except CorruptionError as err:
                seen.add(path)
                errors.append(err)
    assert all(key in str(err) and err.hint for err in errors)
    assert seen <= hurt
    report = version.verify()
    assert set(report.failures) == seen
    assert report.ok is (not seen)
    assert all(key in text for text in report.failures.values())
    if not seen:
        version.download(dst, show_progress=False)
    else:
        with pytest.raises(DownloadError) as caught:
            version.download(dst, show_progress=False)
        assert set(caught.value.failures) == seen
    assert read_tree(dst) == {path: body for path, body in FILES.items() if path not in seen}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object(damage: Damage, place: Place, tmp_path: Path) -> None:
    path = find_one(place, "objects/")
    damage(path)
    with place.connect() as store:
        check_reads(store, path.name, {"large"}, tmp_path / "dst")
        assert not store.namespace(NAMESPACE).latest().verify().ok


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pack(damage: Damage, place: Place, tmp_path: Path) -> None:
    path = find_one(place, "packs/")
    damage(path)
    with place.connect() as store:
        check_reads(store, path.name, {path for path in FILES if path != "large"}, tmp_path / "dst")


def test_every_bit_of_a_pack_counts_for_its_members(place: Place) -> None:
    path = find_one(place, "packs/")
    sound = path.read_bytes()
    small = {name: body for name, body in FILES.items() if name != "large"}
    body_bytes = sum(len(body) for body in small.values())
    with place.connect() as store:
        version = store.namespace(NAMESPACE).latest()
        for position in range(0, body_bytes, 7):
            body = bytearray(sound)
            body[position] ^= 1 << position % 8
            path.write_bytes(body)
            failures = version.verify().failures
            assert len(failures) == 1
            for name in small:
                if name not in failures:
                    assert version.read_bytes(name) == small[name]
        path.write_bytes(sound)
        assert version.verify().ok


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_change_list(damage: Damage, place: Place, tmp_path: Path) -> None:
    many = {f"{i:05d}": str(i).encode() for i in range(MANY)}
    with place.connect() as store:
        store.namespace("many").upload(write_tree(tmp_path / "many", many), show_progress=False)
    Checker(place, "many")._read_journal()
    damage(find_one(place, "changes/"))
    with pytest.raises((CorruptionError, NotFoundError)):
        Checker(place, "many")._read_journal()
    with place.connect() as store:  # the index does not lean on it
        assert store.namespace("many").latest().verify().ok


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_record_is_told_from_a_sound_one(damage: Damage, place: Place) -> None:
    path = find_one(place, "journal/")
    key = path.relative_to(place.url).as_posix()
    damage(path)
    with place.connect() as store:
        digest = store.namespace(NAMESPACE).latest().digest.raw
    if not path.exists():
        return  # a listing shows it
    body = path.read_bytes()
    assert record_digest(VERSION_CONTEXT, body) != digest
    # A flipped bit, or a missing line feed at the end, leaves a record that reads well: the chain of digests is what tells.
    if damage not in (flip, truncate):
        with pytest.raises(CorruptionError, match=key):
            VersionRecord.decode(body, key)


def test_a_record_that_the_index_does_not_know_stops_all_writing(place: Place, tmp_path: Path) -> None:
    path = find_one(place, "journal/")
    path.with_name(f"{2:016d}").write_bytes(path.read_bytes())
    with place.connect() as store:
        with pytest.raises(FormatError, match="older than its store") as caught:
            store.namespace(NAMESPACE).upload(write_tree(tmp_path / "more", {"more": b"more"}), show_progress=False)
        assert "rebuild" in caught.value.hint
        assert store.namespace(NAMESPACE).latest().verify().ok  # reading goes on


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", [truncate, cut_to_nothing, replace])
def test_a_damaged_format_record(damage: Damage, read_only: bool, place: Place) -> None:
    path = find_one(place, "format/")
    damage(path)
    if damage is truncate:  # its last byte is a line feed: what is left is still a whole record
        truncate(path)
    with pytest.raises(CorruptionError, match=f"format/{path.name}"):
        vds.connect(place.url, read_only=read_only)


def test_a_lost_format_record(place: Place) -> None:
    find_one(place, "format/").unlink()
    with pytest.raises(NotFoundError, match="not a vds store"):
        vds.connect(place.url)
    with pytest.raises(InvalidInputError, match="not empty"):
        vds.connect(place.url, create=True)  # never made anew over what is there


def test_a_damaged_claim_of_a_name(place: Place, tmp_path: Path) -> None:
    claim = Path(place.url) / "namespaces" / name_digest("other")
    claim.write_bytes(b"{")
    with place.connect() as store, pytest.raises(CorruptionError, match=f"namespaces/{claim.name}"):
        store.namespace("other").upload(write_tree(tmp_path / "other", {"a": b"a"}), show_progress=False)
