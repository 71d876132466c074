"""How a script is to be run. Environment variables and a time limit count here; machines, images and packages are accepted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vds.azureml.core.environment import Environment

DEFAULT_CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"
DEFAULT_GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.3-cudnn8-ubuntu20.04"


class DockerConfiguration:
    """Accepted; scripts run without containers."""

    def __init__(
        self, use_docker: bool = False, shared_volumes: bool = True, arguments: Any = None, shm_size: Any = None
    ) -> None:
        self.use_docker = use_docker
        self.shared_volumes = shared_volumes
        self.arguments = list(arguments or [])
        self.shm_size = shm_size


class MpiConfiguration:
    """Accepted; scripts run as one process."""

    def __init__(self, process_count_per_node: int = 1, node_count: int = 1) -> None:
        self.process_count_per_node = process_count_per_node
        self.node_count = node_count


class RunConfiguration:
    """How a script is to be run."""

    def __init__(
        self, script: str | None = None, arguments: Any = None, framework: Any = None, communicator: Any = None, **_: object
    ) -> None:
        self.script = script
        self.arguments = list(arguments or [])
        self.framework = framework
        self.communicator = communicator
        self.target: Any = "local"
        self.environment = Environment()
        self.environment_variables: dict[str, str] = {}
        self.max_run_duration_seconds: float | None = None
        self.node_count = 1
        self.docker = DockerConfiguration()
        self.mpi = MpiConfiguration()
        self.history = SimpleNamespace(output_collection=True, snapshot_project=True, directories_to_watch=["logs"])
        self.data: dict[str, Any] = {}
        self.data_references: dict[str, Any] = {}
        self.output_data: dict[str, Any] = {}
        self.amlcompute = SimpleNamespace(vm_size=None, vm_priority=None)

    def vds_facts(self) -> RunFacts:
        """Return what of it counts here."""
        return facts_of_parts(self.environment, self.environment_variables, self.max_run_duration_seconds)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What of a run configuration counts here.

    Attributes:
        environment: what decides about reuse, by name.
        variables: environment variables for the script.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None


def facts_of(config: RunConfiguration | None) -> RunFacts:
    """Return what of a run configuration, which may be missing, counts here."""
    return RunFacts() if config is None else config.vds_facts()


def facts_of_parts(environment: Environment | None, variables: Mapping[str, str] | None, timeout_s: float | None) -> RunFacts:
    """Return what counts of an environment, variables and a time limit."""
    described = {} if environment is None else {"described": json.dumps(environment.vds_facts(), sort_keys=True)}
    own = {} if environment is None else environment.environment_variables
    given = {**own, **dict(variables or {})}
    return RunFacts(described, {str(key): str(value) for key, value in given.items()}, timeout_s)
