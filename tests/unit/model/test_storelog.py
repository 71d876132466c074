"""Records of the store's log: round trip, limits, and bytes that are none."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vds.errors import CorruptionError, InvalidInputError
from vds.model.storelog import KEYS_MAX, StoreRecord, pack_numbers, store_key, unpack_numbers
from vds.model.version import NO_PARENT, RECORD_BYTES_MAX

AT = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
ULID = "01m8065kr4qmvkhy9wkt5d06gv"
FIELDS: dict[str, dict[str, Any]] = {
    "namespace-created": {"namespace": ULID, "name": "team/raw"},
    "versions-expired": {"namespace": ULID, "numbers": [[1, 3], [7, 7]], "author": "ada", "reason": ""},
    "versions-restored": {"namespace": ULID, "numbers": [[2, 2]], "author": "ada"},
    "keys-deleting": {"keys": ["packs/00/x.pack"], "size_bytes": 7, "why": "gc", "author": "ada"},
    "object-erased": {"digest": "b3:" + "0" * 64, "author": "ada", "reason": "request 7"},
    "index-replaced": {"incarnation": ULID, "address": "embedded", "host": "h"},
}


def record(kind: str, **changes: Any) -> StoreRecord:
    return StoreRecord(ULID, 4, NO_PARENT, kind, AT, {**FIELDS[kind], **changes})


@pytest.mark.parametrize("kind", FIELDS)
def test_round_trip(kind: str) -> None:
    made = record(kind)
    assert StoreRecord.decode(made.encode(), store_key(4)) == made
    assert len(made.digest) == 32
    assert made.digest != record(kind, more=1).digest


@pytest.mark.parametrize("kind", FIELDS)
def test_a_field_that_is_missing_or_of_another_type(kind: str) -> None:
    body = json.loads(record(kind).encode())
    for name in FIELDS[kind]:
        if name == "size_bytes":
            continue
        for broken in ({**body, name: None}, {key: value for key, value in body.items() if key != name}):
            with pytest.raises(CorruptionError, match="store/0000000000000004"):
                StoreRecord.decode(json.dumps(broken).encode(), store_key(4))


@pytest.mark.parametrize(
    "numbers", [[[0, 1]], [[3, 2]], [[1, 2], [2, 3]], [[1, True]], [[1, 2**62]], [[1]], [["1", 2]], "12", [1, 2]]
)
def test_numbers_that_are_no_ranges(numbers: Any) -> None:
    with pytest.raises(CorruptionError):
        StoreRecord.decode(record("versions-expired", numbers=numbers).encode(), "store/4")


def test_too_many_keys() -> None:
    assert StoreRecord.decode(record("keys-deleting", keys=["k"] * KEYS_MAX).encode(), "store/4").kind == "keys-deleting"
    with pytest.raises(CorruptionError, match="limit"):
        StoreRecord.decode(record("keys-deleting", keys=["k"] * (KEYS_MAX + 1)).encode(), "store/4")


def test_the_longest_record() -> None:
    spare = RECORD_BYTES_MAX - len(record("object-erased", reason="").encode())
    assert len(record("object-erased", reason="x" * spare).encode()) == RECORD_BYTES_MAX
    with pytest.raises(InvalidInputError, match="limit"):
        record("object-erased", reason="x" * (spare + 1)).encode()
    with pytest.raises(CorruptionError, match="limit"):
        StoreRecord.decode(b" " * (RECORD_BYTES_MAX + 1), "store/4")


@given(st.sets(st.integers(1, 200)))
def test_numbers_as_ranges(numbers: set[int]) -> None:
    ranges = list(unpack_numbers(pack_numbers(sorted(numbers))))
    assert [number for first, last in ranges for number in range(first, last + 1)] == sorted(numbers)
    assert all(earlier[1] + 1 < later[0] for earlier, later in itertools.pairwise(ranges))
