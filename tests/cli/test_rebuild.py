"""`vds index rebuild`: what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def filled(vds: Cli) -> Cli:
    """A store of two versions and a release."""
    vds.ok("init", "./store")
    vds.write("out/a.txt", "hello\n")
    vds.ok("upload", "out", "team/raw", "--tag", "customers:prod")
    vds.write("out/b.txt", "b\n")
    vds.ok("upload", "out", "team/raw")
    return vds


def journal(cli: Cli, number: int) -> Path:
    [path] = cli.directory.glob(f"store/journal/*/{number:016d}")
    return path


def test_the_index_is_there_again(filled: Cli) -> None:
    log = filled.ok("log", "team/raw", "--json").document
    index = filled.directory / "store" / ".vds-index" / "index.sqlite"
    for path in index.parent.iterdir():
        path.unlink()
    assert filled("log", "team/raw").code == 9
    outcome = filled.ok("index", "rebuild")
    assert "versions    2" in outcome.out
    assert "the new index at embedded is whole" in outcome.out
    assert outcome.err == ""
    assert filled.ok("log", "team/raw", "--json").document == log
    assert filled.ok("cat", "customers:prod/a.txt").out == "hello\n"


def test_json_has_all_of_it(filled: Cli) -> None:
    document = filled.ok("index", "rebuild", "--json").document
    assert list(document) == [
        *("ok", "store", "index", "incarnation", "moved_aside", "namespaces", "versions", "entries", "datasets", "events"),
        *("blobs", "objects", "copied", "seconds", "gap_count", "gaps"),
    ]
    assert (document["ok"], document["versions"], document["entries"], document["gaps"]) == (True, 2, 2, [])
    assert filled.ok("index", "rebuild", "-q").out.strip() != document["incarnation"]


def test_gaps_are_told_and_are_no_success(filled: Cli) -> None:
    journal(filled, 2).write_bytes(b"damaged")
    outcome = filled("index", "rebuild")
    assert outcome.code == 5
    assert "gap: journal of team/raw 2 and all after it: journal/" in outcome.err
    assert "has 1 gap" in outcome.out
    document = filled("index", "rebuild", "--json")
    assert document.code == 5
    assert document.document["ok"] is False
    [gap] = document.document["gaps"]
    assert (gap["kind"], gap["name"], gap["versions"]) == ("journal", "team/raw", [[2, None]])
    refused = filled("upload", "out", "team/raw", "--to", "more")
    assert (refused.code, "history has a gap at version 2" in refused.err) == (5, True)
    assert filled("gc").code == 5


def test_a_damaged_file_is_moved_aside_and_named(filled: Cli) -> None:
    index = filled.directory / "store" / ".vds-index" / "index.sqlite"
    damaged = index.read_bytes()[:5000]
    index.write_bytes(damaged)
    outcome = filled.ok("index", "rebuild")
    aside = index.with_name("index.sqlite.damaged-1")
    assert str(aside) in outcome.err
    assert aside.read_bytes() == damaged
    filled.ok("cat", "team/raw@latest/b.txt")


def test_what_is_no_index_is_left_alone(filled: Cli) -> None:
    photo = filled.write("photo.jpg", "no database " * 1000)
    outcome = filled("index", "rebuild", "--index", f"sqlite:///{photo}")
    assert (outcome.code, "is no index, or a damaged one" in outcome.err) == (2, True)
    assert photo.read_text().startswith("no database")
    filled.ok("log", "team/raw")


def test_what_is_no_store_is_told(vds: Cli) -> None:
    (vds.directory / "empty").mkdir()
    assert vds("index", "rebuild", "--store", "./empty").code == 3
