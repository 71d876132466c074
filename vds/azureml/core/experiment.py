"""Experiments: the name that runs have in common, and the way to begin one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from vds.azureml.configuration import WorkspaceFacts
from vds.azureml.core.pipelinerun import PipelineRun, StepRun, pipeline_output_param
from vds.azureml.core.run import Run
from vds.azureml.core.script_run_config import ScriptRunConfig
from vds.azureml.data.file_dataset import FileDataset
from vds.azureml.exceptions import UserErrorException
from vds.azureml.local.conductor import Conductor
from vds.azureml.local.given import read_step
from vds.azureml.local.graph import check_scripts, order_steps
from vds.azureml.local.spec import Port, Registration, StepSpec
from vds.azureml.local.work import Work
from vds.azureml.local.workdir import drop_old
from vds.azureml.notices import ignore
from vds.azureml.selection import Selection

if TYPE_CHECKING:
    from vds.azureml.core.workspace import Workspace
    from vds.store import Store

IGNORE_COMMENTS_VARIABLE = "VDS_IGNORE_COMMENTS"
NO_REUSE_VARIABLE = "VDS_NO_REUSE"


class Experiment:
    """A name for runs of one kind."""

    def __init__(self, workspace: Workspace, name: str, **_: object) -> None:
        self.workspace = workspace
        self.name = name

    def __repr__(self) -> str:
        return f"Experiment(Name: {self.name}, Workspace: {self.workspace.name})"

    @property
    def id(self) -> str:
        """Its name."""
        return self.name

    def submit(
        self,
        config: Any,
        tags: Mapping[str, str] | None = None,
        *,
        pipeline_parameters: Mapping[str, Any] | None = None,
        continue_on_step_failure: bool = False,
        regenerate_outputs: bool = False,
        ignore_comments: bool | None = None,
        inputs: Mapping[str, Any] | None = None,
        **kwargs: object,
    ) -> Any:
        """Run a pipeline, or a script, on this machine, behind this call; `wait_for_completion` waits for it.

        What it reads is pinned now. A process that comes to its end waits for what it has submitted.

        Args:
            config: a Pipeline or a ScriptRunConfig.
            tags: kept with the run.
            pipeline_parameters: values of the pipeline's parameters.
            continue_on_step_failure: still begin steps that do not depend on one that failed.
            regenerate_outputs: run every step, whatever there is to use again; VDS_NO_REUSE=1 does the same.
            ignore_comments: let comments and layout of Python files make no difference to reuse; VDS_IGNORE_COMMENTS=1 too.
            inputs: of a script: name → dataset or output of another run.
            kwargs: have no effect.

        Raises:
            UserErrorException: steps or scripts are not as they must be; nothing was begun.
        """
        ignore("Experiment.submit", "runs are on this machine", **kwargs)
        drop_old()
        submission = _Submission(self, _is_set(NO_REUSE_VARIABLE) or regenerate_outputs, ignore_comments, dict(tags or {}))
        if isinstance(config, ScriptRunConfig):
            return submission.submit_script(config, dict(inputs or {}))
        if hasattr(config, "specs"):
            return submission.submit_pipeline(config, dict(pipeline_parameters or {}), goes_on=continue_on_step_failure)
        raise UserErrorException(f"{config!r} cannot be submitted", hint="give a Pipeline or a ScriptRunConfig")

    def start_logging(self, *_: object, **__: object) -> Run:
        """Begin a run that this process does itself; `complete()` ends it."""
        return Run.begin(self)

    def get_runs(self, *_: object, **__: object) -> Iterator[Run]:
        """Yield the experiment's runs, newest first."""
        found = [info for info in self.workspace.store.runs() if info.params.get("experiment") == self.name]
        own = {info.id for info in found}
        yield from (Run.of(self, info.id) for info in found if info.parent not in own)


class _Submission:
    """One call of `submit`."""

    def __init__(self, experiment: Experiment, regenerates: bool, ignore_comments: bool | None, tags: dict[str, str]) -> None:
        self._experiment = experiment
        self._regenerates = regenerates
        self._ignores_comments = _is_set(IGNORE_COMMENTS_VARIABLE) if ignore_comments is None else ignore_comments
        self._tags = tags

    @property
    def _workspace(self) -> Workspace:
        return self._experiment.workspace

    @property
    def _store(self) -> Store:
        store = self._workspace.store
        if store.url.startswith("memory:"):
            raise UserErrorException(
                "the processes of steps cannot reach a store in memory", hint="use a directory: vds init ./store"
            )
        return store

    @property
    def _params(self) -> dict[str, str]:
        return {"experiment": self._experiment.name, **{f"tag {key}": str(value) for key, value in self._tags.items()}}

    def submit_script(self, config: ScriptRunConfig, inputs: Mapping[str, Any]) -> StepRun:
        call = config.vds_call([_named(name, one) for name, one in inputs.items()])
        spec = read_step(call, {}, set())
        check_scripts([spec])
        conductor = Conductor(self._work(""), [spec], order_steps([spec]))
        conductor.start()
        return StepRun.begun(self._experiment, conductor, spec.name)

    def submit_pipeline(self, pipeline: Any, values: Mapping[str, Any], *, goes_on: bool) -> PipelineRun:
        pipeline.check_values(values)
        specs: list[StepSpec] = pipeline.specs(values)
        waits = order_steps(specs)
        check_scripts(specs)
        store = self._store
        params = {**self._params, **{f"parameter {name}": str(value) for name, value in values.items()}}
        params |= {pipeline_output_param(port.pipeline_name): f"{step.name}/{port.name}" for step, port in _named_outputs(specs)}
        run = store.run(self._experiment.name, params=params, kind="pipeline")
        try:
            work = self._work(run.id, pipeline.default_datastore)
            conductor = Conductor(work, specs, waits, run, goes_on=goes_on)
            made = PipelineRun.begun(self._experiment, conductor)
            conductor.start()
        except BaseException as err:
            run.end("failed", str(err))
            raise
        return made

    def _work(self, parent: str, datastore: Any = None) -> Work:
        workspace = self._workspace
        default = datastore if datastore is not None else workspace.get_default_datastore()
        return Work(
            store=self._store,
            default_datastore=default.name,
            experiment=self._experiment.name,
            workspace=WorkspaceFacts(workspace.subscription_id, workspace.resource_group, workspace.name),
            register=partial(_register, workspace),
            parent=parent,
            params={"experiment": self._experiment.name} if parent else self._params,
            regenerates=self._regenerates,
            ignores_comments=self._ignores_comments,
        )


def _register(workspace: Workspace, selection: Selection, registration: Registration) -> None:
    FileDataset(selection).register(
        workspace,
        registration.dataset,
        description=registration.description,
        tags=dict(registration.tags or {}),
        create_new_version=True,
    )


def _named_outputs(specs: Sequence[StepSpec]) -> list[tuple[StepSpec, Port]]:
    return [(step, output.port) for step in specs for output in step.outputs if output.port.pipeline_name]


def _named(name: str, one: Any) -> Any:
    return one.as_input(name) if hasattr(one, "as_input") else one


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no")
