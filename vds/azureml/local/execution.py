"""One step at work: its script, what it finds, and what becomes of what it leaves.

Guarantees:
- the directories of outputs are there before the script starts;
- what it printed, noted and left in `outputs` and `logs` is kept, whatever became of it;
- its outputs become versions only when it has succeeded, those of one datastore together.
"""

from __future__ import annotations

import glob
import json
import os
import pickle
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vds.azureml.data.file_dataset import FileDataset
from vds.azureml.exceptions import UserErrorException
from vds.azureml.local import artifacts
from vds.azureml.local.code import Code, copy_code
from vds.azureml.local.process import Ended, python_path, run_process
from vds.azureml.local.spec import Argument, InputPath, Output, OutputPath, Port, StepSpec, place_of
from vds.azureml.local.watch import Watch
from vds.azureml.local.work import StepResult, Work
from vds.azureml.local.workdir import CODE, LOG, make_run_directory
from vds.azureml.selection import Selection
from vds.azureml.views import forget_view
from vds.model.run import EndStatus
from vds.provenance import RUN_VARIABLE, working_for
from vds.store import Run, Transaction

LOG_FIRST_S, LOG_MOST_S = 10.0, 300.0
"""How often what a step prints is kept while it runs: ever more seldom."""
LAST_LINES = 20
PIECE_BYTES = 1024 * 1024
STEP_DIRECTORY, STEP_INPUTS, STEP_OUTPUTS = "VDS_STEP_DIRECTORY", "VDS_STEP_INPUTS", "VDS_STEP_OUTPUTS"
"""What tells a script's process of its step: where it works, what it reads (JSON), where it writes (JSON)."""
_MEANT = re.compile(r"\$\{?AZUREML_DATAREFERENCE_(\w+)\}?|Dataset(?:Consumption|Output)Config:(\w+)")
"""What a reference or an output becomes in a text, as `f"{reference}/part.csv"` has it."""


