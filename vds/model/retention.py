"""Which versions of a namespace to keep: a policy, held against their numbers and times. Pure.

A version is kept when any rule of the policy keeps it; the newest one is kept always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from vds.errors import InvalidInputError

KEEP_MAX = 1_000_000
_SPAN = re.compile(r"([0-9]{1,6}) ?(h|d|w|y)")
_SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "y": timedelta(days=365)}


class Dated(NamedTuple):
    """A version and when it was committed."""

    number: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Retention:
    """What to keep.

    Attributes:
        keep_last: this many of the newest versions.
        keep_daily: the newest version of each of this many days that have one, in UTC.
        keep_weekly: likewise of weeks, which begin on Monday.
        keep_within: what is younger than this.
        keep_tagged: every version that a dataset's release names; otherwise only what a tag shows.
    """

    keep_last: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_within: timedelta | None = None
    keep_tagged: bool = True

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_daily", "keep_weekly"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= KEEP_MAX):
                raise InvalidInputError(f"{name} {value!r} is not a number of versions from 1 to {KEEP_MAX}", hint=f"{name}=10")
        if self.keep_within is not None and not timedelta() < self.keep_within <= timedelta(days=365_000):
            raise InvalidInputError(
                f"keep_within {str(self.keep_within)!r} is not a span of time to keep", hint="keep_within='30d'"
            )

    @property
    def says_anything(self) -> bool:
        """Whether a rule says what to keep: without one, all but the newest would go."""
        return any(rule is not None for rule in (self.keep_last, self.keep_daily, self.keep_weekly, self.keep_within))

    @classmethod
    def parse(cls, raw: Mapping[str, Any], where: str) -> Retention:
        """Return the policy that a settings file gives, for example `{"keep-last": 10, "keep-within": "30d"}`.

        Raises:
            InvalidInputError: it has an unknown key, or a value that is none; the message names `where`.
        """
        known = {field.name.replace("_", "-"): field.name for field in fields(cls)}
        for key in raw:
            if key not in known:
                raise InvalidInputError(f"{where}: unknown key {key!r}", hint=f"known here: {', '.join(known)}")
        values = {known[key]: value for key, value in raw.items()}
        if not isinstance(values.get("keep_tagged", True), bool):
            raise InvalidInputError(f"{where}: keep-tagged is {values['keep_tagged']!r}, which is neither true nor false")
        if "keep_within" in values:
            values["keep_within"] = parse_span(values["keep_within"])
        return cls(**values)


def parse_span(value: str | timedelta) -> timedelta:
    """Return a span of time: `12h`, `30d`, `8w`, `2y` (of 365 days).

    Raises:
        InvalidInputError: it is none.
    """
    if isinstance(value, timedelta):
        return value
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidInputError(f"{value!r} is not a span of time", hint="write 12h, 30d, 8w or 2y")
    return int(match[1]) * _SPANS[match[2]]


def plan_expiry(versions: Sequence[Dated], policy: Retention, *, held: Collection[int], now: datetime) -> list[int]:
    """Return the numbers of the versions that no rule keeps, ascending.

    Args:
        versions: those that are there, ascending.
        policy: what to keep.
        held: numbers that are kept whatever the policy says.
        now: what keep_within counts back from.
    """
    if not versions:
        return []
    newest_first = versions[::-1]
    kept = {newest_first[0].number, *held}
    kept.update(one.number for one in newest_first[: policy.keep_last or 0])
    kept.update(_newest_of(newest_first, policy.keep_daily or 0, lambda at: at.date().toordinal()))
    # Ordinal 1 was a Monday: a week is seven days from one.
    kept.update(_newest_of(newest_first, policy.keep_weekly or 0, lambda at: (at.date().toordinal() - 1) // 7))
    if policy.keep_within is not None:
        kept.update(one.number for one in versions if now - one.created_at < policy.keep_within)
    return [one.number for one in versions if one.number not in kept]


def _newest_of(newest_first: Iterable[Dated], count: int, period_of: Callable[[datetime], int]) -> Iterable[int]:
    periods: set[int] = set()
    for one in newest_first:
        period = period_of(one.created_at)
        if period not in periods:
            if len(periods) == count:
                return
            periods.add(period)
            yield one.number
