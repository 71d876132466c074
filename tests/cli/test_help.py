"""What the command line says of itself, and what it loads to say it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from tests.cli.conftest import REPOSITORY, Cli
from vds.cli.main import cli

COMMON = ("--store", "--index", "--json", "-q", "-v")
# What design section 2.2 lists for this stage.
COMMANDS = {
    *("init", "upload", "download", "checkout", "status", "ls", "cat", "show", "log", "diff", "rollback", "revert", "copy", "rm"),
    *("register", "tag", "untag", "tx", "verify", "doctor", "index", "demo", "cache", "share", "export", "lock", "now"),
    *("expire", "gc", "fsck", "adopt", "run", "runs", "where", "why", "graph"),
}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(cli))


def test_commands_of_this_stage() -> None:
    assert set(cli.commands) == COMMANDS


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_has_examples(path: tuple[str, ...]) -> None:
    with click.Context(ALL[path], info_name="vds " + " ".join(path)) as context:
        text = ALL[path].get_help(context)
    assert "Examples:\n" in text
    examples = text.split("Examples:\n")[1].split("\n\n")[0].splitlines()
    assert all("vds" in line for line in examples), examples


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if not isinstance(command, click.Group)], ids=" ".join)
def test_every_command_has_the_common_options(path: tuple[str, ...]) -> None:
    names = {name for parameter in ALL[path].params for name in parameter.opts}
    assert set(COMMON) <= names


@pytest.mark.parametrize("path", [path for path in ALL if path], ids=" ".join)
def test_listed_help_is_not_cut(path: tuple[str, ...]) -> None:
    assert not ALL[path].get_short_help_str(limit=60).endswith("..."), "the first sentence is too long for the list"


def test_help_of_the_real_program(vds: Cli) -> None:
    outcome = vds.ok("--help")
    assert "Examples:" in outcome.out
    assert outcome.err == ""


def test_no_command_prints_help_as_a_usage_error(vds: Cli) -> None:
    outcome = vds()
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: vds")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    script = "import sys, vds.cli.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "click" in loaded
    assert not loaded & {"sqlalchemy", "azure", "rich", "alembic", "psycopg"}
