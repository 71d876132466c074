"""A project with scripts, whose steps run as they would for anybody: submitted here, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vds
from vds.azureml.core import Experiment, Workspace
from vds.azureml.core.pipelinerun import PipelineRun
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore
from vds.azureml.pipeline.core import Pipeline
from vds.azureml.pipeline.steps import PythonScriptStep
from vds.errors import NotFoundError
from vds.store import RunInfo, Store, Version

WAIT_S = 60.0
FACE = str(Path(vds.__file__).parent.parent)


@dataclass(frozen=True)
class Project:
    """A working directory with scripts, and the store that they use."""

    root: Path
    workspace: Workspace

    @property
    def store(self) -> Store:
        """The store."""
        return self.workspace.store

    @property
    def datastore(self) -> AzureBlobDatastore:
        """The default datastore."""
        return self.workspace.get_default_datastore()

    def write(self, name: str, text: str) -> Path:
        """Write a file, and return its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def upload(self, target: str, **files: str) -> None:
        """Upload files `NAME.txt` with these texts."""
        for name, text in files.items():
            self.write(f"uploads/{target}/{name}.txt", text)
        self.datastore.upload(str(self.root / "uploads" / target), target, overwrite=True, show_progress=False)

    def step(self, name: str, body: str, *arguments: Any, **given: Any) -> PythonScriptStep:
        """Write a script into a directory of its own, and return the step that runs it."""
        self.write(f"{name}/{name}.py", f"import os, pathlib, sys\n{textwrap.dedent(body)}")
        return PythonScriptStep(f"{name}.py", name, arguments=list(arguments), source_directory=str(self.root / name), **given)

    def submit(self, *steps: Any, **given: Any) -> PipelineRun:
        """Submit a pipeline."""
        run: PipelineRun = Experiment(self.workspace, "trials").submit(Pipeline(self.workspace, list(steps)), **given)
        return run

    def run(self, *steps: Any, **given: Any) -> PipelineRun:
        """Run a pipeline to its end; steps may fail."""
        run = self.submit(*steps, **given)
        run.wait_for_completion(show_output=False, raise_on_error=False)
        return run

    def info(self, run: PipelineRun, step: str) -> RunInfo:
        """Return what is recorded of a step."""
        [found] = self.store.runs(step, parent=run.id)
        return found

    def was_reused(self, run: PipelineRun) -> dict[str, bool]:
        """Return step → whether its earlier result was used."""
        return {info.name: bool(info.reused) for info in self.store.runs(parent=run.id)}

    def texts(self, run: PipelineRun, step: str, output: str) -> dict[str, str]:
        """Return path → text of what a step has put out."""
        [found] = run.find_step_run(step)
        assert found.get_status() == "Completed", found.get_details()["error"]
        version = found.get_output_data(output).version
        return {entry.path: version.read_text(entry.path) for entry in version.entries()}

    def visible(self) -> list[str]:
        """Return the paths of all files in the default datastore, of its newest version."""
        try:
            return [entry.path for entry in self.store.namespace(self.datastore.name).latest().entries()]
        except NotFoundError:
            return []

    def head(self) -> Version:
        """Return the newest version of the default datastore."""
        return self.store.namespace(self.datastore.name).latest()

    def start(self, text: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start a script that is written for AzureML, with its import lines changed and nothing else."""
        path = self.write("main.py", textwrap.dedent(text).replace("from azureml.", "from vds.azureml."))
        return subprocess.Popen(
            [sys.executable, str(path), *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": FACE, "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def play(self, text: str, *arguments: str, code: int = 0, **environ: str) -> str:
        """Run such a script to its end, and return what it printed."""
        process = self.start(text, *arguments, **environ)
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == code, f"{out}\n{err}"
        return out if code == 0 else out + err


@pytest.fixture
def project(here: Path, ws: Workspace) -> Project:
    """Return an empty project on a store of its own."""
    return Project(here, ws)


def wait_until(is_so: Callable[[], object], what: str = "it") -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s, f"{what} did not come about"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def statuses(infos: Sequence[RunInfo]) -> dict[str, str | None]:
    """Return name → status."""
    return {info.name: info.status for info in infos}
