from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vds.errors import InvalidInputError
from vds.model.ref import (
    DatasetRef,
    NamespaceRef,
    Point,
    Ref,
    format_moment,
    parse_int,
    parse_moment,
    parse_name,
    parse_point,
    parse_ref,
    parse_ref_path,
    parse_release,
    parse_tag,
    version_uri,
)

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

REFS: list[tuple[str, Ref, str]] = [
    ("team/raw", NamespaceRef("team/raw"), ""),
    ("team/raw@12", NamespaceRef("team/raw", Point(number=12)), ""),
    ("team/raw@v12", NamespaceRef("team/raw", Point(number=12)), ""),
    ("team/raw@0", NamespaceRef("team/raw", Point(number=0)), ""),
    ("team/raw@latest", NamespaceRef("team/raw"), ""),
    ("team/raw@latest~2", NamespaceRef("team/raw", Point(back=2)), ""),
    ("team/raw@12~1", NamespaceRef("team/raw", Point(number=12, back=1)), ""),
    ("team/raw@b3:0123abcd", NamespaceRef("team/raw", Point(digest_prefix="0123abcd")), ""),
    ("team/raw@2026-03-01T12:00Z", NamespaceRef("team/raw", Point(moment=NOON)), ""),
    ("team/raw@2026-03-01T13:00+01:00/a/b", NamespaceRef("team/raw", Point(moment=NOON)), "a/b"),
    ("customers:prod", DatasetRef("customers", tag="prod"), ""),
    ("customers:3", DatasetRef("customers", release=3), ""),
    ("customers:v3", DatasetRef("customers", release=3), ""),
    ("customers:latest", DatasetRef("customers"), ""),
    ("customers:prod@2026-03-01T12:00Z", DatasetRef("customers", tag="prod", moment=NOON), ""),
    ("team/raw@12/dir/file", NamespaceRef("team/raw", Point(number=12)), "dir/file"),
    ("team/raw@12/", NamespaceRef("team/raw", Point(number=12)), ""),
    ("team/raw@12/a%20b@c:d#e?f", NamespaceRef("team/raw", Point(number=12)), "a%20b@c:d#e?f"),
    ("vds://team/raw@12/dir/", NamespaceRef("team/raw", Point(number=12)), "dir"),
    ("vds://customers:prod/part-0.parquet", DatasetRef("customers", tag="prod"), "part-0.parquet"),
]


@pytest.mark.parametrize(("text", "ref", "path"), REFS)
def test_forms(text: str, ref: Ref, path: str) -> None:
    assert parse_ref_path(text) == (ref, path)


@pytest.mark.parametrize(
    "text",
    [
        "", "@", ":", "a@", "a:", "@1", ":prod", "a@@1", "a::b", "/a", "a//b", "a b", "ä", ".a", "-a", "a@1~", "a@1~x",
        "a@1~-1", "a@~1", "a@-1", "a@1.5", "a@tag", "a@b3:", "a@b3:0123abc", "a@b3:0123ABCD",
        "a@b3:" + "0" * 65, "a@2026-03-01", "a@2026-03-01T12:00",
        "a@2026-13-01T12:00Z", "a@٣", "a:la test", "a:b@1", "a:b@latest", "a@1/../x", "a@1//x", "a@1/a\nb", "vds://",
        "vds://a", "vds://store//a@1/x",
        "x" * 201,
        "a:" + "x" * 65, "a\n", "a@1\n", "a:b\n",
        "a@9999999999999999",
    ],
)  # fmt: skip
def test_texts_that_are_no_refs(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_ref_path(text)
    assert caught.value.hint


def test_a_ref_where_no_path_may_be() -> None:
    assert parse_ref("team/raw@12/") == NamespaceRef("team/raw", Point(number=12))
    with pytest.raises(InvalidInputError, match="'dir'"):
        parse_ref("team/raw@12/dir")


def test_names_and_tags_have_limits() -> None:
    assert parse_name("x" * 200) == "x" * 200
    assert parse_tag("x" * 64) == "x" * 64
    for text in ("latest", "LATEST", "3", "v3", "V3", "x" * 65, "a/b", "", "a@b"):
        with pytest.raises(InvalidInputError):
            parse_tag(text)


@pytest.mark.parametrize("value", [-1, True, 1.5, None, datetime(2026, 3, 1), b"1"])
def test_points_that_are_none(value: object) -> None:
    with pytest.raises(InvalidInputError):
        parse_point(value)  # type: ignore[arg-type]


def test_points_from_values() -> None:
    assert parse_point(12) == Point(number=12)
    assert parse_point(datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))) == Point(moment=NOON)
    assert [parse_point(text).is_fixed for text in ("12", "b3:0123abcd", "latest", "2026-03-01T12:00Z")] == [
        True,
        True,
        False,
        False,
    ]


def test_releases_from_values() -> None:
    assert parse_release("c", 3) == DatasetRef("c", release=3)
    for value in (True, None, 1.5, ""):
        with pytest.raises(InvalidInputError):
            parse_release("c", value)  # type: ignore[arg-type]


def test_moments() -> None:
    assert parse_moment("2026-03-01t12:00:00.123456789z") == NOON.replace(microsecond=123456)
    assert parse_moment("2026-03-01 12:00Z") == NOON
    assert format_moment(NOON) == "2026-03-01T12:00:00.000000Z"
    for text in ("0001-01-01T00:00+23:59", "2026-02-30T12:00Z", "2026-03-01T12:00:61Z", "now"):
        with pytest.raises(InvalidInputError):
            parse_moment(text)


def test_numbers_and_uris() -> None:
    assert [parse_int(text) for text in ("12", "v12", "x", "-1", "1 ", "٣")] == [12, 12, None, None, None, None]
    assert version_uri("team/raw", 12) == "vds://team/raw@12/"
    assert version_uri("team/raw", 12, "a/b") == "vds://team/raw@12/a/b"
