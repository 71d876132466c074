"""The demo holds on real files, and can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import REPOSITORY, Cli
from vds.demo import run_demo
from vds.errors import InvalidInputError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A dozen files, one of them empty, one in a directory."""
    directory = tmp_path / "source"
    (directory / "sub").mkdir(parents=True)
    for number in range(12):
        (directory / "sub" / f"{number:02}.txt").write_bytes(b"%d\n" % number * 1000 * number)
    (directory / "top.bin").write_bytes(bytes(range(256)))
    return directory


def test_demo_of_the_real_program(vds: Cli, source: Path) -> None:
    document = vds.ok("demo", "--dir", str(source), "--json").document
    assert document["ok"] is True
    steps = {step["name"]: step for step in document["steps"]}
    assert list(steps) == ["two jobs", "job a", "job b", "release", "bad write", "diff", "rollback", "download", "compare"]
    assert steps["compare"]["files"] == 13
    assert {steps["job a"]["uri"], steps["job b"]["uri"]} == {"vds://demo/raw@1/", "vds://demo/raw@2/"}
    assert not (vds.directory / ".demo").exists()


def test_demo_keeps_its_store_when_asked(vds: Cli, source: Path) -> None:
    vds.ok("demo", "--dir", str(source), "--keep")
    assert vds.ok("log", "demo/raw", "--store", ".demo/store", "-q").out.count("\n") == 4
    assert vds("demo", "--dir", str(source), "--keep").code == 4


def test_demo_fails_when_what_comes_back_differs(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))

    def say(text: str) -> None:
        if text.startswith("compare:"):  # as if one byte had been lost on the way
            (source / "top.bin").write_bytes(bytes(range(255)) + b"\0")

    report = run_demo(str(source), say=say)
    assert report.failures == ["does not hold: top.bin is equal to its source"]
    assert not report.ok


def test_demo_needs_some_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has 0 files"):
        run_demo(str(tmp_path), say=lambda text: None)
