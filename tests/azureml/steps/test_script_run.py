"""Scripts that are submitted by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.azureml.steps.conftest import Project
from vds.azureml.core import Dataset, Environment, Experiment, Run, ScriptRunConfig
from vds.azureml.core.conda_dependencies import CondaDependencies
from vds.azureml.core.runconfig import RunConfiguration
from vds.azureml.data import OutputFileDatasetConfig
from vds.azureml.exceptions import ActivityFailedException, NotFoundException, UserErrorException


def submit(project: Project, config: ScriptRunConfig, **given: Any) -> Any:
    return Experiment(project.workspace, "scripts").submit(config, **given)


def test_a_script_with_what_is_usually_said(project: Project) -> None:
    project.upload("raw", a="a")
    project.write("src/train.py", """
        import argparse, os, pathlib
        parser = argparse.ArgumentParser()
        parser.add_argument("--data")
        parser.add_argument("--rate", type=float)
        args = parser.parse_args()
        text = pathlib.Path(args.data, "a.txt").read_text()
        pathlib.Path("outputs/model.txt").write_text(f"{text}{args.rate}{os.environ['WORD']}")
        print("trained")
    """)  # fmt: skip
    environment = Environment("mine")
    environment.python.conda_dependencies = CondaDependencies.create(conda_packages=["pip"], pip_packages=["pandas"])
    environment.environment_variables = {"WORD": "w"}
    data = Dataset.File.from_files((project.datastore, "raw")).as_named_input("data").as_mount()
    arguments = ["--data", data, "--rate", 0.1]
    config = ScriptRunConfig("src", "train.py", arguments, compute_target="local", environment=environment)
    run = submit(project, config, tags={"who": "me"})
    details = run.wait_for_completion(show_output=True)
    assert details["status"] == run.get_status() == "Completed"
    run.download_file("outputs/model.txt", str(project.root / "got.txt"))
    assert (project.root / "got.txt").read_text() == "a0.1w"
    assert run.get_file_names() == ["outputs/model.txt", "user_logs/std_log.txt"]
    assert run.get_tags() == {"who": "me"}
    [listed] = Experiment(project.workspace, "scripts").get_runs()
    assert (listed.id, listed.get_tags(), listed.parent) == (run.id, {"who": "me"}, None)
    assert Run.get(project.workspace, run.id).experiment.name == "scripts"
    again = submit(project, config)
    again.wait_for_completion()
    assert not again.is_reused


def test_one_script_after_another(project: Project) -> None:
    project.write("one/step1.py", "open('outputs/data1.txt', 'w').write('one')\n")
    project.write(
        "two/step2.py", "import os\nopen('outputs/x', 'w').write(open(os.environ['data'] + '/data1.txt').read() + ' two')\n"
    )
    config = RunConfiguration()
    config.environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["azureml-defaults"])
    first = submit(project, ScriptRunConfig("one", script="step1.py", run_config=config), tags={"step": "1"})
    first.wait_for_completion(show_output=True)
    second = submit(project, ScriptRunConfig("two", script="step2.py"), inputs={"data": first.get_output_data("output")})
    second.wait_for_completion()
    second.download_file("outputs/x", str(project.root / "x"))
    assert (project.root / "x").read_text() == "one two"
    with pytest.raises(NotFoundException, match="no output 'nothing'"):
        first.get_output_data("nothing")


def test_outputs_of_a_script(project: Project) -> None:
    project.write("src/make.py", "import sys\nopen(sys.argv[1] + '/a', 'w').write('a')\n")
    out = OutputFileDatasetConfig("out", (project.datastore, "made/{run-id}")).register_on_complete("made")
    run = submit(project, ScriptRunConfig("src", "make.py", [out]))
    run.wait_for_completion()
    assert run.get_output_data("out").path_on_datastore == f"made/{run.id}"
    assert Dataset.get_by_name(project.workspace, "made").to_path() == ["/a"]


@pytest.mark.parametrize("as_list", [False, True])
def test_commands(project: Project, as_list: bool) -> None:
    project.write("src/make.py", "import json, sys\nprint(sys.executable)\njson.dump(sys.argv[1:], open('outputs/said', 'w'))\n")
    project.upload("raw", a="a")
    data = Dataset.File.from_files((project.datastore, "raw")).as_named_input("data").as_mount()
    line: Any = ["python make.py", data, "&& echo done"] if as_list else "python make.py $data && echo done"
    config = ScriptRunConfig("src", command=line)
    run = submit(project, config, inputs={} if as_list else {"data": data})
    run.wait_for_completion()
    run.download_file("outputs/said", str(project.root / "said"))
    [path] = json.loads((project.root / "said").read_text())
    assert Path(path).name == "raw"
    assert run.get_stdout_log().splitlines()[-1] == "done"


def test_a_script_that_fails_and_one_that_is_not_there(project: Project) -> None:
    project.write("src/bad.py", "open('outputs/half', 'w').write('half')\nraise ValueError('no')\n")
    run = submit(project, ScriptRunConfig("src", "bad.py"))
    with pytest.raises(ActivityFailedException, match="ValueError: no"):
        run.wait_for_completion()
    assert run.get_status() == "Failed"
    assert "outputs/half" in run.get_file_names()
    with pytest.raises(UserErrorException, match=r"no 'gone\.py' in source_directory 'src'"):
        submit(project, ScriptRunConfig("src", "gone.py"))
    with pytest.raises(UserErrorException, match="source_directory"):
        submit(project, ScriptRunConfig("nowhere", "gone.py"))
