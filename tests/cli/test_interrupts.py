"""What Ctrl-C leaves, what is said of it, and what a second one does."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.cli.conftest import Cli, Outcome
from vds.cli.interrupt import COMMAND_CHARS_MAX, describe_interrupt, prepare_interrupts
from vds.cli.main import run
from vds.cli.shell import Shell

EXIT_INTERRUPTED = 130
STATE = "interrupted: nothing of this upload is visible unless `vds log ns` shows it; what was sent is kept"
GOES_ON = "this goes on from there and sends only what is missing"

posix_only = pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself a Ctrl-C there")

ONCE = """
import os, signal
from vds.cli import main, shell
def connect(self, **_):
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
shell.Shell.connect = connect
main.main()
"""

TWICE = """
import os, signal, threading
from vds.cli import main, shell
def connect(self, **_):
    threading.Thread(target=threading.Event().wait).start()  # a request that never ends
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
shell.Shell.connect = connect
main.main()
"""

AFTER_THE_FIRST_BLOB = """
import os, signal, threading
from vds.blobs.directory import DirectoryDriver
from vds.cli import interrupt, main
stopping = threading.Event()
say, put = interrupt.say, DirectoryDriver.put_if_absent
def say_and_tell(text):
    say(text)
    stopping.set()
def put_and_interrupt(self, key, body, metadata=None):
    tag = put(self, key, body, metadata)
    os.kill(os.getpid(), signal.SIGINT)
    assert stopping.wait(30)
    return tag
interrupt.say, DirectoryDriver.put_if_absent = say_and_tell, put_and_interrupt
main.main()
"""


def run_program(cli: Cli, program: str, *arguments: str) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cli.directory,
        env=cli.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@posix_only
def test_an_upload_says_what_is_left_and_how_to_go_on(vds: Cli) -> None:
    outcome = run_program(vds, ONCE, "upload", "my out", "ns", "-m", "it's")
    assert (outcome.code, outcome.out) == (EXIT_INTERRUPTED, "")
    lines = [line for line in outcome.err.splitlines() if line]
    assert lines == [
        "stopping; Ctrl-C again ends at once",
        f"error: {STATE}",
        f"hint: {GOES_ON}: " + shlex.join(["vds", "upload", "my out", "ns", "-m", "it's"]),
    ]


@posix_only
def test_in_json_it_is_the_last_line_of_stderr(vds: Cli) -> None:
    for program in (ONCE, TWICE):
        outcome = run_program(vds, program, "upload", "out", "ns", "--json")
        assert outcome.code == EXIT_INTERRUPTED
        hint = f"{GOES_ON}: vds upload out ns --json"
        assert outcome.error == {"kind": "interrupted", "message": STATE, "hint": hint, "exit_code": EXIT_INTERRUPTED}


@posix_only
def test_a_second_one_ends_at_once_without_a_traceback(vds: Cli) -> None:
    outcome = run_program(vds, TWICE, "upload", "out", "ns")
    assert (outcome.code, outcome.out) == (EXIT_INTERRUPTED, "")
    lines = [line for line in outcome.err.splitlines() if line]
    assert lines == ["stopping; Ctrl-C again ends at once", f"error: {STATE}", f"hint: {GOES_ON}: vds upload out ns"]


@posix_only
@pytest.mark.parametrize("arguments", [("ls",), ("upload", "out", "ns", "--dry-run")], ids=" ".join)
def test_what_changes_nothing_says_only_that(vds: Cli, arguments: tuple[str, ...]) -> None:
    outcome = run_program(vds, ONCE, *arguments)
    assert outcome.code == EXIT_INTERRUPTED
    assert outcome.err.split("\n", 1)[1] == "error: interrupted: nothing was changed\n"


@posix_only
def test_quiet_says_no_more_than_the_error(vds: Cli) -> None:
    assert "stopping" not in run_program(vds, ONCE, "upload", "out", "ns", "-q").err


@posix_only
def test_the_same_command_goes_on_after_an_interruption(vds: Cli) -> None:
    vds.ok("init", "./store")
    for number in range(3):
        vds.write(f"out/{number}", str(number))
    vds.ok("upload", "out", "ns", "--allow", "0")
    outcome = run_program(vds, AFTER_THE_FIRST_BLOB, "upload", "out", "ns")
    assert outcome.code == EXIT_INTERRUPTED, outcome
    assert f"error: {STATE}" in outcome.err
    assert "Traceback" not in outcome.err
    assert vds.ok("log", "ns", "--json").document["versions"][0]["number"] == 1
    command = outcome.err.split(f"{GOES_ON}: vds ")[1].strip()
    assert vds.ok(*shlex.split(command), "--json").document["number"] == 2
    assert vds.ok("ls", "ns", "-q").out == "0\n1\n2\n"


def test_a_long_command_is_not_repeated() -> None:
    shell = Shell(interrupted_hint="this goes on")
    for count, expected in (
        (COMMAND_CHARS_MAX - 4, "vds " + "x" * (COMMAND_CHARS_MAX - 4)),
        (COMMAND_CHARS_MAX, "the same command"),
    ):
        shell.arguments = ["x" * count]
        assert describe_interrupt(shell)[1] == f"this goes on: {expected}"


def test_a_secret_is_not_repeated() -> None:
    shell = Shell(
        interrupted_hint="this goes on", arguments=["upload", "--store", "https://a.blob.core.windows.net/c?sig=hunter2"]
    )
    assert "hunter2" not in describe_interrupt(shell)[1]
    assert "sig=***" in describe_interrupt(shell)[1]


def test_nothing_to_go_on_with_has_no_hint() -> None:
    assert describe_interrupt(Shell(arguments=["ls"])) == ("interrupted: nothing was changed", "")


def test_an_interruption_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        prepare_interrupts(Shell())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_within_a_process_leaves_its_handler_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(self: Shell, **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Shell, "connect", connect)
    before = signal.getsignal(signal.SIGINT)
    assert run(["upload", "out", "ns", "--json"], Shell()) == EXIT_INTERRUPTED
    assert signal.getsignal(signal.SIGINT) is before
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"]["message"] == STATE
