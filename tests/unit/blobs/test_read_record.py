"""Reading a record: nothing is asked of the service for a blob that is too large to be one."""

from __future__ import annotations

import pytest

from tests.unit.blobs.spy import SpyDriver
from vds.blobs.objects import read_record
from vds.errors import CorruptionError, NotFoundError
from vds.model.version import RECORD_BYTES_MAX


@pytest.mark.parametrize("body", [b"", b"{}\n", b"x" * RECORD_BYTES_MAX])
def test_a_record_is_read_whole(body: bytes) -> None:
    driver = SpyDriver()
    driver.put_if_absent("store/1", body)
    assert read_record(driver, "store/1") == body
    assert read_record(driver, "store/1", len(body)) == body


def test_what_is_too_large_is_not_read() -> None:
    driver = SpyDriver()
    driver.put_if_absent("store/1", bytes(RECORD_BYTES_MAX + 1))
    for size_bytes in (None, RECORD_BYTES_MAX + 1):
        with pytest.raises(CorruptionError, match=f"'store/1' has {RECORD_BYTES_MAX + 1} bytes, the limit is {RECORD_BYTES_MAX}"):
            read_record(driver, "store/1", size_bytes)
    assert driver.requests["read"] == 0


def test_what_is_not_there() -> None:
    driver = SpyDriver()
    with pytest.raises(NotFoundError, match="store/1"):
        read_record(driver, "store/1")
    with pytest.raises(NotFoundError):
        read_record(driver, "store/1", 5)


def test_what_ends_before_the_listing_said() -> None:
    driver = SpyDriver()
    driver.put_if_absent("store/1", b"{}\n")
    with pytest.raises(CorruptionError):
        read_record(driver, "store/1", 4)
