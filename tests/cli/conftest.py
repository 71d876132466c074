"""Run the real command line in a process of its own, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, read as one JSON document."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error it printed, which is the last line of stderr."""
        return json.loads(self.err.splitlines()[-1])["error"]


@dataclass(frozen=True)
class Cli:
    """Runs `vds` in one directory, without any setting of the machine it runs on."""

    directory: Path

    def environ(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VDS_", "AZURE_", "XDG_"))}
        home = str(self.directory)
        # The path makes the test independent of how the package was installed.
        return {**kept, "HOME": home, "USERPROFILE": home, "APPDATA": home, "PYTHONPATH": str(REPOSITORY), **extra}

    def __call__(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "vds.cli.main", *arguments],
            cwd=self.directory,
            env=self.environ(**(environ or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str) -> Outcome:
        """Run a command that must end well."""
        outcome = self(*arguments)
        assert outcome.code == 0, outcome
        return outcome

    def write(self, path: str, text: str) -> Path:
        """Write a file in the directory."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="")
        return file


@pytest.fixture
def vds(tmp_path: Path) -> Cli:
    """A directory without a store; a repository's root, so that no settings above it count."""
    (tmp_path / ".git").mkdir()
    return Cli(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A store for commands that only read: team/raw has two versions, the dataset customers:prod shows the first."""
    cli = Cli(tmp_path_factory.mktemp("shared"))
    (cli.directory / ".git").mkdir()
    cli.ok("init", "./store")
    cli.write("out/a.txt", "hello\n")
    cli.write("out/sub/b.txt", "b\n")
    cli.ok("upload", "out", "team/raw", "-m", "first", "--label", "split=train", "--tag", "customers:prod")
    cli.write("out/a.txt", "hello, world\n")
    cli.write("out/sub/c.txt", "c\n")
    cli.ok("upload", "out", "team/raw", "-m", "second")
    return cli
