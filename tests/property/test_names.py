from __future__ import annotations

import contextlib
import fnmatch
import unicodedata
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from vds.errors import InvalidInputError
from vds.model.path import ancestors, directory_path, entry_path, is_under, join, range_below, relative_to
from vds.model.patterns import path_filter
from vds.model.ref import (
    DatasetRef,
    NamespaceRef,
    Point,
    format_moment,
    parse_moment,
    parse_ref_path,
    version_uri,
)

hostile = st.text(st.sampled_from("ab./\\:@~%#\0\n\x7f\x85 é\u0301\udcff😀\u2126"), max_size=30) | st.text(max_size=30)


@st.composite
def paths(draw: st.DrawFn) -> str:
    segment = st.text(st.sampled_from("ab.-_ 0é日\u0301😀Å:@~"), min_size=1, max_size=6)
    text = "/".join(draw(st.lists(segment, min_size=1, max_size=4)))
    return text if not {".", ".."} & set(text.split("/")) else "plain"


@given(hostile)
@example("../../etc/passwd")
@example("a/..\u0338")
def test_whatever_is_typed_a_path_is_safe_or_refused(text: str) -> None:
    for parse in (entry_path, directory_path):
        with contextlib.suppress(InvalidInputError):
            path = parse(text)
            path.encode()
            assert path == unicodedata.normalize("NFC", path)
            assert not path or not {"", ".", ".."} & set(path.split("/"))
            assert "\\" not in path
            assert path.isprintable() or not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in path)
            assert parse(path) == path


@given(paths(), paths())
def test_joining_is_undone(directory: str, path: str) -> None:
    first, second = entry_path(directory), entry_path(path)
    joined = join(first, second)
    assert is_under(joined, first)
    assert relative_to(joined, first) == second
    assert first in ancestors(joined)
    assert all(is_under(joined, above) for above in ancestors(joined))


@given(paths(), paths())
def test_ranges_hold_exactly_what_is_below(directory: str, path: str) -> None:
    first, end = range_below(entry_path(directory))
    for candidate in (path, f"{directory}/{path}", f"{directory}{path}"):
        name = unicodedata.normalize("NFC", candidate)
        below = is_under(name, entry_path(directory)) and name != entry_path(directory)
        assert (first <= name < end) == below
        assert (first.encode() <= name.encode() < end.encode()) == below


@given(st.lists(paths(), max_size=8))
def test_texts_sort_as_their_bytes(names: list[str]) -> None:
    assert sorted(names) == sorted(names, key=str.encode)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,8}){0,2}", fullmatch=True)
tags = st.from_regex(r"[a-z][a-z0-9._-]{0,10}", fullmatch=True).filter(lambda tag: tag != "latest" and not tag[1:].isdigit())
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(format_moment)


@given(names, st.integers(0, 10**15 - 1), st.integers(0, 10**6), paths())
def test_namespace_refs_round_trip(name: str, number: int, back: int, path: str) -> None:
    expected = NamespaceRef(name, Point(number=number, back=back))
    tail = entry_path(path)
    assert parse_ref_path(f"{name}@{number}~{back}/{tail}") == (expected, tail)
    assert parse_ref_path(version_uri(name, number, tail)) == (NamespaceRef(name, Point(number=number)), tail)


@given(names, tags, moments, paths())
def test_dataset_refs_round_trip(name: str, tag: str, moment: str, path: str) -> None:
    tail = entry_path(path)
    assert parse_ref_path(f"{name}:{tag}@{moment}/{tail}") == (DatasetRef(name, tag=tag, moment=parse_moment(moment)), tail)
    assert format_moment(parse_moment(moment)) == moment


@given(st.text(st.sampled_from("ab1v/@:~.-TZ+ \n%latestvds"), max_size=30) | st.text(max_size=30))
def test_whatever_is_typed_a_ref_parses_or_is_refused(text: str) -> None:
    for candidate in (text, f"vds://{text}", f"a@{text}", f"a:{text}"):
        with contextlib.suppress(InvalidInputError):
            _, path = parse_ref_path(candidate)
            assert path == directory_path(path)


patterns = st.lists(st.text(st.sampled_from("ab*?[]!-/.é"), min_size=1, max_size=6), max_size=4)


@given(patterns, patterns, st.text(st.sampled_from("ab/.-é"), max_size=8))
def test_patterns_mean_what_fnmatch_does(allow: list[str], ignore: list[str], path: str) -> None:
    def matches(found: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern) for pattern in found)

    assert path_filter(allow, ignore).takes(path) == (matches(allow) and not matches(ignore))
    assert path_filter(None, ignore).takes(path) == (not matches(ignore))


@given(
    patterns, st.text(st.sampled_from("ab.é"), min_size=1, max_size=4), st.text(st.sampled_from("ab/.é"), min_size=1, max_size=6)
)
def test_pruned_directories_hold_nothing_to_take(ignore: list[str], directory: str, below: str) -> None:
    wanted = path_filter(None, ignore)
    if wanted.prunes(directory):
        assert not wanted.takes(f"{directory}/{below}")
