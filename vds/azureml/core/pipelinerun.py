"""Runs of pipelines and of their steps."""

from __future__ import annotations

import codecs
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vds.azureml.core.port import PortDataReference
from vds.azureml.core.run import Run
from vds.azureml.exceptions import ActivityFailedException, NotFoundException
from vds.azureml.faces import ExperimentFace
from vds.azureml.local.conductor import Conductor
from vds.azureml.local.workdir import CODE, LOG, find_run_directory
from vds.azureml.notices import write_lines
from vds.store import RunInfo, RunPlace

FINISHED = "Finished"
SHOW_S = 0.2
BEGIN_S = 60.0
"""How long a script that was submitted may take until its run is recorded: its code is read before."""


class StepRun(Run):
    """The run of one step, or of a script by itself."""

    _conductor: Conductor | None = None
    _step_name = ""

    @classmethod
    def begun(cls, experiment: ExperimentFace, conductor: Conductor, name: str) -> StepRun:
        """Return the run of a step that was handed to a conductor, once it is recorded."""
        waited_s = 0.0
        while name not in conductor.begun and not conductor.is_over() and waited_s < BEGIN_S:
            time.sleep(0.01)
            waited_s += 0.01
        if name not in conductor.begun:
            conductor.wait(0)
            result = conductor.results[name]
            if not result.run:
                raise ActivityFailedException(f"step {name!r} could not begin: {result.error}")
            conductor.begun[name] = result.run
        made = cls(experiment, conductor.begun[name])
        made._conductor, made._step_name = conductor, name
        return made

    @property
    def is_reused(self) -> bool:
        """Whether an earlier result was used."""
        info = self._info
        return bool(info is not None and info.reused)

    def cancel(self) -> None:
        """Stop it."""
        if self._conductor is not None:
            self._conductor.cancel()

    def wait_for_completion(
        self,
        show_output: bool = False,
        wait_post_processing: bool = False,
        raise_on_error: bool = True,
        timeout_seconds: float = sys.maxsize,
        **_: object,
    ) -> Any:
        """Wait for its end, and return how it ended.

        Raises:
            ActivityFailedException: it failed, and `raise_on_error`.
        """
        conductor, name = self._conductor, self._step_name
        if conductor is not None:
            _wait(conductor, [name] if show_output else [], timeout_seconds, lambda: name in conductor.results)
            _raise_failure(conductor, [name], raise_on_error)
        return self.get_details() if self._info_parent() == "" else FINISHED

    def _info_parent(self) -> str:
        info = self._info
        return info.parent if info is not None else ""

    def get_stdout_log(self) -> str:
        """Return what it printed."""
        directory = find_run_directory(self.id)
        if directory is not None and (directory / CODE / LOG).exists():
            return (directory / CODE / LOG).read_text(encoding="utf-8", errors="replace")
        return next((version.read_text(LOG) for version in self._artifacts() if version.exists(LOG)), "")

    get_job_log = get_stderr_log = get_stdout_log

    def get_outputs(self) -> dict[str, StepRunOutput]:
        """Return its outputs, by name."""
        info = self._info
        return {} if info is None else {place.name: StepRunOutput(self, place) for place in info.outputs}

    def get_output(self, name: str) -> StepRunOutput:
        """Return one output.

        Raises:
            NotFoundException: it has none of this name.
        """
        return StepRunOutput(self, self._place_of(name))


class StepRunOutput:
    """An output of a step's run."""

    def __init__(self, step_run: Run, place: RunPlace) -> None:
        self.step_run = step_run
        self.name = place.name
        self._place = place

    def get_port_data_reference(self) -> PortDataReference:
        """Return where it is."""
        return PortDataReference(self.step_run.experiment, self._place)


