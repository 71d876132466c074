"""Modules that scripts import for machines, logins and limits: all are there, and none of them stands in the way."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from vds.azureml.core import VERSION, Model, Workspace
from vds.azureml.core.compute import AmlCompute, ComputeTarget
from vds.azureml.exceptions import NotInVdsError, UserErrorException
from vds.azureml.pipeline import steps

IMPORTS = {
    "core": "Workspace Datastore Dataset Run Experiment ScriptRunConfig Environment ComputeTarget RunConfiguration VERSION",
    "core.run": "Run _convert_to_dataset_input",
    "core.runconfig": "RunConfiguration DockerConfiguration MpiConfiguration DEFAULT_CPU_IMAGE",
    "core.conda_dependencies": "CondaDependencies",
    "core.compute": "ComputeTarget AmlCompute ComputeInstance",
    "core.compute_target": "ComputeTargetException",
    "core.authentication": "InteractiveLoginAuthentication ServicePrincipalAuthentication MsiAuthentication",
    "core.environment": "Environment",
    "core.experiment": "Experiment",
    "core.workspace": "Workspace",
    "core.datastore": "Datastore",
    "core.dataset": "Dataset",
    "core.script_run_config": "ScriptRunConfig",
    "data": "OutputFileDatasetConfig DataReference FileDataset TabularDataset DatasetConsumptionConfig",
    "data.data_reference": "DataReference",
    "data.datapath": "DataPath DataPathComputeBinding",
    "data.azure_storage_datastore": "AzureBlobDatastore",
    "data.dataset_consumption_config": "DatasetConsumptionConfig",
    "data.output_dataset_config": "OutputFileDatasetConfig",
    "data.file_dataset": "FileDataset",
    "data.tabular_dataset": "TabularDataset",
    "pipeline.core": "Pipeline PipelineData PipelineParameter PipelineRun StepRun PipelineDataset StepSequence PortDataReference",
    "pipeline.core.graph": "PipelineParameter",
    "pipeline.core.run": "PipelineRun StepRun",
    "pipeline.steps": "PythonScriptStep",
    "exceptions": "UserErrorException ActivityFailedException RunEnvironmentException",
    "widgets": "RunDetails",
    "_restclient.snapshots_client": "SNAPSHOT_MAX_SIZE_BYTES",
    "_restclient.constants": "SNAPSHOT_MAX_SIZE_BYTES",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_what_scripts_import_is_there(name: str) -> None:
    module = importlib.import_module(f"vds.azureml.{name}")
    assert [one for one in IMPORTS[name].split() if not hasattr(module, one)] == []


def test_compute_targets_are_this_machine(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cpu-cluster" not in ws.compute_targets
    found = ws.compute_targets["cpu-cluster"]
    made = ComputeTarget.create(ws, "cpu-cluster", AmlCompute.provisioning_configuration("STANDARD_D2_V2", max_nodes=4))
    made.wait_for_completion(show_output=True)
    assert (found.name, made.name, made.get_status().provisioning_state) == ("cpu-cluster", "cpu-cluster", "Succeeded")
    assert ws.get_default_compute_target().type == "local"
    assert capsys.readouterr().err.count("this machine") == 1


def test_a_login_is_not_kept(here: Path, ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    authentication = importlib.import_module("vds.azureml.core.authentication")
    made = authentication.ServicePrincipalAuthentication("tenant", "client", service_principal_password="hunter2")
    assert "hunter2" not in repr(vars(made)) + capsys.readouterr().err
    assert Workspace.from_config(auth=made).store.url == ws.store.url


def test_a_limit_can_be_lifted() -> None:
    client: Any = importlib.import_module("vds.azureml._restclient.snapshots_client")
    before = client.SNAPSHOT_MAX_SIZE_BYTES
    client.SNAPSHOT_MAX_SIZE_BYTES = "insert_desired_size"
    client.SNAPSHOT_MAX_SIZE_BYTES = before
    assert VERSION.startswith("1.")


def test_what_needs_the_service_says_what_to_use() -> None:
    with pytest.raises(NotInVdsError, match="Model") as caught:
        Model.register(None, model_path="outputs/model.pkl")
    assert "register" in str(caught.value.hint)
    with pytest.raises(UserErrorException, match="ParallelRunStep"):
        _ = steps.ParallelRunStep
    with pytest.raises(AttributeError):
        _ = steps.nothing
