"""What scripts import from `azureml.data`."""

from vds.azureml.data.dataset_consumption_config import DatasetConsumptionConfig
from vds.azureml.data.file_dataset import FileDataset

__all__ = ["DatasetConsumptionConfig", "FileDataset"]
