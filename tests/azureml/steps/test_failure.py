"""A step that fails, hangs or is stopped: nothing of it is visible, what it left beside its outputs is kept."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.azureml.steps.conftest import Project, is_running, wait_until
from vds.azureml.core import Dataset
from vds.azureml.core.runconfig import RunConfiguration
from vds.azureml.data import OutputFileDatasetConfig
from vds.azureml.exceptions import ActivityFailedException, NotFoundException
from vds.azureml.pipeline.core import PipelineData

HANG = """
    import time
    pathlib.Path(os.environ["PIDS"], "child").touch()
    child = os.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    pathlib.Path(sys.argv[1], "half.txt").write_text("half")
    print("half way", flush=True)
    pathlib.Path(os.environ["PIDS"], "new").write_text(f"{os.getpid()} {child}")
    os.rename(os.path.join(os.environ["PIDS"], "new"), os.path.join(os.environ["PIDS"], "pids"))
    time.sleep(600)
"""


@pytest.fixture
def pids(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which a step that hangs says who it and its child are."""
    monkeypatch.setenv("PIDS", str(project.root))
    return project.root / "pids"


def read_pids(path: Path) -> list[int]:
    """Wait for a step that hangs, and return its process and the child of that."""
    wait_until(path.exists, "the step")
    return [int(word) for word in path.read_text().split()]


def test_a_step_that_raises(project: Project) -> None:
    made = OutputFileDatasetConfig("made", (project.datastore, "made")).register_on_complete("made")
    plain = PipelineData("plain", project.datastore)
    body = """
        pathlib.Path(sys.argv[1], "half.txt").write_text("half")
        os.makedirs("outputs/deep")
        pathlib.Path("outputs/deep/model.txt").write_text("half a model")
        pathlib.Path("logs/own.log").write_text("before the fall")
        print("printed")
        raise ValueError("no good")
    """
    run = project.submit(
        project.step("bad", body, made, outputs=[plain]),
        project.step("later", "", inputs=[made.as_input()]),
        project.step("last", "", inputs=[plain]),
    )
    with pytest.raises(
        ActivityFailedException, match=r"(?s)step 'bad' failed: exit code 1.*ValueError: no good.*later, last"
    ) as caught:
        run.wait_for_completion(show_output=False)
    assert "printed" in str(caught.value)
    info = project.info(run, "bad")
    assert (info.status, info.error, info.outputs) == ("failed", "exit code 1: ValueError: no good", ())
    assert run.get_status() == "Failed"
    assert [step.name for step in run.get_steps()] == ["bad"]
    assert project.visible() == []
    with pytest.raises(NotFoundException):
        Dataset.get_by_name(project.workspace, "made")
    [bad] = run.find_step_run("bad")
    assert bad.get_file_names() == ["logs/own.log", "outputs/deep/model.txt", "user_logs/std_log.txt"]
    assert "ValueError: no good" in bad.get_stdout_log()
    bad.download_file("outputs/deep/model.txt", str(project.root / "got.txt"))
    assert (project.root / "got.txt").read_text() == "half a model"


def test_steps_that_do_not_depend_on_it_may_go_on(project: Project) -> None:
    bad = PipelineData("bad", project.datastore)
    fails = project.step("fails", "sys.exit(3)", bad, outputs=[bad])
    reads = project.step("reads", "", inputs=[bad])
    first, second = project.step("first", ""), project.step("second", "")
    second.run_after(first)
    run = project.run(fails, reads, first, second, continue_on_step_failure=True)
    assert {info.name: info.status for info in project.store.runs(parent=run.id)} == {
        "fails": "failed",
        "first": "completed",
        "second": "completed",
    }
    assert project.info(run, "fails").error == "exit code 3"


def test_a_step_whose_process_is_killed(project: Project, pids: Path) -> None:
    made = PipelineData("made", project.datastore)
    run = project.submit(project.step("hangs", HANG, made, outputs=[made]))
    step, child = read_pids(pids)
    os.kill(step, signal.SIGKILL)
    run.wait_for_completion(show_output=False, raise_on_error=False)
    assert project.info(run, "hangs").error == "killed by signal 9 (SIGKILL): half way"
    assert project.visible() == []
    wait_until(lambda: not is_running(child), "the end of what the step started")


def test_a_run_that_is_canceled(project: Project, pids: Path) -> None:
    made = PipelineData("made", project.datastore)
    run = project.submit(project.step("hangs", HANG, made, outputs=[made]), project.step("later", "", inputs=[made]))
    processes = read_pids(pids)
    run.cancel()
    assert run.wait_for_completion(show_output=False) == "Canceled"
    assert (run.get_status(), project.info(run, "hangs").status) == ("Canceled", "canceled")
    assert [step.name for step in run.get_steps()] == ["hangs"]
    assert project.visible() == []
    wait_until(lambda: not any(map(is_running, processes)), "the end of the step")
    assert "half way" in run.find_step_run("hangs")[0].get_stdout_log()


def test_a_time_limit(project: Project, pids: Path) -> None:
    made = PipelineData("made", project.datastore)
    config = RunConfiguration()
    config.max_run_duration_seconds = 1
    run = project.run(project.step("hangs", HANG, made, outputs=[made], runconfig=config))
    assert project.info(run, "hangs").status == "failed"
    assert project.info(run, "hangs").error.startswith("timed out")
    wait_until(lambda: not any(map(is_running, read_pids(pids))), "the end of the step")


def test_what_a_step_leaves_running_ends_with_it(project: Project, pids: Path) -> None:
    body = """
        import time
        child = os.fork()
        if not child:
            time.sleep(600)
        pathlib.Path(os.environ["PIDS"], "pids").write_text(str(child))
    """
    run = project.run(project.step("leaves", body))
    assert run.get_status() == "Completed"
    wait_until(lambda: not any(map(is_running, read_pids(pids))), "the end of what it left")


def test_logs_are_there_while_a_step_runs(project: Project, pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vds.azureml.local.execution.LOG_FIRST_S", 0.0)
    made = PipelineData("made", project.datastore)
    run = project.submit(project.step("hangs", HANG, made, outputs=[made]))
    read_pids(pids)
    [step] = run.find_step_run("hangs")
    wait_until(lambda: "user_logs/std_log.txt" in step.get_file_names(), "the log")
    assert step.get_status() == "Running"
    run.cancel()
    run.wait_for_completion(show_output=False)


def test_an_output_that_is_to_be_registered_and_has_no_files(project: Project) -> None:
    other = PipelineData("other", project.datastore)
    made = OutputFileDatasetConfig("made").register_on_complete("made")
    run = project.run(project.step("empty", "pathlib.Path(sys.argv[2], 'a').touch()", made, other, outputs=[other]))
    assert project.info(run, "empty").error.startswith("output 'made' is to be registered as dataset 'made', and has no files")
    assert project.visible() == []


def test_a_command_that_is_not_there(project: Project) -> None:
    step = project.step("alpha", "os.execvp('no-such-command', ['no-such-command'])")
    run = project.run(step)
    assert "FileNotFoundError" in project.info(run, "alpha").error
