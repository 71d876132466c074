from __future__ import annotations

from pathlib import Path

import pytest

from vds.errors import CorruptionError
from vds.files.place import Target
from vds.files.record import RECORD_PATH, PlacedRecord, PlacedRow, find_record, merge_rows, put_record
from vds.model.digest import Digest
from vds.model.entry import MODE_FILE
from vds.model.path import entry_path


def row(path: str, body: bytes = b"") -> PlacedRow:
    return PlacedRow(entry_path(path), Digest.of(body), len(body), MODE_FILE, 1_600_000_000_123_456_789)


def test_round_trip(tmp_path: Path) -> None:
    record = PlacedRecord(
        "vds://a@1/", True, [row(f"{number:04}", b"x") for number in range(2500)] + [row('quo"te'), row("日本")]
    )
    with Target(tmp_path) as target:
        assert find_record(target) is None
        put_record(target, PlacedRecord("", False, []))
        put_record(target, record)
        assert find_record(target) == record


def test_merging_keeps_each_distinct_row_once_sorted() -> None:
    a, b, other_b = row("a"), row("b"), row("b", b"other")
    assert merge_rows([b, a], [other_b, a]) == [a, b, other_b]


def test_hostile_records_are_refused(tmp_path: Path) -> None:
    header = '{"vds_checkout":1,"uri":"u","complete":true}\n'
    good = '{"path":"a","digest":"b3:' + "0" * 64 + '","size":1,"mode":420,"mtime_ns":1}\n'
    with Target(tmp_path) as target:
        put_record(target, PlacedRecord("", False, []))
        file = tmp_path / RECORD_PATH
        file.write_text(header + good)
        assert find_record(target) is not None
        for line in (
            good.replace('"a"', '"../a"'),
            good.replace("b3:", "b3"),
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
