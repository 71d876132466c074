"""All steps of a submission: each when those before it have succeeded, independent ones side by side."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from vds.azureml.local.graph import check_is_code
from vds.azureml.local.spec import Port, StepSpec
from vds.azureml.local.stepwork import carry_out
from vds.azureml.local.work import Made, StepResult, Work
from vds.background import Background
from vds.store import Run

STEPS_MAX = max(2, os.cpu_count() or 1)
"""How many steps run at once."""
POLL_S = 0.02


@dataclass
class Conductor:
    """Runs steps behind the script that submitted them.

    Attributes:
        run: the pipeline's own run; None for a script by itself.
        goes_on: whether steps that do not depend on one that failed are still begun.
        begun: step → its run, as they begin.
        results: by step, as they end.
    """

    work: Work
    steps: Sequence[StepSpec]
    waits: Mapping[str, set[str]]
    run: Run | None = None
    goes_on: bool = False
    begun: dict[str, str] = field(default_factory=dict)
    results: dict[str, StepResult] = field(default_factory=dict)
    canceled: threading.Event = field(default_factory=threading.Event)
    _thread: Background[None] | None = None

    def __post_init__(self) -> None:
        self.work.is_canceled = self.canceled.is_set
        self.work.on_begin = self._note

    def _note(self, name: str, run: str, reused: str) -> None:
        self.begun[name] = run

    def start(self) -> None:
        """Take the code of the steps, pin what they read, and begin.

        Raises:
            UserErrorException: the code of a step cannot be taken, or its ignore file leaves out its script.
        """
        for step in self.steps:
            check_is_code(step, self.work.code_of(step.source_directory))
            for given in step.inputs:
                if not isinstance(given.source, Port):
                    self.work.pin(given)
        name = f"vds-steps-{self.run.id if self.run else self.steps[0].name}"
        self._thread = Background(self._conduct, name, on_exit=self._cancel_if_interrupted)

    def cancel(self) -> None:
        """Stop what runs, and begin nothing more."""
        self.canceled.set()

    def is_over(self) -> bool:
        """Return whether all has ended."""
        return self._thread is not None and self._thread.is_over()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end, and return whether it has come.

        Raises:
            BaseException: a fault of the runner itself; a step that fails is in the results.
        """
        assert self._thread is not None
        if not self._thread.wait(timeout_s):
            return False
        self._thread.result()
        return True

    @property
    def failed(self) -> list[StepResult]:
        """The steps that did not succeed."""
        return [result for result in self.results.values() if result.status != "completed"]

    def _conduct(self) -> None:
        try:
            self._run_all()
        except BaseException as err:
            self.canceled.set()  # what still runs has nobody to take its result
            if self.run is not None:
                self.run.end("failed", f"{type(err).__name__}: {err}")
            raise
        finally:
            self.work.close()
        if self.run is not None:
            self._end(self.run)

    def _run_all(self) -> None:
        by_name = {step.name: step for step in self.steps}
        left = list(self.waits)
        running: dict[str, Background[StepResult]] = {}
        made: dict[Port, Made] = {}
        while left or running:
            for name in [name for name, thread in running.items() if thread.is_over()]:
                result = running.pop(name).result()
                self.results[name] = result
                made.update(result.outputs)
            for name in self._ready(left, len(running)):
                left.remove(name)
                step = by_name[name]
                call = partial(carry_out, self.work, step, dict(made), self._runs_before(name))
                running[name] = Background(call, f"vds-step-{name}")
            if not running:
                break
            time.sleep(POLL_S)
        for name in left:
            self.results[name] = StepResult(name, "", "canceled", error=self._why_not(name))

    def _ready(self, left: Sequence[str], running: int) -> list[str]:
        if self.canceled.is_set() or (self.failed and not self.goes_on):
            return []
        succeeded = {name for name, result in self.results.items() if result.status == "completed"}
        return [name for name in left if self.waits[name] <= succeeded][: STEPS_MAX - running]

    def _runs_before(self, name: str) -> list[str]:
        """Return the runs of all steps that a step has waited for."""
        found = list(self.waits[name])
        for one in found:  # which grows meanwhile
            found += [other for other in self.waits[one] if other not in found]
        return [self.results[one].run for one in found]

    def _cancel_if_interrupted(self) -> None:
        """Stop what runs where Ctrl-C has ended the script that submitted it; any other end waits for it."""
        if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt):
            self.cancel()

    def _why_not(self, name: str) -> str:
        bad = sorted(self.waits[name] & {result.name for result in self.failed})
        return f"not run: {', '.join(bad)} did not succeed" if bad else "not run"

    def _end(self, run: Run) -> None:
        failed = [result for result in self.failed if result.status == "failed"]
        if failed:
            run.end("failed", f"step {failed[0].name}: {failed[0].error.splitlines()[0] if failed[0].error else 'failed'}")
        elif self.failed:
            run.end("canceled")
        else:
            run.end("completed")
