"""What `vds upload --dry-run` foresees, and that the upload then does just that."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import Cli
from vds.cli.results import answer_result
from vds.cli.shell import Shell
from vds.model.digest import Digest
from vds.store.results import UploadResult

PLANNED = ("added", "modified", "removed", "skipped", "uploaded", "bytes_new", "bytes_saved", "removed_paths")


class StandIn:
    """A version as far as an answer names it."""

    namespace = "ns"
    number = 3
    digest = Digest.of(b"")


def result(**facts: Any) -> UploadResult:
    version: Any = StandIn()
    return UploadResult(version=version, **{"created": False, **facts})


@pytest.fixture
def tree(vds: Cli) -> Cli:
    """A namespace with four files, and a tree that adds one, changes one, keeps two and lacks one."""
    vds.ok("init", "./store")
    for name, text in {"same": "1" * 1000, "changed": "old", "gone": "x", "sub/same": "2"}.items():
        vds.write(f"out/{name}", text)
    vds.ok("upload", "out", "ns")
    (vds.directory / "out/gone").unlink()
    vds.write("out/changed", "changed")
    vds.write("out/new", "new" * 1000)
    vds.write("out/twin", "new" * 1000)
    return vds


def test_the_plan_in_words(tree: Cli) -> None:
    outcome = tree.ok("upload", "out", "ns", "--mirror", "--dry-run")
    assert outcome.out.splitlines() == [
        "would upload 3 files (2 new, 1 changed), 2 unchanged or skipped, 1 removed",
        "would send 2.9 KiB, 3.9 KiB need not be sent again",
        "- gone",
        "vds://ns@1/",
    ]


def test_the_plan_for_a_program_is_what_is_then_done(tree: Cli) -> None:
    planned = tree.ok("upload", "out", "ns", "--mirror", "--dry-run", "--json").document
    counts = {"added": 2, "modified": 1, "removed": 1, "skipped": 2, "uploaded": 3}
    assert {name: planned[name] for name in PLANNED} == counts | {
        "bytes_new": 3007,
        "bytes_saved": 4001,
        "removed_paths": ["gone"],
    }
    assert (planned["dry_run"], planned["created"], planned["bytes_sent"]) == (True, False, 0)
    assert tree.ok("show", "ns", "--json").document["number"] == 1
    done = tree.ok("upload", "out", "ns", "--mirror", "--json").document
    assert {name: done[name] for name in PLANNED} == {name: planned[name] for name in PLANNED}
    assert (done["dry_run"], done["created"], done["bytes_sent"]) == (False, True, 3007)


def test_the_plan_of_a_first_upload_makes_nothing(vds: Cli) -> None:
    vds.ok("init", "./store")
    vds.write("out/a", "12345")
    outcome = vds.ok("upload", "out", "ns", "--dry-run")
    assert outcome.out.splitlines() == [
        "would upload 1 file (1 new, 0 changed)",
        "would send 5 B, 0 B need not be sent again",
        "vds://ns@0/",
    ]
    assert "would create namespace 'ns'" in outcome.err
    assert vds("show", "ns").code == 3


def test_an_upload_says_what_it_sent_and_saved(capsys: pytest.CaptureFixture[str]) -> None:
    answer_result(Shell(), result(created=True, uploaded=2, bytes_sent=1536, bytes_saved=2048), "uploaded")
    answer_result(Shell(), result(created=True, uploaded=1, bytes_sent=5), "uploaded")
    said = capsys.readouterr().out.splitlines()
    assert said[::2] == ["uploaded 2 files (1.5 KiB sent, 2.0 KiB saved)", "uploaded 1 file (5 B sent)"]


def test_a_plan_that_moves_no_bytes_does_not_speak_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    answer_result(Shell(), result(dry_run=True, uploaded=2, modified=1, removed=1, removed_paths=["a"]), "would restore")
    said = capsys.readouterr().out.splitlines()
    assert said == ["would restore 2 files (1 new, 1 changed), 1 removed", "- a", "vds://ns@3/"]


def test_added_and_modified_are_what_was_uploaded() -> None:
    assert (result(uploaded=5, modified=2).added, result().added) == (3, 0)
