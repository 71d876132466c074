"""A workspace on a store in a directory of its own, as a script would get it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vds
from vds.azureml import configuration, notices
from vds.azureml.core import Workspace
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty working directory outside of any job."""
    for name in configuration.JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    notices.forget()
    yield directory
    notices.forget()


@pytest.fixture
def ws(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """Return the workspace of a configured store."""
    url = str(tmp_path / "store")
    vds.connect(url, create=True).close()
    monkeypatch.setenv("VDS_STORE", url)
    workspace = Workspace.from_config()
    yield workspace
    workspace.store.close()


@pytest.fixture
def datastore(ws: Workspace) -> AzureBlobDatastore:
    """Return its default datastore."""
    return ws.get_default_datastore()


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files below a directory, which is made, and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    root.mkdir(parents=True, exist_ok=True)
    return root
