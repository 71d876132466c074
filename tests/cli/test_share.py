"""`vds share` and `vds export`: what they print, and how they end."""

from __future__ import annotations

import json
import os

import pytest
import requests

from tests.cli.conftest import Cli
from tests.support import read_tree, write_tree
from vds.ops.exporting import MARKER_PATH

MIB = 1024 * 1024


def test_export_to_a_directory(shared: Cli) -> None:
    first = shared.ok("export", "customers:prod", "./plain")
    assert first.out.splitlines()[0] == "exported 2 files (8 B), 0 already there"
    target = shared.directory / "plain"
    assert first.out.splitlines()[1] == target.as_uri()
    assert read_tree(target).keys() == {"a.txt", "sub/b.txt", MARKER_PATH}
    marker = json.loads((target / MARKER_PATH).read_text())
    assert (marker["namespace"], marker["version"], marker["files"], marker["bytes"]) == ("team/raw", 1, 2, 8)
    again = shared.ok("export", "customers:prod", "./plain", "-q")
    assert (again.out, again.err) == (f"{target.as_uri()}\n", "")


def test_export_over_another_version(shared: Cli) -> None:
    shared.ok("export", "team/raw@1", "./over", "-q")
    refused = shared("export", "team/raw@2", "./over", "--json")
    assert refused.code == 4
    assert refused.error["paths"] == ["a.txt"]
    assert "--overwrite" in refused.error["hint"]
    (shared.directory / "over" / "mine").write_text("mine")
    done = shared.ok("export", "team/raw@2", "./over", "--overwrite", "--json")
    assert {name: done.document[name] for name in ("placed", "replaced", "skipped", "foreign_count", "foreign_paths")} == {
        "placed": 2,
        "replaced": 1,
        "skipped": 1,
        "foreign_count": 1,
        "foreign_paths": ["mine"],
    }
    assert json.loads((shared.directory / "over" / MARKER_PATH).read_text())["version"] == 2
    assert "not of this version, left alone: mine" in shared.ok("export", "team/raw@2", "./over").err


def test_export_plans(shared: Cli) -> None:
    planned = shared.ok("export", "team/raw@2/sub", "./planned", "--ignore", "c.*", "--dry-run", "--json")
    assert (planned.document["placed"], planned.document["dry_run"]) == (1, True)
    assert shared.ok("export", "team/raw@2", "./planned", "--dry-run").out.startswith("would export 3 files")
    assert not (shared.directory / "./planned").exists()


def test_export_refuses_a_store_and_a_name(shared: Cli) -> None:
    inside = shared("export", "team/raw@2", "./store/x")
    assert (inside.code, "lie in one another" in inside.err) == (2, True)
    assert shared("export", "team/raw@2", "memory://x").code == 2
    assert "write ./plain for a directory" in shared("export", "team/raw@2", "plain").err


def test_share_says_what_to_do_where_it_cannot(shared: Cli) -> None:
    small = shared("share", "team/raw@2", "--json")
    assert small.code == 2
    assert small.error["paths"] == ["a.txt", "sub/b.txt", "sub/c.txt"]
    assert "vds export" in small.error["hint"]
    assert "is not between 1 and 168" in shared("share", "team/raw@2", "--hours", "169").err
    assert shared("share", "team/raw@2/nothing").code == 3


@pytest.mark.services
def test_share_and_export_in_a_container(vds: Cli, container_url: str) -> None:
    bodies = {"model.bin": os.urandom(MIB), "other.bin": os.urandom(MIB)}
    write_tree(vds.directory / "out", bodies)
    vds.ok("init", f"{container_url}/store", "--index", f"sqlite:///{vds.directory}/index.sqlite")
    vds.ok("upload", "out", "team/raw", "-q", "--tag", "customers:prod")
    said = vds.ok("share", "customers:prod/model.bin", "--hours", "4")
    [url] = said.out.splitlines()
    assert requests.get(url, timeout=30).content == bodies["model.bin"]
    assert "1 file, for whoever has the url, until " in said.err
    assert "sig=" not in said.err
    quiet = vds.ok("share", "customers:prod", "-q", "-v")
    assert [requests.get(url, timeout=30).content for url in quiet.out.splitlines()] == list(bodies.values())
    assert "for whoever" not in quiet.err
    assert "sig=" not in quiet.err.replace("sig=***", "")
    document = vds.ok("share", "customers:prod", "--json").document
    assert [row["path"] for row in document["files"]] == list(bodies)
    exported = vds.ok("export", "customers:prod", f"{container_url}/plain")
    assert exported.out.startswith("exported 2 files (2.0 MiB), 2 copied by the service, 0 already there\n")
