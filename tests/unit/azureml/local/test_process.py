"""The process of a step."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vds.azureml.local import process
from vds.azureml.local.process import Ended, run_process


def run(
    tmp_path: Path, code: str, *, timeout_s: float | None = None, is_canceled: Callable[[], bool] = bool
) -> tuple[Ended, str]:
    ended = run_process(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        environ=os.environ,
        output=tmp_path / "output",
        timeout_s=timeout_s,
        is_canceled=is_canceled,
        on_poll=lambda: None,
    )
    return ended, (tmp_path / "output").read_text()


def test_both_streams_are_kept_and_there_is_nothing_to_read(tmp_path: Path) -> None:
    ended, said = run(tmp_path, "import sys; print('out', flush=True); print('err', file=sys.stderr); print(sys.stdin.read())")
    assert (ended.code, ended.why) == (0, "")
    assert said.split() == ["out", "err"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9 (SIGKILL)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "killed by signal 15 (SIGTERM)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGHUP)", "killed by signal 1 (SIGHUP)"),
    ],
)
def test_how_it_failed(tmp_path: Path, code: str, why: str) -> None:
    assert run(tmp_path, code)[0].why == why


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    ended = run_process(
        ["no-such-command"],
        cwd=tmp_path,
        environ=os.environ,
        output=tmp_path / "output",
        timeout_s=None,
        is_canceled=bool,
        on_poll=lambda: None,
    )
    assert ended.why == "exit code 127"
    assert "cannot run 'no-such-command'" in (tmp_path / "output").read_text()


def test_it_may_end_well_when_it_is_told_to_stop(tmp_path: Path) -> None:
    code = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('stopped', flush=True), sys.exit(0)))
pathlib.Path('ready').touch()
time.sleep(600)
"""
    ended, said = run(tmp_path, code, is_canceled=(tmp_path / "ready").exists)
    assert (ended.how, ended.why, said) == ("canceled", "canceled", "stopped\n")


def test_it_is_killed_when_it_does_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_S", 0.1)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    ended, _ = run(tmp_path, code, timeout_s=0.3)
    assert (ended.how, ended.code) == ("timed out", -signal.SIGKILL)


def test_the_path_of_modules(tmp_path: Path) -> None:
    found = process.python_path({"PYTHONPATH": "/given"}, tmp_path).split(os.pathsep)
    assert found[:2] == ["/given", str(tmp_path)]
    assert process.python_path({}, tmp_path).split(os.pathsep)[0] == str(tmp_path)
