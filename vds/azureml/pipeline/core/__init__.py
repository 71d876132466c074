"""What scripts import from `azureml.pipeline.core`."""

from vds.azureml.pipeline.core.builder import PipelineStep, StepSequence
from vds.azureml.pipeline.core.graph import PipelineParameter
from vds.azureml.pipeline.core.pipeline import Pipeline
from vds.azureml.pipeline.core.pipeline_data import InputPortBinding, PipelineData, PipelineDataset, PipelineOutputFileDataset
from vds.azureml.pipeline.core.run import PipelineRun, PortDataReference, StepRun

__all__ = [
    "InputPortBinding",
    "Pipeline",
    "PipelineData",
    "PipelineDataset",
    "PipelineOutputFileDataset",
    "PipelineParameter",
    "PipelineRun",
    "PipelineStep",
    "PortDataReference",
    "StepRun",
    "StepSequence",
]
