"""What people have written for the SDK: each runs here with its import lines changed, and does what it was meant to do."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.azureml.steps.conftest import Project
from vds.azureml.core import Dataset


def write(project: Project, name: str, text: str) -> Path:
    """Write a script, with its import lines changed and nothing else."""
    return project.write(name, textwrap.dedent(text).replace("from azureml.", "from vds.azureml."))


def test_raw_data_through_a_pipeline(project: Project) -> None:
    """A dataset by itself in the arguments, and a script that takes its files by number."""
    write(project, "preprocess.py", """
        import argparse
        import os
        from azureml.core import Run
        from azureml.core.run import _convert_to_dataset_input

        parser = argparse.ArgumentParser()
        parser.add_argument("--input_data", type=str)
        parser.add_argument("--output_data", type=str)
        args = parser.parse_args()
        run = Run.get_context()
        input_dataset = _convert_to_dataset_input(args.input_data, run).to_path()
        output_path = args.output_data
        os.makedirs(output_path, exist_ok=True)
        with open(input_dataset[0]) as body, open(os.path.join(output_path, "transformed_data.csv"), "w") as out:
            out.write(body.read().upper())
    """)  # fmt: skip
    out = project.play("""
        import os
        from azureml.core import Workspace, Datastore, Dataset, Experiment
        from azureml.pipeline.core import Pipeline, PipelineData
        from azureml.pipeline.steps import PythonScriptStep

        ws = Workspace.from_config()
        default_ds = ws.get_default_datastore()
        os.makedirs("data", exist_ok=True)
        with open("data/sample.csv", "w") as f:
            f.write("a,b\\n1,2\\n")
        default_ds.upload(src_dir="data", target_path="raw_data", overwrite=True, show_progress=True)
        input_data = Dataset.File.from_files(path=(default_ds, "raw_data/sample.csv"))
        output_data = PipelineData(name="transformed_data", datastore=default_ds)
        preprocess_step = PythonScriptStep(
            name="Preprocess Data",
            script_name="preprocess.py",
            arguments=["--input_data", input_data, "--output_data", output_data],
            outputs=[output_data],
            compute_target="cpu-cluster",
            source_directory=".",
            allow_reuse=True,
        )
        pipeline = Pipeline(workspace=ws, steps=[preprocess_step])
        experiment = Experiment(workspace=ws, name="data_pipeline")
        pipeline_run = experiment.submit(pipeline)
        pipeline_run.wait_for_completion(show_output=True)
        data = pipeline_run.find_step_run("Preprocess Data")[0].get_output_data("transformed_data")
        data.download("got")
        print(open(f"got/{data.path_on_datastore}/transformed_data.csv").read())
    """)
    assert "A,B\n1,2\n" in out


EXTRACT = """
    from pathlib import Path
    import argparse, os
    from azureml.core import Run, Datastore
    parser = argparse.ArgumentParser()
    parser.add_argument("--input_extract", type=str)
    parser.add_argument("--output_extract", type=str)
    parser.add_argument("--output_datastore", type=str)
    args = parser.parse_args()
    print("arguments", args)
    path = Path(args.output_extract)
    os.makedirs(args.output_extract, exist_ok=True)
    (path / "myfile.parquet").write_text(Path(args.input_extract, "in.txt").read_text())
    print("parts", "/".join(path.parts[-3:]))
    run = Run.get_context()
    ws = run.experiment.workspace
    ds = Datastore.get(ws, args.output_datastore)
    mapping = {"frame": ("df", "frame.txt")}
    for name, (df, file_path) in mapping.items():
        open(file_path, "w").write(name)
    ds.upload_files([file_path for name, (df, file_path) in mapping.items()])
"""
TRAIN = """
    from pathlib import Path
    import sys
    from azureml.core import Run
    ws = Run.get_context().experiment.workspace
    ds = ws.get_default_datastore()
    ds.download("here", prefix="frame.txt")
    print("trained on", Path(sys.argv[1], "myfile.parquet").read_text(), Path("here/frame.txt").read_text())
