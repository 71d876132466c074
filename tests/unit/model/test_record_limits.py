"""Each limit on what a record or a lock file says: taken at it, refused one past it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.records import CLAIM, DIGEST, EXAMPLES, GENERATION, KINDS, NAMESPACE, RELEASE
from vds.errors import CorruptionError, FormatError, InvalidInputError
from vds.model.claim import NamespaceClaim
from vds.model.event import DatasetEvent, event_key
from vds.model.fields import INT64_MAX, TEXT_BYTES_MAX
from vds.model.format import HOST_BYTES_MAX
from vds.model.lockfile import TEXT_CHARS_MAX, parse_lock
from vds.model.manifest import changes_key
from vds.model.ref import NAME_CHARS_MAX, TAG_CHARS_MAX
from vds.model.storelog import KEYS_MAX, RANGES_MAX
from vds.model.version import (
    INLINE_CHANGES_BYTES_MAX,
    LABEL_BYTES_MAX,
    LABELS_MAX,
    NUMBER_MAX,
    RECORD_BYTES_MAX,
    VersionRecord,
    canonical_json,
    name_digest,
)


def example(kind: str, number: int = 0) -> dict[str, Any]:
    """Return the fields of the n-th example of a kind."""
    found: dict[str, Any] = json.loads([record for name, record in EXAMPLES if name == kind][number].encode())
    return found


VERSION, BY_KEY = example("version"), example("version", 1)
MESSAGE = "é" * (TEXT_BYTES_MAX // 2)
FORMAT = example("format")
REGISTER, TAG = example("event"), example("event", 1)
STORE = {kind: example("store", number) for number, kind in enumerate(("created", "expired", "restored", "deleting"))}


def labels(count: int, size_bytes: int = 8) -> dict[str, str]:
    return {f"{number:03d}": "x" * (size_bytes - 3) for number in range(count)}


def keyed(**changes: Any) -> dict[str, Any]:
    return {**BY_KEY, "changes": {**BY_KEY["changes"], **changes}}


def inline(size_bytes: int) -> dict[str, Any]:
    text = base64.b64encode(bytes(size_bytes)).decode()
    return {**VERSION, "changes": {**VERSION["changes"], "inline": text}}


LIMITS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "the number of a version": ("version", {**VERSION, "number": NUMBER_MAX}, {**VERSION, "number": NUMBER_MAX + 1}),
    "its first number": ("version", {**VERSION, "number": 1}, {**VERSION, "number": 0}),
    "a count": ("version", {**VERSION, "added": INT64_MAX}, {**VERSION, "added": INT64_MAX + 1}),
    "no count": ("version", {**VERSION, "size_bytes": 0}, {**VERSION, "size_bytes": -1}),
    "a message": ("version", {**VERSION, "message": MESSAGE}, {**VERSION, "message": MESSAGE + "x"}),
    "labels": ("version", {**VERSION, "labels": labels(LABELS_MAX)}, {**VERSION, "labels": labels(LABELS_MAX + 1)}),
    "a label": (
        "version",
        {**VERSION, "labels": labels(1, LABEL_BYTES_MAX)},
        {**VERSION, "labels": labels(1, LABEL_BYTES_MAX + 1)},
    ),
    "an inline list": ("version", inline(INLINE_CHANGES_BYTES_MAX), inline(INLINE_CHANGES_BYTES_MAX + 3)),
    "an operation": ("version", {**VERSION, "operation": "x" * 32}, {**VERSION, "operation": "x" * 33}),
    "a name": ("version", {**VERSION, "name": "x" * NAME_CHARS_MAX}, {**VERSION, "name": "x" * (NAME_CHARS_MAX + 1)}),
    "provenance": ("version", {**VERSION, "provenance": {"a": "b"}}, {**VERSION, "provenance": {"a": 1}}),
    "a list by key": ("version", keyed(), keyed(key=changes_key(bytes(32), GENERATION))),
    "one place of a list": ("version", keyed(), keyed(inline="")),
    "a tag": ("event", {**TAG, "tag": "x" * TAG_CHARS_MAX}, {**TAG, "tag": "x" * (TAG_CHARS_MAX + 1)}),
    "a tag that is moved": ("event", TAG, {**TAG, "tag": None}),
    "a release that is registered": ("event", REGISTER, {**REGISTER, "tag": "prod"}),
    "a registered path": ("event", {**REGISTER, "path": "x" * 255}, {**REGISTER, "path": "x" * 256}),
    "a written path": ("event", {**REGISTER, "path": "a"}, {**REGISTER, "path": "./a"}),
    "the root": ("event", {**REGISTER, "path": ""}, {**REGISTER, "path": "/"}),
    "version 0": ("event", {**REGISTER, "version": 1}, {**REGISTER, "version": 0}),
    "a time": ("format", {**FORMAT, "created_at": "x" * HOST_BYTES_MAX}, {**FORMAT, "created_at": "x" * (HOST_BYTES_MAX + 1)}),
    "a store's id": ("format", FORMAT, {**FORMAT, "store": "../../../home/ada/notes"}),
    "ranges": (
        "store",
        {**STORE["expired"], "numbers": [[2 * n + 1, 2 * n + 1] for n in range(RANGES_MAX)]},
        {**STORE["expired"], "numbers": [[2 * n + 1, 2 * n + 1] for n in range(RANGES_MAX + 1)]},
    ),
    "keys": ("store", {**STORE["deleting"], "keys": ["k"] * KEYS_MAX}, {**STORE["deleting"], "keys": ["k"] * (KEYS_MAX + 1)}),
    "a list of keys": ("store", STORE["deleting"], {**STORE["deleting"], "keys": "packs"}),
}


@pytest.mark.parametrize("what", LIMITS)
def test_at_the_limit_and_past_it(what: str) -> None:
    kind, taken, refused = LIMITS[what]
    assert KINDS[kind].decode(canonical_json(taken)) is not None
    with pytest.raises(CorruptionError) as caught:
        KINDS[kind].decode(canonical_json(refused))
    assert caught.value.hint == "run: vds fsck"


def test_what_is_too_large_is_not_written() -> None:
    """A record that nobody could read is refused before it is stored."""
    version, event = VersionRecord.decode(canonical_json(VERSION), "k"), DatasetEvent.decode(canonical_json(REGISTER), "k")
    room = RECORD_BYTES_MAX - len(canonical_json({**VERSION, "provenance": {"x": ""}}))
    kept = {**VERSION, "provenance": {"x": "y" * room}}
    assert len(canonical_json(kept)) == RECORD_BYTES_MAX
    too_large: list[Any] = [
        VersionRecord(**{**fields_of(version), "provenance": {"x": "y" * (room + 1)}}),
        DatasetEvent(**{**fields_of(event), "reason": "y" * RECORD_BYTES_MAX}),
    ]
    for record in too_large:
        with pytest.raises(InvalidInputError, match=f"the limit is {RECORD_BYTES_MAX}") as caught:
            record.encode()
        assert caught.value.hint.startswith("shorten")
    assert len(VersionRecord(**{**fields_of(version), "provenance": {"x": "y" * room}}).encode()) == RECORD_BYTES_MAX


def fields_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


class TestClaims:
    def test_a_claim_belongs_to_its_name(self) -> None:
        """The claim of another name, copied under this one's key, is damage and no clash of names."""
        assert NamespaceClaim.decode(CLAIM.encode(), CLAIM.key) == CLAIM
        with pytest.raises(CorruptionError, match="belongs elsewhere"):
            NamespaceClaim.decode(CLAIM.encode(), f"namespaces/{name_digest('other')}")
        assert NamespaceClaim(NAMESPACE, "TEAM/raw").key == CLAIM.key  # names are unique blind to case


