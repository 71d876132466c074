"""What a ref means by the container's records alone: the same as by the index, or an error that says why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.unit.ops.unindexed import NAME, Unindexed, unindexed
from vds.blobs.driver import Blob
from vds.engine import recorded as recorded_module
from vds.engine.logfacts import read_log_facts
from vds.engine.recorded import Asked, VersionLine, find_asked
from vds.errors import CorruptionError, EntryNotFoundError, InvalidInputError, NotFoundError, VdsError
from vds.model.ref import Point, format_moment, parse_ref
from vds.store import Version


def tell(place: Unindexed) -> Unindexed:
    """Make three versions, a dataset with two releases, one of a directory, and a tag that moved and one that went."""
    place.put({"a": b"1", "d/x": b"x"})
    place.put({"a": b"2"})
    dataset = place.store.dataset("customers")
    dataset.register(f"{NAME}@1", tags=["prod", "gone"])
    place.put({"a": b"3"})
    dataset.register(f"{NAME}@2", "d")
    dataset.tag("prod", 2)
    dataset.untag("gone")
    place.put({"a": b"4"}, name="other")
    return place


@pytest.fixture(scope="module")
def shared() -> Iterator[Unindexed]:
    with unindexed() as place:
        yield tell(place)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_module, "WRITER_PAUSE_S", 0)


@pytest.fixture
def told(shared: Unindexed) -> Iterator[Unindexed]:
    """A store that was told of in `tell`; its container may be damaged, its index must not be written."""
    with shared.undone():
        yield shared


@pytest.fixture
def own() -> Iterator[Unindexed]:
    """Likewise, of this test alone."""
    with unindexed() as place:
        yield tell(place)


def moment_of(version: Version, microseconds: int = 0) -> str:
    return format_moment(version.created_at + timedelta(microseconds=microseconds))


def moments(told: Unindexed) -> list[str]:
    """Return refs with a moment: around each version and event, with the nearest possible ones."""
    versions = [told.store.get(f"{NAME}@{number}") for number in (1, 2, 3)]
    found = [f"{NAME}@{moment_of(version, shift)}" for version in versions for shift in (-1, 0, 1)]
    steps = [event.created_at for event in told.store.dataset("customers").history()]
    for step in steps:
        for shift in (-1, 0):
            when = format_moment(step + timedelta(microseconds=shift))
            found += [f"customers:prod@{when}", f"customers:gone@{when}", f"customers:latest@{when}", f"customers:2@{when}"]
    return found


def same_as_index(told: Unindexed, ref: str) -> None:
    """Check that a ref means the same without the index: one version and path, or one error."""
    expected: Version | VdsError
    try:
        expected = told.store.get(ref)
    except VdsError as err:
        expected = err
    if isinstance(expected, VdsError):
        with pytest.raises(type(expected)) as caught:
            told.open(ref)
        assert caught.value.message == expected.message, ref
        return
    found = told.open(ref)
    assert found == expected, ref
    assert list(found.entries()) == list(expected.entries()), ref
    assert (found.created_at, found.number, found.author) == (expected.created_at, expected.number, expected.author)


class TestRefs:
    @pytest.mark.parametrize(
        "ref",
        [
            NAME,
            "TEAM/Raw",
            f"{NAME}@latest",
            f"{NAME}@1",
            f"{NAME}@v2",
            f"{NAME}@3/d",
            f"vds://{NAME}@3/d/x",
            f"{NAME}@latest~1",
            f"{NAME}@3~3",
            f"{NAME}@0",
            f"{NAME}@4",
            f"{NAME}@latest~4",
            f"{NAME}@2/none",
            f"{NAME}@2020-01-01T00:00Z",
            "none",
            "none@1",
            "other",
            "customers:latest",
            "customers:1",
            "customers:2/x",
            "customers:3",
            "CUSTOMERS:prod",
            "customers:gone",
            "customers:none",
            "none:prod",
            f"{NAME}@b3:00000000",
        ],
    )
    def test_a_ref_means_what_it_means_with_the_index(self, told: Unindexed, ref: str) -> None:
        same_as_index(told, ref)

    def test_moments(self, told: Unindexed) -> None:
        refs = moments(told)
        assert len(refs) > 20
        for ref in refs:
            same_as_index(told, ref)

    @pytest.mark.parametrize("number", [1, 2, 3])
    @pytest.mark.parametrize("digits", [8, 20, 64])
    def test_digests(self, told: Unindexed, number: int, digits: int) -> None:
        ref = f"{NAME}@b3:{told.store.get(f'{NAME}@{number}').digest.hex[:digits]}"
        same_as_index(told, ref)
        same_as_index(told, f"{ref}~1")

    def test_a_digest_that_fits_two(self, told: Unindexed) -> None:
        line = VersionLine(told.driver, told.store.id, Asked(told.uid(), NAME, Point(digest_prefix=""), ""), None)
        with pytest.raises(InvalidInputError, match="fits several versions"):
            line.find_number()

    def test_a_namespace_that_has_a_name_and_no_version(self, own: Unindexed) -> None:
        own.store.namespace("empty").transaction().abort()
        assert own.open("empty").number == 0
        assert own.open("empty@0").file_count == 0

    def test_what_is_no_store_and_what_is_no_ref(self, told: Unindexed) -> None:
        with pytest.raises(InvalidInputError):
            told.open("no ref!")
        for key in told.keys("format/"):
            told.driver.delete_blob(key)
        with pytest.raises(NotFoundError, match="is not a vds store"):
            told.open(NAME)


class TestAsOf:
    def test_a_ref_that_can_move_means_what_it_meant(self, told: Unindexed, monkeypatch: pytest.MonkeyPatch) -> None:
        versions = [told.store.get(f"{NAME}@{number}") for number in (1, 2, 3)]
        moments = [event.created_at for event in told.store.dataset("customers").history()]
        for when in [moment_of(version) for version in versions] + [format_moment(moment) for moment in moments]:
            monkeypatch.setenv("VDS_AS_OF", when)
            for ref in (
                NAME,
                f"{NAME}@latest~1",
                f"{NAME}@3",
                f"{NAME}@{moment_of(versions[0])}",
                "customers:prod",
                "customers:1",
            ):
                same_as_index(told, ref)

    def test_a_moment_before_the_first_version(self, told: Unindexed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VDS_AS_OF", moment_of(told.store.get(f"{NAME}@1"), -1))
        same_as_index(told, NAME)

    def test_something_else(self, told: Unindexed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VDS_AS_OF", "")
        with pytest.raises(InvalidInputError, match="VDS_AS_OF"):
            told.open(NAME)
        assert told.open(f"{NAME}@2").number == 2


class TestRecordsThatAreMissing:
    """The record of version 2 is not there, that of version 3 is."""

    @pytest.fixture
    def holed(self, told: Unindexed) -> Unindexed:
        told.driver.delete_blob(told.journal(2))
        return told

    @pytest.mark.parametrize(
        "ref", [NAME, f"{NAME}@3", f"{NAME}@9", f"{NAME}@latest~1", f"{NAME}@2999-01-01T00:00Z", f"{NAME}@b3:00000000"]
    )
    def test_what_depends_on_it_is_refused(self, holed: Unindexed, ref: str) -> None:
        with pytest.raises(CorruptionError) as caught:
            holed.open(ref)
        assert holed.journal(2) in caught.value.message

    def test_the_hint_says_what_can_be_read(self, holed: Unindexed) -> None:
        with pytest.raises(CorruptionError) as caught:
            holed.open(NAME)
        assert f"{NAME}@1" in caught.value.hint

    def test_what_does_not_is_answered(self, holed: Unindexed) -> None:
        digest = holed.store.get(f"{NAME}@1").digest.hex
        first = moment_of(holed.store.get(f"{NAME}@1"), -1)
        assert [holed.open(ref).number for ref in (f"{NAME}@1", f"{NAME}@0", f"{NAME}@b3:{digest}", f"{NAME}@{first}")] == [
            1,
            0,
            1,
            0,
        ]

    def test_a_checkpoint_after_it_says_that_it_was_there_once(self, own: Unindexed) -> None:
        holed = own
        holed.checkpoint(3)
        holed.driver.delete_blob(holed.journal(2))
        assert [holed.open(ref).number for ref in (NAME, f"{NAME}@latest", f"{NAME}@3", f"{NAME}@2999-01-01T00:00Z")] == [3] * 4
        with pytest.raises(CorruptionError, match="is missing"):
            holed.open(f"{NAME}@2")

    def test_one_that_comes_while_it_is_waited_for_is_of_a_writer_at_work(self, holed: Unindexed) -> None:
        """The next hole is then one of the same kind: a version after it is not there yet."""
        body = holed.driver.read_range(holed.journal(3))
        holed.driver.delete_blob(holed.journal(3))
        waited: list[float] = []

        def line(point: Point, arrives: str) -> int:
            def pause(seconds: float) -> None:
                waited.append(seconds)
                holed.driver.put_if_absent(arrives, body)

            return VersionLine(holed.driver, holed.store.id, Asked(holed.uid(), NAME, point, ""), None, pause=pause).find_number()

        assert line(Point(), "unrelated") == 1  # no hole, no pause
        assert waited == []
        holed.driver.put_if_absent(holed.journal(3), body)
        holed.driver.put_if_absent(holed.journal(6), body)
        assert line(Point(), holed.journal(2)) == 3
        with pytest.raises(CorruptionError, match="is missing"):
            line(Point(), "nothing")
        assert line(Point(), holed.journal(4)) == 4
        holed.driver.delete_blob(holed.journal(4))
        with pytest.raises(NotFoundError, match="no version 6, its latest is 4"):
            line(Point(number=6), holed.journal(4))
        assert waited == [0] * 4

    def test_a_hole_in_a_datasets_events(self, told: Unindexed) -> None:
        keys = told.keys("datasets/")
        told.driver.delete_blob(keys[1])
        with pytest.raises(CorruptionError) as caught:
            told.open("customers:prod")
        assert keys[1] in caught.value.message
        assert told.open(NAME).number == 3

    def test_a_hole_in_the_stores_log(self, told: Unindexed) -> None:
        """What expired or was erased could stand there."""
        told.driver.delete_blob("store/0000000000000001")
        with pytest.raises(CorruptionError, match="store/0000000000000001"):
            told.open(NAME)


class TestRecordsThatAreNotBelieved:
    def test_another_ones_record(self, told: Unindexed) -> None:
        told.damage(told.journal(2), told.driver.read_range(told.journal(1)))
        with pytest.raises(CorruptionError) as caught:
            told.open(f"{NAME}@2")
        assert told.journal(2) in caught.value.message

    def test_another_ones_record_where_a_moment_is_looked_for(self, told: Unindexed) -> None:
        """That one is younger: to go by it would mean an older version than is asked for."""
        ref = f"{NAME}@{moment_of(told.store.get(f'{NAME}@2'))}"
        assert told.open(ref).number == 2
        told.damage(told.journal(2), told.driver.read_range(told.journal(3)))
        with pytest.raises(CorruptionError) as caught:
            told.open(ref)
        assert told.journal(2) in caught.value.message

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_a_record_that_was_changed_breaks_the_chain(self, told: Unindexed, number: int) -> None:
        key = told.journal(number)
        record = json.loads(told.driver.read_range(key))
        record["author"] += "x"
        told.damage(key, (json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode())
        broken = [other for other in (1, 2, 3) if self.is_refused(told, other, key)]
        # Whatever needs it, but that nothing vouches for the last one.
        assert broken == {1: [1, 2, 3], 2: [2, 3], 3: []}[number]

    def is_refused(self, told: Unindexed, number: int, key: str) -> bool:
        try:
            told.open(f"{NAME}@{number}")
        except CorruptionError as err:
            return key in err.message
        return False

    def test_a_claim_of_another_name(self, told: Unindexed) -> None:
        mine, others = (f"namespaces/{name}" for name in self.claims(told))
        told.damage(mine, told.driver.read_range(others))
        with pytest.raises(CorruptionError) as caught:
            told.open(NAME)
        assert mine in caught.value.message

    def claims(self, told: Unindexed) -> list[str]:
        asked = [find_asked(told.driver, told.store.id, parse_ref(name), "").namespace for name in (NAME, "other")]
        bodies = {told.driver.read_range(key): key.removeprefix("namespaces/") for key in told.keys("namespaces/")}
        return [key for uid in asked for body, key in bodies.items() if uid.encode() in body]

    def test_a_release_of_another_version(self, told: Unindexed, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = find_asked(told.driver, told.store.id, parse_ref("customers:1"), "")
        assert asked.digest == told.store.get(f"{NAME}@1").digest.raw
        other = Asked(asked.namespace, asked.name, asked.point, asked.path, bytes(32))
        monkeypatch.setattr("vds.ops.fromcontainer.find_asked", lambda *arguments: other)
        with pytest.raises(CorruptionError, match="is not the one that 'customers' released"):
            told.open("customers:1")


class TestTheLog:
    def test_what_expired_is_refused_as_by_the_index(self, own: Unindexed) -> None:
        own.log("versions-expired", namespace=own.uid(), numbers=[[1, 2]], author="ada", reason="old")
        own.doors.index.run(
            lambda c: c.exec_driver_sql("UPDATE version SET expired_us = 1 WHERE namespace_id = 1 AND number <= 2")
        )
        facts = read_log_facts(own.driver, own.store.id, own.uid(), avoid=lambda keys: None)
        expired_at = facts.find_expired_at(1)
        assert expired_at is not None
        for ref in (f"{NAME}@1", f"{NAME}@2", f"{NAME}@latest~1", f"{NAME}@{moment_of(own.store.get(NAME), -1)}"):
            with pytest.raises(NotFoundError, match=r"of 'team/raw' was expired on") as caught:
                own.open(ref)
            with pytest.raises(NotFoundError) as by_index:
                own.store.get(ref)
            known, _, when = caught.value.message.rpartition(" on ")
            assert known == by_index.value.message.rpartition(" on ")[0]
            assert when == format_moment(expired_at)
        assert own.open(NAME).number == 3
        assert own.open("other@1").number == 1

    def test_what_was_restored_is_there_again(self, own: Unindexed) -> None:
        uid = own.uid()
        own.log("versions-expired", namespace=uid, numbers=[[1, 2]], author="ada", reason="old")
        own.log("versions-restored", namespace=uid, numbers=[[2, 2]], author="ada")
        assert own.open(f"{NAME}@2").number == 2
        with pytest.raises(NotFoundError):
            own.open(f"{NAME}@1")
        own.log("versions-expired", namespace=uid, numbers=[[2, 2]], author="ada", reason="old")
        with pytest.raises(NotFoundError):
            own.open(f"{NAME}@2")

    def test_keys_and_objects(self, own: Unindexed) -> None:
        digest = own.store.get(NAME).entry("a").digest
        own.log("keys-deleting", keys=["packs/aa/x", "packs/aa/y"], author="ada", why="gc", size_bytes=2)
        own.log("keys-deleting", keys=["packs/aa/z"], author="ada", why="gc", size_bytes=1)
        own.log("object-erased", digest=str(digest), author="eve", reason="a person asked")
        own.log("object-erased", digest=str(digest), author="bob", reason="again")
        avoided: list[str] = []
        facts = read_log_facts(own.driver, own.store.id, own.uid(), avoid=avoided.extend)
        assert avoided == ["packs/aa/x", "packs/aa/y", "packs/aa/z"]
        assert {raw: (row.author, row.reason) for raw, row in facts.erased.items()} == {digest.raw: ("eve", "a person asked")}
        assert facts.created_at is not None
        assert facts.created_at <= own.store.get(f"{NAME}@1").created_at


def test_nothing_is_asked_twice(told: Unindexed) -> None:
    """Of a version with its number: the log, the claim, its records, its list of packs; once each but where a size is asked."""
    told.open(f"{NAME}@1")
    assert max(told.driver.reads.values()) <= 2
    assert told.driver.listings[f"journal/{told.uid()}/"] <= 2
    assert told.driver.listings["objects/"] == 0


def test_what_lies_below_a_path(told: Unindexed) -> None:
    assert [str(entry.path) for entry in told.open("customers:2").entries()] == ["x"]
    assert told.open(f"{NAME}@3/d/x").read_bytes("") == b"x"
    with pytest.raises(EntryNotFoundError):
        told.open(f"{NAME}@3/nothing")
    assert isinstance(next(told.driver.list_blobs("journal/")), Blob)
