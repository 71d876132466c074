"""Runs as scripts see them: inside a step, and outside of any."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.azureml.steps.conftest import Project
from vds.azureml.core import Experiment, Run
from vds.azureml.exceptions import NotFoundException, RunEnvironmentException, UserErrorException
from vds.azureml.pipeline.core import PipelineData

INSIDE = """
    import io, json
    from vds.azureml.core import Run
    run = Run.get_context()
    pathlib.Path("x.txt").write_text("one")
    run.upload_file("kept/x.txt", "x.txt")
    run.upload_file("kept/x.txt", "x.txt")
    pathlib.Path("x.txt").write_text("two")
    run.upload_file("kept/x.txt", "x.txt")
    run.upload_file("stream.bin", io.BytesIO(b"bytes"))
    os.makedirs("folder/sub")
    pathlib.Path("folder/sub/y.txt").write_text("y")
    run.upload_folder("folder", "folder")
    run.upload_files(["n1", "n2"], ["x.txt", "x.txt"])
    for value in (1, 2.5):
        run.log("loss", value)
    run.log("name", "text")
    run.log_list("list", [1, 2])
    run.log_row("row", x=1, y=2)
    run.log_table("table", {"a": [1, 2]})
    run.tag("stage", "inner")
    run.add_properties({"p": "q"})
    run.parent.log("best", 0.9)
    run.parent.tag("winner", run.id)
    run.complete()
    pathlib.Path(sys.argv[1], "said.json").write_text(json.dumps({
        "experiment": run.experiment.name, "workspace": run.experiment.workspace.name, "id": run.id, "parent": run.parent.id,
        "metrics": run.get_metrics(), "tags": run.get_tags(), "type": run.type, "again": Run.get_context().id,
        "status": run.get_status(), "files": run.get_file_names(),
    }))
"""


def test_inside_a_step(project: Project) -> None:
    out = PipelineData("out", project.datastore)
    run = project.run(project.step("inner", INSIDE, out, outputs=[out]), tags={"who": "me"})
    said = json.loads(project.texts(run, "inner", "out")["said.json"])
    [step] = run.find_step_run("inner")
    metrics = {"loss": [1, 2.5], "name": "text", "list": [1, 2], "row": {"x": 1, "y": 2}, "table": {"a": [1, 2]}}
    files = ["folder/sub/y.txt", "kept/x.txt", "n1", "n2", "stream.bin"]
    assert said == {
        "experiment": "trials",
        "workspace": "local",
        "id": step.id,
        "parent": run.id,
        "metrics": metrics,
        "tags": {"stage": "inner"},
        "type": "azureml.StepRun",
        "again": step.id,
        "status": "Running",
        "files": files,
    }
    assert step.get_metrics() == metrics
    assert step.get_metrics("name") == {"name": "text"}
    assert (step.get_tags(), step.get_properties()["p"]) == ({"stage": "inner"}, "q")
    assert step.get_file_names() == [*files, "user_logs/std_log.txt"]
    assert run.get_metrics() == {"best": 0.9}
    assert run.get_tags() == {"who": "me", "winner": step.id}
    assert step.parent is not None
    assert step.parent.id == run.id
    step.download_file("kept/x.txt", str(project.root / "got" / "x.txt"))
    assert (project.root / "got" / "x.txt").read_text() == "two"
    step.download_files("folder", str(project.root / "all"))
    assert (project.root / "all" / "folder" / "sub" / "y.txt").read_text() == "y"
    with pytest.raises(NotFoundException, match="has kept no file 'nothing'"):
        step.download_file("nothing")
    assert [one.id for one in Experiment(project.workspace, "trials").get_runs()] == [run.id]
    assert Run.get(project.workspace, step.id).experiment.name == "trials"
    reused = project.run(project.step("inner", INSIDE, out, outputs=[out]))
    [again] = reused.find_step_run("inner")
    again.tag("looked", "at")
    assert (again.get_metrics(), again.get_file_names()) == (metrics, step.get_file_names())


OUTSIDE = """
    import pathlib
    from azureml.core import Run
    run = Run.get_context()
    print(run.id)
    run.log("loss", 0.5)
    pathlib.Path("x.txt").write_text("x")
    run.upload_file("x.txt", "x.txt")
    run.tag("a", "b")
    with run.child_run("fold") as child:
        child.log("inner", 1)
    print(run.experiment.workspace.get_default_datastore().name, dict(run.input_datasets), run.parent)
