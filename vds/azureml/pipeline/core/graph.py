"""Parameters of pipelines."""

from __future__ import annotations

from typing import Any

from vds.azureml.pipeline.core.pipeline_data import InputPortBinding, PipelineData, PipelineDataset

__all__ = ["InputPortBinding", "PipelineData", "PipelineDataset", "PipelineParameter"]


class PipelineParameter:
    """A value that is known when the pipeline is submitted: a number, a text, or a dataset."""

    def __init__(self, name: str, default_value: Any) -> None:
        self.name = name
        self.default_value = default_value

    def __str__(self) -> str:
        return f"PipelineParameter_Name:{self.name}_Default:{self.default_value}"

    def vds_is_parameter(self) -> bool:
        """True: `submit(…, pipeline_parameters=…)` gives it a value."""
        return True
