"""vds.lock as text: the same rows give the same bytes, what was damaged is named, what is newer is refused."""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vds.errors import FormatError, InvalidInputError
from vds.model.digest import Digest
from vds.model.lockfile import LockedRow, format_lock, parse_lock
from vds.model.path import EntryPath
from vds.model.ref import DatasetRef, NamespaceRef

PROD = LockedRow(
    ref="customers:prod",
    store="01jz",
    url="az://data@account/prefix",
    name="customers",
    release=3,
    namespace="team/raw",
    version=12,
    path=EntryPath("clean/März"),
    digest=Digest.of(b"history"),
    content_digest=Digest.of(b"content"),
    files=10,
    bytes=12345,
)
RAW = replace(PROD, ref="team/raw", name="team/raw", release=None, path=EntryPath(""))
TEXT = f"""\
# Written by `vds lock`: keep it with your code. `vds lock --check` says what has moved since.
format = 1

[refs."customers:prod"]
store = "01jz"
url = "az://data@account/prefix"
name = "customers"
release = 3
namespace = "team/raw"
version = 12
path = "clean/März"
digest = "{PROD.digest}"
content_digest = "{PROD.content_digest}"
files = 10
bytes = 12345

[refs."team/raw"]
store = "01jz"
url = "az://data@account/prefix"
name = "team/raw"
namespace = "team/raw"
version = 12
path = ""
digest = "{PROD.digest}"
content_digest = "{PROD.content_digest}"
files = 10
bytes = 12345
"""


def test_the_text_and_back() -> None:
    assert format_lock([PROD, RAW]) == TEXT
    assert parse_lock(TEXT, "vds.lock") == {DatasetRef("customers", tag="prod"): PROD, NamespaceRef("team/raw"): RAW}


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [replace(RAW, ref=ref) for ref in ("b", "a", "a:x", "a/b")]
    assert {format_lock(order) for order in itertools.permutations(rows)} == {format_lock(rows)}
    assert list(tomllib.loads(format_lock(rows))["refs"]) == ["a", "a/b", "a:x", "b"]


def test_nothing_locked_is_a_lock_too() -> None:
    assert parse_lock(format_lock([]), "vds.lock") == {}


def test_line_ends_of_windows_are_read() -> None:
    assert parse_lock(TEXT.replace("\n", "\r\n"), "vds.lock") == parse_lock(TEXT, "vds.lock")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(url: str, store: str) -> None:
    row = replace(PROD, url=url, store=store)
    assert list(parse_lock(format_lock([row]), "vds.lock").values()) == [row]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("format = 1", "format = 1\n<<<<<<< HEAD", "line 3"),
        ("format = 1\n", "", "'format' is None"),
        ("format = 1", "format = true", "'format' is True"),
        ("format = 1", "format = 0", "'format' is 0"),
        ('[refs."team/raw"]', '[refs."customers:prod"]', "line 17"),
        ('[refs."team/raw"]', '[refs."team raw"]', r"refs.\"team raw\""),
        ('[refs."team/raw"]', '[refs."team/raw@12/a"]', "names the path 'a'"),
        ('[refs."customers:prod"]', '[refs."team/raw@latest"]', "'team/raw@latest' and 'team/raw' mean the same"),
        ('store = "01jz"\n', "", r'refs."customers:prod": \'store\' is None'),
        ("version = 12", 'version = "12"', "'version' is '12'"),
        ("version = 12", "version = -1", "'version' is -1"),
        ("release = 3", "release = true", "'release' is True"),
        ('namespace = "team/raw"', 'namespace = "../raw"', "'namespace': '../raw' is not a namespace name"),
        ('path = "clean/März"', 'path = "../x"', "'path': path '../x'"),
        (f'digest = "{PROD.digest}"', 'digest = "b3:12"', "'digest': not a digest"),
        ("files = 10", "files = 1.5", "'files' is 1.5"),
    ],
)
def test_damage_is_named(old: str, new: str, named: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_lock(TEXT.replace(old, new, 1), "vds.lock")
    assert named.replace("\\", "") in caught.value.message.replace("\\", "")
    assert caught.value.message.startswith("vds.lock")
    assert "vds lock REF" in caught.value.hint


@pytest.mark.parametrize("text", ["format = 1\nrefs = 3\n", "format = 1\n[refs]\na = 1\n"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="table"):
        parse_lock(text, "vds.lock")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("format = 1", "format = 2", "format 2"),
        ("format = 1", 'format = 1\nother = "x"', "the key 'other'"),
        ("files = 10", "files = 10\nother = 1", "refs.\"customers:prod\" has the key 'other'"),
    ],
)
def test_what_is_newer_is_refused(old: str, new: str, named: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_lock(TEXT.replace(old, new, 1), "vds.lock")
    assert named in caught.value.message
