"""Which class a registered dataset is of; the classes enter themselves, so that no module needs to know them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from vds.azureml.catalog import Registered
from vds.azureml.exceptions import UserErrorException
from vds.azureml.faces import WorkspaceFace

FILES = "file"


class DatasetKind(Protocol):
    """A class of datasets."""

    def _of_registered(self, workspace: WorkspaceFace, registered: Registered) -> Any:
        """Return a registered dataset as one of this class."""


C = TypeVar("C", bound=DatasetKind)
_kinds: dict[str, DatasetKind] = {}


def kind(name: str) -> Callable[[C], C]:
    """Enter a class under the kind that its registrations have."""

    def enter(cls: C) -> C:
        _kinds[name] = cls
        return cls

    return enter


def dataset_of(workspace: WorkspaceFace, registered: Registered) -> Any:
    """Return the dataset that was registered.

    Raises:
        UserErrorException: a newer vds registered it, as something that this one does not know.
    """
    name = str(registered.definition.get("kind", FILES))
    if name not in _kinds:
        raise UserErrorException(
            f"dataset {registered.name!r} is of kind {name!r}, which this vds does not know", hint="upgrade vds"
        )
    return _kinds[name]._of_registered(workspace, registered)
