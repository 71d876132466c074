"""Objects written into the cache in pieces, beside their file elsewhere: kept whole or not at all, never an error of the work."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from vds.files.cache import Cache

BODY = os.urandom(1 << 20)
DIGEST = blake3(BODY).digest()
PIECE = 1 << 16


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", bytes_max=4 << 20)


def leftovers(cache: Cache) -> list[str]:
    partial = cache.root / "partial"
    return os.listdir(partial) if partial.exists() else []


def test_pieces_in_any_order_from_many_threads(cache: Cache) -> None:
    draft = cache.begin_object(DIGEST, len(BODY))
    assert draft is not None
    offsets = sorted(range(0, len(BODY), PIECE), key=lambda offset: offset * 7919 % 65537)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda offset: draft.write_at(offset, memoryview(BODY)[offset : offset + PIECE]), offsets))
    assert cache.find_object(DIGEST) is None
    assert draft.keep()
    path = cache.find_object(DIGEST)
    assert path is not None
    assert path.read_bytes() == BODY
    assert not path.stat().st_mode & 0o222
    assert leftovers(cache) == []
    assert cache.verify().ok
    draft.drop()  # has nothing to do any more
    assert cache.find_object(DIGEST) is not None


def test_what_is_dropped_leaves_nothing(cache: Cache) -> None:
    draft = cache.begin_object(DIGEST, len(BODY))
    assert draft is not None
    draft.write_at(0, BODY)
    draft.drop()
    draft.drop()
    draft.write_at(0, BODY)
    assert not draft.keep()
    assert not draft.clone(0)
    assert (cache.find_object(DIGEST), leftovers(cache)) == (None, [])
    again = cache.begin_object(DIGEST, 4 << 20)  # the whole cap: its room was given back
    assert again is not None
    again.drop()


def test_what_is_there_or_too_large_is_not_begun(cache: Cache) -> None:
    cache.put_object(DIGEST, [BODY], size_bytes=len(BODY))
    assert cache.begin_object(DIGEST, len(BODY)) is None
    assert cache.begin_object(blake3(b"x").digest(), (4 << 20) + 1) is None


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_ends_the_draft_and_nothing_else(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    draft = cache.begin_object(DIGEST, len(BODY))
    assert draft is not None

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        draft.write_at(0, BODY)
        assert not draft.keep()
    assert "cannot be used" in caplog.text
    assert (cache.find_object(DIGEST), leftovers(cache)) == (None, [])
