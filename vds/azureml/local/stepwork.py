"""One step, from its inputs to its outputs.

Its order is what makes it safe: inputs are pinned and brought here; the key is worked out; a result that is there already is
linked; else the script runs, and only when it has succeeded do its outputs become versions, then datasets. What it printed is
kept either way.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vds.azureml.configuration import WorkspaceFacts
from vds.azureml.data.data_reference import DataReference
from vds.azureml.exceptions import UserErrorException
from vds.azureml.local import artifacts
from vds.azureml.local.code import Code, copy_code, read_code
from vds.azureml.local.process import Ended, python_path, run_process
from vds.azureml.local.spec import Input, InputPath, Output, OutputPath, Port, StepSpec, place_of
from vds.azureml.local.stepkey import digest_of, key_parts
from vds.azureml.local.workdir import CODE, LOG, make_run_directory
from vds.azureml.selection import Selection, VersionPart, find_latest, pin, select
from vds.errors import EntryNotFoundError, NotFoundError, VdsError
from vds.model.run import EndStatus
from vds.provenance import RUN_VARIABLE, describe_command, working_for
from vds.store import Run, RunInfo, RunPlace, Store, Version

LOG_FIRST_S, LOG_MOST_S = 10.0, 300.0
"""How often what a step prints is kept while it runs: ever more seldom."""
LAST_LINES = 20
REUSE_TRIED_MAX = 20
"""How many earlier runs with the same key are looked at for one whose outputs are still there."""
EMPTY_DIGEST = "empty"
STEP_DIRECTORY, STEP_INPUTS, STEP_OUTPUTS = "VDS_STEP_DIRECTORY", "VDS_STEP_INPUTS", "VDS_STEP_OUTPUTS"
"""What tells a script's process of its step: where it works, what it reads (JSON), where it writes (JSON)."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a step has put out: a version seen from a path; None where it wrote no file."""

    place: RunPlace
    selection: Selection | None


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended.

    Attributes:
        run: its id; empty when it was not begun.
        reused: the run whose outputs these are; empty when it ran.
    """

    name: str
    run: str
    status: EndStatus
    outputs: Mapping[Port, Made] = field(default_factory=dict)
    reused: str = ""
    error: str = ""


@dataclass
class Work:
    """What the steps of one submission have in common.

    Attributes:
        parent: the pipeline's run; empty for a script by itself.
        params: of each step's run.
        regenerates: whether no earlier result is used.
        ignores_comments: whether comments and layout of Python files make no difference.
        register: registers a selection as a dataset: (selection, Registration) → nothing.
    """

    store: Store
    default_datastore: str
    experiment: str
    workspace: WorkspaceFacts
    register: Callable[[Selection, Any], None]
    parent: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    regenerates: bool = False
    ignores_comments: bool = False
    is_canceled: Callable[[], bool] = bool
    on_begin: Callable[[str, str, str], None] = lambda name, run, reused: None
    _codes: dict[Path, Code] = field(default_factory=dict)
    _pinned: dict[int, Selection] = field(default_factory=dict)
    _heads: dict[str, Version | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def code_of(self, directory: Path) -> Code:
        """Return the code of a directory, read once for all steps."""
        with self._lock:
            if directory not in self._codes:
                self._codes[directory] = read_code(directory, ignores_comments=self.ignores_comments)
            return self._codes[directory]

    def pin(self, given: Input, *, is_late: bool = False) -> Selection | None:
        """Return what an input means, pinned once for all steps; None when it is not there yet and `is_late` is False.

        References to one datastore mean one version of it.

        Raises:
            NotFoundException: it is not there.
        """
        with self._lock:
            key = id(given.source)
            if key not in self._pinned:
                try:
                    self._pinned[key] = self._select(given.source)
                except NotFoundError:
                    if is_late:
                        raise
                    return None
            return self._pinned[key]

    def _select(self, source: Any) -> Selection:
        if not isinstance(source, DataReference) or source.version is not None:
            return select(source)
        name = source.datastore.name.casefold()
        if name not in self._heads:
            self._heads[name] = find_latest(source.datastore)
        try:
            return pin(source.datastore, source.path_on_datastore, self._heads[name])
        except NotFoundError:
            # Written since, by a step before this one perhaps, or plain blobs that no version has.
            return pin(source.datastore, source.path_on_datastore)


def carry_out(work: Work, step: StepSpec, made: Mapping[Port, Made]) -> StepResult:
    """Run one step, or link its earlier result; called in a thread of its own.

    Args:
        work: of all steps.
        step: this one.
        made: what the steps before it put out.
    """
    try:
        code = work.code_of(step.source_directory)
        inputs = {given.name: _find_input(work, given, made) for given in step.inputs}
        digests = {name: EMPTY_DIGEST if found is None else found.digest() for name, found in inputs.items()}
    except VdsError as err:
        return StepResult(step.name, _note_failure(work, step, err.message), "failed", error=err.message)
    parts = key_parts(step, code, digests)
    key = digest_of(parts)
    reused = _find_result(work, step, key)
    run = work.store.run(
        step.name,
        inputs={},
        params=_params(work, step),
        kind="step",
        parent=work.parent,
        key=key if step.allow_reuse else "",
        key_parts=parts,
    )
    work.on_begin(step.name, run.id, "" if reused is None else reused.id)
    try:
        for name, selection in inputs.items():
            for version in [] if selection is None else selection.pins():
                run.input(version, name)
        if reused is not None:
            return _link(work, step, run, reused)
        return _Execution(work, step, run, code, inputs).run_step()
    except (VdsError, OSError) as err:
        run.end("failed", str(err))
        return StepResult(step.name, run.id, "failed", error=str(err))
    except BaseException as err:
        run.end("failed", f"{type(err).__name__}: {err}")
        raise


def _note_failure(work: Work, step: StepSpec, why: str) -> str:
    run = work.store.run(step.name, params=_params(work, step), kind="step", parent=work.parent)
    run.end("failed", why)
    return run.id


def _params(work: Work, step: StepSpec) -> dict[str, str]:
    return {
        **work.params,
        "script": step.script,
        "source_directory": os.fspath(step.source_directory.resolve()),
        "arguments": describe_command(_word(argument) for argument in step.arguments),
    }


def _word(argument: object) -> str:
    if isinstance(argument, InputPath):
        return f"<{argument.name}>"
    return f"<{argument.port.name}>" if isinstance(argument, OutputPath) else str(argument)


def _find_input(work: Work, given: Input, made: Mapping[Port, Made]) -> Selection | None:
    if isinstance(given.source, Port):
        return made[given.source].selection
    return work.pin(given, is_late=True)


def _find_result(work: Work, step: StepSpec, key: str) -> RunInfo | None:
    """Return the newest run with this key that succeeded and whose outputs are all still there."""
    if not step.allow_reuse or work.regenerates:
        return None
    names = {output.port.name for output in step.outputs}
    for info in work.store.runs(key=key, status="completed", limit=REUSE_TRIED_MAX):
        if names <= {place.name for place in info.outputs} and all(_is_there(work.store, place) for place in info.outputs):
            return info
    return None


def _is_there(store: Store, place: RunPlace) -> bool:
    try:
        store.namespace(place.namespace).get(place.number)
    except NotFoundError:  # expired
        return False
    return True


def _link(work: Work, step: StepSpec, run: Run, reused: RunInfo) -> StepResult:
    outputs = {}
    for output in step.outputs:
        place = reused.output(output.port.name)
        assert place is not None
        outputs[output.port] = _hand_out(work, run, output, place.namespace, place.number, place.path, place.asked)
    run.end("completed", reused=reused.reused or reused.id)
    return StepResult(step.name, run.id, "completed", outputs, reused=reused.reused or reused.id)


def _hand_out(work: Work, run: Run, output: Output, namespace: str, number: int, path: str, local: str) -> Made:
    """Record an output, and register it where that was asked for."""
    version = work.store.namespace(namespace).get(number)
    run.output(version, output.port.name, local, path=path)
    selection = None
    try:
        view = version.at(path) if path else version
        selection = Selection(work.store, [VersionPart(work.store, view, is_file=not view.children())])
    except EntryNotFoundError:
        pass  # it wrote no file
    place = RunPlace(output.port.name, namespace, number, path, local)
    for registration in (*output.registrations, *output.port.registrations):
        if selection is None:
            raise UserErrorException(
                f"output {output.port.name!r} is to be registered as dataset {registration.dataset!r}, and has no files"
            )
        work.register(selection, registration)
    return Made(place, selection)


class _Execution:
    """A script at work."""

    def __init__(self, work: Work, step: StepSpec, run: Run, code: Code, inputs: Mapping[str, Selection | None]) -> None:
        self._work = work
        self._step = step
        self._run = run
        self._inputs = inputs
        self._directory = make_run_directory(run.id)
        self._code = self._directory / CODE
        copy_code(code, self._code)
        self._kept_s = time.monotonic()
        self._keep_every_s = LOG_FIRST_S

    def run_step(self) -> StepResult:
        """Run the script, keep what it printed, and make versions of what it put out when it has succeeded."""
        step, run = self._step, self._run
        outputs = {output.port: self._make_output(output.port) for output in step.outputs}
        inputs = {name: self._bring(name, selection) for name, selection in self._inputs.items()}
        with working_for(run.id, is_inherited=False):
            try:
                ended = self._run_script(inputs, outputs)
            finally:
                artifacts.collect(self._work.store, run.id, self._code)
            if ended.why:
                return self._fail(ended)
            made = self._commit(outputs)
        run.end("completed")
        return StepResult(step.name, run.id, "completed", made)

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
        if selection is not None:
            return os.fspath(selection.place())
        empty = self._directory / ".inputs" / name
        empty.mkdir(parents=True, exist_ok=True)
        return os.fspath(empty)

    def _pickle(self, name: str) -> str:
        """Write a dataset that the script gets as such to a file of this run's, and return its path; empty for other inputs."""
        source = next(given.source for given in self._step.inputs if given.name == name)
        if isinstance(source, Port):
            source = self._inputs[name]
        path = self._directory / ".inputs" / f"{name}.pickle"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(source))
        return os.fspath(path)

    def _run_script(self, inputs: Mapping[str, str], outputs: Mapping[Port, Path]) -> Ended:
        step = self._step
        arguments = [_argument(one, inputs, outputs) for one in step.arguments]
        command = list(step.command) or [sys.executable, os.fspath(self._code / step.script)]
        return run_process(
            [*command, *arguments],
            cwd=self._code,
            environ=self._environ(inputs, outputs),
            output=self._code / LOG,
            timeout_s=step.timeout_s,
            is_canceled=self._work.is_canceled,
            on_poll=self._keep_logs,
        )

    def _environ(self, inputs: Mapping[str, str], outputs: Mapping[Port, Path]) -> dict[str, str]:
        work, step, store = self._work, self._step, self._work.store
        modes = {given.name: given.mode for given in step.inputs}
        described = {name: {"path": inputs[name], "mode": modes[name], "dataset": self._pickle(name)} for name in inputs}
        return {
            **os.environ,
            **step.variables,
            "VDS_STORE": store.url,
            **({} if "VDS_INDEX" in os.environ else {"VDS_INDEX": store.index}),
            RUN_VARIABLE: self._run.id,
            "PYTHONPATH": python_path(os.environ, self._code),
            "PYTHONUNBUFFERED": "1",
            "AZUREML_RUN_ID": self._run.id,
            "AZUREML_ROOT_RUN_ID": work.parent or self._run.id,
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
        artifacts.collect(self._work.store, self._run.id, self._code, only_logs=True)
        self._kept_s = time.monotonic()

    def _fail(self, ended: Ended) -> StepResult:
        status: EndStatus = "canceled" if ended.how == "canceled" else "failed"
        last = _last_lines(self._code / LOG)
        error = f"{ended.why}: {last[-1]}" if last and status == "failed" else ended.why
        self._run.end(status, error)
        shown = "\n".join(last)
        return StepResult(self._step.name, self._run.id, status, error=f"{ended.why}\n{shown}" if shown else ended.why)

    def _commit(self, outputs: Mapping[Port, Path]) -> dict[Port, Made]:
        """Make versions of the outputs: one for each datastore."""
        by_namespace: dict[str, list[Output]] = {}
        for output in self._step.outputs:
            by_namespace.setdefault(self._namespace_of(output.port), []).append(output)
        numbers = {name: self._upload(name, own, outputs) for name, own in by_namespace.items()}
        made = {}
        for output in self._step.outputs:
            namespace = self._namespace_of(output.port)
            local = os.fspath(outputs[output.port])
            path = self._exact_place(output.port)
            made[output.port] = _hand_out(self._work, self._run, output, namespace, numbers[namespace], path, local)
        return made

    def _namespace_of(self, port: Port) -> str:
        return self._work.default_datastore if port.datastore is None else str(port.datastore.name)

    def _upload(self, namespace: str, outputs: Sequence[Output], places: Mapping[Port, Path]) -> int:
        with self._work.store.namespace(namespace).transaction(f"outputs of step {self._step.name}") as tx:
            for output in outputs:
                local, port = places[output.port], output.port
                targets = dict.fromkeys([self._exact_place(port), place_of(port, self._run.id)])
                for target in targets:  # the second time nothing is sent
                    if local.is_dir():
                        if any(local.iterdir()):
                            tx.upload(local, target, show_progress=False)
                    elif local.exists():
                        tx.upload_files([local], local.parent, target.rpartition("/")[0], show_progress=False)
        return tx.version.number

    def _exact_place(self, port: Port) -> str:
        """Return a place that holds this run's files and no others: where it is shared, a second one of its own."""
        if not port.place or "{run-id}" in port.place:
            return place_of(port, self._run.id)
        return f"azureml/{self._run.id}/{port.name}"


def _argument(one: object, inputs: Mapping[str, str], outputs: Mapping[Port, Path]) -> str:
    if isinstance(one, InputPath):
        return inputs[one.name]
    return os.fspath(outputs[one.port]) if isinstance(one, OutputPath) else str(one)


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64 * 1024))
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines[-LAST_LINES:] if line.strip()]
