"""What notebooks import from `azureml.widgets`."""

from __future__ import annotations

from typing import Any

from vds.azureml.notices import write_lines


class RunDetails:
    """A run in a notebook: a line of text here."""

    def __init__(self, run_instance: Any) -> None:
        self._run = run_instance

    def show(self, **_: object) -> None:
        """Print the run and its status."""
        write_lines([f"{self._run!r}; vds runs {self._run.id}"])

    def get_widget_data(self, **_: object) -> dict[str, Any]:
        """Return what is recorded of the run."""
        details: dict[str, Any] = self._run.get_details()
        return details
