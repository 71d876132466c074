"""Runs, as scripts see them: inside a step, outside of any, and those of others."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vds.azureml.core.inputs import InputDatasets, LocalInput, OutputPaths
from vds.azureml.core.port import PortDataReference
from vds.azureml.core.runkeeping import RunKeeping
from vds.azureml.core.workspace import Workspace
from vds.azureml.exceptions import NotFoundException, NotInVdsError, RunEnvironmentException
from vds.azureml.local.execution import STEP_DIRECTORY
from vds.azureml.local.workdir import METRICS
from vds.model.run import RunStatus
from vds.provenance import RUN_VARIABLE
from vds.store import RunPlace

if TYPE_CHECKING:
    from vds.azureml.core.experiment import Experiment

STATUSES: Mapping[RunStatus | None, str] = {
    "running": "Running",
    "completed": "Completed",
    "failed": "Failed",
    "canceled": "Canceled",
    "abandoned": "NotResponding",
    None: "NotStarted",
}
_ONLY_IN_AZUREML = ("register_model", "get_snapshot_id", "restore_snapshot", "get_hyperparameters", "submit_child")

__all__ = ["Run", "_convert_to_dataset_input"]


class Run(RunKeeping):
    """One run. What it keeps with `upload_file`, `upload_folder` and `log` is stored, also outside of any pipeline."""

    @staticmethod
    def get_context(allow_offline: bool = True, used_for_context_manager: bool = False, **_: object) -> Run:
        """Return the run that this process works for; outside of any, one of its own, which is recorded when it first stores.

        Raises:
            RunEnvironmentException: there is none, and `allow_offline` is False.
        """
        uid = os.environ.get(RUN_VARIABLE, "")
        if uid and STEP_DIRECTORY in os.environ:
            made = Run(None, uid)
            made._is_step = True
            made._file = Path(os.environ[STEP_DIRECTORY], METRICS)
            return made
        if not allow_offline:
            raise RunEnvironmentException("this process works for no run", hint="submit the script with Experiment.submit")
        global _offline
        if _offline is None:
            _offline = Run(None, f"OfflineRun_{uuid.uuid4()}")
        return _offline

    @classmethod
    def begin(cls, experiment: Experiment) -> Run:
        """Begin a run that this process does itself."""
        made = cls(experiment, "")
        made._begin(experiment.name)
        return made

    @classmethod
    def of(cls, experiment: Experiment, run_id: str) -> Run:
        """Return a run that is recorded."""
        return cls(experiment, run_id)

    @staticmethod
    def get(workspace: Workspace, run_id: str) -> Run:
        """Return a recorded run.

        Raises:
            NotFoundError: there is none.
        """
        from vds.azureml.core.experiment import Experiment  # here, since an experiment has runs

        info = workspace.store.get_run(run_id)
        return Run(Experiment(workspace, info.params.get("experiment", info.name)), run_id)

    def __repr__(self) -> str:
        return f"Run(Experiment: {self.experiment.name}, Id: {self.id}, Type: {self.type}, Status: {self.status})"

    def __getattr__(self, name: str) -> Any:
        if name in _ONLY_IN_AZUREML:
            raise NotInVdsError(f"Run.{name} needs the AzureML service", hint="register datasets; vds runs lists runs")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.complete()
        else:
            self.fail(str(error))

    @property
    def name(self) -> str:
        """What is run."""
        info = self._info
        return info.name if info is not None else self.id

    display_name = name

    @property
    def number(self) -> int:
        """1: runs are told apart by their ids."""
        return 1

    @property
    def type(self) -> str:
        """`azureml.StepRun`, `azureml.PipelineRun` or `azureml.scriptrun`."""
        info = self._info
        if info is None or not (info.parent or info.kind == "pipeline"):
            return "azureml.scriptrun"
        return {"step": "azureml.StepRun", "pipeline": "azureml.PipelineRun"}.get(info.kind, "azureml.scriptrun")

    @property
    def experiment(self) -> Any:
        """The experiment it belongs to; `run.experiment.workspace` is there in and out of runs."""
        if self._experiment is None:
            from vds.azureml.core.experiment import Experiment  # here, since an experiment has runs

            name = os.environ.get("AZUREML_ARM_PROJECT_NAME", "local")
            self._experiment = Experiment(Workspace.from_config(), name)
        return self._experiment

    @property
    def parent(self) -> Run | None:
        """The pipeline's run; None for a run by itself."""
        info = self._info
        return Run(self.experiment, info.parent) if info is not None and info.parent else None

    @property
    def status(self) -> str:
        """`NotStarted`, `Running`, `Completed`, `Failed`, `Canceled`, or `NotResponding` when nobody runs it any more."""
        info = self._info
        return "Running" if info is None else STATUSES[info.status]

    def get_status(self) -> str:
        """Return its status as it is now."""
        return self.status

    @property
    def input_datasets(self) -> InputDatasets:
        """What this process's step reads, by name: a path, or a dataset where it was given as such."""
        return InputDatasets()

    @property
    def output_datasets(self) -> OutputPaths:
        """Where this process's step writes, by name."""
        return OutputPaths()

    def complete(self, _set_status: bool = True) -> None:
        """Record that it has succeeded; inside a step that is for who runs it to say."""
        self._end("completed", "")

    def fail(self, error_details: object = None, error_code: object = None, _set_status: bool = True) -> None:
        """Record that it has failed."""
        self._end("failed", str(error_details or error_code or "fail() was called"))

    def cancel(self) -> None:
        """Record that it was given up."""
        self._end("canceled", "")

    def get_details(self) -> dict[str, Any]:
        """Return what is recorded."""
        info = self._info
        if info is None:
            return {"runId": self.id, "status": self.status}
        return {
            "runId": info.id,
            "status": self.status,
            "startTimeUtc": info.started_at.isoformat(),
            "endTimeUtc": None if info.ended_at is None else info.ended_at.isoformat(),
            "error": {"error": {"message": info.error}} if info.error else None,
            "properties": self.get_properties(),
            "inputDatasets": [place.uri for place in info.inputs],
            "outputDatasets": [place.uri for place in info.outputs],
            "runDefinition": dict(info.params),
            "logFiles": {name: name for name in self.get_file_names() if name.startswith(("logs/", "user_logs/"))},
        }

    def get_children(self, recursive: bool = False, **_: object) -> Iterator[Run]:
        """Yield the runs that belong to it."""
        for info in reversed(self._store.runs(parent=self._recorded().id)):
            yield type(self).of(self.experiment, info.id)

    def child_run(self, name: str | None = None, **_: object) -> Run:
        """Begin a run that belongs to this one, done by this process."""
        made = Run(self.experiment, "")
        made._begin(name or f"{self.name} child", parent=self._recorded().id)
        return made

    def get_portal_url(self) -> str:
        """Return the command that shows the run: there is no portal."""
        return f"vds runs {self.id}"

    def wait_for_completion(
        self, show_output: bool = False, wait_post_processing: bool = False, raise_on_error: bool = True
    ) -> Any:
        """Return the details at once: this process does the run itself, or another one does."""
        return self.get_details()

    def get_output_data(self, name: str) -> PortDataReference:
        """Return what the run put out under a name.

        Raises:
            NotFoundException: it put out nothing under the name.
        """
        return PortDataReference(self.experiment, self._place_of(name))

    def _place_of(self, name: str) -> RunPlace:
        info = self._recorded()
        outputs = {place.name: place for place in info.outputs}
        if name in outputs:
            return outputs[name]
        kept = next((version for version in self._artifacts() if version.exists("outputs")), None)
        if name in ("output", "outputs") and kept is not None:
            return RunPlace(name, kept.namespace, kept.number, f"{kept.path}/outputs", "")
        shown = ", ".join(sorted(outputs)) or "none"
        raise NotFoundException(f"run {self.id} ({self.name}) has no output {name!r}; it has {shown}", hint=f"vds runs {self.id}")


_offline: Run | None = None


def _convert_to_dataset_input(value: Any, *_: object) -> LocalInput:
    """Return a path, or what a step reads under a name, as something with `to_path()`: readable local files."""
    return LocalInput.of(value)
