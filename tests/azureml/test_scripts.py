"""Scripts as people wrote them for AzureML, with their import lines changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vds.azureml.core import Workspace

TWO_JOBS = """
import os
from vds.azureml.core import Workspace, Datastore

ws = Workspace.from_config()
default_ds = ws.get_default_datastore()

def preprocess_data(job, folder):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "processed.txt"), "w") as f:
        f.write(f"processed by {job}")
    with open(os.path.join(folder, f"only_{job}.txt"), "w") as f:
        f.write(job)

preprocess_data("job1", "one")
default_ds.upload(src_dir="one", target_path="preprocessed_data", overwrite=True, show_progress=True)
preprocess_data("job2", "two")
default_ds.upload(src_dir="two", target_path="preprocessed_data", overwrite=True, show_progress=True)
print(f"Data is at {default_ds.name}/preprocessed_data")
"""

REGISTER = """
from vds.azureml.core import Workspace, Datastore, Dataset

ws = Workspace("subscription", "group", "name")
datastore = Datastore.get(ws, "workspaceblobstore")
with open("sample.csv", "w") as f:
    f.write("n\\n1\\n")
datastore.upload_files(["sample.csv"], target_path="raw_data", overwrite=True)
data = Dataset.Tabular.from_delimited_files(path=(datastore, "raw_data/sample.csv"))
data = data.register(workspace=ws, name="my data", description="d", tags={"format": "CSV"}, create_new_version=True)
print(data.name, data.version, data.to_pandas_dataframe()["n"].tolist())
"""

ONE_JOB = """
import sys
from pathlib import Path
from vds.azureml.core import Workspace

name = sys.argv[1]
Path(name).mkdir()
Path(name, "shared.txt").write_text(name)
Path(name, f"{name}.txt").write_text(name)
Workspace.from_config().get_default_datastore().upload(name, "out", overwrite=True, show_progress=False)
"""


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)


def test_two_jobs_that_write_to_one_place(ws: Workspace) -> None:
    done = run(TWO_JOBS)
    lines = done.stdout.splitlines()
    assert lines[0] == "Uploading an estimated of 2 files"
    assert lines[-1] == "Data is at workspaceblobstore/preprocessed_data"
    assert "replaced 1 file that version 1 of 'workspaceblobstore' had written" in done.stderr
    raw = ws.get_default_datastore().namespace
    assert raw.get(1).read_text("preprocessed_data/processed.txt") == "processed by job1"
    assert raw.get(2).read_text("preprocessed_data/processed.txt") == "processed by job2"
    assert raw.get(2).exists("preprocessed_data/only_job1.txt")


def test_upload_register_read(ws: Workspace) -> None:
    for _ in range(2):
        done = run(REGISTER)
        assert done.stdout.splitlines()[-1] == "my data 1 [1]"
    assert [info.name for info in ws.store.datasets()] == ["my_x20_data"]


def test_jobs_at_the_same_time_all_get_a_version(ws: Workspace, here: Path) -> None:
    names = [f"job{number}" for number in range(4)]
    running = [subprocess.Popen([sys.executable, "-c", ONE_JOB, name], stderr=subprocess.PIPE) for name in names]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    raw = ws.get_default_datastore().namespace
    assert raw.latest().number == 4
    written = [raw.get(number).read_text("out/shared.txt") for number in range(1, 5)]
    assert sorted(written) == names
    assert [entry.path for entry in raw.latest().entries("out")] == sorted(f"out/{name}.txt" for name in [*names, "shared"])


@pytest.mark.parametrize("module", ["vds.azureml.core", "vds.azureml.data"])
def test_importing_loads_neither_pandas_nor_the_sdk(module: str) -> None:
    done = run(f"import sys, {module}; print(sorted({{'pandas', 'azureml', 'pyarrow'}} & set(sys.modules)))")
    assert done.stdout.strip() == "[]"
