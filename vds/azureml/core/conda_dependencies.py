"""The packages that a script says it needs. Kept for what they decide about reuse; nothing is installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class CondaDependencies:
    """A list of conda and pip packages."""

    def __init__(self, conda_dependencies_file_path: str | None = None, _underlying_structure: object = None) -> None:
        self._conda: list[str] = []
        self._pip: list[str] = []
        self.python_version = ""
        self.file_path = conda_dependencies_file_path

    @staticmethod
    def create(
        pip_indexurl: str | None = None,
        pip_packages: Iterable[str] | None = None,
        conda_packages: Iterable[str] | None = None,
        python_version: str = "3.8.13",
        pin_sdk_version: bool = True,
        **_: object,
    ) -> CondaDependencies:
        """Return a list of these packages."""
        made = CondaDependencies()
        made._pip, made._conda = list(pip_packages or []), list(conda_packages or [])
        made.python_version = python_version
        return made

    def add_pip_package(self, pip_package: str, pin_sdk_version: bool = True) -> None:
        """Add a package of pip's."""
        self._pip.append(pip_package)

    def add_conda_package(self, conda_package: str) -> None:
        """Add a package of conda's."""
        self._conda.append(conda_package)

    def add_channel(self, channel: str) -> None:
        """Accept a channel, which means nothing here."""

    def remove_pip_package(self, pip_package: str) -> None:
        """Take a package of pip's away."""
        self._pip = [name for name in self._pip if name != pip_package]

    def set_python_version(self, version: str) -> None:
        """Note which Python is wanted."""
        self.python_version = version

    @property
    def pip_packages(self) -> list[str]:
        """The packages of pip's."""
        return list(self._pip)

    @property
    def conda_packages(self) -> list[str]:
        """The packages of conda's."""
        return list(self._conda)

    def vds_facts(self) -> dict[str, Any]:
        """Return what it says, for the key of a step."""
        return {"pip": sorted(self._pip), "conda": sorted(self._conda), "python": self.python_version}
