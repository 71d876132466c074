"""When an earlier result is used again, when it is not, and what `vds why` says of it."""

from __future__ import annotations

import io
import json
import time
from contextlib import redirect_stdout
from typing import Any

import pytest

from tests.azureml.steps.conftest import Project
from vds.azureml.core import Dataset, Environment
from vds.azureml.core.conda_dependencies import CondaDependencies
from vds.azureml.core.runconfig import RunConfiguration
from vds.azureml.data import OutputFileDatasetConfig
from vds.azureml.data.data_reference import DataReference
from vds.azureml.pipeline.core import PipelineData
from vds.azureml.pipeline.steps import PythonScriptStep
from vds.cli.main import run
from vds.cli.shell import Shell

UPPER = """
    source, target = map(pathlib.Path, sys.argv[1:3])
    for path in source.iterdir():
        (target / path.name).write_text(path.read_text().upper())
"""
HIT, MISS = {"prep": True, "train": True}, {"prep": False, "train": False}


class Two:
    """Two steps: one reads what was uploaded, one what the first puts out."""

    def __init__(self, project: Project) -> None:
        self.project = project
        project.upload("raw", a="a")
        self.raw = DataReference(project.datastore, "raw", "raw")

    def run(self, body: str = UPPER, *arguments: Any, last: dict[str, Any] | None = None, **given: Any) -> dict[str, bool]:
        """Run them, and return which were not run again."""
        project = self.project
        prepared, model = PipelineData("prepared", project.datastore), PipelineData("model", project.datastore)
        steps = [
            project.step("prep", body, self.raw, prepared, *arguments, inputs=[self.raw], outputs=[prepared], **given),
            project.step("train", UPPER, prepared, model, inputs=[prepared], outputs=[model]),
        ]
        run = project.run(*steps, **(last or {}))
        assert run.get_status() == "Completed"
        return project.was_reused(run)


@pytest.fixture
def two(project: Project) -> Two:
    """Return two steps that have run once."""
    made = Two(project)
    assert made.run() == MISS
    return made


def why(project: Project, step: str) -> dict[str, Any]:
    """Return what `vds why` says."""
    with redirect_stdout(io.StringIO()) as out:
        assert run(["why", step, "--json"], Shell()) == 0
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def parts(project: Project, step: str) -> list[str]:
    """Return which parts `vds why` names."""
    return [one["part"] for one in why(project, step)["differs"]]


def test_nothing_changed(two: Two) -> None:
    head = two.project.head().number
    begun_s = time.monotonic()
    assert two.run() == HIT
    assert time.monotonic() - begun_s < 2  # mostly 0.1 s; a step that runs costs as much by itself
    assert two.project.head().number == head
    answer = why(two.project, "train")
    assert (answer["result"], answer["differs"]) == ("hit", [])
    infos = two.project.store.runs("train")
    assert infos[0].reused == infos[1].id == answer["reused"]
    assert infos[0].outputs[0].uri == infos[1].outputs[0].uri


def test_a_hit_of_a_hit_names_the_run_that_ran(two: Two) -> None:
    for _ in range(2):
        assert two.run() == HIT
    newest, _, first = two.project.store.runs("prep")
    assert newest.reused == first.id


def test_a_comment_reruns_the_step_and_not_those_behind_it(two: Two) -> None:
    assert two.run("# a comment\n" + UPPER.replace("\n    ", "\n")) == {"prep": False, "train": True}
    assert parts(two.project, "prep") == ["code prep.py"]
    assert why(two.project, "train")["result"] == "hit"