class Execution:
    """A script at work.

    Attributes:
        outputs: where it writes each.
    """

    def __init__(self, work: Work, step: StepSpec, run: Run, code: Code, inputs: Mapping[str, Selection | None]) -> None:
        self._work = work
        self._step = step
        self._record = run
        self._selections = inputs
        self._directory = make_run_directory(run.id)
        self._code = self._directory / CODE
        copy_code(code, self._code)
        self.outputs = {output.port: self._make_output(output.port) for output in step.outputs}
        self._shared: list[Path] = []
        self._inputs = {name: self._bring(name, selection) for name, selection in inputs.items()}
        self._kept_s = time.monotonic()
        self._keep_every_s = LOG_FIRST_S

    def run_script(self) -> StepResult | None:
        """Run the script, and keep what it left beside its outputs; returns how it failed, None when it did not."""
        with working_for(self._record.id, is_inherited=False):
            watch = Watch.begin(self._shared)
            try:
                ended = self._run()
            finally:
                artifacts.collect(self._work.store, self._record.id, self._code)
        changed = watch.find_changed()
        for place, _ in changed:
            forget_view(place)
        if ended.why:
            return self._fail(ended)
        return self._fail_for_writing(changed[0][1]) if changed else None

    def commit(self) -> dict[str, int]:
        """Make versions of the outputs: one for each datastore. Returns namespace → number.

        Raises:
            UserErrorException: one is to be registered, and has no files; nothing was committed.
        """
        by_namespace: dict[str, list[Output]] = {}
        for output in self._step.outputs:
            self._check(output)
            by_namespace.setdefault(self._work.namespace_of(output.port), []).append(output)
        with working_for(self._record.id, is_inherited=False):
            return {name: self._upload(name, own) for name, own in by_namespace.items()}

    def _make_output(self, port: Port) -> Path:
        path = self._directory / port.name
        (path if port.is_directory else path.parent).mkdir(parents=True, exist_ok=True)
        return path

    def _bring(self, name: str, selection: Selection | None) -> str:
        """Bring an input to this machine and return its path; the id of a registered dataset that the script gets as such."""
        given = next(given for given in self._step.inputs if given.name == name)
        dataset_id = getattr(given.source, "id", None)
        if given.mode == "direct" and dataset_id:
            return str(dataset_id)
        if selection is not None and given.mode == "download":  # a copy of its own, which it may change
            return os.fspath(selection.copy_to(self._directory / ".inputs" / name / selection.parts[0].origin))
        if selection is not None:
            place = selection.place()
            self._shared.append(place)
            return os.fspath(place)
        empty = self._directory / ".inputs" / name
        empty.mkdir(parents=True, exist_ok=True)
        return os.fspath(empty)

    def _pickle(self, name: str) -> str:
        """Write a dataset that the script gets as such to a file of this run's, and return its path; empty for other inputs."""
        source = next(given.source for given in self._step.inputs if given.name == name)
        selection = self._selections[name]
        if isinstance(source, Port) and selection is not None:
            source = FileDataset(selection)
        path = self._directory / ".inputs" / f"{name}.pickle"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(source))
        return os.fspath(path)

    def _run(self) -> Ended:
        step = self._step
        return run_process(
            [*self._command(), *map(self._text, step.arguments)],
            cwd=self._code,
            environ=self._environ(),
            output=self._code / LOG,
            timeout_s=step.timeout_s,
            is_canceled=self._work.is_canceled,
            on_poll=self._keep_logs,
        )

    def _command(self) -> list[str]:
        step = self._step
        if not step.command:
            return [sys.executable, os.fspath(self._code / step.script)]
        line = " ".join(one if isinstance(one, str) else shlex.quote(self._text(one)) for one in step.command)
        return ["sh", "-c", line] if os.name == "posix" else ["cmd", "/c", line]

    def _text(self, one: Argument) -> str:
        """Return an argument as the script gets it."""
        if isinstance(one, InputPath):
            return self._inputs[one.name]
        if isinstance(one, OutputPath):
            return os.fspath(self.outputs[one.port])
        known = {**self._inputs, **{port.name: os.fspath(path) for port, path in self.outputs.items()}}
        return _MEANT.sub(lambda found: known.get(found[1] or found[2], found[0]), one)

    def _environ(self) -> dict[str, str]:
        work, step, store, inputs, outputs = self._work, self._step, self._work.store, self._inputs, self.outputs
        modes = {given.name: given.mode for given in step.inputs}
        given = {**os.environ, **step.variables}
        described = {name: {"path": inputs[name], "mode": modes[name], "dataset": self._pickle(name)} for name in inputs}
        return {
            **given,
            "VDS_STORE": store.url,
            **({} if "VDS_INDEX" in os.environ else {"VDS_INDEX": store.index}),
            RUN_VARIABLE: self._record.id,
            # `python` in a command is the Python that runs this.
            "PATH": os.pathsep.join(filter(None, [os.path.dirname(sys.executable), given.get("PATH", "")])),
            "PYTHONPATH": python_path(given, self._code),
            "PYTHONUNBUFFERED": "1",
            "AZUREML_RUN_ID": self._record.id,
            "AZUREML_ROOT_RUN_ID": work.parent or self._record.id,
            "AZUREML_ARM_PROJECT_NAME": work.experiment,
            "AZUREML_EXPERIMENT_NAME": work.experiment,
            "AZUREML_ARM_SUBSCRIPTION": work.workspace.subscription_id,
            "AZUREML_ARM_RESOURCEGROUP": work.workspace.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": work.workspace.name,
            "AZUREML_ENTRY_SCRIPT": step.script,
            "AZUREML_DATASET_ENVIRONMENT_VARS": ",".join(f"{name}:{modes[name]}" for name in inputs),
            "AZUREML_DATASET_FILE_OUTPUTS": ";".join(port.name for port in outputs),
            STEP_DIRECTORY: os.fspath(self._code),
            STEP_INPUTS: json.dumps(described),
            STEP_OUTPUTS: json.dumps({port.name: os.fspath(path) for port, path in outputs.items()}),
            **{name: path for name, path in inputs.items() if name not in os.environ},
            **{f"AZUREML_DATAREFERENCE_{name}": path for name, path in inputs.items()},
            **{port.env_name: os.fspath(path) for port, path in outputs.items()},
        }

    def _keep_logs(self) -> None:
        if time.monotonic() - self._kept_s < self._keep_every_s:
            return
        self._keep_every_s = min(LOG_MOST_S, self._keep_every_s * 2)
        artifacts.collect(self._work.store, self._record.id, self._code, only_logs=True)
        self._kept_s = time.monotonic()

    def _fail(self, ended: Ended) -> StepResult:
        status: EndStatus = "canceled" if ended.how == "canceled" else "failed"
        last = _last_lines(self._code / LOG)
        error = f"{ended.why}: {last[-1]}" if last and status == "failed" else ended.why
        self._record.end(status, error)
        shown = "\n".join([ended.why, *last, *self._hints(last)])
        return StepResult(self._step.name, self._record.id, status, error=shown)

    def _fail_for_writing(self, path: str) -> StepResult:
        error = f"it has changed {path!r}, which it was given to read: as_download() gives it a copy of its own"
        self._record.end("failed", error)
        return StepResult(self._step.name, self._record.id, "failed", error=error)

    def _hints(self, last: Sequence[str]) -> Iterator[str]:
        """Yield what to do where a script took the directory of an output for a place to write a file to."""
        for port, path in self.outputs.items():
            if any("IsADirectoryError" in line and repr(os.fspath(path)) in line for line in last):
                yield f"output {port.name!r} is a directory, which is there before the script starts: write a file below it,"
                yield f"or say PipelineData({port.name!r}, is_directory=False)"

    def _check(self, output: Output) -> None:
        path, registrations = self.outputs[output.port], output.all_registrations
        if registrations and not path.is_file() and not any(names for _, _, names in os.walk(path)):
            raise UserErrorException(
                f"output {output.port.name!r} is to be registered as dataset {registrations[0].dataset!r}, and has no files",
                hint=f"step {self._step.name!r} wrote nothing to {os.fspath(path)!r}",
            )

    def _upload(self, namespace: str, outputs: Sequence[Output]) -> int:
        with self._work.store.namespace(namespace).transaction(f"outputs of step {self._step.name}") as tx:
            for output in outputs:
                port = output.port
                # Where the place is shared there are two; the second time nothing is sent.
                for target in dict.fromkeys([port.own_place(self._record.id), place_of(port, self._record.id)]):
                    _put(tx, self.outputs[port], target)
        return tx.version.number


def _put(tx: Transaction, local: Path, target: str) -> None:
    if local.is_file():
        with tx.open(target) as file, local.open("rb") as body:
            shutil.copyfileobj(body, file, PIECE_BYTES)
    elif local.is_dir() and any(local.iterdir()):
        links = list(_directory_links(local))
        ignored = [glob.escape(path) for path, _ in links]
        tx.upload(local, target, ignore_patterns=ignored or None, show_progress=False)
        for path, source in links:  # such as `latest`; what is there already under another path is not sent again
            _put(tx, source, f"{target}/{path}")


def _directory_links(local: Path) -> Iterator[tuple[str, Path]]:
    """Yield (path below a directory, what it links to) of each link to a directory; none that leads into a circle."""
    for folder, names, _ in os.walk(local):
        for name in names:
            link = Path(folder, name)
            source = link.resolve()
            if link.is_symlink() and not link.parent.resolve().is_relative_to(source):
                yield link.relative_to(local).as_posix(), source


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64 * 1024))
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines[-LAST_LINES:] if line.strip()]
