"""Records of adopted blobs: what is written is read again, and nothing else is."""

from __future__ import annotations

import json

import pytest
from blake3 import blake3

from vds.blobs.driver import KEY_CHARS_MAX, is_key
from vds.errors import CorruptionError, FormatError
from vds.model.adoption import (
    ROWS_MAX,
    AdoptedBlob,
    AdoptionRecord,
    adopted_key,
    is_adopted,
    is_record_key,
    mark_of,
    record_key,
    split_key,
)
from vds.model.digest import Digest
from vds.model.version import RECORD_BYTES_MAX, canonical_json

ULID = "01j8zq6k3v0000000000000000"
BLOBS = [AdoptedBlob("raw/ä b#1.csv", "0x8DC1", 7, Digest.of(b"1").raw), AdoptedBlob("x", "e", 2**62, Digest.of(b"2").raw)]
RECORD = AdoptionRecord(ULID, "https://acct.blob.core.windows.net/data", BLOBS)


def decode(body: bytes) -> AdoptionRecord:
    return AdoptionRecord.decode(body, record_key(ULID, body))


def test_a_record_is_read_as_it_was_written() -> None:
    body = RECORD.encode()
    assert decode(body) == RECORD
    assert decode(AdoptionRecord(ULID, "", BLOBS).encode()).container == ""
    many = AdoptionRecord(ULID, "", [BLOBS[0]] * ROWS_MAX)
    assert len(decode(many.encode()).blobs) == ROWS_MAX


def test_the_longest_record_is_within_the_limit() -> None:
    longest = [AdoptedBlob("\U0001f600" * 256, "e" * 64, 2**62, BLOBS[0].digest)] * ROWS_MAX
    assert len(AdoptionRecord(ULID, "u" * 1024, longest).encode()) < RECORD_BYTES_MAX


def test_keys() -> None:
    key = record_key(ULID, RECORD.encode())
    last = adopted_key(key, ROWS_MAX - 1)
    assert is_key(key)
    assert is_key(last)
    assert len(last) < KEY_CHARS_MAX
    assert is_record_key(key)
    assert split_key(last) == (key, ROWS_MAX - 1)
    assert is_adopted(last)
    for other in [
        key,
        f"{key}/",
        f"{key}/-1",
        f"{key}/01",
        f"{key}/1/2",
        f"{key}/x",
        f"{key}/1000",
        "adopted/1",
        "packs/aa/x.pack",
        "",
    ]:
        assert split_key(other) is None, other
        assert not is_adopted(other)
    for other in [last, "adopted/", key.replace("adopted/", "changes/"), key + "0", key.upper()]:
        assert not is_record_key(other), other


def test_what_is_not_what_its_key_names() -> None:
    body = RECORD.encode()
    for key in [record_key(ULID, b"other"), "adopted/x", record_key(ULID, body).replace("-", "_")]:
        with pytest.raises(CorruptionError, match="adoption record"):
            AdoptionRecord.decode(body, key)


ROW = json.loads(RECORD.encode())["blobs"][0]


@pytest.mark.parametrize(
    "change",
    [
        {"blobs": []},
        {"blobs": "x"},
        {"blobs": [1]},
        {"blobs": [ROW] * (ROWS_MAX + 1)},
        {"blobs": [{**ROW, "size": 0}]},
        {"blobs": [{**ROW, "size": -1}]},
        {"blobs": [{**ROW, "size": True}]},
        {"blobs": [{**ROW, "digest": "b3:00"}]},
        {"blobs": [{**ROW, "name": 1}]},
        {"blobs": [{**ROW, "name": "a\0b"}]},
        {"blobs": [{**ROW, "name": "x" * 4097}]},
        {"blobs": [{**ROW, "etag": "e" * 257}]},
        {"container": None},
        {"container": "u" * 1025},
        {"store": "nobody"},
    ],
)
def test_damaged_records(change: dict[str, object]) -> None:
    raw = {**json.loads(RECORD.encode()), **change}
    with pytest.raises(CorruptionError, match="adoption record"):
        decode(canonical_json(raw))


def test_other_bytes() -> None:
    for body in [b"", b"{}", b"[]", RECORD.encode()[:-1], RECORD.encode() + b" ", b"\xff" * 100]:
        with pytest.raises(CorruptionError):
            decode(body)
    with pytest.raises(FormatError):
        decode(canonical_json({**json.loads(RECORD.encode()), "format": 2}))


def test_marks_tell_places_names_and_etags_apart() -> None:
    marks = {mark_of(*one) for one in [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("", "b", "c"), ("a", "b", "d")]}
    assert len(marks) == 5
    assert mark_of("a", "b", "c") == mark_of("a", "b", "c") == "adopted:" + blake3(b"a\0b\0c").hexdigest(16)
