"""Runs, as scripts see them: inside a step, outside of any, and those of others."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vds.azureml.core.inputs import InputDatasets, LocalInput, OutputPaths
from vds.azureml.core.port import PortDataReference
from vds.azureml.core.workspace import Workspace
from vds.azureml.exceptions import NotFoundException, NotInVdsError, RunEnvironmentException, UserErrorException
from vds.azureml.local import artifacts
from vds.azureml.local.execution import STEP_DIRECTORY
from vds.azureml.local.workdir import METRICS
from vds.azureml.notices import say_once, write_lines
from vds.errors import VdsError
from vds.model.run import RunStatus
from vds.provenance import RUN_VARIABLE
from vds.store import Run as StoreRun
from vds.store import RunInfo, RunPlace, Store, Version

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


class Run:
    """One run. What it keeps with `upload_file`, `upload_folder` and `log` is stored, also outside of any pipeline."""

    def __init__(self, experiment: Any = None, run_id: str | None = None, outputs: object = None, **_: object) -> None:
        """Refer to a run of an experiment by its id."""
        self._experiment = experiment
        self._id = run_id or ""
        self._own: StoreRun | None = None
        self._is_step = False
        self._file: Path | None = None
        self._lines: list[str] = []
        self._notes = f"metrics-{uuid.uuid4().hex}.jsonl"

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
    def id(self) -> str:
        """Its id."""
        return self._id

    run_id = id

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

    def flush(self, timeout_seconds: float = 300) -> None:
        """Do nothing: what is stored is stored when a call returns."""

    def upload_file(self, name: str, path_or_stream: Any, datastore_name: str | None = None) -> None:
        """Keep a file with the run, under a name; the same name again is a new version, and equal content changes nothing.

        Raises:
            UserErrorException: there is no such file.
        """
        if hasattr(path_or_stream, "read"):
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory, "stream")
                body = path_or_stream.read()
                path.write_bytes(body.encode() if isinstance(body, str) else body)
                artifacts.keep_file(self._store, self._recorded().id, name, path)
            return
        path = Path(path_or_stream)
        if not path.exists():
            raise UserErrorException(f"there is no file {os.fspath(path)!r} to keep as {name!r}")
        artifacts.keep_file(self._store, self._recorded().id, name, path)

    def upload_files(
        self,
        names: Iterable[str],
        paths: Iterable[str],
        return_artifacts: bool = False,
        timeout_seconds: float | None = None,
        datastore_name: str | None = None,
    ) -> None:
        """Keep files with the run, each under its name."""
        for name, path in zip(names, paths, strict=True):
            self.upload_file(name, path)

    def upload_folder(self, name: str, path: str, datastore_name: str | None = None) -> None:
        """Keep the files of a directory with the run, below a name."""
        self.upload_file(name, path)

    def download_file(self, name: str, output_file_path: str | None = None, **_: object) -> None:
        """Write a file that was kept with the run to this machine.

        Raises:
            NotFoundException: it has none of this name.
        """
        version = next((version for version in self._artifacts() if version.exists(name)), None)
        if version is None:
            raise NotFoundException(f"run {self.id} has kept no file {name!r}", hint="run.get_file_names()")
        target = Path(output_file_path or os.path.basename(name))
        if target.is_dir():
            target /= os.path.basename(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(version.read_bytes(name))

    def download_files(self, prefix: str | None = None, output_directory: str | None = None, **_: object) -> None:
        """Write the files that were kept with the run below a prefix to this machine."""
        for name in self.get_file_names():
            if name.startswith(prefix or ""):
                self.download_file(name, os.path.join(output_directory or ".", name))

    def get_file_names(self) -> list[str]:
        """Return the names of the files that were kept with the run."""
        names = {entry.path for version in self._artifacts() for entry in version.entries()}
        return sorted(name for name in names if not artifacts.is_notes(name))

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """Keep a metric, and print it where no run is submitted."""
        self._log("scalar metric", name, value)

    def log_list(self, name: str, value: Any, description: str = "") -> None:
        """Keep a list of values."""
        self._log("list", name, list(value))

    def log_row(self, name: str, description: str | None = None, **kwargs: Any) -> None:
        """Keep a row of named values."""
        self._log("row", name, kwargs)

    def log_table(self, name: str, value: Any, description: str = "") -> None:
        """Keep a table."""
        self._log("table", name, value)

    def log_image(self, name: str, path: str | None = None, plot: Any = None, description: str = "") -> None:
        """Keep an image: a file, or a plot of matplotlib's."""
        if path is not None:
            self.upload_file(f"images/{name}", path)
            return
        with tempfile.TemporaryDirectory() as directory:
            file = os.path.join(directory, "plot.png")
            plot.savefig(file)
            self.upload_file(f"images/{name}.png", file)

    log_confusion_matrix = log_accuracy_table = log_residuals = log_predictions = log_table

    def get_metrics(self, name: str | None = None, **_: object) -> dict[str, Any]:
        """Return what was logged: name → value, or the list of values where there are several."""
        found = {key: values[0] if len(values) == 1 else values for key, values in self._noted("name").items()}
        return found if name is None else {key: value for key, value in found.items() if key == name}

    def tag(self, key: str, value: str | None = None) -> None:
        """Tag the run."""
        self._note("tag", key, str(value))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run with several."""
        for key, value in tags.items():
            self.tag(key, value)

    def get_tags(self) -> dict[str, str]:
        """Return the tags."""
        info = self._info
        given = {} if info is None else {key[4:]: value for key, value in info.params.items() if key.startswith("tag ")}
        return given | {key: values[-1] for key, values in self._noted("tag").items()}

    tags = property(get_tags)

    def add_properties(self, properties: Mapping[str, str]) -> None:
        """Note properties."""
        for key, value in properties.items():
            self._note("property", key, str(value))

    def get_properties(self) -> dict[str, str]:
        """Return what is known of how it ran: whether an earlier result was used again, too."""
        info = self._info
        known = {} if info is None else {key: str(value) for key, value in info.provenance.items()}
        if info is not None and info.kind == "step":
            known["azureml.isreused"] = "true" if info.reused else "false"
            if info.reused:
                known["azureml.reusedrunid"] = info.reused
        return known | {key: values[-1] for key, values in self._noted("property").items()}

    properties = property(get_properties)

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

    def _artifacts(self) -> list[Version]:
        """Return what was kept with the run; of a step that was not run again, also with the run whose result it has."""
        info = self._info
        runs = [] if info is None else [info.id, *([info.reused] if info.reused else [])]
        found = [artifacts.find_artifacts(self._store, run) for run in runs]
        return [version for version in found if version is not None]

    @property
    def _store(self) -> Store:
        store: Store = self.experiment.workspace.store
        return store

    @property
    def _info(self) -> RunInfo | None:
        if self._own is None and self._id.startswith("OfflineRun_"):
            return None
        return self._store.get_run(self._own.id if self._own is not None else self._id)

    def _recorded(self) -> RunInfo:
        if self._own is None and self._id.startswith("OfflineRun_"):
            self._begin(os.path.basename(sys.argv[0]) or "python")
        info = self._info
        assert info is not None
        return info

    def _begin(self, name: str, parent: str | None = None) -> None:
        self._own = self._store.run(name, params={"experiment": self.experiment.name}, parent=parent)
        self._id = self._id or self._own.id
        atexit.register(_end_at_exit, self, os.getpid())

    def _end(self, status: Any, why: str) -> None:
        if self._is_step or (self._own is None and not self._id.startswith("OfflineRun_")):
            return  # who runs it says how it ended
        self._recorded()
        assert self._own is not None
        if self._lines:
            artifacts.keep_text(self._store, self._own.id, METRICS, "".join(self._lines))
            self._lines = []
        self._own.end(status, why)

    def _log(self, what: str, name: str, value: Any) -> None:
        if self._id.startswith("OfflineRun_"):
            write_lines([f"Attempted to log {what} {name}:", str(value)])
        self._note("name", name, value)

    def _note(self, kind: artifacts.NoteKind, name: str, value: Any) -> None:
        """Note something; of a run that this process does, it is kept when that ends, of any other one at once."""
        line = artifacts.note_line(kind, name, _plain(value))
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line)
            return
        run = self._recorded().id
        self._lines.append(line)
        if self._own is None or self._own.status != "running":
            artifacts.keep_text(self._store, run, self._notes, "".join(self._lines))

    def _noted(self, kind: artifacts.NoteKind) -> dict[str, list[Any]]:
        return artifacts.read_notes(self._all_notes(), kind)

    def _all_notes(self) -> Iterator[str]:
        """Yield the lines that are kept, and those of this process that are not yet."""
        for version in self._artifacts():
            names = [entry.path for entry in version.entries() if artifacts.is_notes(entry.path)]
            for name in sorted(names, key=lambda name: name != METRICS):  # those of the run itself first
                if name != METRICS or self._file is None:
                    yield from version.read_text(name).splitlines()
        if self._file is not None and self._file.exists():
            yield from self._file.read_text(encoding="utf-8").splitlines()
        if self._own is not None and self._own.status == "running":
            yield from self._lines


_offline: Run | None = None


def _end_at_exit(run: Run, pid: int) -> None:
    """End what a script began and did not end: as it went. A child that was forked leaves it to its parent."""
    if os.getpid() != pid or run._own is None or run._own.status != "running":
        return
    try:
        if hasattr(sys, "last_value"):
            run._end("failed", repr(sys.last_value))
        else:
            run._end("completed", "")
    except VdsError as err:
        say_once(f"the end of run {run.id} could not be recorded: {err}")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; numbers of numpy's are numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


def _convert_to_dataset_input(value: Any, *_: object) -> LocalInput:
    """Return a path, or what a step reads under a name, as something with `to_path()`: readable local files."""
    return LocalInput.of(value)
