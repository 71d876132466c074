"""`vds adopt`: what it prints, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.support import write_tree


@pytest.fixture
def plain(vds: Cli) -> Path:
    """Return a directory that another tool wrote, beside a store."""
    vds.ok("init", "./store")
    return write_tree(vds.directory / "plain", {"pre/a.csv": b"a", "pre/deep/b.csv": b"bb", "pre2/c.csv": b"ccc"})


def test_adopt_reads_and_moves_nothing(vds: Cli, plain: Path) -> None:
    planned = vds.ok("adopt", "team/raw", plain.as_uri(), "pre", "--dry-run")
    assert planned.out.splitlines()[0] == "would adopt 2 files (2 new, 0 changed), 3 B read, none moved"
    assert vds("log", "team/raw").code == 3
    first = vds.ok("adopt", "team/raw", plain.as_uri(), "pre/", "-m", "as it was", "--label", "from=sdk")
    assert first.out.splitlines() == ["adopted 2 files (2 new, 0 changed), 3 B read, none moved", "vds://team/raw@1/pre"]
    assert "created namespace 'team/raw'" in first.err
    assert vds.ok("cat", "team/raw@1/pre/deep/b.csv").out == "bb"
    again = vds.ok("adopt", "team/raw", plain.as_uri(), "pre")
    assert (
        again.out.splitlines()[0]
        == "adopted 0 files (0 new, 0 changed), 2 unchanged, 0 B read, none moved, no new version was made"
    )
    assert vds.ok("adopt", "team/raw", plain.as_uri(), "--to", "all", "-q").out == "vds://team/raw@2/all\n"
    assert vds.ok("cat", "team/raw@latest/all/pre2/c.csv").out == "ccc"
    shown = vds.ok("show", "team/raw@1", "--json").document
    assert (shown["message"], shown["labels"], shown["operation"]) == ("as it was", {"from": "sdk"}, "adopt")


def test_adopt_as_json(vds: Cli, plain: Path) -> None:
    document = vds.ok("adopt", "team/raw", plain.as_uri(), "pre", "--json").document
    assert {name: document[name] for name in ("uri", "created", "uploaded", "bytes_read", "bytes_sent", "objects_new")} == {
        "uri": "vds://team/raw@1/pre",
        "created": True,
        "uploaded": 2,
        "bytes_read": 3,
        "bytes_sent": 0,
        "objects_new": 2,
    }


def test_a_change_is_told_as_damage(vds: Cli, plain: Path) -> None:
    vds.ok("adopt", "team/raw", plain.as_uri(), "pre", "-q")
    (plain / "pre" / "a.csv").write_bytes(b"other")
    os.unlink(plain / "pre" / "deep" / "b.csv")
    changed = vds("cat", "team/raw@1/pre/a.csv", "--json")
    assert (changed.code, changed.error["kind"]) == (5, "adopted-changed")
    assert "'pre/a.csv'" in changed.error["message"]
    assert "changed since it was adopted" in changed.error["message"]
    gone = vds("cat", "team/raw@1/pre/deep/b.csv")
    assert gone.code == 5
    assert "deleted since it was adopted" in gone.err
    assert "vds adopt" in gone.err
    checked = vds("fsck")
    assert checked.code == 5
    assert "'pre/deep/b.csv'" in checked.out + checked.err


def test_mistakes(vds: Cli, plain: Path) -> None:
    assert vds("adopt", "team/raw", plain.as_uri(), "pr").code == 3
    assert vds("adopt", "team/raw", (plain / "none").as_uri()).code == 3
    assert vds("adopt", "team/raw", "plain").code == 2
    assert vds("adopt", "team/raw", plain.as_uri(), "pre", "--to", "../x").code == 2
    (plain / "pre" / "back\\slash").write_bytes(b"x")
    refused = vds("adopt", "team/raw", plain.as_uri(), "pre", "--json")
    assert (refused.code, list(refused.error["failures"])) == (10, ["pre/back\\slash"])
    vds.ok("adopt", "team/raw", plain.as_uri(), "pre/deep", "-q")
    assert vds("adopt", "team/raw", plain.as_uri(), "pre/deep", "--expected-parent", "0").code == 4


def test_an_erased_content_is_named_where_it_lies(vds: Cli, plain: Path) -> None:
    vds.ok("adopt", "team/raw", plain.as_uri(), "pre", "-q")
    digest = vds.ok("ls", "team/raw", "-R", "--json").document
    found = next(entry["digest"] for entry in digest["entries"] if entry["path"] == "pre/a.csv")
    erased = vds.ok("gc", "--erase", found, "--reason", "request 4711", "--yes")
    assert "delete it yourself: plain blob 'pre/a.csv' in" in erased.err
    assert (plain / "pre" / "a.csv").read_bytes() == b"a"