"""


def test_two_steps_that_share_a_datastore(project: Project) -> None:
    """The root of a datastore as input, data passed by mount and by upload, and where it is by the last parts of its path."""
    write(project, "steps/extract.py", EXTRACT)
    write(project, "steps/train.py", TRAIN)
    project.datastore.upload_files([str(project.write("in.txt", "raw rows"))], show_progress=False)
    submit = """
        from azureml.core import Workspace, Experiment
        from azureml.data.data_reference import DataReference
        from azureml.pipeline.core import Pipeline, PipelineData
        from azureml.pipeline.steps import PythonScriptStep
        aml_workspace = Workspace("subscription", "my-resource-group", "workspace-name")
        ds = aml_workspace.datastores["workspaceblobstore"]
        test_data = DataReference(datastore=ds, data_reference_name="test_data", path_on_datastore="")
        processed_data1 = PipelineData("processed_data1", datastore=ds)
        extractStep = PythonScriptStep(
            script_name="extract.py",
            arguments=["--input_extract", test_data, "--output_extract", processed_data1, "--output_datastore", ds.name],
            inputs=[test_data],
            outputs=[processed_data1],
            compute_target="aml_compute",
            source_directory="steps",
        )
        trainStep = PythonScriptStep(
            script_name="train.py",
            arguments=[processed_data1],
            inputs=[processed_data1],
            compute_target="aml_compute",
            source_directory="steps",
        )
        pipeline1 = Pipeline(workspace=aml_workspace, steps=[extractStep, trainStep])
        pipeline1.validate()
        run = Experiment(aml_workspace, "Data_dependency").submit(pipeline1)
        run.wait_for_completion()
    """
    out = project.play(submit)
    assert "trained on raw rows frame" in out
    [parts] = [line.split()[1] for line in out.splitlines() if line.startswith("parts ")]
    assert project.head().read_text(f"{parts}/myfile.parquet") == "raw rows"
    assert "frame.txt" in project.visible()


def test_outputs_that_reach_other_steps_in_odd_ways(project: Project) -> None:
    """`as_input()` on a reference, an output that is in the arguments only, an input that is in the environment only."""
    project.upload("dummy_dataset", data="1")
    write(project, "produce.py", """
        import argparse, shutil, os, glob
        parser = argparse.ArgumentParser()
        parser.add_argument("--output_path")
        args = parser.parse_args()
        open(os.path.join(args.output_path, "out.txt"), "w").write("produced")
    """)  # fmt: skip
    write(project, "consume.py", """
        import os
        print("consumed", open(os.path.join(os.environ["AZUREML_DATAREFERENCE_processed_data"], "out.txt")).read())
    """)  # fmt: skip
    out = project.play("""
        from azureml.core import Workspace, Datastore, Experiment
        from azureml.core.runconfig import RunConfiguration
        from azureml.pipeline.core import Pipeline, PipelineData
        from azureml.pipeline.steps import PythonScriptStep
        ws = Workspace.from_config()
        datastore = Datastore.get(ws, "workspaceblobstore")
        dummy_dataset_path = datastore.path("dummy_dataset/data.txt")
        output_data = PipelineData("processed_data", datastore=datastore)
        data_prep_step = PythonScriptStep(name="produce", script_name="produce.py", arguments=["--output_path", output_data],
            inputs=[dummy_dataset_path.as_input()], compute_target="cpu", source_directory=".", runconfig=RunConfiguration())
        consuming_step = PythonScriptStep(name="consume", script_name="consume.py", inputs=[output_data],
            compute_target="cpu", source_directory=".", runconfig=RunConfiguration())
        pipeline = Pipeline(workspace=ws, steps=[data_prep_step, consuming_step])
        Experiment(ws, "x").submit(pipeline).wait_for_completion()
    """)
    assert "consumed produced" in out


def test_an_output_below_a_reference_that_is_registered(project: Project) -> None:
    write(project, "produce.py", """
        import argparse, os
        parser = argparse.ArgumentParser()
        parser.add_argument("--output_dir")
        open(os.path.join(parser.parse_args().output_dir, "out.csv"), "w").write("a,b")
    """)  # fmt: skip
    write(project, "consume.py", """
        from azureml.core import Run
        import os
        print("files", [os.path.basename(path) for path in Run.get_context().input_datasets["processed"].to_path()])
    """)  # fmt: skip
    out = project.play("""
        from azureml.core import Workspace, Datastore, Experiment
        from azureml.data import OutputFileDatasetConfig
        from azureml.pipeline.core import Pipeline
        from azureml.pipeline.steps import PythonScriptStep
        ws = Workspace.from_config()
        datastore = ws.get_default_datastore()
        output_path_data = datastore.path("pipeline_outputs/processed_data_dir")
        output_data = OutputFileDatasetConfig(destination=(output_path_data, "csv")).register_on_complete("processed_output")
        one = PythonScriptStep("produce.py", arguments=["--output_dir", output_data], source_directory=".")
        two = PythonScriptStep("consume.py", inputs=[output_data.as_input("processed")], source_directory=".")
        Experiment(ws, "x").submit(Pipeline(ws, [one, two])).wait_for_completion(show_output=True)
    """)
    assert "files ['out.csv']" in out
    assert Dataset.get_by_name(project.workspace, "processed_output").to_path() == ["/out.csv"]
    assert project.head().read_text("pipeline_outputs/processed_data_dir/csv/out.csv") == "a,b"


def test_a_parameter_with_a_dataset_for_two_steps(project: Project) -> None:
    project.upload("raw", a="a")
    Dataset.File.from_files((project.datastore, "raw")).register(project.workspace, "my_dataset")
    write(project, "look.py", "import os, sys\nprint('found', os.listdir(sys.argv[1]))\n")
    out = project.play("""
        from azureml.core import Workspace, Dataset, Experiment
        from azureml.pipeline.core import Pipeline, PipelineParameter
        from azureml.pipeline.steps import PythonScriptStep
        ws = Workspace.from_config()
        dataset = Dataset.get_by_name(ws, name="my_dataset")
        dataset_param = PipelineParameter(name="input_dataset", default_value=dataset)
        steps = [PythonScriptStep(name=name, script_name="look.py", arguments=[dataset_param], compute_target="cpu",
                                  source_directory=".") for name in ("step1", "step2")]
        Experiment(ws, "x").submit(Pipeline(workspace=ws, steps=steps)).wait_for_completion()
    """)
    assert out.count("found ['a.txt']") == 2


def test_limits_of_snapshots_that_are_raised(project: Project) -> None:
    out = project.play("""
        import azureml._restclient.snapshots_client
        import azureml._restclient.constants
        azureml._restclient.snapshots_client.SNAPSHOT_MAX_SIZE_BYTES = "insert_desired_size"
        azureml._restclient.constants.SNAPSHOT_MAX_SIZE_BYTES = 1000
        print("set")
    """.replace("import azureml.", "import vds.azureml.").replace("        azureml.", "        vds.azureml."))  # fmt: skip
    assert "set" in out


REUSE = """
    from azureml.core import Workspace, Experiment
    from azureml.pipeline.core import Pipeline, PipelineData
    from azureml.pipeline.steps import PythonScriptStep
    ws = Workspace.from_config()
    output_data = PipelineData("output_data", datastore=ws.get_default_datastore())
    step = lambda name, reuse: PythonScriptStep(script_name="step.py", name=name, arguments=["--output", output_data],
        outputs=[output_data.as_named_output("output", "reuse")], compute_target="cpu", source_directory=".", allow_reuse=reuse)
