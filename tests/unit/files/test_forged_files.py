"""Files of this machine that somebody made up: their sums are right, what they say is not. At worst they are a typed error."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import xxhash

from vds.errors import CorruptionError
from vds.files import record as records
from vds.files.localmanifest import FOOTER_BYTES_MAX, LocalManifest, find_manifest, read_facts, write_manifest
from vds.files.place import Target
from vds.files.record import RECORD_PATH, PlacedRecord, PlacedRow, find_record, put_record
from vds.model.digest import Digest
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE, EntryRow, NumberedRow
from vds.model.fields import INT64_MAX
from vds.model.path import entry_path

ROWS = [
    NumberedRow(EntryRow(f"d/{name}", Digest.of(name.encode()).raw, 300_000, 0o644, 5), number, 7 * number)
    for number, name in enumerate("abc")
]
FACTS = {"version": {"number": 7}}


def manifest_bytes() -> bytes:
    def find_keys(blobs: Sequence[int]) -> dict[int, str]:
        return {blob: f"objects/{blob}" for blob in blobs}

    file = io.BytesIO()
    write_manifest(file, ROWS, find_keys, lambda _: {}, FACTS)
    return file.getvalue()


def sealed(body: bytes) -> bytes:
    """Return bytes with the right sum after them."""
    return body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))


def with_footer(change: Callable[[dict[str, Any]], object] | bytes, footer_at: int | None = None) -> bytes:
    """Return a manifest with another footer, given or changed in place, and sums that are right."""
    whole = manifest_bytes()
    [begin] = struct.unpack("<Q", whole[-16:-8])
    if isinstance(change, bytes):
        text = change
    else:
        footer = json.loads(whole[begin:-16])
        change(footer)
        text = json.dumps(footer).encode()
    return sealed(whole[:begin] + text + struct.pack("<Q", begin if footer_at is None else footer_at))


def section(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda footer: footer["sections"].update({name: value})


def field(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda footer: footer.update({name: value})


FOOTERS: dict[str, bytes] = {
    "nesting": with_footer(b"[" * 200_000),
    "no object": with_footer(b"[]"),
    "a number": with_footer(b"7"),
    "another encoding": with_footer('{"a":1}'.encode("utf-16")),
    "no count": with_footer(lambda footer: footer.pop("count")),
    "a true count": with_footer(field("count", True)),
    "a negative count": with_footer(field("count", -1)),
    "a count too high": with_footer(field("count", 4)),
    "a count too low": with_footer(field("count", 2)),
    "a huge count": with_footer(field("count", 10**30)),
    "facts that are a list": with_footer(field("facts", [])),
    "no sections": with_footer(field("sections", None)),
    "a section less": with_footer(lambda footer: footer["sections"].pop("order")),
    "sections out of order": with_footer(section("paths", 8)),
    "a section before the file": with_footer(section("rows", -8)),
    "a section beyond the file": with_footer(section("tables", 10**9)),
    "a section at a text": with_footer(section("ends", "x")),
    "a section at a half": with_footer(section("ends", 9.5)),
    "ends that are no integers": with_footer(lambda footer: footer["sections"].update(order=footer["sections"]["order"] - 1)),
    "a footer beyond the file": with_footer(b"{}", footer_at=10**9),
    "a footer beyond everything": with_footer(b"{}", footer_at=2**64 - 1),
    "a footer of the whole file": with_footer(b" " * FOOTER_BYTES_MAX, footer_at=0),
}


@pytest.mark.parametrize("what", FOOTERS)
def test_a_forged_footer(what: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(FOOTERS[what])
    with pytest.raises(CorruptionError, match="damaged"):
        LocalManifest(path)
    facts = read_facts(path)
    assert facts is None or isinstance(facts, dict)
    assert find_manifest(path) is None


def test_the_longest_footer(tmp_path: Path) -> None:
    whole = manifest_bytes()
    [begin] = struct.unpack("<Q", whole[-16:-8])
    footer = json.loads(whole[begin:-16])
    room = FOOTER_BYTES_MAX - 16 - len(json.dumps({**footer, "facts": {"x": ""}}))
    for more, is_taken in ((0, True), (1, False)):
        (tmp_path / "m").write_bytes(with_footer(field("facts", {"x": "y" * (room + more)})))
        if is_taken:
            assert LocalManifest(tmp_path / "m").count == len(ROWS)
            assert read_facts(tmp_path / "m") is not None
        else:
            with pytest.raises(CorruptionError):
                LocalManifest(tmp_path / "m")


def test_forged_rows(tmp_path: Path) -> None:
    """Every byte of the rows, in turn, is what it must not be: reading gives rows or the one error."""
    whole = manifest_bytes()
    [begin] = struct.unpack("<Q", whole[-16:-8])
    sections = json.loads(whole[begin:-16])["sections"]
    path, believed, refused = tmp_path / "m", 0, 0
    for position in range(sections["rows"], sections["footer"]):
        path.write_bytes(sealed(whole[:position] + b"\xff" + whole[position + 1 : -8]))
        try:
            manifest = LocalManifest(path)
            for reading in (
                lambda found: list(found.rows()),
                lambda found: [found.place(number) for number in found.order],
                lambda found: [found.row(number) for number in range(found.count)],
                lambda found: (found.find("d/a"), found.has("d"), found.measure("d"), found.find_checks("d/a")),
            ):
                reading(manifest)
            believed += 1
        except CorruptionError:
            refused += 1
    assert believed
    assert refused


class TestCheckoutRecords:
    HEADER = '{"vds_checkout":2,"uri":"u","complete":true,"digest":"","allow":null,"ignore":null}\n'

    def find(self, root: Path, text: str) -> PlacedRecord | None:
        with Target(root) as target:
            file = root / RECORD_PATH
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            return find_record(target)

    def row(self, **changed: object) -> str:
        columns = {"path": "a", "digest": Digest.of(b""), "size": 1, "mode": MODE_FILE, "mtime_ns": 1, "ctime_ns": 1, "inode": 1}
        return json.dumps({name: [value] for name, value in {**columns, **changed}.items()}) + "\n"

    @pytest.mark.parametrize(
        ("taken", "refused"),
        [
            ({"size": INT64_MAX}, {"size": INT64_MAX + 1}),
            ({"size": 0}, {"size": -1}),
            ({"mode": MODE_EXECUTABLE}, {"mode": 0o777}),
            ({"mtime_ns": -INT64_MAX - 1}, {"mtime_ns": -INT64_MAX - 2}),
            ({"inode": 2**128 - 1}, {"inode": 2**128}),
            ({"inode": 1}, {"inode": True}),
            ({"ctime_ns": 0}, {"ctime_ns": 0.0}),
            ({"path": "x" * 255}, {"path": "x" * 256}),
        ],
    )
    def test_the_range_of_each_number(self, taken: dict[str, object], refused: dict[str, object], tmp_path: Path) -> None:
        assert self.find(tmp_path, self.HEADER + self.row(**taken)) is not None
        with pytest.raises(CorruptionError) as caught:
            self.find(tmp_path, self.HEADER + self.row(**refused))
        assert "remove it" in caught.value.hint

    def test_a_line_has_its_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        line = self.row()
        monkeypatch.setattr(records, "_LINE_CHARS_MAX", len(line))
        assert len(self.HEADER) <= len(line)
        assert self.find(tmp_path, self.HEADER + line) is not None
        for text in (self.HEADER + " " + line, " " * len(line) + self.HEADER):
            with pytest.raises(CorruptionError, match="a line of more than"):
                self.find(tmp_path, text)

    def test_the_longest_rows_fit_a_line(self, tmp_path: Path) -> None:
        """A thousand of the longest paths, full of quotes, are written as one line, which is read again."""
        names = ['"' * 250 + f"{number:04d}" for number in range(1000)]
        rows = [
            PlacedRow(
                entry_path("/".join(['"' * 254] * 3 + [name])), Digest.of(b""), INT64_MAX, MODE_FILE, -(2**63), 2**63, 2**64
            )
            for name in names
        ]
        with Target(tmp_path) as target:
            put_record(target, PlacedRecord("u", True, rows))
            found = find_record(target)
        assert found is not None
        assert list(found.rows) == rows
