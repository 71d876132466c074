"""Which step runs when, and what it finds when it starts; what is wrong is said before anything runs, with both ends named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.azureml.steps.conftest import Project
from vds.azureml.core import Dataset
from vds.azureml.core.runconfig import RunConfiguration
from vds.azureml.data import OutputFileDatasetConfig
from vds.azureml.data.data_reference import DataReference
from vds.azureml.exceptions import ActivityFailedException, UserErrorException
from vds.azureml.pipeline.core import Pipeline, PipelineData, PipelineParameter, StepSequence

COPY = """
    source, target = map(pathlib.Path, sys.argv[1:3])
    for path in sorted(source.iterdir()):
        (target / path.name).write_text(path.read_text() + sys.argv[3])
"""
NOTE = "open(os.path.join(os.environ['NOTES'], sys.argv[1]), 'x').close()"


def test_steps_run_in_the_order_of_their_outputs(project: Project) -> None:
    project.upload("raw", a="a")
    raw = DataReference(project.datastore, "raw", "raw")
    first, second, third = (PipelineData(name, project.datastore) for name in ("first", "second", "third"))
    # Given last first: the order comes from what they read.
    run = project.run(
        project.step("three", COPY, second, third, "3", inputs=[second], outputs=[third]),
        project.step("two", COPY, first, second, "2", inputs=[first], outputs=[second]),
        project.step("one", COPY, raw, first, "1", inputs=[raw], outputs=[first]),
    )
    assert project.texts(run, "three", "third") == {"a.txt": "a123"}
    assert [step.name for step in run.get_steps()] == ["one", "two", "three"]
    assert run.get_status() == "Completed"


def test_what_a_step_finds(project: Project) -> None:
    project.upload("raw", a="a")
    raw = DataReference(project.datastore, "raw", "raw")
    made = PipelineData("made", project.datastore)
    config = OutputFileDatasetConfig("config")
    step = project.step(
        "look",
        """
        import json
        found = {"arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "here": os.listdir(".")}
        found["are_there"] = [os.path.isdir(path) and os.path.isabs(path) for path in sys.argv[1:4]]
        pathlib.Path(sys.argv[2], "found.json").write_text(json.dumps(found))
        """,
        raw,
        made,
        config,
        7,
        f"--data={raw}/a.txt",
        inputs=[raw],
        outputs=[made],
    )
    run = project.run(step)
    found = json.loads(project.texts(run, "look", "made")["found.json"])
    data, out, other = found["arguments"][:3]
    assert found["are_there"] == [True, True, True]
    assert found["arguments"][3:] == ["7", f"--data={data}/a.txt"]
    assert Path(data).parts[-2:] == (f"{project.datastore.name}@1", "raw")
    assert Path(out).parts[-3:] == ("azureml", project.info(run, "look").id, "made")
    assert found["env"]["AZUREML_DATAREFERENCE_raw"] == data
    assert found["env"]["AZUREML_DATAREFERENCE_made"] == out
    assert found["env"]["AZUREML_DATAREFERENCE_config"] == other
    assert found["env"]["AZUREML_RUN_ID"] == project.info(run, "look").id
    assert {"look.py", "outputs", "logs"} <= set(found["here"])
    assert (
        run.find_step_run("look")[0].get_output_data("made").path_on_datastore == f"azureml/{project.info(run, 'look').id}/made"
    )


def test_independent_steps_run_side_by_side(project: Project) -> None:
    project.write("meeting/.keep", "")
    meet = """
        import time
        here, other = sys.argv[1:]
        open(f"{os.environ['MEETING']}/{here}", "x").close()
        deadline = time.monotonic() + 30
        while not os.path.exists(f"{os.environ['MEETING']}/{other}"):
            assert time.monotonic() < deadline, "nobody came"
            time.sleep(0.01)
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEETING", str(project.root / "meeting"))
        run = project.run(project.step("left", meet, "l", "r"), project.step("right", meet, "r", "l"))
    assert run.get_status() == "Completed"


def test_run_after_and_sequences_order_steps_that_share_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(project.root))
    check = "assert os.path.exists(os.path.join(os.environ['NOTES'], sys.argv[2]))\n" + NOTE
    last = project.step("last", check, "l", "m")
    middle = project.step("middle", check, "m", "f")
    first = project.step("first", NOTE, "f")
    last.run_after(middle)
    run = project.run(StepSequence([[first], middle]), [last])
    assert [step.name for step in run.get_steps()] == ["first", "middle", "last"]
    assert run.get_status() == "Completed"


def test_lists_in_lists_and_steps_that_are_only_run_after(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(project.root))
    first, second = project.step("first", NOTE, "1"), project.step("second", NOTE, "2")
    second.run_after(first)
    run = project.run([[second]])
    assert [step.name for step in run.get_steps()] == ["first", "second"]


def test_steps_of_one_name_are_told_apart(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(project.root))
    run = project.run(*(project.step("train", NOTE, word) for word in ("x", "y")))
    assert sorted(step.name for step in run.find_step_run("train")) == ["train", "train (2)"]
    assert (project.root / "x").exists()
    assert (project.root / "y").exists()


