"""What scripts import from `azureml.pipeline.steps`."""

from typing import Any

from vds.azureml.exceptions import NotInVdsError
from vds.azureml.pipeline.steps.python_script_step import PythonScriptStep

__all__ = ["PythonScriptStep"]


def __getattr__(name: str) -> Any:
    if name.endswith("Step") and name[0].isupper():
        raise NotInVdsError(f"azureml.pipeline.steps.{name} needs the AzureML service", hint="use PythonScriptStep")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