def test_comments_that_are_ignored(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Two(project)
    monkeypatch.setenv("VDS_IGNORE_COMMENTS", "1")
    made.run()
    commented = "# a comment\n" + UPPER.replace("\n    ", "\n")
    assert made.run(commented) == HIT
    monkeypatch.delenv("VDS_IGNORE_COMMENTS")
    assert made.run(commented + "# more\n", last={"ignore_comments": True}) == HIT
    assert made.run(commented.replace("upper", "lower"), last={"ignore_comments": True}) == MISS


def test_other_code_beside_the_script(two: Two) -> None:
    two.project.write("prep/beside.py", "")
    assert two.run() == {"prep": False, "train": True}
    assert parts(two.project, "prep") == ["code beside.py"]


@pytest.mark.parametrize(
    "name",
    [
        "prep/__pycache__/prep.cpython-311.pyc",
        "prep/sub/__pycache__/x.pyc",
        "prep/outputs/model.bin",
        "prep/logs/today.log",
        "prep/.git/HEAD",
        "prep/.ipynb_checkpoints/a.ipynb",
    ],
)
def test_stray_files_make_no_difference(two: Two, name: str) -> None:
    two.project.write(name, "stray")
    assert two.run() == HIT


def test_the_ignore_file(two: Two) -> None:
    two.project.write("prep/.gitignore", "*.csv\nbuild/\n")
    assert two.run()["prep"] is False  # the file itself is code
    two.project.write("prep/data.csv", "1")
    two.project.write("prep/build/x.py", "1")
    assert two.run() == HIT
    two.project.write("prep/.amlignore", "*.txt\n")  # which takes the place of the other one
    assert two.run()["prep"] is False
    assert sorted(parts(two.project, "prep")) == ["code .amlignore", "code build/x.py", "code data.csv"]
    two.project.write("prep/notes.txt", "1")
    assert two.run() == HIT


def test_other_content_of_an_input(two: Two) -> None:
    two.project.upload("raw", a="b")
    assert two.run() == MISS
    assert parts(two.project, "prep") == ["input raw"]
    two.project.upload("raw", a="a")  # the first content, in another version
    assert two.run() == HIT
    two.project.upload("elsewhere", x="x")
    assert two.run() == HIT


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"arguments": ["more"]}, "arguments"),
        ({"params": {"X": "1"}}, "variable AML_PARAMETER_X"),
        ({"version": "2"}, "environment version"),
        ({"runconfig": "pandas"}, "environment described"),
        ({"runconfig": "variable"}, "variable DEBUG"),
    ],
)
def test_what_else_counts(two: Two, change: dict[str, Any], part: str) -> None:
    change = dict(change)
    config = RunConfiguration()
    if change.get("runconfig") == "pandas":
        config.environment = Environment("mine")
        config.environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["pandas"])
    else:
        config.environment_variables = {"DEBUG": "1"}
    given = {**change, "runconfig": config} if "runconfig" in change else change
    arguments = given.pop("arguments", [])
    assert two.run(UPPER, *arguments, **given) == {"prep": False, "train": True}
    assert part in parts(two.project, "prep")


def test_an_output_that_goes_elsewhere(project: Project) -> None:
    def put(place: str) -> dict[str, bool]:
        out = OutputFileDatasetConfig("out", (project.datastore, place))
        return project.was_reused(project.run(project.step("writes", "pathlib.Path(sys.argv[1], 'a').touch()", out)))

    assert put("first") == {"writes": False}
    assert put("second") == {"writes": False}
    assert parts(project, "writes") == ["output out"]
    assert "second/a" in project.visible()


def test_a_result_is_put_back_where_runs_share_a_place(project: Project) -> None:
    def put(text: str) -> dict[str, bool]:
        out = OutputFileDatasetConfig("out", (project.datastore, "shared"))
        step = project.step("writes", "pathlib.Path(sys.argv[1], 'a').write_text(sys.argv[2])", out, text)
        return project.was_reused(project.run(step))

    put("old")
    put("new")
    assert put("old") == {"writes": True}
    assert project.head().read_text("shared/a") == "old"
    head = project.head().number
    assert put("old") == {"writes": True}
    assert project.head().number == head


