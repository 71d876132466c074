from __future__ import annotations

import pytest

from vds.errors import InvalidInputError
from vds.model.path import (
    PATH_BYTES_MAX,
    SEGMENT_BYTES_MAX,
    ancestors,
    directory_path,
    entry_path,
    find_unholdable,
    is_under,
    join,
    range_below,
    relative_to,
)


@pytest.mark.parametrize(
    "text", ["a", "a/b", ".hidden", "a/.b", "-x", "a b", "a.", "CON", "a:b", "#1?%2e", "日本/ü", "😀", "..a", "a.."]
)
def test_names_that_are_legal(text: str) -> None:
    assert entry_path(text) == text
    assert directory_path(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must not be empty"),
        ("/a", "is absolute"),
        ("//", "is absolute"),
        ("a\\b", "backslash"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("a\x7f", "control character"),
        ("a\x85", "control character"),
        ("..", "segment '..'"),
        ("a/../b", "segment '..'"),
        ("a/./b", "segment '.'"),
        (".", "segment '.'"),
        ("a//b", "segment ''"),
        ("a/", "segment ''"),
        ("a\udcff", "not valid Unicode"),
    ],
)
def test_names_that_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason) as caught:
        entry_path(text)
    assert caught.value.hint


@pytest.mark.parametrize("letter", ["x", "é"])
def test_lengths_count_bytes(letter: str) -> None:
    width = len(letter.encode())
    segment = letter * (SEGMENT_BYTES_MAX // width)
    assert entry_path(segment) == segment
    with pytest.raises(InvalidInputError, match="limit is 255"):
        entry_path(segment + letter)
    whole = "/".join([letter * (203 // width)] * 5)
    longest = whole + "x" * (PATH_BYTES_MAX - len(whole.encode()))
    assert entry_path(longest) == longest
    with pytest.raises(InvalidInputError, match="limit is 1024"):
        entry_path(longest + "x")


def test_names_are_normalised() -> None:
    assert entry_path("cafe\u0301/e\u0301") == "caf\u00e9/\u00e9"


@pytest.mark.parametrize("text", [None, "", ".", "./", "././"])
def test_ways_to_say_the_root(text: str | None) -> None:
    assert directory_path(text) == ""


def test_directories_may_end_in_a_slash_and_begin_with_a_dot() -> None:
    assert directory_path("./a/b/") == "a/b"
    for text in ("/", "..", "a/..", "/a", "a/./"):
        with pytest.raises(InvalidInputError):
            directory_path(text)


def test_paths_and_directories() -> None:
    assert [join("", "a"), join("a", ""), join("a", "b/c")] == ["a", "a", "a/b/c"]
    assert is_under("a/b", "a")
    assert is_under("a", "a")
    assert is_under("a", "")
    assert not is_under("ab", "a")
    assert [relative_to("a/b/c", "a"), relative_to("a/b", "a/b"), relative_to("a", "")] == ["b/c", "b", "a"]
    assert ancestors("a/b/c") == ["a", "a/b"]
    assert ancestors("a") == []


def test_a_range_holds_what_is_below() -> None:
    first, end = range_below("a")
    paths = ["a", "a-b", "a.b", "a/", "a/b", "a/\U0010ffff", "a0", "b"]
    assert [path for path in paths if first <= path < end] == ["a/", "a/b", "a/\U0010ffff"]


def test_what_windows_cannot_hold() -> None:
    names = ["a/CON", "a/aux.txt", "b.", "c ", "com1", "d:e", "lpt¹.x", "nul .x", "ok", "console", "x/com10"]
    faults = find_unholdable(names, windows=True, case_blind=False)
    assert sorted(faults) == ["a/CON", "a/aux.txt", "b.", "c ", "com1", "d:e", "lpt¹.x"]
    assert find_unholdable(names, windows=False, case_blind=False) == {}


def test_names_that_differ_only_in_case() -> None:
    faults = find_unholdable(["A/x", "README", "a/y", "readme", "z"], windows=False, case_blind=True)
    assert faults == {"a/y": "differs only in case from 'A'", "readme": "differs only in case from 'README'"}
