"""What steps put out: where it goes, what it is registered as, and what of it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.azureml.steps.conftest import Project
from vds.azureml.core import Dataset
from vds.azureml.data import OutputFileDatasetConfig
from vds.azureml.exceptions import UserErrorException
from vds.azureml.pipeline.core import PipelineData

WRITE = "pathlib.Path(sys.argv[1], sys.argv[2]).write_text(sys.argv[3])"


@pytest.mark.parametrize(
    ("destination", "place"),
    [
        (lambda store: None, "dataset/{run}/out"),
        (lambda store: store, "dataset/{run}/out"),
        (lambda store: (store, "kept/{run-id}/{output-name}"), "kept/{run}/out"),
        (lambda store: (store.path("above"), "{run-id}"), "above/{run}"),
        (lambda store: (store, "fixed/place/"), "fixed/place"),
        (lambda store: (store.path("above"), "csv"), "above/csv"),
    ],
)
def test_destinations(project: Project, destination: Any, place: str) -> None:
    out = OutputFileDatasetConfig("out", destination(project.datastore))
    run = project.run(project.step("writes", WRITE, out, "a", "1"))
    step = project.info(run, "writes").id
    expected = {place.format(run=step)} | ({f"azureml/{step}/out"} if "{run}" not in place else set())
    assert {path.removesuffix("/a") for path in project.visible()} == expected
    assert project.texts(run, "writes", "out") == {"a": "1"}


def test_a_destination_that_is_none(project: Project) -> None:
    with pytest.raises(UserErrorException, match="'models/x' is no destination"):
        OutputFileDatasetConfig("out", "models/x")


def test_a_shared_place_keeps_what_others_put_there_and_readers_get_their_own(project: Project) -> None:
    out = OutputFileDatasetConfig("out", (project.datastore, "shared")).as_upload(overwrite=True).register_on_complete("shared")
    for name in ("a", "b"):
        run = project.run(project.step(f"writes_{name}", WRITE, out, name, name))
        assert project.texts(run, f"writes_{name}", "out") == {name: name}
    assert [path for path in project.visible() if path.startswith("shared/")] == ["shared/a", "shared/b"]
    assert [Dataset.get_by_name(project.workspace, "shared", version).to_path() for version in (1, 2)] == [["/a"], ["/b"]]


def test_two_steps_read_one_output(project: Project) -> None:
    out = OutputFileDatasetConfig("out")
    copy = "pathlib.Path(sys.argv[2], 'copy').write_text(pathlib.Path(sys.argv[1], 'a').read_text())"
    one, two = PipelineData("one"), PipelineData("two")
    run = project.run(
        project.step("writes", WRITE, out, "a", "1"),
        project.step("first", copy, out.as_input("data"), one),
        project.step("second", copy, out.as_input(), two),
    )
    assert project.texts(run, "first", "one") == project.texts(run, "second", "two") == {"copy": "1"}


def test_registered_with_all_that_was_said(project: Project) -> None:
    out = OutputFileDatasetConfig("out").register_on_complete("model data", description="of today", tags={"kind": "model"})
    data = PipelineData("data", project.datastore)
    dataset = data.as_dataset().register("plain data")
    data.as_dataset().register("plain data")  # as a notebook does whose cell is run again
    writes = project.step("writes", WRITE + "\npathlib.Path(sys.argv[4], 'b').touch()", out, "a", "1", data, outputs=[data])
    reads = project.step("reads", "assert os.listdir(sys.argv[1]) == ['b']", dataset.as_named_input("given"))
    assert project.run(writes, reads).get_status() == "Completed"
    found = Dataset.get_by_name(project.workspace, "model data")
    assert (found.version, found.description, found.tags["kind"], found.to_path()) == (1, "of today", "model", ["/a"])
    assert Dataset.get_by_name(project.workspace, "plain data").version == 1
    project.run(writes, reads)
    assert Dataset.get_by_name(project.workspace, "model data").version == 1  # used again: nothing new to register
    project.run(writes, reads, regenerate_outputs=True)
    assert Dataset.get_by_name(project.workspace, "model data").to_path() == ["/a"]


def test_a_single_file(project: Project) -> None:
    model = PipelineData("model", project.datastore, is_directory=False)
    read = PipelineData("read")
    run = project.run(
        project.step("writes", "pathlib.Path(sys.argv[1]).write_text('weights')", model, outputs=[model]),
        project.step(
            "reads", WRITE.replace("sys.argv[3]", "pathlib.Path(sys.argv[3]).read_text()"), read, "a", model, inputs=[model]
        ),
    )
    assert project.texts(run, "reads", "read") == {"a": "weights"}
    data = run.find_step_run("writes")[0].get_output_data("model")
    assert project.head().read_text(data.path_on_datastore) == "weights"


def test_a_file_in_the_place_of_a_directory(project: Project) -> None:
    model = OutputFileDatasetConfig("model", (project.datastore, "best/model.bin"))
    read = PipelineData("read")
    run = project.run(
        project.step("writes", "os.rmdir(sys.argv[1]); pathlib.Path(sys.argv[1]).write_text('weights')", model),
        project.step(
            "reads", "pathlib.Path(sys.argv[2], 'a').write_bytes(pathlib.Path(sys.argv[1]).read_bytes())", model.as_input(), read
        ),
    )
    assert project.texts(run, "reads", "read") == {"a": "weights"}
    assert project.head().read_text("best/model.bin") == "weights"


def test_a_file_written_to_a_directory_says_what_to_do(project: Project) -> None:
    model = PipelineData("model", project.datastore)
    run = project.submit(project.step("writes", "open(sys.argv[1], 'w')", model, outputs=[model]))
    with pytest.raises(Exception, match=r"(?s)IsADirectoryError.*is_directory=False") as caught:
        run.wait_for_completion(show_output=False)
    assert "'model'" in str(caught.value)


def test_an_empty_output(project: Project) -> None:
    empty, read = PipelineData("empty", project.datastore), PipelineData("read")
    run = project.run(
        project.step("writes", "", empty, outputs=[empty]),
        project.step(
            "reads", "pathlib.Path(sys.argv[2], 'n').write_text(str(len(os.listdir(sys.argv[1]))))", empty, read, inputs=[empty]
        ),
    )
    assert project.texts(run, "reads", "read") == {"n": "0"}
    assert run.get_status() == "Completed"


def test_names_and_links(project: Project) -> None:
    out = PipelineData("out", project.datastore)
    body = """
        root = pathlib.Path(sys.argv[1])
        (root / "дані 数据").mkdir()
        (root / "дані 数据" / "naïve file.txt").write_text("é")
        (root / "data").mkdir()
        (root / "data" / "real.txt").write_text("real")
        (root / "link.txt").symlink_to(root / "data" / "real.txt")
        (root / ".hidden").write_text("h")
    """
    run = project.run(project.step("writes", body, out, outputs=[out]))
    assert project.texts(run, "writes", "out") == {
        ".hidden": "h",
        "data/real.txt": "real",
        "link.txt": "real",
        "дані 数据/naïve file.txt": "é",
    }


def test_a_link_to_nowhere_fails_the_step(project: Project) -> None:
    out = PipelineData("out", project.datastore)
    run = project.run(project.step("writes", "os.symlink('/nowhere', sys.argv[1] + '/gone')", out, outputs=[out]))
    assert project.info(run, "writes").status == "failed"
    assert "gone" in project.info(run, "writes").error
    assert project.visible() == []


def test_very_many_small_files(project: Project) -> None:
    out = OutputFileDatasetConfig("out", (project.datastore, "many"))
    body = "for n in range(5000): pathlib.Path(sys.argv[1], f'{n:04}').write_text(str(n))"
    read = PipelineData("read")
    count = "pathlib.Path(sys.argv[2], 'n').write_text(str(sum(int(p.read_text()) for p in pathlib.Path(sys.argv[1]).iterdir())))"
    run = project.run(project.step("writes", body, out), project.step("reads", count, out.as_input(), read))
    assert project.texts(run, "reads", "read") == {"n": str(5000 * 4999 // 2)}
    assert len(project.visible()) == 10001


def test_pipeline_outputs_and_downloads(project: Project) -> None:
    out = PipelineData("out", project.datastore, pipeline_output_name="best")
    run = project.run(project.step("writes", WRITE, out, "a", "1", outputs=[out]))
    data = run.get_pipeline_output("best")
    assert data.download(str(project.root / "got")) == 1
    assert (project.root / "got" / data.path_on_datastore / "a").read_text() == "1"
    [step] = run.get_steps()
    assert step.get_output("out").get_port_data_reference().uri == data.uri
    assert sorted(step.get_outputs()) == ["out"]
    again = project.step("again", "assert os.listdir(sys.argv[1]) == ['a']", data.as_input("earlier"))
    assert project.run(again).get_status() == "Completed"


def test_a_reference_as_output(project: Project) -> None:
    place = project.datastore.path("by/reference").as_upload()
    run = project.run(project.step("writes", WRITE, place, "a", "1", outputs=[place]))
    assert run.get_status() == "Completed"
    assert project.head().read_text("by/reference/a") == "1"


def test_links_to_directories(project: Project) -> None:
    out = PipelineData("out", project.datastore)
    body = """
        root = pathlib.Path(sys.argv[1])
        (root / "checkpoint-5").mkdir()
        (root / "checkpoint-5" / "model").write_text("5")
        (root / "latest").symlink_to("checkpoint-5")
        os.makedirs("aside/deep")
        pathlib.Path("aside/deep/b").write_text("b")
        (root / "[aside]").symlink_to(os.path.abspath("aside"))
    """
    run = project.run(project.step("writes", body, out, outputs=[out]))
    assert project.texts(run, "writes", "out") == {"[aside]/deep/b": "b", "checkpoint-5/model": "5", "latest/model": "5"}
