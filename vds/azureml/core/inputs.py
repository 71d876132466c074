"""What a step's script finds of what it was given: its inputs by name, its outputs by name."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vds.azureml.exceptions import UserErrorException
from vds.azureml.local.execution import STEP_INPUTS, STEP_OUTPUTS
from vds.azureml.selection import Selectable, select


class LocalInput(str):
    """The path of an input, as a text; `to_path()` gives the readable local files."""

    @classmethod
    def of(cls, value: Any) -> LocalInput:
        """Return the input that a path, a name or a dataset means.

        Raises:
            UserErrorException: there is nothing there.
        """
        if isinstance(value, Selectable):
            return cls(os.fspath(select(value).place()))
        text = os.fspath(value)
        known = json.loads(os.environ.get(STEP_INPUTS, "{}"))
        path = known[text]["path"] if text in known else text
        if not os.path.exists(path):
            raise UserErrorException(f"{text!r} is neither an input of this step nor a path", hint=f"inputs: {', '.join(known)}")
        return cls(path)

    def to_path(self) -> list[str]:
        """Return the files, sorted, as absolute paths."""
        path = Path(self)
        found = [path] if path.is_file() else (one for one in path.rglob("*") if one.is_file())
        return sorted(os.path.abspath(one) for one in found)

    def __getitem__(self, key: Any) -> str:
        # With a number: the n-th file, as scripts ask for it; a path has no use for its letters.
        return self.to_path()[key] if isinstance(key, int) else super().__getitem__(key)

    @property
    def mount_point(self) -> str:
        """The path."""
        return str(self)


class InputDatasets(Mapping[str, Any]):
    """Name → path of what this process's step reads, or the dataset itself where it was given as such (mode direct)."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = json.loads(os.environ.get(STEP_INPUTS, "{}"))

    def __getitem__(self, name: str) -> Any:
        known = self._known[name]
        if known["mode"] != "direct":
            return LocalInput(known["path"])
        with open(known["dataset"], "rb") as file:
            return pickle.load(file)  # noqa: S301  # written by who started this process, in a directory of this user's

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class OutputPaths(Mapping[str, str]):
    """Name → path of what this process's step writes."""

    def __init__(self) -> None:
        self._known: dict[str, str] = json.loads(os.environ.get(STEP_OUTPUTS, "{}"))

    def __getitem__(self, name: str) -> str:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
