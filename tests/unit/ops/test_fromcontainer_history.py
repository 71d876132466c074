"""What a version is put together from without the index: as few lists as do, and none that is not what it must be."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.unit.ops.unindexed import NAME, Unindexed, unindexed
from vds.blobs.objects import fresh_ulid
from vds.engine.recorded import VersionLine
from vds.errors import CorruptionError
from vds.model.checkpoint import CheckpointKey
from vds.model.digest import Digest
from vds.model.entry import MODE_FILE
from vds.model.manifest import ChangeListEncoder, ChangeRow
from vds.model.version import VersionRecord
from vds.store import noindex


@dataclass
class Line:
    """Eight versions, the lists of all in blobs: checkpoints of 2 and 4, the fifth changed everything."""

    place: Unindexed
    checkpoints: list[str]


@pytest.fixture(scope="module")
def shared_line() -> Iterator[Line]:
    with unindexed() as made:
        made.lists_in_blobs()
        made.put({"a": b"1", "b": b"1"})
        made.put({"a": b"2"})
        made.put({"c": b"3"})
        made.put({"b": b"4"})
        made.put({"a": b"5", "b": b"5", "c": b"5"})
        made.put({"a": b"6"})
        made.put({"b": None})
        made.put({"b": b"8"})
        yield Line(made, [made.checkpoint(2), made.checkpoint(4)])


@pytest.fixture
def line(shared_line: Line) -> Iterator[Unindexed]:
    with shared_line.place.undone():
        yield shared_line.place


@pytest.fixture
def checkpoints(shared_line: Line) -> list[str]:
    return shared_line.checkpoints


class TestWhereItBegins:
    def lists(self, line: Unindexed) -> list[str]:
        """Return the lists that were read: of checkpoints their number, of changes the versions'."""
        own = {}
        for number in range(1, 9):
            record = json.loads(line.driver.read_range(line.journal(number)))
            own[record["changes"]["key"]] = str(number)
        read = [key for key in line.driver.reads if key.startswith(("changes/", "checkpoints/"))]
        return sorted(own.get(key) or f"c{int(key.split('/')[2].split('-')[0])}" for key in read)

    @pytest.mark.parametrize(
        ("number", "lists"),
        [(1, "1"), (2, "c2"), (3, "3 c2"), (4, "c4"), (5, "5"), (6, "5 6"), (7, "5 6 7"), (8, "5 6 7 8")],
    )
    def test_only_the_lists_that_are_needed_are_read(self, line: Unindexed, number: int, lists: str) -> None:
        with line.reading():
            version = noindex.open_version(line.driver.url, f"{NAME}@{number}")
        read = self.lists(line)
        assert read == lists.split()
        assert list(version.entries()) == list(line.store.get(f"{NAME}@{number}").entries())

    def test_records_before_the_first_that_is_needed_do_not_matter(self, line: Unindexed) -> None:
        for number in (1, 2, 3):
            line.driver.delete_blob(line.journal(number))
        assert line.files(f"{NAME}@4") == {"a": b"2", "b": b"4", "c": b"3"}
        assert line.files(NAME) == {"a": b"6", "b": b"8", "c": b"5"}
        with pytest.raises(CorruptionError) as caught:
            line.open(f"{NAME}@3")
        assert line.journal(2) in caught.value.message or line.journal(3) in caught.value.message

    @pytest.mark.parametrize("how", ["flipped", "cut", "deleted", "empty", "another", "longer"])
    def test_a_damaged_checkpoint_is_done_without(
        self, line: Unindexed, checkpoints: list[str], how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, last = checkpoints
        body = line.driver.read_range(last)
        if how == "deleted":
            line.driver.delete_blob(last)
            assert line.files(f"{NAME}@4") == {"a": b"2", "b": b"4", "c": b"3"}
            return
        bodies = {
            "flipped": None,
            "cut": body[:-1],
            "empty": b"",
            "another": line.driver.read_range(first),
            "longer": body + b"x",
        }
        line.damage(last, bodies[how])
        with caplog.at_level(logging.WARNING):
            assert line.files(f"{NAME}@4") == {"a": b"2", "b": b"4", "c": b"3"}
        assert any(last in message for message in caplog.messages)

    def test_a_checkpoint_of_another_version_is_not_believed(self, line: Unindexed, checkpoints: list[str]) -> None:
        line.driver.copy_blob(checkpoints[0], checkpoints[0].replace("0000000000000002-", "0000000000000003-"))
        assert line.files(f"{NAME}@3") == {"a": b"2", "b": b"1", "c": b"3"}

    def test_a_checkpoint_that_somebody_made_up_is_not_believed(self, line: Unindexed, caplog: pytest.LogCaptureFixture) -> None:
        """It has as many rows as its version, and the digest that its key says; but it does not add up to the same bytes."""
        encoder = ChangeListEncoder()
        rows = [
            ChangeRow(path, Digest.of(b"1").raw, size_bytes, MODE_FILE, 0) for path, size_bytes in (("a", 1), ("b", 1), ("z", 9))
        ]
        body = b"".join(encoder.frames(rows))
        key = str(CheckpointKey(line.uid(), 3, encoder.digest, fresh_ulid()))
        line.driver.put_if_absent(key, body)
        with caplog.at_level(logging.WARNING):
            assert line.files(f"{NAME}@3") == {"a": b"2", "b": b"1", "c": b"3"}
        assert any(key in message for message in caplog.messages)

    def test_a_damaged_record_before_the_first_that_is_needed_does_not_matter(
        self, line: Unindexed, checkpoints: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even when it is read ahead, and fails first."""
        for key in checkpoints:
            line.driver.delete_blob(key)
        line.damage(line.journal(2), b"{}")
        has_failed = threading.Event()
        real = VersionLine.get

        def get(self: VersionLine, number: int) -> VersionRecord:
            if number == 6:
                assert has_failed.wait(60)
            try:
                return real(self, number)
            except CorruptionError:
                has_failed.set()
                raise

        monkeypatch.setattr(VersionLine, "get", get)
        assert line.files(f"{NAME}@6") == {"a": b"6", "b": b"5", "c": b"5"}
        with pytest.raises(CorruptionError):
            line.open(f"{NAME}@4")

    def test_keys_that_are_none_are_passed_over(self, line: Unindexed) -> None:
        prefix = f"checkpoints/{line.uid()}/"
        for name in ("0000000000000004-x.y", "x", "9999999999999999"):
            line.driver.put_if_absent(prefix + name, b"?")
        assert line.files(f"{NAME}@4") == {"a": b"2", "b": b"4", "c": b"3"}

    def test_when_nothing_is_left_to_begin_with(self, line: Unindexed, checkpoints: list[str]) -> None:
        first, last = checkpoints
        line.damage(first)
        line.damage(last)
        line.driver.delete_blob(line.journal(1))
        with pytest.raises(CorruptionError) as caught:
            line.open(f"{NAME}@4")
        assert line.journal(1) in caught.value.message

    @pytest.mark.parametrize("how", ["flipped", "cut", "deleted", "another"])
    def test_a_damaged_list_is_told(self, line: Unindexed, how: str) -> None:
        keys = [json.loads(line.driver.read_range(line.journal(number)))["changes"]["key"] for number in (6, 7)]
        body = line.driver.read_range(keys[1])
        if how == "deleted":
            line.driver.delete_blob(keys[1])
        else:
            line.damage(keys[1], {"flipped": None, "cut": body[:-3], "another": line.driver.read_range(keys[0])}[how])
        for number in (7, 8):
            with pytest.raises(CorruptionError) as caught:
                line.open(f"{NAME}@{number}")
            assert line.journal(7) in caught.value.message
        assert line.files(f"{NAME}@6") == {"a": b"6", "b": b"5", "c": b"5"}

    def test_the_record_of_a_checkpoint_is_part_of_the_chain(self, line: Unindexed) -> None:
        key = line.journal(2)
        line.damage(key, replace(VersionRecord.decode(line.driver.read_range(key), key), author="eve").encode())
        with pytest.raises(CorruptionError) as caught:
            line.open(f"{NAME}@3")
        assert key in caught.value.message

    def test_lists_that_do_not_add_up_to_their_version(self, line: Unindexed) -> None:
        key = line.journal(8)
        record = VersionRecord.decode(line.driver.read_range(key), key)
        for changed in (replace(record, file_count=4), replace(record, size_bytes=99)):
            line.damage(key, changed.encode())
            with pytest.raises(CorruptionError, match="add up to 3 files of 3 bytes, expected") as caught:
                line.open(f"{NAME}@8")
            assert key in caught.value.message
