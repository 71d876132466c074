from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import vds
from tests.unit import answers
from vds.helper import Helper, HelperLostError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="helpers are used on Linux alone")

WAIT_S = 30  # only ever reached by a test that fails

Make = Callable[[Callable[[Any], Any]], Helper]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[int]:
    """Return the file that helpers are given."""
    with (tmp_path / "shared").open("w+b") as file:
        yield file.fileno()


@pytest.fixture
def make(shared: int) -> Iterator[Make]:
    """Return a function that starts a helper, which ends with the test."""
    with ExitStack() as started:

        def start(function: Callable[[Any], Any]) -> Helper:
            helper = Helper(answers.__name__, function.__name__, shared)
            started.callback(helper.close)
            return helper

        yield start


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


class TestCalls:
    def test_each_request_gets_its_answer(self, make: Make) -> None:
        helper = make(answers.echo)
        for request in (None, 1, "Ü", b"\0" * 300_000, [("a", 2), {"b": 3.5}], list(range(10_000))):
            assert helper.call(request) == request

    def test_whether_it_has_started_is_told(self, make: Make) -> None:
        helper = make(answers.echo)
        wait_until(helper.is_ready)
        assert helper.call("first") == "first"
        assert helper.is_ready()

    def test_what_a_library_prints_is_no_answer(self, make: Make) -> None:
        helper = make(answers.shout)
        assert [helper.call(number) for number in range(3)] == [0, 1, 2]

    def test_the_file_it_was_given_is_shared(self, make: Make, shared: int) -> None:
        assert make(answers.write_to).call((shared, b"written there")) == 13
        assert os.pread(shared, 100, 0) == b"written there"


class TestSurroundings:
    def test_no_module_comes_from_the_current_directory_or_the_environment(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("colorsys", "vds", "blake3"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend("")  # as in an interactive session
        pid, _, found, own = make(answers.describe).call(None)
        assert pid != os.getpid()
        assert not found.startswith(str(tmp_path))
        assert own == vds.__file__

    def test_ctrl_c_in_the_terminal_does_not_reach_it(self, make: Make) -> None:
        _, group, *_ = make(answers.describe).call(None)
        assert group != os.getpgid(0)

    @pytest.mark.parametrize("executable", ["", None, "/usr/bin/blender", "/opt/app/uwsgi"])
    def test_there_is_none_where_python_is_embedded(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, executable: str | None
    ) -> None:
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(HelperLostError, match="embedded"):
            make(answers.echo)

    def test_there_is_none_in_a_frozen_program(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        with pytest.raises(HelperLostError, match="embedded"):
            make(answers.echo)

    def test_a_system_that_starts_no_process_is_told(self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        with pytest.raises(HelperLostError, match="No such file"):
            make(answers.echo)


class TestEnds:
    @pytest.mark.parametrize("number", [0, signal.SIGKILL, signal.SIGSEGV])
    def test_who_calls_a_helper_that_ends_is_told(self, make: Make, number: int) -> None:
        helper = make(answers.die)
        for _ in range(2):
            with pytest.raises(HelperLostError):
                helper.call(int(number))

    def test_a_function_that_is_not_there_is_told(self, shared: int) -> None:
        helper = Helper(answers.__name__, "no_such_function", shared)
        try:
            wait_until(helper.is_ready)  # whoever waits for it to start is not kept waiting
            with pytest.raises(HelperLostError):
                helper.call(1)
        finally:
            helper.close()

    def test_closing_ends_it_in_the_midst_of_starting_too(self, make: Make) -> None:
        for is_started in (False, True):
            helper = make(answers.echo)
            if is_started:
                helper.call(1)
            helper.close()
            helper.close()
            assert not Path(f"/proc/{helper.pid}").exists()

    def test_no_descriptor_stays_open(self, make: Make) -> None:
        gc.collect()  # of what other tests left
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            helper = make(answers.echo)
            helper.call(1)
            helper.close()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_it_does_not_outlive_a_parent_that_is_killed(self) -> None:
        program = (
            f"from vds.helper import Helper; helper = Helper({answers.__name__!r}, 'echo', 0); helper.call(1)\n"
            "print(helper.pid, flush=True); input()"
        )
        parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.communicate()
        wait_until(lambda: not is_alive(pid))
