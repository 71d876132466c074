"""What scripts import from `azureml.data`."""

from vds.azureml.data.data_reference import DataReference
from vds.azureml.data.dataset_consumption_config import DatasetConsumptionConfig
from vds.azureml.data.file_dataset import FileDataset
from vds.azureml.data.output_dataset_config import OutputFileDatasetConfig
from vds.azureml.data.tabular_dataset import TabularDataset

__all__ = ["DataReference", "DatasetConsumptionConfig", "FileDataset", "OutputFileDatasetConfig", "TabularDataset"]