def test_two_producers_of_one_output_are_both_named(project: Project) -> None:
    made = PipelineData("made", project.datastore)
    steps = [project.step(name, "", made, outputs=[made]) for name in ("alpha", "beta")]
    with pytest.raises(UserErrorException, match="output 'made' is put out by two steps, 'alpha' and 'beta'"):
        Pipeline(project.workspace, steps)


def test_steps_that_wait_for_each_other_are_all_named(project: Project) -> None:
    one, two = PipelineData("one", project.datastore), PipelineData("two", project.datastore)
    steps = [
        project.step("alpha", "", one, inputs=[two], outputs=[one]),
        project.step("beta", "", two, inputs=[one], outputs=[two]),
    ]
    with pytest.raises(UserErrorException, match=r"alpha -> beta -> alpha|beta -> alpha -> beta"):
        Pipeline(project.workspace, steps)


def test_an_output_that_nobody_puts_out(project: Project) -> None:
    with pytest.raises(UserErrorException, match="step 'alpha' reads output 'made', which no step"):
        Pipeline(project.workspace, [project.step("alpha", "", inputs=[PipelineData("made", project.datastore)])])


def test_a_script_that_is_not_there(project: Project) -> None:
    step = project.step("alpha", "")
    (project.root / "alpha" / "alpha.py").unlink()
    with pytest.raises(
        UserErrorException, match=r"step 'alpha' has no script: there is no 'alpha\.py' in source_directory .*alpha"
    ):
        project.submit(step)
    assert project.store.runs() == []


def test_a_script_that_the_ignore_file_leaves_out(project: Project) -> None:
    step = project.step("alpha", "")
    project.write("alpha/.amlignore", "*.py\n")
    with pytest.raises(UserErrorException, match=r"'alpha\.py' is left out by '\.amlignore'"):
        project.submit(step)


def test_an_input_that_is_not_there_fails_its_step(project: Project) -> None:
    project.upload("raw", a="a")
    step = project.step("alpha", "", DataReference(project.datastore, "gone", "nowhere/at/all"))
    run = project.submit(step)
    with pytest.raises(ActivityFailedException, match=r"step 'alpha' failed: there is nothing at 'nowhere/at/all' in datastore"):
        run.wait_for_completion(show_output=False)
    assert (run.get_status(), project.info(run, "alpha").status) == ("Failed", "failed")


def test_a_kind_of_step_that_needs_the_service() -> None:
    with pytest.raises(UserErrorException, match=r"azureml\.pipeline\.steps\.ParallelRunStep needs the AzureML service"):
        from vds.azureml.pipeline.steps import ParallelRunStep  # noqa: F401


def test_a_parameter_that_is_not_there(project: Project) -> None:
    step = project.step("alpha", "", PipelineParameter("rate", 0.1))
    with pytest.raises(UserErrorException, match="no parameter 'rato': it has rate"):
        project.submit(step, pipeline_parameters={"rato": 1})


def test_parameters_are_numbers_texts_and_datasets(project: Project) -> None:
    project.upload("raw", a="a")
    project.upload("other", b="b")
    raw, other = (Dataset.File.from_files((project.datastore, path)) for path in ("raw", "other"))
    made = PipelineData("made", project.datastore)
    data = PipelineParameter("data", raw)
    step = project.step(
        "alpha",
        "pathlib.Path(sys.argv[1], 'said').write_text(' '.join([*sys.argv[2:4], *sorted(os.listdir(sys.argv[4]))]))",
        made,
        PipelineParameter("rate", 0.1),
        PipelineParameter("word", "yes"),
        data,
        inputs=[data],
        outputs=[made],
    )
    assert project.texts(project.run(step), "alpha", "made") == {"said": "0.1 yes a.txt"}
    run = project.run(step, pipeline_parameters={"rate": 2, "data": other})
    assert project.texts(run, "alpha", "made") == {"said": "2 yes b.txt"}


def test_a_pipeline_of_one_step_and_a_configuration_with_paths(project: Project) -> None:
    config = RunConfiguration()
    config.environment_variables = {"PATH": "/nowhere/bin", "PYTHONPATH": "/nowhere/lib", "WORD": "w"}
    made = PipelineData("made", project.datastore)
    step = project.step(
        "alpha",
        "import shutil; print(os.environ['PATH'], os.environ['PYTHONPATH'], os.environ['WORD'], shutil.which('python'))",
        runconfig=config,
        outputs=[made],
    )
    run = Pipeline(project.workspace, step).submit("trials")
    run.wait_for_completion(show_output=False)
    [alpha] = run.get_steps()
    path, modules, word, python = alpha.get_stdout_log().split()
    assert path.endswith(":/nowhere/bin")
    assert modules.startswith("/nowhere/lib:")
    assert (word, Path(python).parent) == ("w", Path(sys.executable).parent)
