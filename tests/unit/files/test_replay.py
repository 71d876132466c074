"""A version put together on the disk."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vds.errors import NoSpaceError, UnavailableError
from vds.files import replay as replay_module
from vds.files.replay import Replay
from vds.model.content import Member
from vds.model.digest import EMPTY_RAW
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.manifest import ChangeRow


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Replay() as made:
        yield made


def digest(number: int) -> bytes:
    return bytes([number]) * 32


def row(path: str, number: int | None, *, size_bytes: int = 10, mode: int = MODE_FILE) -> ChangeRow:
    return ChangeRow(path, None, 0, 0, 0) if number is None else ChangeRow(path, digest(number), size_bytes, mode, -number)


def files(replay: Replay) -> dict[str, tuple[bytes, int, int, int]]:
    return {found.entry.path: tuple(found.entry)[1:] for found in replay.rows()}  # type: ignore[misc]


def test_lists_lie_one_over_the_other(replay: Replay) -> None:
    replay.apply([row("a", 1), row("b", 2), row("c", 3)])
    replay.apply([row("a", None), row("b", 4, size_bytes=7, mode=MODE_EXECUTABLE), row("none", None)])
    replay.apply([])
    assert files(replay) == {"b": (digest(4), 7, MODE_EXECUTABLE, -4), "c": (digest(3), 10, MODE_FILE, -3)}
    assert replay.measure() == (2, 17)
    replay.clear()
    assert (files(replay), replay.measure()) == ({}, (0, 0))


def test_files_come_by_the_bytes_of_their_paths(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "_BATCH_ROWS", 2)
    paths = ["~", "a/b", "a b", "a0", "Z", "\u00e9", "\U0001f600", "\uffee"]
    for path in paths:
        replay.apply([row(path, 1)])
    assert list(files(replay)) == sorted(paths, key=str.encode)
    replay.apply([row(path, None) for path in sorted(paths[:5])])
    assert list(files(replay)) == paths[5:6] + paths[7:] + paths[6:7]


def test_a_list_that_breaks_off_leaves_its_first_rows(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "_BATCH_ROWS", 2)

    def broken() -> Iterator[ChangeRow]:
        yield from (row("a", 1), row("b", 1), row("c", 1))
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        replay.apply(broken())
    assert list(files(replay)) == ["a", "b"]
    replay.clear()
    replay.apply([row("d", 1)])
    assert list(files(replay)) == ["d"]


class TestPlaces:
    def test_each_content_is_wanted_once_and_found_once(self, replay: Replay) -> None:
        replay.apply([row("a", 1), row("b", 1), row("c", 2, size_bytes=99), ChangeRow("e", EMPTY_RAW, 0, MODE_FILE, 0)])
        assert replay.want_all() == []
        assert (replay.count_missing(), replay.count_missing(99), replay.count_missing(0, 99)) == (2, 1, 1)
        assert replay.list_missing() == [digest(1), digest(2)]
        assert replay.list_missing(11) == [digest(2)]
        assert replay.place("one", [Member(digest(1), 5, 10), Member(digest(9), 0, 5)]) == 1
        assert replay.place("two", [Member(digest(1), 0, 10)]) == 0
        assert replay.place("three", []) == 0
        assert replay.place("four", [Member(digest(2), 0, 98)]) == 0  # another length cannot be it
        assert replay.place("five", [Member(digest(2), 0, 99)]) == 1
        assert replay.count_missing() == 0
        rows = {found.entry.path: found for found in replay.rows()}
        keys = replay.find_keys([found.blob for found in rows.values() if found.blob is not None])
        assert {path: (found.blob and keys[found.blob], found.offset_bytes) for path, found in rows.items()} == {
            "a": ("one", 5),
            "b": ("one", 5),
            "c": ("five", 0),
            "e": (None, 0),
        }

    def test_what_is_erased_is_not_looked_for(self, replay: Replay) -> None:
        replay.apply([row("a", 1), row("b", 2)])
        assert replay.want_all(but=[digest(2), digest(3)]) == [digest(2)]
        assert replay.list_missing() == [digest(1)]
        assert replay.place("one", [Member(digest(2), 0, 10)]) == 0

    def test_keys_to_be_avoided(self, replay: Replay) -> None:
        assert not replay.avoids_any
        replay.avoid(["a", "b", "a"])
        assert replay.avoids_any
        assert [replay.is_avoided(key) for key in ("a", "b", "c")] == [True, True, False]


class TestTheDisk:
    def test_nothing_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with Replay() as replay:
            replay.apply(row(f"{number:06}", 1) for number in range(1000))
            assert list(tmp_path.iterdir())
        replay.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_full_one(self, replay: Replay) -> None:
        replay._database.execute("PRAGMA max_page_count = 20")
        with pytest.raises(NoSpaceError, match=r"temporary directory .* is full") as caught:
            replay.apply(row(f"{number:06}", number % 200) for number in range(10_000))
        assert "TMPDIR" in caught.value.hint

    @pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, NoSpaceError), (errno.EACCES, UnavailableError)])
    def test_one_that_takes_no_directory(self, code: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: Any, **more: Any) -> None:
            raise OSError(code, "refused")

        monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
        with pytest.raises(kind, match="temporary directory"):
            Replay()

    def test_one_that_fails(self, replay: Replay) -> None:
        replay._database.close()
        with pytest.raises(UnavailableError, match="cannot be used") as caught:
            replay.measure()
        assert isinstance(caught.value.__cause__, sqlite3.Error)
