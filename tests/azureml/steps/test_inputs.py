"""What steps read: pinned for the whole run, however they ask for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.azureml.steps.conftest import Project, wait_until
from vds.azureml.core import Dataset
from vds.azureml.data import OutputFileDatasetConfig
from vds.azureml.data.data_reference import DataReference
from vds.azureml.pipeline.core import PipelineData, PipelineParameter

READ = """
    source, target = map(pathlib.Path, sys.argv[1:3])
    found = {str(path.relative_to(source)): path.read_text() for path in sorted(source.rglob("*")) if path.is_file()}
    import json
    (target / "read.json").write_text(json.dumps(found))
"""
GATE = """
    import time
    gate = pathlib.Path(os.environ["GATE"])
    (gate / "begun").touch()
    deadline = time.monotonic() + 30
    while not (gate / "open").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
"""


def read(project: Project, run: object, step: str = "reads", output: str = "made") -> dict[str, str]:
    found: dict[str, str] = json.loads(project.texts(run, step, output)["read.json"])  # type: ignore[arg-type]  # a run
    return found


def test_an_upload_during_the_run_is_not_seen_by_later_steps(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE", str(project.root))
    project.upload("raw", a="old")
    raw, again = (DataReference(project.datastore, name, "raw") for name in ("raw", "again"))
    dataset = Dataset.File.from_files((project.datastore, "raw")).as_named_input("dataset").as_mount()
    first, second = PipelineData("first", project.datastore), PipelineData("second", project.datastore)
    waits = project.step("waits", GATE + READ, raw, first, inputs=[raw], outputs=[first])
    reads = project.step("reads", READ, again, second, inputs=[again, first], outputs=[second])
    by_dataset = project.step("by_dataset", READ, dataset, PipelineData("third"), inputs=[first])
    run = project.submit(waits, reads, by_dataset)
    wait_until((project.root / "begun").exists, "the first step")
    project.upload("raw", a="new", b="new")
    (project.root / "open").touch()
    run.wait_for_completion(show_output=False)
    assert read(project, run, "reads", "second") == {"a.txt": "old"}
    assert read(project, run, "by_dataset", "third") == {"a.txt": "old"}
    assert {place.uri for place in project.info(run, "reads").inputs if place.name == "again"} == {
        "vds://workspaceblobstore@1/raw"
    }
    assert read(project, project.run(waits, reads, by_dataset), "reads", "second") == {"a.txt": "new", "b.txt": "new"}


def test_what_a_step_before_has_written_to_the_place_is_seen(project: Project) -> None:
    project.upload("shared", a="old")
    writes = project.step(
        "writes",
        "pathlib.Path(sys.argv[1], 'a.txt').write_text(sys.argv[2])",
        OutputFileDatasetConfig("out", (project.datastore, "shared")),
        "new",
    )
    made = PipelineData("made", project.datastore)
    reads = project.step("reads", READ, DataReference(project.datastore, "shared", "shared"), made, outputs=[made])
    reads.run_after(writes)
    beside = project.step("beside", READ, DataReference(project.datastore, "shared", "shared"), PipelineData("other"))
    run = project.run(writes, reads, beside)
    assert read(project, run) == {"a.txt": "new"}
    assert read(project, run, "beside", "other") == {"a.txt": "old"}


def test_a_place_that_is_there_only_when_a_step_before_has_written_it(project: Project) -> None:
    body = """
        from vds.azureml.core import Run
        datastore = Run.get_context().experiment.workspace.get_default_datastore()
        pathlib.Path("x.txt").write_text("from inside")
        datastore.upload_files(["x.txt"], target_path="by/hand", show_progress=False)
    """
    made = PipelineData("made", project.datastore)
    reads = project.step("reads", READ, DataReference(project.datastore, "hand", "by/hand"), made, outputs=[made])
    writes = project.step("writes", body)
    reads.run_after(writes)
    run = project.run(writes, reads)
    assert read(project, run) == {"x.txt": "from inside"}
    assert "workspaceblobstore@1" in project.info(run, "writes").written


def test_a_path_that_one_step_prints_is_a_place_in_the_datastore(project: Project) -> None:
    out = PipelineData("out", project.datastore)
    told = PipelineData("told", project.datastore)
    writes = project.step(
        "writes",
        """
        path = pathlib.Path(sys.argv[1])
        (path / "x.txt").write_text("passed by path")
        pathlib.Path(sys.argv[2], "where.txt").write_text("/".join(path.parts[-3:]))
        """,
        out,
        told,
        outputs=[out, told],
    )
    reads = project.step(
        "reads",
        """
        from vds.azureml.core import Run, Datastore
        place = pathlib.Path(sys.argv[1], "where.txt").read_text()
        datastore = Datastore.get(Run.get_context().experiment.workspace, sys.argv[3])
        assert datastore.download("got", prefix=place, show_progress=False) == 1
        pathlib.Path(sys.argv[2], "x.txt").write_text(pathlib.Path("got", place, "x.txt").read_text())
        """,
        told,
        PipelineData("copied", project.datastore),
        project.datastore.name,
        inputs=[told],
    )
    run = project.run(writes, reads)
    assert project.texts(run, "reads", "copied") == {"x.txt": "passed by path"}
    place = project.texts(run, "writes", "told")["where.txt"]
    assert project.datastore.path(place).vds_selection().files() == ["x.txt"]
    assert [entry.path for entry in run.find_step_run("writes")[0].get_output_data("out").version.entries()] == ["x.txt"]


def test_modes_and_names(project: Project) -> None:
    project.upload("raw", a="a")
    dataset = Dataset.File.from_files((project.datastore, "raw")).register(project.workspace, "raw data")
    made = PipelineData("made", project.datastore)
    body = """
        import json
        from vds.azureml.core import Dataset, Run
        run = Run.get_context()
        given = run.input_datasets
        found = {
            "mounted": given["mounted"] == sys.argv[1] == os.environ["mounted"],
            "downloaded": os.listdir(given["downloaded"]),
            "direct": given["direct"].to_path(),
            "by_id": Dataset.get_by_id(run.experiment.workspace, sys.argv[3]).name,
            "before": given["before"].to_path(),
            "named": [pathlib.Path(path).read_text() for path in given["mounted"].to_path()],
            "outputs": dict(run.output_datasets) == {"made": sys.argv[4]},
        }
        pathlib.Path(given["downloaded"], "a.txt").write_text("its own")
        pathlib.Path(sys.argv[4], "read.json").write_text(json.dumps(found))
    """
    before = PipelineData("before", project.datastore)
    step = project.step(
        "reads",
        body,
        dataset.as_named_input("mounted").as_mount(),
        dataset.as_named_input("downloaded").as_download(),
        dataset.as_named_input("direct"),
        made,
        inputs=[before.as_dataset().as_named_input("before").as_direct()],
        outputs=[made],
    )
    first = project.step("first", "pathlib.Path(sys.argv[1], 'b').touch()", before, outputs=[before])
    run = project.run(first, step)
    assert read(project, run) == {
        "mounted": True,
        "downloaded": ["a.txt"],
        "direct": ["/a.txt"],
        "by_id": "raw data",
        "before": ["/b"],
        "named": ["a"],
        "outputs": True,
    }
    assert project.head().read_text("raw/a.txt") == "a"


def test_a_parameter_with_a_dataset_is_one_version_for_all_steps(project: Project) -> None:
    project.upload("raw", a="a")
    parameter = PipelineParameter("data", Dataset.File.from_files((project.datastore, "raw")))
    one, two = PipelineData("one"), PipelineData("two")
    run = project.run(project.step("first", READ, parameter, one), project.step("second", READ, parameter, two))
    assert read(project, run, "first", "one") == read(project, run, "second", "two") == {"a.txt": "a"}
    uris = {place.uri for name in ("first", "second") for place in project.info(run, name).inputs}
    assert uris == {"vds://workspaceblobstore@1/raw"}


def test_inputs_without_arguments_are_found_in_the_environment(project: Project) -> None:
    project.upload("raw", a="a")
    made, read_back = PipelineData("made"), PipelineData("back")
    first = project.step(
        "first", "(pathlib.Path(os.environ['AZUREML_DATAREFERENCE_made']) / 'x').write_text('x')", outputs=[made]
    )
    second = project.step(
        "second",
        "pathlib.Path(sys.argv[1], 'y').write_text((pathlib.Path(os.environ['AZUREML_DATAREFERENCE_made']) / 'x').read_text())",
        read_back,
        inputs=[made],
    )
    assert project.texts(project.run(first, second), "second", "back") == {"y": "x"}


def test_texts_that_mean_paths(project: Project) -> None:
    made = PipelineData("made", project.datastore)
    config = OutputFileDatasetConfig("config")
    first = project.step(
        "first",
        "import json; pathlib.Path(sys.argv[1]).write_text(json.dumps(sys.argv)); print(sys.argv)",
        f"{made}/said.json",
        "$AZUREML_DATAREFERENCE_unknown",
        "${AZUREML_DATAREFERENCE_made}",
        f"{config}/part",
        outputs=[made, config],
    )
    run = project.run(first)
    said = json.loads(project.texts(run, "first", "made")["said.json"])
    assert Path(said[1]).name == "said.json"
    assert said[2] == "$AZUREML_DATAREFERENCE_unknown"
    assert said[3] == os_path(said[1])
    assert Path(said[4]).parts[-2:] == ("config", "part")


def os_path(path: str) -> str:
    return str(Path(path).parent)


def test_a_step_that_writes_to_what_it_was_given_to_read(project: Project) -> None:
    """Where the modes of files do not hold it, as it is root, it fails; nobody else ever sees what it wrote."""
    content = "x" * 2_000_000  # large enough to be shared with the cache
    project.upload("raw", a=content)
    out, read_back = PipelineData("out", project.datastore), PipelineData("back", project.datastore)
    raw = project.datastore.path("raw")
    body = "with open(sys.argv[1] + '/a.txt', 'r+') as file: file.write('spoilt')"
    spoils = project.step("spoils", body, raw, out, outputs=[out])
    run = project.run(spoils)
    assert run.get_status() == "Failed"
    assert (
        "which it was given to read" in project.info(run, "spoils").error
        or "PermissionError" in project.info(run, "spoils").error
    )
    copies = "pathlib.Path(sys.argv[2], 'a').write_bytes(pathlib.Path(sys.argv[1], 'a.txt').read_bytes())"
    run = project.run(project.step("copies", copies, raw, read_back, outputs=[read_back]))
    assert project.texts(run, "copies", "back") == {"a": content}
    own = project.step("owns", body, raw.as_download(), out, outputs=[out])
    assert project.run(own).get_status() == "Completed"
