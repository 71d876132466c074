"""The process that submits: it ends, fails, is interrupted or killed, and what becomes of its steps."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.azureml.steps.conftest import WAIT_S, Project, is_running, wait_until
from tests.azureml.steps.test_failure import HANG, read_pids

SUBMIT = """
    import sys, time
    from azureml.core import Workspace, Experiment
    from azureml.pipeline.core import Pipeline, PipelineData
    from azureml.pipeline.steps import PythonScriptStep
    ws = Workspace.from_config()
    made = PipelineData("made", datastore=ws.get_default_datastore())
    step = PythonScriptStep("work.py", arguments=[made], outputs=[made], source_directory="src")
    run = Experiment(ws, "trials").submit(Pipeline(ws, steps=[step]))
"""
WRITE = "import pathlib, sys\npathlib.Path(sys.argv[1], 'done.txt').write_text('done')\n"
WAIT = "    run.wait_for_completion(show_output=True)\n"


def write_hanging(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIDS", str(project.root))
    project.write("src/work.py", "import os, pathlib, sys\n" + "\n".join(line[4:] for line in HANG.splitlines()))
    return project.root / "pids"


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    process.send_signal(number)
    _, err = process.communicate(timeout=WAIT_S)
    return err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_submitted_is_killed(project: Project, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    pids = write_hanging(project, monkeypatch)
    process = project.start(SUBMIT + WAIT)
    steps = read_pids(pids)
    end(process, number)
    wait_until(lambda: not any(map(is_running, steps)), "the end of the step and its child")
    assert {info.status for info in project.store.runs()} == {"abandoned"}
    assert project.visible() == []
    project.write("src/work.py", WRITE)
    project.play(SUBMIT + WAIT)  # nothing is in the way of the next one
    assert [path.rpartition("/")[2] for path in project.visible()] == ["done.txt"]


@pytest.mark.parametrize("where", [WAIT, "    time.sleep(600)\n"], ids=["waiting", "elsewhere"])
def test_ctrl_c_stops_the_steps(project: Project, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    pids = write_hanging(project, monkeypatch)
    process = project.start(SUBMIT + where)
    steps = read_pids(pids)
    assert "KeyboardInterrupt" in end(process, signal.SIGINT)
    assert not any(map(is_running, steps))
    assert {info.status for info in project.store.runs()} == {"canceled"}


def test_a_script_that_does_not_wait(project: Project) -> None:
    project.write("src/work.py", "import time\ntime.sleep(0.3)\n" + WRITE)
    project.play(SUBMIT)
    assert {info.status for info in project.store.runs()} == {"completed"}
    assert [path.rpartition("/")[2] for path in project.visible()] == ["done.txt"]


def test_a_script_that_fails_after_it_submitted(project: Project) -> None:
    project.write("src/work.py", WRITE)
    said = project.play(SUBMIT + "    raise RuntimeError('later')\n", code=1)
    assert "RuntimeError: later" in said
    assert {info.status for info in project.store.runs()} == {"completed"}
    assert [path.rpartition("/")[2] for path in project.visible()] == ["done.txt"]


def test_a_step_that_fails_fails_the_script(project: Project) -> None:
    project.write("src/work.py", "print('to be seen', flush=True)\nraise SystemExit(4)\n")
    said = project.play(SUBMIT + WAIT, code=1)
    assert "to be seen" in said
    assert "ActivityFailedException: step 'work.py' failed: exit code 4" in said


def test_several_submits_in_a_process_that_has_children_of_its_own(project: Project) -> None:
    project.write("src/work.py", "import multiprocessing, pathlib, sys\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.Pool(2) as pool:\n"
        "        pathlib.Path(sys.argv[1], 'sum').write_text(str(sum(pool.map(abs, [-1, -2]))))\n")  # fmt: skip
    text = (
        SUBMIT
        + """
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print("pool", pool.map(abs, [-3]))
    again = Experiment(ws, "trials").submit(Pipeline(ws, steps=[step]), regenerate_outputs=True)
    third = step.name and Experiment(ws, "other").submit(Pipeline(ws, steps=[step]), regenerate_outputs=True)
    for one in (run, again, third):
        one.wait_for_completion(show_output=False)
        print(one.find_step_run("work.py")[0].get_status())
    """
    )
    out = project.play(text)
    assert out.count("Completed") == 3
    assert "pool [3]" in out
    assert len(project.visible()) == 3


def test_two_processes_at_once(project: Project) -> None:
    project.write("src/work.py", "import pathlib, sys\nfor n in range(50): pathlib.Path(sys.argv[1], str(n)).write_text('x')\n")
    both = [project.start(SUBMIT + WAIT, VDS_NO_REUSE="1") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, out + err
    assert len(project.visible()) == 100
    assert {info.status for info in project.store.runs()} == {"completed"}


def test_unbuffered_and_with_the_modules_beside_it(project: Project) -> None:
    project.write("src/beside.py", "VALUE = 'beside'\n")
    project.write("src/pkg/__init__.py", "")
    project.write("src/pkg/inner.py", "VALUE = 'inner'\n")
    project.write("src/work.py", "import pathlib, sys, beside, pkg.inner\n"
        "pathlib.Path(sys.argv[1], 'said').write_text(beside.VALUE + pkg.inner.VALUE)\n")  # fmt: skip
    project.play(SUBMIT + WAIT, PYTHONPATH=os.environ.get("PYTHONPATH", "") or str(Path(__file__).parents[3]))
    [path] = project.visible()
    assert project.head().read_text(path) == "besideinner"
