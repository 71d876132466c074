"""Runs of pipelines and of their steps."""

from vds.azureml.core.pipelinerun import PipelineRun, StepRun, StepRunOutput
from vds.azureml.core.port import PortDataReference

__all__ = ["PipelineRun", "PortDataReference", "StepRun", "StepRunOutput"]
