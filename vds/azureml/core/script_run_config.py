"""A script to be run by itself."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from vds.azureml.core.environment import Environment
from vds.azureml.core.runconfig import RunConfiguration, facts_of_parts
from vds.azureml.exceptions import UserErrorException
from vds.azureml.local.given import StepCall
from vds.azureml.notices import ignore


class ScriptRunConfig:
    """A script (or a command), its directory and its arguments."""

    def __init__(
        self,
        source_directory: str | os.PathLike[str] | None,
        script: str | None = None,
        arguments: Sequence[Any] | str | None = None,
        run_config: RunConfiguration | None = None,
        _telemetry_values: object = None,
        compute_target: Any = None,
        environment: Environment | None = None,
        distributed_job_config: object = None,
        resume_from: object = None,
        max_run_duration_seconds: float | None = None,
        command: Sequence[str] | str | None = None,
        docker_runtime_config: object = None,
    ) -> None:
        """Describe a run.

        Raises:
            UserErrorException: neither a script nor a command is named, or both are.
        """
        if (script is None) == (command is None):
            raise UserErrorException("give either a script or a command", hint="ScriptRunConfig('.', script='train.py')")
        ignore(
            "ScriptRunConfig",
            "scripts run on this machine",
            compute_target=compute_target,
            distributed_job_config=distributed_job_config,
            resume_from=resume_from,
            docker_runtime_config=docker_runtime_config,
        )
        self.source_directory = source_directory or "."
        self.script = script
        self.arguments = shlex.split(arguments) if isinstance(arguments, str) else list(arguments or [])
        self.command = command
        self.run_config = run_config or RunConfiguration()
        if environment is not None:
            self.run_config.environment = environment
        if max_run_duration_seconds is not None:
            self.run_config.max_run_duration_seconds = max_run_duration_seconds

    def vds_call(self, inputs: Sequence[Any] = ()) -> StepCall:
        """Return what it does; a script by itself is run each time."""
        config = self.run_config
        facts = facts_of_parts(config.environment, config.environment_variables, config.max_run_duration_seconds)
        command = [self.command] if isinstance(self.command, str) else list(self.command or [])
        return StepCall(
            name=PurePath(self.script or str(command[0]).split()[0]).stem,
            script=self.script or "",
            source_directory=self.source_directory,
            arguments=self.arguments,
            inputs=inputs,
            allow_reuse=False,
            environment=facts.environment,
            variables=facts.variables,
            timeout_s=facts.timeout_s,
            command=command,
        )
