"""Which step waits for which: from the outputs that others read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from vds.azureml.exceptions import UserErrorException
from vds.azureml.local.code import Code
from vds.azureml.local.spec import Port, StepSpec


def order_steps(steps: Sequence[StepSpec]) -> dict[str, set[str]]:
    """Return step → the steps that must have succeeded before it, both by name, in an order that can be run.

    Raises:
        UserErrorException: two steps have one name or put out one output, a step waits for itself, or reads what nobody puts out;
            the message names both ends.
    """
    _check_names(steps)
    producers = find_producers(steps)
    waits = {step.name: _needed(step, producers, {other.name for other in steps}) for step in steps}
    try:
        ordered = list(TopologicalSorter(waits).static_order())
    except CycleError as err:
        ring = " -> ".join(reversed(err.args[1]))
        raise UserErrorException(
            f"these steps wait for each other: {ring}", hint="an output can be read only by steps that its own does not wait for"
        ) from err
    return {name: waits[name] for name in ordered}


def find_producers(steps: Sequence[StepSpec]) -> dict[Port, StepSpec]:
    """Return output → the step that puts it out.

    Raises:
        UserErrorException: two steps put out one output.
    """
    producers: dict[Port, StepSpec] = {}
    for step in steps:
        for output in step.outputs:
            other = producers.setdefault(output.port, step)
            if other is not step:
                raise UserErrorException(
                    f"output {output.port.name!r} is put out by two steps, {other.name!r} and {step.name!r}",
                    hint="give each step an output of its own, and the step that reads them both",
                )
    _check_output_names(steps)
    return producers


def check_scripts(steps: Sequence[StepSpec]) -> None:
    """Check that the scripts are there.

    Raises:
        UserErrorException: one is not; the message names its step and where it was looked for.
    """
    for step in steps:
        if not step.command and not (step.source_directory / step.script).is_file():
            raise UserErrorException(
                f"step {step.name!r} has no script: there is no {step.script!r} in source_directory"
                f" {os.fspath(step.source_directory)!r} (that is {str(step.source_directory.resolve())!r})",
                hint="write the script before the pipeline is submitted, or mend script_name or source_directory",
            )


def check_is_code(step: StepSpec, code: Code) -> None:
    """Check that the script of a step is among its code.

    Raises:
        UserErrorException: the ignore file leaves it out.
    """
    if not step.command and Path(step.script).as_posix() not in code.digests and not os.path.isabs(step.script):
        raise UserErrorException(
            f"step {step.name!r} has no script: {step.script!r} is left out by {code.ignored_by or 'its name'!r}"
            f" in source_directory {os.fspath(step.source_directory)!r}",
            hint=f"mend the pattern, or add !{step.script}",
        )


def _needed(step: StepSpec, producers: Mapping[Port, StepSpec], names: set[str]) -> set[str]:
    needed = set()
    for name in step.after:
        if name not in names:
            raise UserErrorException(f"step {step.name!r} is to run after {name!r}, which is no step of this pipeline")
        needed.add(name)
    for given in step.inputs:
        if not isinstance(given.source, Port):
            continue
        producer = producers.get(given.source)
        if producer is None:
            raise UserErrorException(
                f"step {step.name!r} reads output {given.source.name!r}, which no step of this pipeline puts out",
                hint="name it in the outputs of the step that writes it",
            )
        needed.add(producer.name)
    return needed


def _check_names(steps: Sequence[StepSpec]) -> None:
    seen: set[str] = set()
    for step in steps:
        if step.name in seen:
            raise UserErrorException(f"two steps are called {step.name!r}", hint="PythonScriptStep(name=…)")
        seen.add(step.name)


def _check_output_names(steps: Sequence[StepSpec]) -> None:
    for step in steps:
        names = [output.port.name for output in step.outputs]
        for name in names:
            if names.count(name) > 1:
                raise UserErrorException(f"step {step.name!r} has two outputs called {name!r}", hint="rename one of them")
