"""Datasets, by name."""

from __future__ import annotations

from vds.azureml.data.abstract_dataset import AbstractDataset
from vds.azureml.data.dataset_factory import FileDatasetFactory, TabularDatasetFactory


class Dataset:
    """Makes datasets (`Dataset.File`, `Dataset.Tabular`) and finds registered ones."""

    File = FileDatasetFactory
    Tabular = TabularDatasetFactory

    get_by_name = staticmethod(AbstractDataset.get_by_name)
    get_by_id = staticmethod(AbstractDataset.get_by_id)
    get_all = staticmethod(AbstractDataset.get_all)
