"""The list of a version's files on this machine: what was written is found again, and damage is never believed."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from vds.errors import CorruptionError
from vds.files.localmanifest import LocalManifest, find_manifest, write_manifest
from vds.model.checks import LEAF_BYTES, Checks, checks_of
from vds.model.digest import EMPTY_RAW
from vds.model.entry import EntryRow, NumberedRow

FACTS = {"store": "01J", "version": {"number": 7}}


def row(path: str, *, blob: int | None = 1, offset: int = 0, size: int = 10, mode: int = 0o644, time: int = 5) -> NumberedRow:
    digest = EMPTY_RAW if blob is None else blake3(path.encode()).digest()
    return NumberedRow(EntryRow(path, digest, 0 if blob is None else size, mode, time), blob, offset)


def write(path: Path, rows: Sequence[NumberedRow], checks: dict[bytes, Checks] | None = None) -> LocalManifest:
    def keys(blobs: Sequence[int]) -> dict[int, str]:
        return {blob: f"packs/{blob:02x}/{blob}.pack" for blob in blobs}

    def tables(digests: Sequence[bytes]) -> dict[bytes, Checks]:
        return {digest: (checks or {})[digest] for digest in digests if digest in (checks or {})}

    with path.open("wb") as file:
        write_manifest(file, rows, keys, tables, FACTS)
    return LocalManifest(path)


TREE = [
    row("a", blob=2, offset=40),
    row("a.b", blob=1, offset=10, mode=0o755, time=-1),
    row("a/b", blob=1, offset=0),
    row("a/b/c", blob=2, offset=0),
    row("a0", blob=None),
    row("é/ü.bin", blob=2, offset=20, size=2**40),
]


@pytest.fixture
def manifest(tmp_path: Path) -> LocalManifest:
    return write(tmp_path / "m", TREE)


def paths(found: LocalManifest, path: str = "", after: str = "") -> list[str]:
    return [placed.entry.path for placed in found.rows(path, after)]


def test_what_was_written_is_read(manifest: LocalManifest) -> None:
    assert manifest.count == len(TREE)
    assert manifest.facts == FACTS
    assert [placed.entry for placed in manifest.rows()] == [one.entry for one in TREE]
    assert [manifest.row(number) for number in range(len(TREE))] == list(manifest.rows())
    for one in TREE:
        found = manifest.find(one.entry.path)
        assert found is not None
        assert found.entry == one.entry
        assert found.key == (None if one.blob is None else f"packs/{one.blob:02x}/{one.blob}.pack")
        assert found.offset_bytes == one.offset_bytes


@pytest.mark.parametrize("path", ["", "A", "a/", "a/a", "a/b/", "zz", "é"])
def test_what_is_no_file_is_not_found(manifest: LocalManifest, path: str) -> None:
    assert manifest.find(path) is None


@pytest.mark.parametrize(
    ("path", "after", "expected"),
    [
        ("", "", ["a", "a.b", "a/b", "a/b/c", "a0", "é/ü.bin"]),
        ("a", "", ["a", "a/b", "a/b/c"]),
        ("a", "a", ["a/b", "a/b/c"]),
        ("a", "a/b", ["a/b/c"]),
        ("a", "a/b/c", []),
        ("a/b", "", ["a/b", "a/b/c"]),
        ("", "a/b", ["a/b/c", "a0", "é/ü.bin"]),
        ("é", "", ["é/ü.bin"]),
        ("b", "", []),
    ],
)
def test_a_directory_is_a_range(manifest: LocalManifest, path: str, after: str, expected: list[str]) -> None:
    assert paths(manifest, path, after) == expected


def test_directories_and_files_are_there(manifest: LocalManifest) -> None:
    assert [manifest.has(path) for path in ("", "a", "a/b", "a/b/c", "é", "b", "a/b/c/d")] == [True] * 5 + [False] * 2
    assert manifest.measure("a") == (3, 30)
    assert manifest.measure("") == (6, 40 + 2**40)
    assert manifest.measure("nothing") == (0, 0)


def test_order_is_that_of_the_bytes(manifest: LocalManifest) -> None:
    ordered = [manifest.row(number) for number in manifest.order]
    assert [(placed.key, placed.offset_bytes) for placed in ordered] == sorted(
        ((placed.key, placed.offset_bytes) for placed in ordered), key=lambda place: (place[0] != "packs/02/2.pack", place[1])
    )
    assert {placed.entry.path for placed in ordered} == {"a", "a.b", "a/b", "a/b/c", "é/ü.bin"}
    assert [manifest.place(number)[:2] for number in manifest.order] == [(p.key, p.offset_bytes) for p in ordered]


def test_an_empty_version(tmp_path: Path) -> None:
    manifest = write(tmp_path / "m", [])
    assert paths(manifest) == []
    assert manifest.find("a") is None
    assert list(manifest.order) == []
    assert not manifest.has("")


def test_checks_of_large_objects(tmp_path: Path) -> None:
    bodies = {f"f{number}": os.urandom(number * LEAF_BYTES + 1) for number in range(5)}
    rows = [row(path, blob=number, size=len(body)) for number, (path, body) in enumerate(bodies.items())]
    tables = {one.entry.digest: checks_of(bodies[one.entry.path]) for one in rows}
    kept = {digest: table for digest, table in tables.items() if table is not None and digest != rows[3].entry.digest}
    manifest = write(tmp_path / "m", rows, kept)
    for one in rows:
        assert manifest.find_checks(one.entry.path) == kept.get(one.entry.digest)
    assert manifest.find_checks("f") is None
    assert manifest.find_checks("g") is None


def test_many_rows_agree_with_a_plain_list(tmp_path: Path) -> None:
    chance = random.Random(4)
    names = sorted({f"{chance.randrange(30)}/{chance.randrange(40)}/{chance.randrange(5000)}.png" for _ in range(9000)})
    rows = [row(name, blob=chance.randrange(3, 9), offset=chance.randrange(2**26)) for name in names]
    manifest = write(tmp_path / "m", rows)
    for one in chance.sample(rows, 200):
        found = manifest.find(one.entry.path)
        assert found is not None
        assert found.entry == one.entry
    for path in ("7", "7/12", "12/3"):
        assert paths(manifest, path) == [name for name in names if name.startswith(f"{path}/")]
        assert manifest.measure(path)[0] == sum(name.startswith(f"{path}/") for name in names)
    assert sorted(manifest.order) == list(range(len(rows)))


@pytest.mark.parametrize("place", [0, 9, 200, -1, -9, -20])
def test_any_changed_byte_is_noticed(tmp_path: Path, manifest: LocalManifest, place: int) -> None:
    damaged = bytearray((tmp_path / "m").read_bytes())
    damaged[place] ^= 1
    (tmp_path / "n").write_bytes(damaged)
    with pytest.raises(CorruptionError, match="damaged"):
        LocalManifest(tmp_path / "n")


@pytest.mark.parametrize("length", [0, 1, 23, 24, 100])
def test_a_file_that_is_cut_is_noticed_and_removed(tmp_path: Path, manifest: LocalManifest, length: int) -> None:
    (tmp_path / "n").write_bytes((tmp_path / "m").read_bytes()[:length])
    assert find_manifest(tmp_path / "n") is None
    assert not (tmp_path / "n").exists()
    assert find_manifest(tmp_path / "n") is None


def test_it_is_written_the_same_twice() -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        write_manifest(file, TREE, lambda blobs: {blob: str(blob) for blob in blobs}, lambda _: {}, FACTS)
        files.append(file.getvalue())
    assert files[0] == files[1]
