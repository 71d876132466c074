"""What scripts import from `azureml.data.dataset_factory`."""

from vds.azureml.data.file_factory import FileDatasetFactory
from vds.azureml.data.tabular_factory import DataType, TabularDatasetFactory

__all__ = ["DataType", "FileDatasetFactory", "TabularDatasetFactory"]
