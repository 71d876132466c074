"""Sizes as people write them."""

from __future__ import annotations

import pytest

from vds.errors import InvalidInputError
from vds.model.size import parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("500000", 500_000),
        ("1B", 1),
        ("200GB", 200 * 10**9),
        ("500MB", 500 * 10**6),
        ("2kb", 2000),
        (" 1.5 GiB ", 3 * 2**29),
        ("0.1GB", 10**8),
        ("3TiB", 3 * 2**40),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text, "--to") == size_bytes


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "1.5", "1.5B", "10G", "GB", "1e9", "1,5GB", "1 000", "٣GB", "0x10", "none", "9" * 19]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--to") as caught:
        parse_size(text, "--to")
    assert repr(text) in caught.value.message
    assert "200GB" in caught.value.hint
