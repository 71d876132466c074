"""From what a script gives a step (datasets, references, outputs, plain values) to what the runner takes."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vds.azureml.data.data_reference import DataReference
from vds.azureml.data.dataset_consumption_config import DatasetConsumptionConfig
from vds.azureml.exceptions import UserErrorException
from vds.azureml.local.spec import Argument, Input, InputPath, Output, OutputPath, Port, StepSpec
from vds.azureml.selection import Selectable

_MADE_UP = re.compile(r"[0-9a-f]{32}|input_[0-9a-f]{8}|(input_)?output_[0-9a-f]{8}")
"""Names that the SDK, and so vds, gives to what a script gives none."""


@runtime_checkable
class Producing(Protocol):
    """What a step can put out."""

    def vds_output(self) -> Output:
        """Return it as the runner takes it."""


@runtime_checkable
class Reading(Protocol):
    """What a step reads, under a name of its own."""

    def vds_input(self) -> Input:
        """Return it as the runner takes it."""


@runtime_checkable
class Parameter(Protocol):
    """A value that is known when the pipeline is submitted."""

    name: str
    default_value: Any

    def vds_is_parameter(self) -> bool:
        """True."""


@dataclass(frozen=True)
class StepCall:
    """A step as a script has written it down.

    Attributes:
        outputs: the step puts these out; what stands in the arguments alone may be an output of another step.
    """

    name: str
    script: str
    source_directory: str | os.PathLike[str]
    arguments: Sequence[Any] = ()
    inputs: Sequence[Any] = ()
    outputs: Sequence[Any] = ()
    allow_reuse: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()
    timeout_s: float | None = None
    command: Sequence[Any] = ()

    def ports_put_out(self) -> set[Port]:
        """Return the outputs that the step names as its own."""
        return {_output_of(one).port for one in self.outputs} | {
            one.vds_output().port
            for one in (*self.arguments, *self.command)
            if isinstance(one, Producing) and _is_always_output(one)
        }


def read_step(call: StepCall, values: Mapping[str, Any], produced_elsewhere: set[Port]) -> StepSpec:
    """Return a step as the runner takes it.

    Args:
        call: as the script has it.
        values: of parameters, by name; the others have their defaults.
        produced_elsewhere: outputs that other steps name as their own: in the arguments, these are read.
    """
    reader = _Reader(values, produced_elsewhere)
    for one in call.outputs:
        reader.put_out(one)
    for one in call.inputs:
        reader.add_input(reader.value_of(one))
    arguments = [reader.argument(one) for one in call.arguments]
    command = [reader.argument(one) for one in call.command]
    reader.settle_names()
    return StepSpec(
        name=call.name,
        script=call.script,
        source_directory=Path(call.source_directory),
        arguments=[reader.settled(one) for one in arguments],
        inputs=list(reader.inputs.values()),
        outputs=list(reader.outputs.values()),
        allow_reuse=call.allow_reuse,
        environment=call.environment,
        variables=call.variables,
        after=call.after,
        timeout_s=call.timeout_s,
        command=[reader.settled(one) for one in command],
    )


class _Reader:
    """Gathers the inputs and outputs of one step, each once."""

    def __init__(self, values: Mapping[str, Any], produced_elsewhere: set[Port]) -> None:
        self._values = values
        self._elsewhere = produced_elsewhere
        self.inputs: dict[str, Input] = {}
        self.outputs: dict[Port, Output] = {}
        self._references: list[tuple[DataReference, Port]] = []
        self._settled: dict[str, str] = {}

    def value_of(self, one: Any) -> Any:
        """Return what a parameter stands for; anything else as it is."""
        if isinstance(one, Parameter):
            return self._values.get(one.name, one.default_value)
        return one

    def put_out(self, one: Any) -> None:
        """Note what the step names as its output."""
        output = _output_of(one)
        self.add_output(output)
        if isinstance(one, DataReference):
            self._references.append((one, output.port))

    def add_output(self, output: Output) -> None:
        """Note an output; what it is registered as adds up."""
        known = self.outputs.get(output.port)
        earlier = () if known is None else known.registrations
        more = (one for one in output.registrations if one not in earlier)
        self.outputs[output.port] = replace(output, registrations=(*earlier, *more))

    def add_input(self, one: Any, name: str = "") -> Input:
        """Note an input, and return it under the name by which the script finds it."""
        given = self._input_of(one, name)
        known = self.inputs.get(given.name)
        if known is not None and known.source is not given.source:
            number = sum(other.name.startswith(given.name) for other in self.inputs.values()) + 1
            given = replace(given, name=f"{given.name}_{number}")
        self.inputs[given.name] = given
        return given

    def argument(self, one: Any) -> Argument:
        """Return an argument: a text, or what stands for a path that is known later."""
        name = one.name if isinstance(one, Parameter) else ""
        value = self.value_of(one)
        if isinstance(value, Producing):
            output = value.vds_output()
            if output.port in self.outputs or (output.port not in self._elsewhere and _can_be_output(value)):
                self.add_output(output)
                return OutputPath(output.port)
        for reference, port in self._references:
            if reference is value:
                return OutputPath(port)
        if isinstance(value, Reading | Producing | Selectable | DatasetConsumptionConfig):
            return InputPath(self._find_input(value, name).name)
        return str(value)

    def settle_names(self) -> None:
        """Give what has a name by chance one that is the same in each submission: results could never be used again otherwise."""
        for output in self.outputs.values():
            port = output.port
            if _MADE_UP.fullmatch(port.name):
                port.made_up, port.name = port.name, self._free_name("output")
            if port.made_up:
                self._settled[port.made_up] = port.name
        for given in list(self.inputs.values()):
            name = self._free_name("input") if _MADE_UP.fullmatch(given.name) else given.name
            if name != given.name:
                self._settled[given.name] = name
            if isinstance(given.source, Port) and given.source.made_up:
                self._settled[given.source.made_up] = name
            self.inputs[name] = replace(self.inputs.pop(given.name), name=name)

    def settled(self, one: Argument) -> Argument:
        """Return an argument with the names that were given since."""
        if isinstance(one, InputPath):
            return InputPath(self._settled.get(one.name, one.name))
        if isinstance(one, str):
            for before, after in self._settled.items():
                one = one.replace(before, after)
        return one

    def _free_name(self, word: str) -> str:
        taken = {*self.inputs, *(output.port.name for output in self.outputs.values())}
        return next(name for number in itertools.count(1) if (name := f"{word}_{number}") not in taken)

    def _find_input(self, value: Any, name: str) -> Input:
        """Return the input that an argument means: one that was named among the inputs, or a new one."""
        wanted = self._input_of(value, name)
        has_own_name = isinstance(value, DatasetConsumptionConfig | Reading)
        for known in self.inputs.values():
            if known.source is wanted.source and (not has_own_name or known.name == wanted.name):
                return known
        return self.add_input(value, name)

    def _input_of(self, one: Any, name: str) -> Input:
        if isinstance(one, DatasetConsumptionConfig):
            return Input(one.name, self.value_of(one.dataset), one.mode)
        if isinstance(one, Reading):
            given = one.vds_input()
            return replace(given, source=self.value_of(given.source))
        if isinstance(one, Producing):
            port = one.vds_output().port
            return Input(port.name, port)
        if isinstance(one, Selectable):
            own = getattr(one, "data_reference_name", None) or getattr(one, "name", None)
            return Input(name or own or "input", one, getattr(one, "mode", "mount"))
        raise UserErrorException(
            f"{one!r} cannot be an input of a step", hint="give a dataset, a DataReference, or an output of another step"
        )


def _output_of(one: Any) -> Output:
    if isinstance(one, Producing):
        return one.vds_output()
    if isinstance(one, DataReference):
        return Output(Port(one.data_reference_name, one.datastore, one.path_on_datastore or ""))
    raise UserErrorException(f"{one!r} cannot be an output of a step", hint="give a PipelineData or an OutputFileDatasetConfig")


def _is_always_output(one: Producing) -> bool:
    return bool(getattr(one, "vds_is_always_output", False))


def _can_be_output(one: Any) -> bool:
    return not getattr(one, "vds_is_input", False)
