"""`vds fsck`, as a person and as a program see it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Cli
from vds.cli.fsck import parse_shard
from vds.cli.main import cli


@pytest.fixture
def shop(shared: Cli, tmp_path: Path) -> Cli:
    """A copy of the shared store, to be damaged."""
    shutil.copytree(shared.directory, tmp_path / "shop")
    return Cli(tmp_path / "shop")


def pack(cli: Cli) -> Path:
    """Return the pack of the first version: `hello` and `b`."""
    return next(path for path in cli.directory.glob("store/packs/*/*") if b"hello\n" in path.read_bytes())


def flip(path: Path) -> None:
    """Flip a bit of the first object of a pack, and let nothing show that."""
    found = path.stat()
    body = bytearray(path.read_bytes())
    body[body.index(b"hello")] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_a_store_that_is_well(shared: Cli) -> None:
    outcome = shared.ok("fsck", "--full", "--chain")
    assert outcome.out.endswith("well\n")
    assert "4 objects read" in outcome.out
    assert shared.ok("fsck", "-q").out == ""
    document = shared.ok("fsck", "--json").document
    assert (document["ok"], document["problems"], document["counts"]) == (True, [], {})
    assert document["examined"]["records"] == 2 + 2 + 1 + 1


def test_a_damaged_object_names_everything_it_touches(shop: Cli) -> None:
    flip(pack(shop))
    outcome = shop("fsck", "--full")
    assert outcome.code == 5
    assert "damage: 1 object-damaged" in outcome.out
    assert "team/raw@1/a.txt" in outcome.out
    assert "shown by customers:1, customers:prod" in outcome.out
    assert "to do: upload such a file again" in outcome.out
    assert outcome.out.endswith("DAMAGED\n")
    document = shop("fsck", "--json").document  # found before: it is looked at every time
    (problem,) = document["problems"]
    assert problem.keys() == {"kind", "severity", "key", "digest", "detail", "touches", "releases", "tags", "repaired"}
    assert (problem["kind"], problem["severity"], problem["repaired"]) == ("object-damaged", "damage", None)
    assert problem["touches"] == [{"namespace": "team/raw", "path": "a.txt", "first_version": 1, "last_version": 1}]
    assert (problem["releases"], problem["tags"]) == (["customers:1"], ["customers:prod"])
    assert document["ok"] is False
    quiet = shop("fsck", "-q")
    assert quiet.out == f"object-damaged {problem['key']}\n"
    assert shop("cat", "team/raw@1/a.txt").code == 5


def test_a_file_that_is_uploaded_again_heals_it(shop: Cli) -> None:
    flip(pack(shop))
    assert shop("fsck", "--full").code == 5
    shop.write("old/a.txt", "hello\n")
    shop.ok("upload", "old", "team/mended")
    assert shop.ok("fsck", "--full").out.endswith("well\n")
    assert shop.ok("cat", "team/raw@1/a.txt").out == "hello\n"


def test_repair_from_files(shop: Cli) -> None:
    flip(pack(shop))
    shop.write("originals/some name", "hello\n")
    would = shop("fsck", "--full", "--repair-from", "originals", "--dry-run")
    assert would.code == 5
    assert "it can be copied from" in would.out
    outcome = shop.ok("fsck", "--full", "--repair-from", "originals")
    assert "[copied from " in outcome.out
    assert outcome.out.endswith("well, 1 mended\n")
    assert shop.ok("cat", "team/raw@1/a.txt").out == "hello\n"


def test_repair_of_a_record(shop: Cli) -> None:
    (record,) = shop.directory.glob("store/journal/*/0000000000000001")
    body = record.read_bytes()
    record.unlink()
    outcome = shop("fsck")
    assert outcome.code == 5
    assert "to do: vds fsck --repair" in outcome.out
    assert shop.ok("fsck", "--repair", "--json").document["mended"] == {"record-missing": 1}
    assert record.read_bytes() == body
    record.write_bytes(body[:-9])
    assert shop("fsck", "--repair").code == 5
    shop.ok("fsck", "--replace-damaged")
    assert record.read_bytes() == body


def test_an_index_that_writers_refuse(shop: Cli) -> None:
    newest = next(shop.directory.glob("store/store/*"))
    newest.with_name(f"{2:016d}").write_bytes(newest.read_bytes())
    assert shop("fsck").code == 9
    outcome = shop("fsck", "--read-only")
    assert outcome.code == 5
    assert "record-unknown" in outcome.out
    assert "vds index rebuild" in outcome.out


def test_samples_and_shards(shared: Cli) -> None:
    out = shared.ok("fsck", "--sample", "50%", "--seed", "x", "--no-structure").out
    assert "seed x" in out
    assert shared.ok("fsck", "--sample", "1%", "--json").document["seed"]
    read = [shared.ok("fsck", "--shard", f"{number}/2", "--json").document["examined"]["objects"] for number in (1, 2)]
    assert sum(read) == 4


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/2/3", "-1/2", "1/ 2", "1/123456", ""])
def test_what_is_no_part_of_all(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a part of all"):
        parse_shard(click.Context(cli), click.Option(["--shard"]), text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shard", "0/2"], "not a part of all"),
        (["--shard", "1/99999"], "not a shard"),
        (["--full", "--sample", "1%"], "full reads everything"),
        (["--repair-from", "nowhere"], "no directory"),
    ],
)
def test_options_that_make_no_sense(arguments: list[str], said: str, shared: Cli) -> None:
    outcome = shared("fsck", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


def test_who_may_only_read(shared: Cli) -> None:
    assert shared.ok("fsck", "--read-only", "--full").out.endswith("well\n")
    assert shared("fsck", "--read-only", "--repair").code == 8
