"""Which versions a policy keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vds.errors import InvalidInputError
from vds.model.retention import KEEP_MAX, Dated, Retention, parse_span, plan_expiry

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


def hourly(count: int) -> list[Dated]:
    """Versions an hour apart, the last one now."""
    return [Dated(number, NOW - timedelta(hours=count - number)) for number in range(1, count + 1)]


def kept(versions: list[Dated], policy: Retention, held: set[int] | None = None) -> list[int]:
    gone = plan_expiry(versions, policy, held=held or set(), now=NOW)
    return [one.number for one in versions if one.number not in gone]


class TestRules:
    def test_the_newest_ones(self) -> None:
        assert kept(hourly(10), Retention(keep_last=3)) == [8, 9, 10]

    def test_the_newest_is_kept_whatever_the_rules_say(self) -> None:
        assert kept(hourly(3), Retention()) == [3]
        assert plan_expiry([], Retention(keep_last=1), held=(), now=NOW) == []

    def test_the_newest_of_each_day_that_has_one(self) -> None:
        versions = [Dated(1, NOW - timedelta(days=9)), Dated(2, NOW - timedelta(days=9, hours=-1)), *hourly(30)[2:]]
        days = kept(versions, Retention(keep_daily=3))
        assert days == [2, 17, 30]  # today, yesterday, and the day nine days ago: the days between have none

    def test_weeks_begin_on_monday(self) -> None:
        monday = datetime(2026, 3, 30, tzinfo=UTC)
        versions = [
            Dated(1, monday - timedelta(days=7)),
            Dated(2, monday - timedelta(seconds=1)),
            Dated(3, monday),
            Dated(4, NOW),
        ]
        assert kept(versions, Retention(keep_weekly=2)) == [2, 4]

    def test_what_is_younger(self) -> None:
        assert kept(hourly(10), Retention(keep_within=timedelta(hours=3))) == [8, 9, 10]

    def test_any_rule_keeps(self) -> None:
        assert kept(hourly(10), Retention(keep_last=1, keep_within=timedelta(hours=2)), {4}) == [4, 9, 10]


@given(st.lists(st.integers(0, 10_000), max_size=60), st.integers(1, 5), st.integers(1, 5), st.sets(st.integers(1, 60)))
def test_never_more_goes_with_more_rules(hours: list[int], last: int, daily: int, held: set[int]) -> None:
    versions = [Dated(n, NOW - timedelta(hours=h)) for n, h in enumerate(sorted(hours, reverse=True), 1)]
    few = set(kept(versions, Retention(keep_last=last), held))
    more = set(kept(versions, Retention(keep_last=last, keep_daily=daily), held))
    assert few <= more
    assert {one.number for one in versions[-last:]} <= few
    assert held & {one.number for one in versions} <= few


@pytest.mark.parametrize("value", [0, -1, KEEP_MAX + 1, True, 1.0, "3"])
def test_a_count_that_is_none(value: object) -> None:
    with pytest.raises(InvalidInputError, match="keep_last"):
        Retention(keep_last=value)  # type: ignore[arg-type]


def test_the_largest_count() -> None:
    assert Retention(keep_last=KEEP_MAX).says_anything
    assert not Retention().says_anything


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("30d", 720), ("8 w", 1344), ("2y", 17520)])
def test_spans(text: str, hours: int) -> None:
    assert parse_span(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1m", "1.5d", "1d1h", "9999999d", 5])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(InvalidInputError, match="span"):
        parse_span(text)


@pytest.mark.parametrize("span", [timedelta(), timedelta(days=-1), timedelta(days=365_001)])
def test_a_span_that_keeps_nothing(span: timedelta) -> None:
    with pytest.raises(InvalidInputError, match="keep_within"):
        Retention(keep_within=span)


class TestSettings:
    def test_a_table(self) -> None:
        policy = Retention.parse({"keep-last": 5, "keep-within": "30d", "keep-tagged": False}, "vds.toml")
        assert policy == Retention(keep_last=5, keep_within=timedelta(days=30), keep_tagged=False)

    @pytest.mark.parametrize(
        "table", [{"keep_last": 5}, {"keep-lots": 1}, {"keep-tagged": 1}, {"keep-within": 30}, {"keep-last": "5"}]
    )
    def test_a_table_that_is_none(self, table: dict[str, object]) -> None:
        with pytest.raises(InvalidInputError):
            Retention.parse(table, "vds.toml: expire.runs")
