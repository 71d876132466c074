"""`vds run`, `runs`, `where`, `why`, `graph` and `rollback --run`, as people type them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import vds
from tests.cli.conftest import REPOSITORY, Cli
from vds.model.ulid import is_ulid


@pytest.fixture
def made(vds: Cli) -> Cli:
    """A store with one version that a person has written."""
    vds.ok("init", "./store")
    (vds.directory / "data").mkdir()
    (vds.directory / "data" / "a.txt").write_text("one")
    vds.ok("upload", "data", "team/raw")
    return vds


def run_of(cli: Cli, *args: str) -> dict[str, object]:
    """Return what is recorded of the newest run."""
    document: dict[str, object] = cli.ok("runs", "-n", "1", "--json", *args).document["runs"][0]
    return document


def test_a_command_is_a_run(made: Cli) -> None:
    (made.directory / "out").mkdir()
    command = "echo model > out/m.bin; echo $VDS_RUN"
    done = made.ok(
        *("run", "--name", "train", "--input", "data=team/raw", "--param", "lr=0.1", "--output", "models=out", "-q", "--"),
        *("bash", "-c", command),
    )
    run = run_of(made)
    assert done.out.strip() == run["run"]
    assert (run["name"], run["status"], run["params"]["lr"]) == ("train", "completed", "0.1")  # type: ignore[index]
    assert [place["uri"] for place in run["inputs"]] == ["vds://team/raw@1/"]  # type: ignore[attr-defined]
    assert [place["uri"] for place in run["outputs"]] == ["vds://models@1/"]  # type: ignore[attr-defined]
    assert run["written"] == ["models@1"]
    assert made.ok("log", "models", "--json").document["versions"][0]["run"] == run["run"]
    assert str(run["run"]) in made.ok("log", "models").out


def test_what_fails_puts_nothing_out(made: Cli) -> None:
    (made.directory / "out").mkdir()
    (made.directory / "out" / "half").write_text("x")
    failed = made("run", "--output", "models=out", "--", "bash", "-c", "exit 7")
    assert failed.code == 7
    run = run_of(made, "--status", "failed")
    assert (run["error"], run["written"]) == ("exit code 7", [])
    assert made("ls", "models").code == 3


def test_a_script_is_run_with_its_own_options(made: Cli) -> None:
    (made.directory / "show.py").write_text("import sys\nprint(sys.argv[1:])\n")
    assert made.ok("run", "show.py", "--store", "x", "-q").out == "['--store', 'x', '-q']\n"


def test_import_azureml_finds_vds(made: Cli) -> None:
    script = (
        "import azureml.core\nfrom azureml.core import Workspace\nfrom azureml.core.run import Run\n"
        "import vds.azureml.core.run\n"
        "assert Run is vds.azureml.core.run.Run\n"
        "Workspace.from_config().get_default_datastore().upload('data', 'sent')\n"
    )
    (made.directory / "old.py").write_text(script)
    assert "Uploaded 1 files" in made.ok("run", "old.py").out
    assert made.ok("cat", "workspaceblobstore@latest/sent/a.txt").out == "one"
    assert run_of(made)["written"] == ["workspaceblobstore@1"]


def test_the_real_package_is_not_hidden_unasked(made: Cli) -> None:
    package = made.directory / "site" / "azureml" / "core"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("NAME = 'the real one'\n")
    (made.directory / "which.py").write_text("import azureml.core\nprint(getattr(azureml.core, 'NAME', 'vds'))\n")
    environ = {"PYTHONPATH": os.pathsep.join([os.fspath(made.directory / "site"), os.fspath(REPOSITORY)])}
    refused = made("run", "which.py", environ=environ)
    assert refused.code == 2
    assert "--azureml" in refused.err
    assert made("run", "--azureml", "which.py", environ=environ).out == "vds\n"
    assert made("run", "--no-azureml", "which.py", environ=environ).out == "the real one\n"


def test_wrong_calls_of_run(made: Cli) -> None:
    assert made("run", "nothing.py").code == 3
    assert made("run", "--", "no-such-command").code == 3
    assert made("run", "--param", "x", "--", "true").code == 2
    assert made("run", "--input", "team/none", "--", "true").code == 3
    assert made.ok("runs", "-q").out == ""
    assert made("runs", "01jk0000000000000000000000").code == 3
    assert made("why", "train").code == 3
    assert made("graph").code == 3
    assert made("where", "/no/such/path").code == 3


def test_where_both_ways(made: Cli) -> None:
    with vds.connect(made.directory / "store") as store, store.run("train", inputs=["team/raw"]) as run:
        (made.directory / "work" / run.id / "model").mkdir(parents=True)
        with store.namespace("models").transaction() as tx:
            tx.write_text(f"azureml/{run.id}/model/m.bin", "m")
        run.output(tx.version, "model", made.directory / "work" / run.id / "model", path=f"azureml/{run.id}/model")
    there = made.ok("where", f"work/{run.id}/model/m.bin", "--json").document
    assert (there["run"]["run"], there["output"]) == (run.id, "model")
    assert there["version"]["uri"] == f"vds://models@1/azureml/{run.id}/model/m.bin"
    back = made.ok("where", f"models@1/azureml/{run.id}/model", "--json").document
    assert (back["run"]["name"], back["output"]) == ("train", "model")
    assert [place["uri"] for place in back["run"]["inputs"]] == ["vds://team/raw@1/"]
    by_uri = made.ok("where", f"azureml://datastores/models/paths/azureml/{run.id}/model", "-q").out
    assert by_uri == f"vds://models@1/azureml/{run.id}/model\n"
    assert made.ok("where", "team/raw", "--json").document["used_by"][0]["run"] == run.id
    assert "none: it was written outside of any run" in made.ok("where", "team/raw@1").out


def test_where_of_what_is_not_there(made: Cli) -> None:
    with vds.connect(made.directory / "store") as store, store.run("train") as run:
        with store.namespace("models").transaction() as tx:
            tx.write_text("m", "1")
        run.output(tx.version, "model")
        with store.namespace("models").transaction() as tx:
            tx.write_text("m", "2")
        store.expire("models@1", dry_run=False)
    expired = made.ok("where", f"azureml/{run.id}/model").out
    assert f"run      {run.id}  train  completed" in expired
    assert "output   model  its version has expired" in expired
    assert "output   other  not there: the run is completed" in made.ok("where", f"azureml/{run.id}/other").out


def test_why(made: Cli) -> None:
    with vds.connect(made.directory / "store") as store:
        first = store.run("prep", kind="step", key="b3:1", key_parts={"code prep.py": "b3:1", "input raw": "b3:x"})
        first.end()
        second = store.run("prep", kind="step", key="b3:1", key_parts={"code prep.py": "b3:1", "input raw": "b3:x"})
        second.end("completed", reused=first.id)
        assert made.ok("why", "prep", "-q").out == "hit\n"
        third = store.run(
            "prep", kind="step", key="b3:2", key_parts={"code prep.py": "b3:2", "code new.py": "b3:3", "input raw": "b3:x"}
        )
        third.end()
    document = made.ok("why", "prep", "--json").document
    assert document["result"] == "miss"
    assert [one["part"] for one in document["differs"]] == ["code new.py", "code prep.py"]
    text = made.ok("why", "prep").out
    assert "code new.py is new" in text
    assert "code prep.py changed" in text
    assert "raw" not in text
    assert made.ok("why", second.id, "--json").document["reused"] == first.id


def test_graph(made: Cli) -> None:
    with vds.connect(made.directory / "store") as store, store.run("all", kind="pipeline") as pipeline:
        with store.run("prep", inputs=["team/raw"], kind="step") as prep:
            store.namespace("clean").upload(made.directory / "data", show_progress=False)
            prep.output("clean@1", "cleaned")
        with store.run('train "it"', inputs=["clean@1"], kind="step") as train:
            store.namespace("models").upload(made.directory / "data", show_progress=False)
    lines = made.ok("graph").out.splitlines()
    assert lines == [
        f"prep  completed  {prep.id}",
        "  <- vds://team/raw@1/  (team/raw)",
        "  -> vds://clean@1/  (cleaned)",
        f'train "it"  completed  {train.id}',
        "  <- vds://clean@1/  (clean)",
        "  -> vds://models@1/",
    ]
    mermaid = made.ok("graph", "--mermaid").out.splitlines()
    assert mermaid[0] == "flowchart LR"
    assert """  r1["train 'it' (completed)"]""" in mermaid
    assert {"  v0 --> r0", "  r0 --> v1", "  v1 --> r1", "  r1 --> v2"} <= set(mermaid)
    assert made.ok("graph", "models", "-v").out == made.ok("graph").out
    assert list(made.ok("graph", pipeline.id, "--json").document["versions"]) == [
        *("vds://team/raw@1/", "vds://clean@1/", "vds://models@1/")
    ]


def test_rollback_of_a_run(made: Cli) -> None:
    (made.directory / "data" / "a.txt").write_text("bad")
    made.ok("run", "--output", "team/raw=data", "--", "true")
    run = str(run_of(made)["run"])
    assert is_ulid(run)
    foreseen = made.ok("rollback", "--run", run, "--dry-run")
    assert "would be undone" in foreseen.out
    assert made.ok("cat", "team/raw@latest/a.txt").out == "bad"
    assert made.ok("rollback", "--run", run, "-m", "wrong", "--json").document["namespaces"][0]["created"]
    assert made.ok("cat", "team/raw@latest/a.txt").out == "one"
    assert made("rollback", "team/raw", "--run", run).code == 2
    assert made("rollback", "team/raw").code == 2
    assert Path(made.directory / "store").is_dir()
