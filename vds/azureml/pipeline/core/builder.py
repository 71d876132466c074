"""Steps, as all kinds of them are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vds.azureml.local.given import StepCall


class PipelineStep:
    """A step of a pipeline.

    Attributes:
        name: its name; a second step of this name in a pipeline is run as `name (2)`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._after: list[PipelineStep] = []

    def run_after(self, step: PipelineStep) -> None:
        """Begin this step only when another one has succeeded, whether or not it reads what that puts out."""
        self._after.append(step)

    @property
    def after(self) -> list[PipelineStep]:
        """The steps it was told to run after."""
        return list(self._after)

    def vds_call(self) -> StepCall:
        """Return what it does."""
        raise NotImplementedError


class StepSequence:
    """Steps that run one after the other."""

    def __init__(self, steps: Iterable[Any] | None = None) -> None:
        self._steps = list(steps or [])
        for earlier, later in zip(self._steps, self._steps[1:], strict=False):
            for own in flatten([later]):
                for before in flatten([earlier]):
                    own.run_after(before)

    def __iter__(self) -> Any:
        return iter(self._steps)


def flatten(steps: Iterable[Any]) -> list[PipelineStep]:
    """Return steps as one list; they may be in lists of lists, and in sequences."""
    found: list[PipelineStep] = []
    for one in steps:
        found += flatten(one) if isinstance(one, list | tuple | StepSequence) else [one]
    return found


def unique_names(steps: Iterable[PipelineStep]) -> dict[PipelineStep, str]:
    """Return a name for each step that no other one has."""
    seen: dict[str, int] = {}
    found: dict[PipelineStep, str] = {}
    for step in steps:
        number = seen[step.name] = seen.get(step.name, 0) + 1
        found[step] = step.name if number == 1 else f"{step.name} ({number})"
    return found
