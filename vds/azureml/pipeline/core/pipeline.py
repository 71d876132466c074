"""Pipelines: steps that are submitted together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vds.azureml.core.experiment import Experiment
from vds.azureml.exceptions import NotInVdsError, UserErrorException
from vds.azureml.local.given import read_step
from vds.azureml.local.graph import check_scripts, order_steps
from vds.azureml.local.spec import Port, StepSpec
from vds.azureml.notices import ignore
from vds.azureml.pipeline.core.builder import PipelineStep, flatten, unique_names

if TYPE_CHECKING:
    from vds.azureml.pipeline.core.run import PipelineRun


class Pipeline:
    """Steps, and which of them wait for which: from the outputs they read. What is wrong with that is said when it is made."""

    def __init__(
        self,
        workspace: Any,
        steps: Any,
        description: str | None = None,
        default_datastore: Any = None,
        default_source_directory: str | os.PathLike[str] | None = None,
        resolve_closure: bool = True,
        _workflow_provider: object = None,
        _service_endpoint: object = None,
        **kwargs: object,
    ) -> None:
        """Put steps together: one, a list of them, lists in lists, sequences.

        Raises:
            UserErrorException: two steps put out one output, steps wait for each other, or one reads what nobody puts out.
        """
        ignore("Pipeline", "steps run on this machine", **kwargs)
        self.workspace = workspace
        self.description = description
        self.default_datastore = default_datastore
        self._source_directory = default_source_directory
        listed = flatten([steps])
        self._steps = _closure(listed) if resolve_closure else listed
        order_steps(self.specs({}))

    @property
    def steps(self) -> list[PipelineStep]:
        """The steps."""
        return list(self._steps)

    def validate(self) -> list[str]:
        """Check what can be checked before a run: scripts too. Returns nothing, as there is nothing to complain of.

        Raises:
            UserErrorException: what is wrong.
        """
        specs = self.specs({})
        order_steps(specs)
        check_scripts(specs)
        return []

    def submit(
        self,
        experiment_name: str,
        pipeline_parameters: Mapping[str, Any] | None = None,
        continue_on_step_failure: bool = False,
        regenerate_outputs: bool = False,
        parent_run_id: str | None = None,
        credential_passthrough: bool | None = None,
        **kwargs: Any,
    ) -> PipelineRun:
        """Run the pipeline; see `Experiment.submit`."""
        ignore("Pipeline.submit", "steps run as this user", credential_passthrough=credential_passthrough)
        run: PipelineRun = Experiment(self.workspace, experiment_name).submit(
            self,
            pipeline_parameters=pipeline_parameters,
            continue_on_step_failure=continue_on_step_failure,
            regenerate_outputs=regenerate_outputs,
            **kwargs,
        )
        return run

    def publish(self, *_: object, **__: object) -> None:
        """Refused: there is no service that would keep it.

        Raises:
            NotInVdsError: always.
        """
        raise NotInVdsError("pipelines cannot be published", hint="run the script that submits it, from cron or a CI job")

    publish_to_endpoint = publish

    def specs(self, values: Mapping[str, Any]) -> list[StepSpec]:
        """Return the steps as the runner takes them, with the values of parameters.

        Raises:
            UserErrorException: there is no parameter of such a name, or something cannot be an input or output.
        """
        names = unique_names(self._steps)
        calls = [
            replace(step.vds_call(), name=names[step], after=[names.get(other, other.name) for other in step.after])
            for step in self._steps
        ]
        if self._source_directory is not None:
            calls = [call if call.source_directory else replace(call, source_directory=self._source_directory) for call in calls]
        calls = [replace(call, source_directory=call.source_directory or ".") for call in calls]
        ports = [call.ports_put_out() for call in calls]
        made = []
        for number, call in enumerate(calls):
            elsewhere: set[Port] = set().union(*(ports[other] for other in range(len(calls)) if other != number))
            made.append(read_step(call, values, elsewhere))
        return made

    def parameter_names(self) -> set[str]:
        """Return the names of the parameters that the steps use."""
        given = [one for step in self._steps for call in [step.vds_call()] for one in (*call.arguments, *call.inputs)]
        nested = [getattr(one, "dataset", None) for one in given]
        return {one.name for one in (*given, *nested) if hasattr(one, "vds_is_parameter")}

    def check_values(self, values: Mapping[str, Any]) -> None:
        """Check that the parameters are there.

        Raises:
            UserErrorException: one is not.
        """
        known = self.parameter_names()
        for name in values:
            if name not in known:
                shown = ", ".join(sorted(known)) or "none"
                raise UserErrorException(f"the pipeline has no parameter {name!r}: it has {shown}")


def _closure(steps: list[PipelineStep]) -> list[PipelineStep]:
    """Return the steps and those that they were told to run after."""
    found = list(dict.fromkeys(steps))
    for step in found:  # which grows meanwhile
        found += [other for other in step.after if other not in found]
    return found