@pytest.mark.parametrize("how", ["argument", "variable", "step"])
def test_reuse_that_is_off(two: Two, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "argument":
        assert two.run(last={"regenerate_outputs": True}) == MISS
    elif how == "variable":
        monkeypatch.setenv("VDS_NO_REUSE", "1")
        assert two.run() == MISS
    else:
        assert two.run(allow_reuse=False) == {"prep": False, "train": True}
        assert two.run() == HIT  # of the first run: the other one is not to be used again
    assert why(two.project, "prep")["differs"] == []


def test_results_that_have_expired(two: Two) -> None:
    [place] = two.project.store.runs("prep")[0].outputs
    two.project.store.expire(f"{place.namespace}@{place.number}", reason="test", dry_run=False)
    assert two.run() == {"prep": False, "train": True}
    answer = why(two.project, "prep")
    assert (answer["result"], answer["differs"]) == ("miss", [])
    assert two.run() == HIT


def test_a_whole_datastore_as_input_is_not_changed_by_what_runs_put_there(project: Project) -> None:
    project.upload("raw", a="a")

    def put() -> dict[str, bool]:
        out = PipelineData("out", project.datastore)
        whole = DataReference(project.datastore, "whole", "")
        return project.was_reused(
            project.run(project.step("reads", "pathlib.Path(sys.argv[2], 'x').touch()", whole, out, outputs=[out]))
        )

    assert put() == {"reads": False}
    assert put() == {"reads": True}
    project.upload("other", b="b")
    assert put() == {"reads": False}


def test_an_environment_that_is_registered_and_looked_up(project: Project) -> None:
    def put(package: str) -> dict[str, bool]:
        environment = Environment("mine")
        environment.python.conda_dependencies = CondaDependencies.create(pip_packages=[package])
        environment.register(workspace=project.workspace)
        config = RunConfiguration()
        config.environment = Environment.get(project.workspace, "mine")
        return project.was_reused(project.run(project.step("one", "", runconfig=config)))

    assert [put(package) for package in ("pandas", "pandas", "numpy")] == [{"one": False}, {"one": True}, {"one": False}]


def test_a_failed_run_is_not_used(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OK", str(project.root / "ok"))
    step = project.step("prep", "assert os.path.exists(os.environ['OK'])")
    assert project.run(step).get_status() == "Failed"
    (project.root / "ok").touch()
    assert project.was_reused(project.run(step)) == {"prep": False}
    assert project.was_reused(project.run(step)) == {"prep": True}


def test_code_that_is_edited_while_the_pipeline_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is what was submitted, and what is used again is what ran."""
    first, second = PipelineData("first", project.datastore), PipelineData("second", project.datastore)
    project.write(
        "src/one.py", "import os, pathlib, sys\npathlib.Path(os.environ['SOURCE'], 'two.py').write_text(os.environ['NEW'])\n"
    )
    old = "import pathlib, sys; pathlib.Path(sys.argv[1], 'a').write_text('old')"
    project.write("src/two.py", old)
    monkeypatch.setenv("SOURCE", str(project.root / "src"))
    monkeypatch.setenv("NEW", old.replace("'old'", "'new'"))

    def submit() -> dict[str, str]:
        source = str(project.root / "src")
        one = PythonScriptStep("one.py", arguments=[first], outputs=[first], source_directory=source)
        two = PythonScriptStep("two.py", arguments=[second], inputs=[first], outputs=[second], source_directory=source)
        return project.texts(project.run(one, two), "two.py", "second")

    assert submit() == {"a": "old"}
    assert submit() == {"a": "new"}
    project.write("src/two.py", old)
    assert submit() == {"a": "old"}


def test_things_without_names_are_the_same_in_each_submission(project: Project) -> None:
    """They have names by chance, which must not count; a new version of a dataset with the same content does not either."""
    project.upload("raw", a="a")

    def put() -> dict[str, bool]:
        dataset = Dataset.File.from_files((project.datastore, "raw"))
        registered = dataset.register(project.workspace, "raw", create_new_version=True)
        out, copied = OutputFileDatasetConfig(), PipelineData("copied")
        inputs = [project.datastore.path("raw"), dataset.as_mount(), registered.as_mount()]
        body = "assert all(map(os.path.isdir, sys.argv[1:5])); pathlib.Path(sys.argv[5]).write_text('x')"
        first = project.step("first", body, *inputs, out, f"{out}/made.txt", inputs=[inputs[0]])
        body = """
            assert sys.argv[1] == sys.argv[2]
            pathlib.Path(sys.argv[3], "x").write_bytes(pathlib.Path(sys.argv[1], "made.txt").read_bytes())
        """
        read = out.as_input()
        second = project.step("second", body, read, str(read), copied)
        run = project.run(first, second)
        assert run.get_status() == "Completed", [info.error for info in project.store.runs(parent=run.id)]
        assert project.texts(run, "second", "copied") == {"x": "x"}
        return project.was_reused(run)

    assert put() == {"first": False, "second": False}
    project.upload("elsewhere", b="b")
    assert put() == {"first": True, "second": True}