class PipelineRun(Run):
    """The run of a pipeline."""

    _conductor: Conductor | None = None

    @classmethod
    def begun(cls, experiment: ExperimentFace, conductor: Conductor) -> PipelineRun:
        """Return the run of a pipeline that was handed to a conductor."""
        assert conductor.run is not None
        made = cls(experiment, conductor.run.id)
        made._conductor = conductor
        write_lines([f"Submitted PipelineRun {made.id}"])
        return made

    def cancel(self) -> None:
        """Stop what runs, and begin nothing more."""
        if self._conductor is not None:
            self._conductor.cancel()

    def get_steps(self) -> Iterator[StepRun]:
        """Yield the runs of its steps, as far as they have begun."""
        yield from (self._step(info) for info in reversed(self._steps()))

    def get_children(self, recursive: bool = False, **_: object) -> Iterator[Run]:
        """Yield the runs of its steps."""
        yield from self.get_steps()

    def find_step_run(self, name: str) -> list[StepRun]:
        """Return the runs of the steps called `name`, in the order they began."""
        named = re.compile(re.escape(name) + r"( \([0-9]+\))?")
        return [self._step(info) for info in reversed(self._steps()) if named.fullmatch(info.name)]

    def get_pipeline_output(self, pipeline_output_name: str) -> PortDataReference:
        """Return what some step put out under a name: that of the pipeline's output, else that of the step's.

        Raises:
            NotFoundException: none did.
        """
        info = self._info
        known = "" if info is None else info.params.get(pipeline_output_param(pipeline_output_name), "")
        step_name, _, output_name = known.rpartition("/")
        for step in self.find_step_run(step_name) if known else ():
            return step.get_output_data(output_name)
        for step in self.get_steps():
            for name, output in step.get_outputs().items():
                if name == pipeline_output_name:
                    return output.get_port_data_reference()
        raise NotFoundException(f"no step of run {self.id} put out {pipeline_output_name!r}")

    def wait_for_completion(
        self, show_output: bool = True, timeout_seconds: float = sys.maxsize, raise_on_error: bool = True
    ) -> str:
        """Wait for its end; Ctrl-C stops the steps.

        Args:
            show_output: print what the steps print.
            timeout_seconds: wait no longer; the pipeline goes on.
            raise_on_error: raise when a step fails.

        Raises:
            ActivityFailedException: a step failed; the message has the last lines that it printed.
        """
        conductor = self._conductor
        if conductor is None:
            return FINISHED if self.status == "Completed" else self.status
        shown = [step.name for step in conductor.steps] if show_output else []
        if not _wait(conductor, shown, timeout_seconds, conductor.is_over):
            return "Running"
        _raise_failure(conductor, list(conductor.results), raise_on_error)
        status = self.status
        write_lines(
            ["", "PipelineRun Execution Summary", "==============================", f"PipelineRun Status: {_shown(status)}"]
        )
        return _shown(status)

    def _steps(self) -> list[RunInfo]:
        return self._store.runs(parent=self.id, kind="step")

    def _step(self, info: RunInfo) -> StepRun:
        made = StepRun(self.experiment, info.id)
        made._conductor, made._step_name = self._conductor, info.name
        return made


def pipeline_output_param(name: str) -> str:
    """Return the param of a pipeline's run that says which step's output is called so."""
    return f"output {name}"


def _shown(status: str) -> str:
    return FINISHED if status == "Completed" else status


def _wait(conductor: Conductor, shown: list[str], timeout_s: float, is_over: Callable[[], bool]) -> bool:
    """Wait until something is over, printing what some steps print; Ctrl-C stops the steps."""
    tails = {name: _Tail(name) for name in shown}
    deadline_s = time.monotonic() + min(timeout_s, 10.0**9)
    try:
        while not conductor.wait(min(SHOW_S, max(0.0, deadline_s - time.monotonic()))) and not is_over():
            for tail in tails.values():
                tail.show(conductor)
            if time.monotonic() >= deadline_s:
                return False
    except KeyboardInterrupt:
        conductor.cancel()
        conductor.wait()
        raise
    for tail in tails.values():
        tail.show(conductor)
        tail.close(conductor)
    return True


class _Tail:
    """Prints what one step has printed since the last time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._offset = 0
        self._is_begun = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def show(self, conductor: Conductor) -> None:
        run = conductor.begun.get(self._name)
        if run is None:
            return
        if not self._is_begun:
            self._is_begun = True
            write_lines([f"StepRunId: {run} ({self._name})"])
        directory = find_run_directory(run)
        path = None if directory is None else directory / CODE / LOG
        if path is None or not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._offset)
            body = file.read()
        self._offset += len(body)
        sys.stdout.write(self._decoder.decode(body))

    def close(self, conductor: Conductor) -> None:
        result = conductor.results.get(self._name)
        if result is not None:
            reused = f", reused from {result.reused}" if result.reused else ""
            write_lines([f"StepRun({self._name}) Status: {_shown(result.status.capitalize())}{reused}"])


def _raise_failure(conductor: Conductor, names: list[str], raises: bool) -> None:
    failed = [conductor.results[name] for name in names if conductor.results[name].status == "failed"]
    if failed and raises:
        first = failed[0]
        others = [name for name in names if conductor.results[name].status != "completed" and name != first.name]
        more = f"; not completed either: {', '.join(others)}" if others else ""
        raise ActivityFailedException(
            f"step {first.name!r} failed: {first.error}{more}",
            hint=f"vds runs {first.run} shows what it read; its log: {os.fspath(Path('user_logs', 'std_log.txt'))}",
        )
