"""Exit codes and what is said with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.cli.conftest import Cli
from vds import errors
from vds.cli.errors import CODES, error_document, exit_code
from vds.cli.main import run
from vds.cli.shell import Shell, has_colour, printable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInputError("x"), 2),
        (errors.NotFoundError("x"), 3),
        (errors.EntryNotFoundError("x"), 3),
        (errors.ConflictError("x"), 4),
        (errors.BlobExistsError("x"), 4),
        (errors.CorruptionError("x"), 5),
        (errors.UnavailableError("x"), 6),
        (errors.OutcomeUnknownError("x"), 7),
        (errors.AccessDeniedError("x"), 8),
        (errors.FormatError("x"), 9),
        (errors.UploadError("x", failures={"a": "b"}), 10),
        (errors.DownloadError("x", failures={"a": "b"}), 10),
        (errors.NoSpaceError("x"), 11),
        (errors.VdsError("x"), 70),
    ],
)
def test_code_of_each_error(error: errors.VdsError, code: int) -> None:
    assert exit_code(error) == code
    assert error_document(error)["error"]["exit_code"] == code


def test_every_error_of_vds_has_a_code() -> None:
    assert {kind for kind in errors.VdsError.__subclasses__() if kind.__module__ == "vds.errors"} <= set(CODES)


def test_details_of_an_error_in_json() -> None:
    document = error_document(errors.ConflictError("x", paths=["a"], versions=[3], hint="h"))
    expected = {"kind": "conflict", "message": "x", "hint": "h", "exit_code": 4, "paths": ("a",), "versions": (3,)}
    assert document == {"error": expected}


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def connect(self: Shell, **_: Any) -> None:
        raise error

    monkeypatch.setattr(Shell, "connect", connect)


def test_interrupted_says_what_state_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert run(["ls"], Shell()) == 130
    assert "error: interrupted: nothing was changed" in capsys.readouterr().err
    assert run(["download", "a@1", "dst"], Shell()) == 130
    assert "whole or absent" in capsys.readouterr().err


def test_a_bug_is_short_unless_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, KeyError("password=hunter2"))
    assert run(["ls"], Shell()) == 70
    err = capsys.readouterr().err
    assert err.startswith("error: unexpected KeyError")
    assert "run again with -v" in err
    assert "Traceback" not in err
    assert run(["ls", "-v"], Shell()) == 70
    verbose = capsys.readouterr().err
    assert "Traceback" in verbose
    assert "hunter2" not in err + verbose


def test_error_in_json_is_the_last_line_of_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, errors.OutcomeUnknownError("who knows", commit_id="c1", hint="ask"))
    assert run(["ls", "--json"], Shell()) == 7
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {
        "error": {"kind": "outcome-unknown", "message": "who knows", "hint": "ask", "exit_code": 7, "commit_id": "c1"}
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["lss"],
        ["ls", "--nope"],
        ["upload"],
        ["upload", "x"],
        ["tag", "customers", "3"],
        ["tag", "c:prod", "3", "--expected", "x"],
        ["verify", "x", "--sample", "200%"],
        ["upload", "x", "y", "--label", "novalue"],
        ["upload", "x", "y", "--tag", "c:prod", "--dry-run"],
        ["tx", "abort", "token", "--store", "./x"],
    ],
    ids=" ".join,
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments, Shell()) == 2
    assert "hint: vds" in capsys.readouterr().err
    assert run([*arguments, "--json"], Shell()) == 2
    assert json.loads(capsys.readouterr().err)["error"]["kind"] == "usage"


def test_no_store_is_not_found(vds: Cli) -> None:
    outcome = vds("ls")
    assert (outcome.code, outcome.out) == (3, "")
    assert (
        outcome.err
        == "error: no store is configured\nhint: vds init URL writes ./vds.toml; or pass --store URL, or set VDS_STORE\n"
    )
    assert vds("ls", "--json").error["kind"] == "not-found"


def test_codes_of_the_real_program(shared: Cli) -> None:
    assert shared("show", "nope").code == 3
    assert shared("cat", "team/raw@1/nope").code == 3
    assert shared("show", "team/raw@99").code == 3
    assert shared("show", "not a ref").code == 2
    assert shared("upload", "nope", "team/raw").code == 3
    assert shared("upload", "out", "team/raw", "--expected-parent", "1").code == 4
    assert shared("tag", "customers:prod", "1", "--expected", "absent").code == 4
    assert shared("diff", "team/raw@1", "team/raw@2", "--exit-code", "-q").code == 1
    assert shared("diff", "team/raw@1", "team/raw@1", "--exit-code").code == 0


def test_a_reader_that_goes_away_is_no_complaint(shared: Cli) -> None:
    for command in (["ls", "team/raw@1", "-R"], ["cat", "team/raw@1/a.txt"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "vds.cli.main", *command],
            cwd=shared.directory,
            env=shared.environ(),
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")


def test_no_colour_off_a_terminal_or_when_asked(shared: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shared("diff", "team/raw@1", "team/raw@2", environ={"FORCE_COLOR": "1"}).out

    class Terminal:
        def isatty(self) -> bool:
            return True

    terminal: Any = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert has_colour(terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colour(terminal)


def test_control_characters_are_spelt_out() -> None:
    assert printable("a\x1b[2Jb\r") == "a\\x1b[2Jb\\r"
    assert printable("one\n\ttwo ü") == "one\n\ttwo ü"
