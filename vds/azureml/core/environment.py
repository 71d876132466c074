"""Environments: accepted, kept for what they decide about reuse; scripts run with the Python that runs vds."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vds.azureml.core.conda_dependencies import CondaDependencies
from vds.azureml.exceptions import UserErrorException


class Environment:
    """A description of an environment."""

    def __init__(self, name: str | None = None, **_: object) -> None:
        self.name = name
        self.version: str | None = None
        self.environment_variables: dict[str, str] = {}
        self.python = SimpleNamespace(
            conda_dependencies=CondaDependencies(),
            user_managed_dependencies=True,
            interpreter_path="python",
            conda_dependencies_file=None,
        )
        self.docker = SimpleNamespace(
            enabled=False,
            base_image=None,
            base_dockerfile=None,
            arguments=[],
            shared_volumes=True,
            gpu_support=False,
            shm_size=None,
        )
        self.spark = SimpleNamespace(packages=[], repositories=[], precache_packages=True)
        self.inferencing_stack_version: str | None = None
        self._files: dict[str, str] = {}

    @staticmethod
    def get(workspace: object, name: str, version: str | None = None, label: str | None = None) -> Environment:
        """Return what this process has registered under the name, else a description that has the name and says no more."""
        made = _registered[name].clone(name) if name in _registered else Environment(name)
        made.version = version
        return made

    @staticmethod
    def from_conda_specification(name: str, file_path: str | os.PathLike[str]) -> Environment:
        """Return the environment that a file describes.

        Raises:
            UserErrorException: it cannot be read.
        """
        return _from_file(name, file_path)

    @staticmethod
    def from_pip_requirements(name: str, file_path: str | os.PathLike[str], pip_version: str | None = None) -> Environment:
        """Return the environment that a file of requirements describes.

        Raises:
            UserErrorException: it cannot be read.
        """
        return _from_file(name, file_path)

    @staticmethod
    def from_docker_image(name: str, image: str, **_: object) -> Environment:
        """Return a description that names the image."""
        made = Environment(name)
        made.docker.base_image = image
        return made

    def register(self, workspace: object) -> Environment:
        """Have `get` find it, as long as this process lives; returns itself."""
        if self.name:
            _registered[self.name] = self
        return self

    def build(self, workspace: object, **_: object) -> Environment:
        """Return itself: nothing is built."""
        return self

    def clone(self, new_name: str) -> Environment:
        """Return a copy under another name."""
        made = Environment(new_name)
        made.__dict__.update({key: value for key, value in self.__dict__.items() if key != "name"})
        return made

    def vds_facts(self) -> dict[str, Any]:
        """Return what it says, for the key of a step."""
        conda = self.python.conda_dependencies
        return {
            "name": self.name,
            "version": self.version,
            "image": self.docker.base_image,
            "packages": conda.vds_facts() if isinstance(conda, CondaDependencies) else str(conda),
            "files": self._files,
        }


_registered: dict[str, Environment] = {}


def _from_file(name: str, file_path: str | os.PathLike[str]) -> Environment:
    made = Environment(name)
    try:
        made._files = {Path(file_path).name: Path(file_path).read_text(encoding="utf-8")}
    except OSError as err:
        raise UserErrorException(f"cannot read {os.fspath(file_path)!r}: {err.strerror}") from err
    return made
