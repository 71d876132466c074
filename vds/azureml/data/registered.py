"""The registered datasets of a workspace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vds.azureml import catalog
from vds.azureml.data.kinds import dataset_of
from vds.azureml.exceptions import NotFoundException
from vds.azureml.faces import WorkspaceFace


class RegisteredDatasets(Mapping[str, Any]):
    """Name → the latest version of each registered dataset; each is looked up when it is asked for."""

    def __init__(self, workspace: WorkspaceFace) -> None:
        self._workspace = workspace

    def __repr__(self) -> str:
        return repr(sorted(self))

    def __getitem__(self, name: str) -> Any:
        try:
            return dataset_of(self._workspace, catalog.get(self._workspace.store, name))
        except NotFoundException as err:
            raise KeyError(name) from err

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in catalog.list_all(self._workspace.store))

    def __len__(self) -> int:
        return sum(1 for _ in self)
