"""The names of the AzureML SDK, as `vds run` has scripts find them: each module is the one of `vds.azureml`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

PREFIX = "azureml."
FACE = "vds.azureml."


class _Finder(MetaPathFinder):
    """Finds `azureml.x` as `vds.azureml.x`."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of a module below `azureml`, or None."""
        if not name.startswith(PREFIX) or find_spec(FACE + name.removeprefix(PREFIX)) is None:
            return None
        return ModuleSpec(name, _Loader(FACE + name.removeprefix(PREFIX)))


class _Loader(Loader):
    """Loads a module by handing out another one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module of `vds.azureml`."""
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing but give the module its own spec back: it is loaded already."""
        module.__spec__ = self._spec


sys.meta_path.insert(0, _Finder())
