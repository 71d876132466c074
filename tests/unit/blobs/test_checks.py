"""The check that goes with a body."""

from __future__ import annotations

import base64
import builtins
from collections.abc import Iterator
from typing import Any

import pytest

from vds.blobs import checks
from vds.blobs.checks import check_of

CRC_OF_DIGITS = 0xAE8B14860A799888  # the check value of CRC-64/NVME in the catalogue of CRCs


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    checks._find_crc64.cache_clear()
    yield
    checks._find_crc64.cache_clear()


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_it_is_the_crc_of_nvme_lowest_byte_first(wrap: type) -> None:
    name, value = check_of(wrap(b"123456789"))
    assert name == "x-ms-content-crc64"
    assert base64.b64decode(value) == CRC_OF_DIGITS.to_bytes(8, "little")


def test_a_part_of_a_buffer_and_nothing() -> None:
    assert check_of(memoryview(b"_123456789_")[1:-1]) == check_of(b"123456789")
    assert check_of(b"") == ("x-ms-content-crc64", base64.b64encode(bytes(8)).decode())


def test_md5_stands_in_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("awscrt"):
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert check_of(memoryview(b"hello")) == ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")
