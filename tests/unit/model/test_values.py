from __future__ import annotations

import pickle

import pytest
from blake3 import blake3

from vds.model.batch import batched
from vds.model.digest import EMPTY_RAW, Digest
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE, Change, Entry
from vds.model.path import entry_path
from vds.model.ulid import is_ulid, new_ulid, ulid_ms


def test_digests_are_their_text() -> None:
    digest = Digest.of(b"abc")
    assert digest == f"b3:{blake3(b'abc').hexdigest()}"
    assert digest.raw == blake3(b"abc").digest()
    assert digest.hex == blake3(b"abc").hexdigest()
    assert Digest.from_raw(digest.raw) == Digest(str(digest)) == Digest.of(bytearray(b"abc")) == Digest.of(memoryview(b"abc"))
    assert Digest.of(b"").raw == EMPTY_RAW
    assert pickle.loads(pickle.dumps(digest)) == digest


@pytest.mark.parametrize(
    "text", ["", "b3:", "b3:" + "0" * 63, "b3:" + "0" * 65, "b3:" + "A" * 64, "0" * 64, "b3:" + "0" * 64 + "\n"]
)
def test_texts_that_are_no_digests(text: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        Digest(text)


def test_entries_and_changes() -> None:
    one = Entry(entry_path("a"), Digest.of(b""), 0, MODE_FILE, 0)
    two = Entry(entry_path("a"), Digest.of(b""), 0, MODE_EXECUTABLE, 0)
    assert (one.is_executable, two.is_executable) == (False, True)
    assert [Change(one.path, *pair).kind for pair in ((None, one), (one, two), (one, None))] == ["added", "modified", "removed"]
    assert pickle.loads(pickle.dumps(one)) == one


def test_ulids_sort_by_time_and_say_it() -> None:
    ulid = new_ulid(1_469_918_176_385, bytes(range(10)))
    assert ulid == "01aryz6s41" + "000g40r40m30e209"
    assert is_ulid(ulid)
    assert ulid_ms(ulid) == 1_469_918_176_385
    assert new_ulid(1, b"\xff" * 10) < new_ulid(2, bytes(10))
    assert new_ulid((1 << 48) - 1, b"\xff" * 10) == "7" + "z" * 25
    for text in ("", ulid.upper(), ulid[:-1], ulid + "0", "8" + ulid[1:], ulid[:-1] + "u", ulid + "\n"):
        assert not is_ulid(text)


def test_batches() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []
