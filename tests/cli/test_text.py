"""How sizes, columns and listings are laid out."""

from __future__ import annotations

import pytest

from vds.cli.read import DirectoryRow, collapse, split_ref
from vds.cli.text import columns, count_text, first_line, size_text
from vds.model.digest import Digest
from vds.model.entry import MODE_FILE, Entry
from vds.model.path import EntryPath


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10 * 1024, "10 KiB"), (1024**2 - 1, "1.0 MiB"), (5 * 1024**5, "5.0 PiB")],
)
def test_size_text(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


def test_count_text() -> None:
    assert [count_text(count) for count in (0, 1, 12345)] == ["0 files", "1 file", "12 345 files"]


def test_first_line() -> None:
    assert first_line("one\ntwo") == "one"
    assert first_line("x" * 100, 10) == "x" * 9 + "…"


def test_columns_line_up_wide_and_combining_characters() -> None:
    assert columns([("a", "1"), ("日本", "22"), ("e\u0301", "3")], right=(1,)) == ["a      1", "日本  22", "e\u0301      3"]
    assert columns([]) == []


def entry(path: str, size_bytes: int = 1) -> Entry:
    return Entry(EntryPath(path), Digest.of(b""), size_bytes, MODE_FILE, 0)


def test_collapse_keeps_files_and_sums_directories() -> None:
    # In byte order "a-b" stands before "a/…", and "a0" after it.
    rows = list(collapse([entry("a-b"), entry("a/x", 2), entry("a/y/z", 3), entry("a0"), entry("b/x", 4), entry("c/x", 5)]))
    assert [row.path for row in rows] == ["a-b", "a", "a0", "b", "c"]
    assert rows[1] == DirectoryRow("a", 2, 5)
    assert list(collapse([])) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("team/raw@12/images/cat.png", ("team/raw@12", "images/cat.png")),
        ("vds://customers:prod/a", ("customers:prod", "a")),
        ("customers:prod@2026-03-01T12:00Z/a b", ("customers:prod@2026-03-01T12:00Z", "a b")),
        ("team/raw@12/./a/", ("team/raw@12", "a")),
        ("team/raw", ("team/raw", "")),
        ("team/raw@12/", ("team/raw@12/", "")),
    ],
)
def test_split_ref(text: str, expected: tuple[str, str]) -> None:
    assert split_ref(text) == expected
