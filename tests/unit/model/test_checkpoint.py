"""The keys of checkpoints."""

from __future__ import annotations

import pytest

from vds.blobs.driver import is_key
from vds.model.checkpoint import CheckpointKey, checkpoint_prefix, holds_everything, parse_checkpoint_key

ULID = "01jbcdefghjkmnpqrstvwxyz00"
OTHER = "01jbcdefghjkmnpqrstvwxyz01"
KEY = f"checkpoints/{ULID}/0000000000000012-{'ab' * 32}.{OTHER}"


def test_a_key_and_what_it_says() -> None:
    key = CheckpointKey(ULID, 12, bytes.fromhex("ab" * 32), OTHER)
    assert str(key) == KEY
    assert parse_checkpoint_key(KEY) == key
    assert KEY.startswith(checkpoint_prefix(ULID))
    assert is_key(KEY)


def test_keys_sort_by_the_number_of_the_version() -> None:
    keys = [str(CheckpointKey(ULID, number, bytes(32), OTHER)) for number in (2, 9, 10, 99, 100, 10**15)]
    assert keys == sorted(keys)
    assert all(parse_checkpoint_key(key) is not None for key in keys)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "checkpoints/",
        KEY.upper(),
        KEY.replace("checkpoints", "changes"),
        KEY.replace(ULID, "x"),
        KEY.replace("0000000000000012", "12"),
        KEY.replace("0000000000000012", "00000000000000012"),
        KEY.replace("0000000000000012", "0000000000000000"),
        KEY.replace("0000000000000012", "00000000000000\u0661\u0662"),  # digits to Python, not to us
        KEY.replace("abab", "ab", 1),
        KEY.replace("abab", "zzab", 1),
        KEY.replace(f".{OTHER}", ""),
        KEY + "0",
        KEY + "/x",
    ],
)
def test_any_other_key_is_none(key: str) -> None:
    assert parse_checkpoint_key(key) is None


@pytest.mark.parametrize(
    ("added", "modified", "file_count", "holds"),
    [(3, 0, 3, True), (1, 2, 3, True), (1, 1, 3, False), (0, 0, 0, True), (0, 0, 1, False)],
)
def test_a_list_that_names_every_file(added: int, modified: int, file_count: int, holds: bool) -> None:
    assert holds_everything(added, modified, file_count) is holds