class TestEvents:
    def test_keys(self) -> None:
        event = DatasetEvent.decode(canonical_json(TAG), "k")
        assert event.key == event_key("customers", 4) == f"datasets/{name_digest('customers')}/0000000000000004"

    def test_a_release_is_read_whole(self) -> None:
        event = DatasetEvent.decode(canonical_json(REGISTER), "k")
        assert event.registered == RELEASE
        assert event.parent == DIGEST
        assert DatasetEvent.decode(canonical_json(TAG), "k").registered is None


class TestLockFiles:
    ROW = 'format = 1\n[refs."a:b"]\nstore = "s"\nurl = "u"\nname = "a"\nnamespace = "n"\nversion = 1\npath = ""\n'
    ROW += f'digest = "b3:{DIGEST.hex()}"\ncontent_digest = "b3:{DIGEST.hex()}"\nfiles = FILES\nbytes = 1\n'

    def test_their_length(self) -> None:
        text = self.ROW.replace("FILES", "1")
        longest = text + "#" + "x" * (TEXT_CHARS_MAX - len(text) - 1)
        assert len(parse_lock(longest, "vds.lock")) == 1
        with pytest.raises(InvalidInputError, match=f"the limit is {TEXT_CHARS_MAX}"):
            parse_lock(longest + "x", "vds.lock")

    def test_their_numbers(self) -> None:
        [row] = parse_lock(self.ROW.replace("FILES", str(INT64_MAX)), "vds.lock").values()
        assert row.files == INT64_MAX
        for wrong in (str(INT64_MAX + 1), "-1", "true", "1.0", "nan", '"1"', "[1]", "9" * 5000):
            with pytest.raises(InvalidInputError, match=r"vds\.lock"):
                parse_lock(self.ROW.replace("FILES", wrong), "vds.lock")

    def test_a_newer_one(self) -> None:
        with pytest.raises(FormatError, match="format 2"):
            parse_lock("format = 2\n", "vds.lock")
