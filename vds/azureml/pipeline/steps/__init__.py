"""What scripts import from `azureml.pipeline.steps`."""

from typing import Any

from vds.azureml.exceptions import UserErrorException
from vds.azureml.pipeline.steps.python_script_step import PythonScriptStep

__all__ = ["PythonScriptStep"]


def __getattr__(name: str) -> Any:
    if name.endswith("Step") and name[0].isupper():
        # No AttributeError: `from … import` would say no more than that there is no such name.
        raise UserErrorException(f"azureml.pipeline.steps.{name} needs the AzureML service", hint="use PythonScriptStep")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
