"""A dataset as the input of a step."""

from __future__ import annotations

import re
import uuid
from typing import Any

from vds.azureml import catalog
from vds.azureml.data.kinds import dataset_of
from vds.azureml.exceptions import UserErrorException
from vds.azureml.selection import Selection, select

MODES = ("direct", "download", "mount", "hdfs")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class DatasetConsumptionConfig:
    """How a step gets a dataset: under which name, and as a dataset (`direct`) or as local files (`mount`, `download`).

    Attributes:
        dataset: a dataset, or what stands for one until the step runs: a PipelineParameter, an output of another step.
        mode: `direct`, `mount` or `download`; the last two mean a local, read-only directory or file.
        path_on_compute: where a step asks for it; None for anywhere.
    """

    def __init__(self, name: str | None, dataset: Any, mode: str = "direct", path_on_compute: str | None = None) -> None:
        """Describe the input.

        Args:
            name: letters, digits and `_`, not beginning with a digit; it becomes a variable of the step. None makes one.
            dataset: a dataset, a PipelineParameter with one, or a tuple (workspace, name[, version]).
            mode: see above.
            path_on_compute: see above.

        Raises:
            UserErrorException: the name or the mode is none, or the dataset is tabular and the mode is not `direct`.
        """
        self.mode = mode.lower()
        self.dataset = _look_up(dataset)
        self.path_on_compute = path_on_compute
        self._name = check_input_name(name) if name else _made_name(self.dataset)
        if self.mode not in MODES:
            raise UserErrorException(f"Invalid mode '{mode}'. Mode can only be mount, download, hdfs, link, or direct")
        if self.mode != "direct" and getattr(self._own_dataset(), "is_tabular", False):
            kind = type(self._own_dataset())
            raise UserErrorException(f"{kind} does not support {mode}. Only FileDataset supports {mode}")
        if self.mode == "hdfs":
            raise UserErrorException("mode 'hdfs' needs Synapse Spark", hint="as_mount() gives a local directory")

    def __repr__(self) -> str:
        return f"DatasetConsumptionConfig({self._name!r}, {self.dataset!r}, mode={self.mode!r})"

    @property
    def name(self) -> str:
        """The name of the input."""
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = check_input_name(value)

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """Return the same input in mode mount."""
        return DatasetConsumptionConfig(self._name, self.dataset, "mount", path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """Return the same input in mode download."""
        return DatasetConsumptionConfig(self._name, self.dataset, "download", path_on_compute)

    def as_hdfs(self) -> DatasetConsumptionConfig:
        """Refuse: this needs Synapse Spark.

        Raises:
            UserErrorException: always.
        """
        return DatasetConsumptionConfig(self._name, self.dataset, "hdfs")

    def vds_selection(self) -> Selection:
        """Return the files of the dataset."""
        return select(self._own_dataset())

    def _own_dataset(self) -> Any:
        return getattr(self.dataset, "default_value", self.dataset)


def check_input_name(name: str) -> str:
    """Return `name` if it can name an input.

    Raises:
        UserErrorException: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserErrorException(
            f'Invalid input name "{name}". The name can only be alphanumeric characters and underscore, and must not begin with a'
            " number."
        )
    return name


def _look_up(dataset: Any) -> Any:
    if not isinstance(dataset, tuple):
        return dataset
    workspace, name, *version = dataset
    return dataset_of(workspace, catalog.get(workspace.store, name, *version))


def _made_name(dataset: object) -> str:
    known = getattr(dataset, "id", None)
    return f"input_{str(known or uuid.uuid4()).split('-')[0]}"
