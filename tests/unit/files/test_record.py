from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vds.errors import CorruptionError
from vds.files.place import Target
from vds.files.placer import Stamp
from vds.files.record import (
    RECORD_PATH,
    PlacedRecord,
    PlacedRow,
    find_record,
    merge_rows,
    placed_row,
    put_record,
    read_row,
)
from vds.files.scan import SourceFile
from vds.files.statcache import COARSE_TICK_NS, TICK_NS
from vds.model.digest import Digest
from vds.model.entry import MODE_FILE, Entry
from vds.model.path import entry_path

NS = 1_600_000_000_123_456_789
SECOND_NS = 1_000_000_000


def row(path: str, body: bytes = b"") -> PlacedRow:
    return PlacedRow(entry_path(path), Digest.of(body), len(body), MODE_FILE, NS, NS + 5, 7)


def test_round_trip(tmp_path: Path) -> None:
    rows = [row(f"{number:04}", b"x") for number in range(2500)] + [row('quo"te'), row("日本")]
    record = PlacedRecord("vds://a@1/", True, rows, "b3:1", ("*.png", "日本"), ())
    with Target(tmp_path) as target:
        assert find_record(target) is None
        put_record(target, PlacedRecord("", False, []))
        put_record(target, record)
        assert find_record(target) == record


def test_merging_keeps_each_distinct_row_once_sorted() -> None:
    a, b, other_b = row("a"), row("b"), row("b", b"other")
    assert list(merge_rows([a, b], iter([a, other_b]))) == [a, b, other_b]
    assert list(merge_rows([], [b])) == [b]
    assert list(merge_rows()) == []


def test_hostile_records_are_refused(tmp_path: Path) -> None:
    header = '{"vds_checkout":2,"uri":"u","complete":true,"digest":"","allow":null,"ignore":null}\n'
    good = '{"path":["a"],"digest":["b3:' + "0" * 64 + '"],"size":[1],"mode":[420],"mtime_ns":[1],"ctime_ns":[1],"inode":[1]}\n'
    with Target(tmp_path) as target:
        put_record(target, PlacedRecord("", False, []))
        file = tmp_path / RECORD_PATH
        file.write_text(header + good)
        assert find_record(target) is not None
        for line in (
            good.replace('"a"', '"../a"'),
            good.replace('["a"]', '["a","b"]'),
            good.replace('["a"]', '"a"') + good.replace('["a"]', "7"),
            good.replace("b3:", "b3"),
            good.replace('"b3:' + "0" * 64, '"b3:' + "0" * 60 + '","0000'),
            good.replace('"size":[1]', '"size":["1"]'),
            good.replace('"size":[1]', '"size":[true]'),
            good.replace('"inode":[1]', '"inode":[]'),
            good[:20],
            "[" * 100_000,
            "\ud800",
            "1\n",
            '{"path":1}',
        ):
            file.write_bytes((header + line).encode(errors="surrogatepass"))
            with pytest.raises(CorruptionError) as caught:
                find_record(target)
            assert caught.value.hint


def test_a_record_of_an_older_vds_is_read_and_its_files_are_to_be_read(tmp_path: Path) -> None:
    header = '{"vds_checkout":1,"uri":"u","complete":true}\n'
    line = '{"path":"a","digest":"b3:' + "0" * 64 + '","size":1,"mode":420,"mtime_ns":5}\n'
    with Target(tmp_path) as target:
        put_record(target, PlacedRecord("", False, []))
        (tmp_path / RECORD_PATH).write_text(header + line)
        expected = PlacedRow(entry_path("a"), Digest("b3:" + "0" * 64), 1, 420, 5)
        assert find_record(target) == PlacedRecord("u", True, [expected])
        assert not expected.fits(SourceFile(entry_path("a"), "a", 1, 5, 0, 0, MODE_FILE))
        for wrong in (line[:20], line.replace('"a"', '"../a"'), line.replace("b3:", "b3")):
            (tmp_path / RECORD_PATH).write_text(header + wrong)
            with pytest.raises(CorruptionError):
                find_record(target)


def test_whether_two_records_ask_for_the_same() -> None:
    record = PlacedRecord("u", True, [], "d", ("a",), None)
    assert record.asks_for(replace(record, rows=[row("a")], complete=False))
    for other in (
        replace(record, uri="v"),
        replace(record, digest="e"),
        replace(record, allow_patterns=None),
        replace(record, ignore_patterns=()),
    ):
        assert not record.asks_for(other)
    unknown = replace(record, digest="")
    assert not unknown.asks_for(unknown)


class TestTrust:
    """Whether a row is believed without reading the file."""

    ENTRY = Entry(entry_path("a"), Digest.of(b"x"), 1, MODE_FILE, NS)

    @pytest.mark.parametrize(
        ("modified_ns", "changed_ns", "is_certain"),
        [
            (NS, NS + SECOND_NS, True),
            (NS + SECOND_NS, NS, True),  # a time in the future
            (NS, NS + TICK_NS + 1, True),
            (NS, NS + TICK_NS, False),
            (NS + TICK_NS, NS, False),
            (NS, NS, False),
            (5 * SECOND_NS, 5 * SECOND_NS + COARSE_TICK_NS, False),
            (5 * SECOND_NS, 5 * SECOND_NS + COARSE_TICK_NS + 1, True),
        ],
    )
    def test_a_file_just_placed_is_known_again_by_an_mtime_of_another_moment(
        self, modified_ns: int, changed_ns: int, is_certain: bool
    ) -> None:
        placed = placed_row(self.ENTRY, Stamp(modified_ns, changed_ns, 3))
        assert placed[4:] == (modified_ns, changed_ns if is_certain else 0, 3)
        assert placed.fits(SourceFile(entry_path("a"), "a", 1, modified_ns, changed_ns, 3, MODE_FILE)) is is_certain

    @pytest.mark.parametrize(
        ("modified_ns", "changed_ns", "read_at_ns", "is_certain"),
        [
            (NS, NS, NS + TICK_NS, True),
            (NS, NS, NS + TICK_NS - 1, False),
            (NS, NS + 1, NS + TICK_NS, False),
            (NS + 1, NS, NS + TICK_NS, False),
            (SECOND_NS, NS, SECOND_NS + COARSE_TICK_NS - 1, False),
        ],
    )
    def test_a_file_that_was_read_is_known_again_if_it_was_old_by_then(
        self, modified_ns: int, changed_ns: int, read_at_ns: int, is_certain: bool
    ) -> None:
        assert bool(read_row(self.ENTRY, Stamp(modified_ns, changed_ns, 3), read_at_ns).changed_ns) is is_certain

    @pytest.mark.parametrize("change", [{"size_bytes": 2}, {"modified_ns": 1}, {"changed_ns": 1}, {"inode": 1}])
    def test_any_difference_counts(self, change: dict[str, Any]) -> None:
        file = SourceFile(entry_path("a"), "a", 1, NS, NS + SECOND_NS, 3, MODE_FILE)
        placed = placed_row(self.ENTRY, Stamp(NS, NS + SECOND_NS, 3))
        assert placed.fits(file)
        assert not placed.fits(file._replace(**change))
