"""What scripts import from `azureml.core.compute_target`."""

from vds.azureml.core.compute import ComputeTarget, ComputeTargetException

__all__ = ["ComputeTarget", "ComputeTargetException"]
