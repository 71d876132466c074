"""The step that runs a Python script."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from vds.azureml.core.runconfig import RunConfiguration, facts_of
from vds.azureml.exceptions import UserErrorException
from vds.azureml.local.given import StepCall
from vds.azureml.notices import ignore
from vds.azureml.pipeline.core.builder import PipelineStep


class PythonScriptStep(PipelineStep):
    """Runs a script on this machine, from a copy of its directory; what it puts out is kept when it has succeeded."""

    def __init__(
        self,
        script_name: str,
        name: str | None = None,
        arguments: Iterable[Any] | None = None,
        compute_target: Any = None,
        runconfig: RunConfiguration | None = None,
        runconfig_pipeline_params: Mapping[str, Any] | None = None,
        inputs: Iterable[Any] | None = None,
        outputs: Iterable[Any] | None = None,
        params: Mapping[str, Any] | None = None,
        source_directory: str | os.PathLike[str] | None = None,
        allow_reuse: bool = True,
        version: str | None = None,
        hash_paths: Iterable[str] | None = None,
        **kwargs: object,
    ) -> None:
        """Describe a step; whether its script is there is looked at when the pipeline is submitted.

        Args:
            script_name: the script, below `source_directory`.
            name: by default the script's name.
            arguments: of the script: texts, numbers, inputs and outputs, in whose place it gets their absolute paths.
            compute_target: has no effect.
            runconfig: its environment variables are set; its environment is part of what decides about reuse.
            runconfig_pipeline_params: has no effect.
            inputs: datasets, references and outputs of other steps.
            outputs: what it puts out.
            params: environment variables `AML_PARAMETER_<name>`.
            source_directory: of the script; by default that of the pipeline, else the working directory.
            allow_reuse: use an earlier result with the same code, inputs, arguments and environment again.
            version: part of what decides about reuse.
            hash_paths: has no effect: all code counts.
            kwargs: have no effect.

        Raises:
            UserErrorException: no script is named.
        """
        if not script_name:
            raise UserErrorException("script_name is required", hint="PythonScriptStep(script_name='train.py')")
        ignore(
            "PythonScriptStep",
            "steps run on this machine",
            compute_target=compute_target,
            runconfig_pipeline_params=runconfig_pipeline_params,
            hash_paths=hash_paths,
            **kwargs,
        )
        super().__init__(name or script_name)
        self._script = script_name
        self._arguments = list(arguments or [])
        self._inputs, self._outputs = list(inputs or []), list(outputs or [])
        self._runconfig = runconfig
        self._params = dict(params or {})
        self._source_directory = source_directory
        self._allow_reuse = allow_reuse
        self._version = version

    def vds_call(self) -> StepCall:
        """Return what it does."""
        facts = facts_of(self._runconfig)
        return StepCall(
            name=self.name,
            script=self._script,
            source_directory=self._source_directory or "",
            arguments=self._arguments,
            inputs=self._inputs,
            outputs=self._outputs,
            allow_reuse=self._allow_reuse,
            environment={**facts.environment, **({"version": self._version} if self._version else {})},
            variables={**facts.variables, **{f"AML_PARAMETER_{key}": str(value) for key, value in self._params.items()}},
            after=[step.name for step in self.after],
            timeout_s=facts.timeout_s,
        )

    def run(self, *_: object, **__: object) -> None:
        """Refused: steps run as part of a pipeline.

        Raises:
            UserErrorException: always.
        """
        raise UserErrorException(
            f"step {self.name!r} cannot be run by itself",
            hint="Experiment(ws, NAME).submit(Pipeline(ws, [step]), regenerate_outputs=True) runs it whatever there is to reuse",
        )
