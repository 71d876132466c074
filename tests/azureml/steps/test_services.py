"""Steps on a store in a container, with its index on a server, which their processes reach by what the environment says."""

from __future__ import annotations

from pathlib import Path

import pytest

import vds
from tests.azureml.steps.conftest import Project
from tests.azureml.steps.test_processes import SUBMIT, WAIT
from vds.azureml.core import Workspace

pytestmark = pytest.mark.services


def test_steps_on_azurite_and_postgresql(
    here: Path, container_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vds.connect(container_url, index=database_url, create=True).close()
    monkeypatch.setenv("VDS_STORE", container_url)
    monkeypatch.setenv("VDS_INDEX", database_url)
    project = Project(here, Workspace.from_config())
    project.write("src/work.py", """
        import pathlib, sys
        from vds.azureml.core import Run
        run = Run.get_context()
        run.log("value", 1)
        run.parent.log("best", 2)
        pathlib.Path(sys.argv[1], "done.txt").write_text("done")
        run.experiment.workspace.get_default_datastore().upload_files([sys.argv[0]], target_path="code", show_progress=False)
    """)  # fmt: skip
    out = project.play(SUBMIT + WAIT + "    print(run.get_metrics(), list(run.get_steps())[0].get_metrics())\n")
    assert "{'best': 2} {'value': 1}" in out
    assert {info.status for info in project.store.runs()} == {"completed"}
    assert sorted(path.rpartition("/")[2] for path in project.visible()) == ["done.txt", "work.py"]
    again = project.play(SUBMIT + "    run.wait_for_completion()\n")
    assert "reused from" in again
    project.store.close()
