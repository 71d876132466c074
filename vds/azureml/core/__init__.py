"""What scripts import from `azureml.core`."""

from vds.azureml.core.dataset import Dataset
from vds.azureml.core.datastore import Datastore
from vds.azureml.core.workspace import Workspace

__all__ = ["Dataset", "Datastore", "Workspace"]
