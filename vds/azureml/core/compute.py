"""Compute targets: any name is taken, nothing is made; steps run on the machine that runs the script."""

from __future__ import annotations

from typing import Any

from vds.azureml.exceptions import UserErrorException
from vds.azureml.notices import say_once


class ComputeTargetException(UserErrorException):
    """What the SDK raises where there is no such target; here every name is one."""


class ComputeTarget:
    """A name for this machine."""

    def __init__(self, workspace: object = None, name: str = "local", **_: object) -> None:
        say_once(f"compute target {name!r} is this machine: steps run here", "compute targets")
        self.workspace = workspace
        self.name = name
        self.type = "local"
        self.provisioning_state = "Succeeded"

    @staticmethod
    def create(workspace: object, name: str, provisioning_configuration: object = None) -> ComputeTarget:
        """Return a name for this machine; nothing is made in Azure."""
        return ComputeTarget(workspace, name)

    @staticmethod
    def list(workspace: object) -> list[ComputeTarget]:
        """Return none."""
        return []

    def wait_for_completion(self, show_output: bool = False, **_: object) -> None:
        """Return at once."""

    def get_status(self) -> ComputeTarget:
        """Return itself: it is there."""
        return self

    def serialize(self) -> dict[str, Any]:
        """Return what is known of it."""
        return {"name": self.name, "type": self.type, "provisioningState": self.provisioning_state}

    def delete(self) -> None:
        """Do nothing: nothing was made."""


class AmlCompute(ComputeTarget):
    """A name for this machine."""

    @staticmethod
    def provisioning_configuration(vm_size: str = "", **settings: object) -> dict[str, object]:
        """Return the settings, which have no effect."""
        return {"vm_size": vm_size, **settings}


class ComputeInstance(AmlCompute):
    """A name for this machine."""


class ComputeTargets(dict[str, ComputeTarget]):
    """The targets of a workspace: none are known, and whatever is asked for is this machine."""

    def __missing__(self, name: str) -> ComputeTarget:
        return ComputeTarget(None, name)
