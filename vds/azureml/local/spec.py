"""A step as the runner sees it: a script, what it is given, what it puts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from vds.model.ulid import is_ulid

DEFAULT_PLACE = "azureml/{run-id}/{output-name}"
"""Where an output goes in its datastore when nothing else is said: as the service places it."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A dataset that an output is registered as, once its step has succeeded."""

    dataset: str
    description: str | None = None
    tags: Mapping[str, str] | None = None


@dataclass(slots=True, eq=False)
class Port:
    """An output of some step, and what joins it to the steps that read it. Compared by identity.

    Attributes:
        datastore: where it goes; None for the default one.
        place: where in the datastore, with `{run-id}` and `{output-name}`; empty for a place of its own.
        is_directory: whether its path is made as a directory, or is for the script to make a file of.
        registrations: datasets that whatever step puts it out registers.
        pipeline_name: by which the run of the pipeline knows it; empty for none.
        made_up: the name it had before it was given one that is the same in each submission; empty for none.
    """

    name: str
    datastore: Any = None
    place: str = ""
    is_directory: bool = True
    registrations: list[Registration] = field(default_factory=list)
    pipeline_name: str = ""
    made_up: str = ""

    @property
    def env_name(self) -> str:
        """The environment variable that tells a script where it is."""
        return f"AZUREML_DATAREFERENCE_{self.name}"

    @property
    def is_shared(self) -> bool:
        """Whether its place is the same for every run."""
        return bool(self.place) and "{run-id}" not in self.place

    def own_place(self, run: str) -> str:
        """Return a place that holds one run's files and no others: where its place is shared, a second one."""
        return _filled(DEFAULT_PLACE if self.is_shared else self.place or DEFAULT_PLACE, self, run)


@dataclass(frozen=True, slots=True)
class Output:
    """A port as one step's output."""

    port: Port
    registrations: tuple[Registration, ...] = ()

    @property
    def all_registrations(self) -> list[Registration]:
        """What it is registered as, each once."""
        found: list[Registration] = []
        for one in (*self.registrations, *self.port.registrations):
            if one not in found:
                found.append(one)
        return found


@dataclass(frozen=True, slots=True)
class Input:
    """What a step reads.

    Attributes:
        name: under which the script finds it.
        source: a port, or anything that `vds.azureml.selection.select` takes.
        mode: mount, download or direct: how the SDK would deliver it.
    """

    name: str
    source: Any
    mode: str = "mount"


@dataclass(frozen=True, slots=True)
class InputPath:
    """Stands in the arguments for the place of an input."""

    name: str


@dataclass(frozen=True, slots=True)
class OutputPath:
    """Stands in the arguments for the place of an output."""

    port: Port


Argument: TypeAlias = str | InputPath | OutputPath


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step.

    Attributes:
        environment: what of the run configuration its result depends on.
        variables: environment variables for the script.
        after: steps that must have ended first, whatever they put out.
        timeout_s: after how long it is stopped; None for never.
        command: of the shell, in the place of the script.
    """

    name: str
    script: str
    source_directory: Path
    arguments: Sequence[Argument] = ()
    inputs: Sequence[Input] = ()
    outputs: Sequence[Output] = ()
    allow_reuse: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()
    timeout_s: float | None = None
    command: Sequence[Argument] = ()


def place_of(port: Port, run: str) -> str:
    """Return where a port's files go in its datastore, for one run."""
    return _filled(port.place or DEFAULT_PLACE, port, run)


def _filled(place: str, port: Port, run: str) -> str:
    return place.replace("{run-id}", run).replace("{output-name}", port.name).strip("/")


def is_below_run(path: str) -> bool:
    """Return whether a path of a datastore is where a run has put its output, as long as nothing else is said."""
    parts = path.split("/")
    return len(parts) > 2 and parts[0] in ("azureml", "dataset") and is_ulid(parts[1])
