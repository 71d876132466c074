"""Models: registered as datasets here."""

from __future__ import annotations

from typing import Any, NoReturn

from vds.azureml.exceptions import NotInVdsError


class Model:
    """Refused: register the files as a dataset, whose versions are numbered alike."""

    def __init__(self, *_: object, **__: object) -> None:
        _refuse()

    @staticmethod
    def register(*_: object, **__: object) -> Any:
        """Refused.

        Raises:
            NotInVdsError: always.
        """
        _refuse()

    get_model_path = deploy = list = register


def _refuse() -> NoReturn:
    raise NotInVdsError(
        "azureml.core.model.Model needs the AzureML service",
        hint="upload the files and register them: Dataset.File.from_files((datastore, 'outputs/model')).register(ws, 'my model')",
    )