"""


def test_one_output_of_three_steps_is_refused_with_their_names(project: Project) -> None:
    write(project, "step.py", "print('x')\n")
    said = project.play(REUSE + "    Pipeline(ws, [step('one', True), step('two', False), step('three', True)])\n", code=1)
    assert "output 'output_data' is put out by two steps, 'one' and 'two'" in said
    said = project.play(REUSE + "    step('one', False).run(allow_reuse=False)\n", code=1)
    assert "regenerate_outputs=True" in said


@pytest.mark.parametrize("how", ["sed", "vds run"])
def test_a_sample_of_the_documentation(project: Project, how: str) -> None:
    """Compute that is made when it is not there, an environment, a registered dataset, metrics and tags of the parent."""
    project.upload("raw", a="1,2")
    scripts = {
        "prep.py": """
            import argparse, os
            from azureml.core import Run
            run = Run.get_context()
            parser = argparse.ArgumentParser()
            parser.add_argument("--prepped-data", type=str, dest="prepped_data")
            args = parser.parse_args()
            rows = open(os.path.join(run.input_datasets["raw_data"], "a.txt")).read()
            run.log("raw_rows", len(rows.split(",")))
            os.makedirs(args.prepped_data, exist_ok=True)
            open(os.path.join(args.prepped_data, "data.csv"), "w").write(rows)
            run.complete()
        """,
        "train.py": """
            import argparse, os
            from azureml.core import Run
            parser = argparse.ArgumentParser()
            parser.add_argument("--training-data", type=str, dest="training_data")
            args = parser.parse_args()
            run = Run.get_context()
            os.makedirs("outputs", exist_ok=True)
            open("outputs/model.pkl", "w").write(open(os.path.join(args.training_data, "data.csv")).read())
            run.log("Accuracy", 0.9)
            run.parent.log(name="Accuracy", value=0.9)
            run.parent.tag("run_type", value="train")
            run.complete()
        """,
    }
    main = """
        from azureml.core import Workspace, Experiment, Environment, Dataset
        from azureml.core.compute import ComputeTarget, AmlCompute
        from azureml.core.compute_target import ComputeTargetException
        from azureml.core.conda_dependencies import CondaDependencies
        from azureml.core.runconfig import RunConfiguration, DEFAULT_CPU_IMAGE
        from azureml.data import OutputFileDatasetConfig
        from azureml.pipeline.core import Pipeline
        from azureml.pipeline.steps import PythonScriptStep
        from azureml.widgets import RunDetails

        ws = Workspace.from_config()
        print("Ready to use Azure ML", ws.name)
        cluster_name = "aml-cluster"
        try:
            pipeline_cluster = ComputeTarget(workspace=ws, name=cluster_name)
            print("Found existing cluster, use it.")
        except ComputeTargetException:
            compute_config = AmlCompute.provisioning_configuration(vm_size="STANDARD_DS11_V2", max_nodes=2)
            pipeline_cluster = ComputeTarget.create(ws, cluster_name, compute_config)
            pipeline_cluster.wait_for_completion(show_output=True)
        env = Environment("experiment_env")
        env.docker.enabled = True
        env.docker.base_image = DEFAULT_CPU_IMAGE
        env.python.user_managed_dependencies = False
        env.python.conda_dependencies = CondaDependencies.create(conda_packages=["pip"], pip_packages=["azureml-defaults"])
        env.register(workspace=ws)
        registered_env = Environment.get(ws, "experiment_env")
        pipeline_run_config = RunConfiguration()
        pipeline_run_config.target = pipeline_cluster
        pipeline_run_config.environment = registered_env
        diabetes_ds = Dataset.File.from_files((ws.get_default_datastore(), "raw"))
        diabetes_ds = diabetes_ds.register(ws, "diabetes dataset", create_new_version=True)
        prepped_data = OutputFileDatasetConfig("prepped_data")
        prep_step = PythonScriptStep(name="Prepare Data", source_directory="src", script_name="prep.py",
                                     arguments=["--prepped-data", prepped_data],
                                     inputs=[diabetes_ds.as_named_input("raw_data").as_mount()],
                                     compute_target=pipeline_cluster, runconfig=pipeline_run_config, allow_reuse=True)
        train_step = PythonScriptStep(name="Train and Register Model", source_directory="src", script_name="train.py",
                                      arguments=["--training-data", prepped_data.as_input()],
                                      compute_target=pipeline_cluster, runconfig=pipeline_run_config, allow_reuse=True)
        pipeline = Pipeline(workspace=ws, steps=[prep_step, train_step])
        pipeline_run = Experiment(workspace=ws, name="mslearn-diabetes-pipeline").submit(pipeline, regenerate_outputs=True)
        RunDetails(pipeline_run).show()
        pipeline_run.wait_for_completion(show_output=True)
        for run in pipeline_run.get_children():
            print(run.name, ":", run.get_metrics())
        print(pipeline_run.get_metrics(), pipeline_run.get_tags())
    """
    if how == "sed":
        for name, text in scripts.items():
            write(project, f"src/{name}", text)
        out = project.play(main)
    else:
        for name, text in scripts.items():
            project.write(f"src/{name}", text)
        project.write("unchanged.py", main)
        out = project.play("""
            import sys
            from vds.cli.main import main
            main(["run", "unchanged.py"])
        """)
        [outer] = project.store.runs(parent="")
        assert (outer.name, outer.status) == ("unchanged.py", "completed")
        assert [info.kind for info in project.store.runs(parent=outer.id)] == ["pipeline"]
    assert "Prepare Data : {'raw_rows': 2}" in out
    assert "Train and Register Model : {'Accuracy': 0.9}" in out
    assert "{'Accuracy': 0.9} {'run_type': 'train'}" in out
