"""What scripts import from `azureml.core`."""

from vds.azureml.core.compute import ComputeTarget
from vds.azureml.core.conda_dependencies import CondaDependencies
from vds.azureml.core.dataset import Dataset
from vds.azureml.core.datastore import Datastore
from vds.azureml.core.environment import Environment
from vds.azureml.core.experiment import Experiment
from vds.azureml.core.model import Model
from vds.azureml.core.run import Run
from vds.azureml.core.runconfig import RunConfiguration
from vds.azureml.core.script_run_config import ScriptRunConfig
from vds.azureml.core.workspace import Workspace

VERSION = __version__ = "1.61.0"
"""The version of the SDK whose names these are: scripts print it."""

__all__ = [
    "VERSION",
    "ComputeTarget",
    "CondaDependencies",
    "Dataset",
    "Datastore",
    "Environment",
    "Experiment",
    "Model",
    "Run",
    "RunConfiguration",
    "ScriptRunConfig",
    "Workspace",
]
