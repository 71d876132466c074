from __future__ import annotations

import pickle
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.ops.stored import Stored
from vds.blobs.packs import MEMBER_BYTES_END
from vds.errors import CorruptionError, InvalidInputError
from vds.ops.share import CLOCK_SKEW, HOURS_MAX, Shared, UnshareableError, share

NOW = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC)
BEGINS = NOW.replace(microsecond=0)
LARGE = bytes(MEMBER_BYTES_END)
SECRET = "kJ8zQ4vN1xW7"

Signed = tuple[Sequence[tuple[str, str]], datetime, datetime]


class Signing(Stored):
    """A version in a place that signs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.signed: list[Signed] = []
        monkeypatch.setattr(self.driver, "sign_reads", self._sign)

    def _sign(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        self.signed.append((list(blobs), starts_at, expires_at))
        return [f"https://acct/{key}?n={index}&sig={SECRET}" for index, (key, _) in enumerate(blobs)]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Signing:
    return Signing(monkeypatch)


def test_each_file_gets_a_url_in_one_call(stored: Signing) -> None:
    entries = stored.version({"m/b.bin": LARGE + b"b", "m/a.bin": LARGE + b"a", "m/copy of a": LARGE + b"a"})
    shared = share(stored.source, entries, 4, now=lambda: NOW)
    keys = [stored.placements[entry.digest.raw].key for entry in entries]
    [(blobs, starts_at, expires_at)] = stored.signed
    assert blobs == list(zip(keys, ["a.bin", "b.bin", "copy of a"], strict=True))
    assert keys[0] == keys[2]
    assert (starts_at, expires_at) == (BEGINS - CLOCK_SKEW, BEGINS + timedelta(hours=4))
    assert [one.path for one in shared] == ["m/a.bin", "m/b.bin", "m/copy of a"]
    assert [one.url for one in shared] == [f"https://acct/{key}?n={index}&sig={SECRET}" for index, key in enumerate(keys)]
    assert {one.expires_at for one in shared} == {expires_at}
    assert [(one.size_bytes, one.digest) for one in shared] == [(entry.size_bytes, entry.digest) for entry in entries]
    assert stored.lookups == 1
    assert stored.driver.requests["read"] == 0


@pytest.mark.parametrize("hours", [1, 1.5, HOURS_MAX])
def test_hours_at_the_limits(stored: Signing, hours: float) -> None:
    [one] = share(stored.source, stored.version({"a": LARGE}), hours, now=lambda: NOW)
    assert one.expires_at == BEGINS + timedelta(hours=hours)
    # A user delegation key lives seven days from its start: the longest urls do without the time before now.
    assert one.expires_at - stored.signed[0][1] <= timedelta(hours=HOURS_MAX)


@pytest.mark.parametrize("hours", [0, 0.99, HOURS_MAX + 0.01, -1, float("nan"), float("inf")])
def test_hours_past_the_limits(stored: Signing, hours: float) -> None:
    with pytest.raises(InvalidInputError, match="is not between 1 and 168"):
        share(stored.source, stored.version({"a": LARGE}), hours)
    assert stored.signed == []


def test_what_stands_with_others_is_named_whole_and_nothing_is_signed(stored: Signing) -> None:
    entries = stored.version({"large": LARGE, "small": LARGE[1:], "empty": b"", **{f"s/{i:02}": bytes([i]) for i in range(10)}})
    with pytest.raises(UnshareableError, match=r"'empty', 's/00'.* and 2 more") as caught:
        share(stored.source, entries, now=lambda: NOW)
    assert caught.value.paths == ("empty", *(f"s/{i:02}" for i in range(10)), "small")
    assert "vds export" in caught.value.hint
    assert isinstance(caught.value, InvalidInputError)
    assert stored.signed == []
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.paths, again.hint, str(again)) == (caught.value.paths, caught.value.hint, str(caught.value))


def test_nothing_to_share(stored: Signing) -> None:
    assert share(stored.source, []) == []


def test_an_object_without_a_place(stored: Signing) -> None:
    entries = stored.version({"a": LARGE})
    stored.placements.clear()
    with pytest.raises(CorruptionError, match="'a': there is no place of object b3:"):
        share(stored.source, entries)


def test_a_place_without_a_service_says_what_to_do() -> None:
    stored = Stored()
    with pytest.raises(InvalidInputError, match="is not in an Azure storage account") as caught:
        share(stored.source, stored.version({"a": LARGE}))
    assert "vds export" in caught.value.hint


def test_a_signature_shows_only_where_it_is_asked_for(stored: Signing) -> None:
    [one] = share(stored.source, stored.version({"a": LARGE}), now=lambda: NOW)
    assert SECRET in one.url
    for text in (repr(one), str(one), f"{one}", repr([one])):
        assert SECRET not in text
        assert "path='a'" in text
    again = pickle.loads(pickle.dumps(one))
    assert isinstance(again, Shared)
    assert again == one