"""


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        ("", "completed", 0),
        ("    run.complete()", "completed", 0),
        ("    run.fail('bad data')", "failed", 0),
        ("    raise ValueError('x')", "failed", 1),
        ("    run.cancel()", "canceled", 0),
    ],
)
def test_outside_of_any_step(project: Project, end: str, status: str, code: int) -> None:
    said = project.play(OUTSIDE + end, code=code)
    assert said.splitlines()[0].startswith("OfflineRun_")
    infos = {info.name: info for info in project.store.runs()}
    assert {name: info.status for name, info in infos.items()} == {"main.py": status, "fold": "completed"}
    assert infos["fold"].parent == infos["main.py"].id
    run = Run.get(project.workspace, infos["main.py"].id)
    assert run.get_metrics() == {"loss": 0.5}
    assert run.get_tags() == {"a": "b"}
    assert run.get_file_names() == ["x.txt"]
    assert [child.get_metrics() for child in run.get_children()] == [{"inner": 1}]
    assert [one.id for one in Experiment(project.workspace, "local").get_runs()] == [run.id]


def test_a_script_that_only_asks_is_no_run(project: Project) -> None:
    project.play("""
        from azureml.core import Run
        run = Run.get_context()
        print(run.experiment.workspace, run.get_status(), run.get_metrics(), run.get_tags(), run.get_file_names(), run)
    """)
    assert project.store.runs() == []


def test_offline_runs_may_be_refused(project: Project) -> None:
    with pytest.raises(RunEnvironmentException):
        Run.get_context(allow_offline=False)


def test_logging_by_hand(project: Project) -> None:
    experiment = Experiment(project.workspace, "by hand")
    run = experiment.start_logging()
    run.log("a", 1)
    run.log("a", 2)
    assert run.get_metrics() == {"a": [1, 2]}
    run.complete()
    assert run.get_status() == "Completed"
    [found] = experiment.get_runs()
    assert found.get_metrics() == {"a": [1, 2]}
    found.log("a", 3)  # whoever wants to may add to it
    assert found.get_metrics() == {"a": [1, 2, 3]}
    assert run.get_metrics() == {"a": [1, 2, 3]}
    with pytest.raises(UserErrorException, match="there is no file 'gone'"):
        run.upload_file("x", "gone")


def test_many_values_of_numpy(project: Project) -> None:
    numpy = pytest.importorskip("numpy")
    run = Experiment(project.workspace, "numbers").start_logging()
    run.log("f", numpy.float32(0.5))
    run.log_list("l", numpy.arange(3))
    run.log_row("r", a=numpy.int64(1))
    run.complete()
    assert run.get_metrics() == {"f": 0.5, "l": [0, 1, 2], "r": {"a": 1}}


def test_converting_inputs(project: Project) -> None:
    project.upload("raw", a="a", b="b")
    out = PipelineData("out", project.datastore)
    body = """
        from vds.azureml.core import Run
        from vds.azureml.core.run import _convert_to_dataset_input
        found = _convert_to_dataset_input(sys.argv[1])
        texts = [pathlib.Path(path).read_text() for path in (found.to_path()[0], found[1])]
        pathlib.Path(sys.argv[2], "x").write_text("".join(texts))
    """
    raw: Any = project.datastore.path("raw")
    assert project.texts(project.run(project.step("reads", body, raw, out)), "reads", "out") == {"x": "ab"}
