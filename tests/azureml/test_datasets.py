"""Datasets of files: pinned when they are made, registered as releases."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

import vds
from tests.azureml.conftest import write
from vds.azureml.core import Dataset, Workspace
from vds.azureml.data import DatasetConsumptionConfig, FileDataset
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore
from vds.azureml.data.datapath import DataPath
from vds.azureml.exceptions import ConflictException, NotFoundException, NotInVdsError, UserErrorException
from vds.azureml.selection import select
from vds.errors import NotFoundError


@pytest.fixture
def raw(here: Path, datastore: AzureBlobDatastore) -> AzureBlobDatastore:
    """Return a datastore with three files below `raw` and one beside it."""
    write(here / "src", {"a.csv": "a", "b.txt": "b", "sub/c.csv": "c"})
    write(here / "more", {"z.csv": "z"})
    datastore.upload("src", "raw", show_progress=False)
    datastore.upload("more", "other", show_progress=False)
    return datastore


def overwrite(here: Path, datastore: AzureBlobDatastore, text: str) -> None:
    write(here / "src", {"a.csv": text})
    datastore.upload("src", "raw", overwrite=True, show_progress=False)


def read(dataset: FileDataset) -> dict[str, str]:
    with dataset.mount() as mounted:
        root = Path(mounted.mount_point)
        files = [root] if root.is_file() else [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {path.name if path == root else path.relative_to(root).as_posix(): path.read_text() for path in files}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("raw", ["/a.csv", "/b.txt", "/sub/c.csv"]),
        ("/raw/", ["/a.csv", "/b.txt", "/sub/c.csv"]),
        ("raw/a.csv", ["/a.csv"]),
        ("raw/*.csv", ["/a.csv"]),
        ("raw/**/*.csv", ["/a.csv", "/sub/c.csv"]),
        ("raw/**", ["/a.csv", "/b.txt", "/sub/c.csv"]),
        ("**/*.csv", ["/other/z.csv", "/raw/a.csv", "/raw/sub/c.csv"]),
        ("r?w/[ab].*", ["/raw/a.csv", "/raw/b.txt"]),
        ("raw/[!a]*.*", ["/b.txt"]),
        ("", ["/other/z.csv", "/raw/a.csv", "/raw/b.txt", "/raw/sub/c.csv"]),
    ],
)
def test_paths_and_globs(raw: AzureBlobDatastore, path: str, expected: list[str]) -> None:
    for given in ((raw, path), DataPath(raw, path), raw.path(path or None)):
        dataset = Dataset.File.from_files(given)
        assert dataset.to_path() == expected
        assert sorted(read(dataset)) == [one.lstrip("/") for one in expected]


def test_several_paths_keep_apart_what_has_one_name(here: Path, raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files([(raw, "raw/*.csv"), (raw, "other")])
    assert dataset.to_path() == ["/other/z.csv", "/raw/a.csv"]
    assert read(dataset) == {"raw/a.csv": "a", "other/z.csv": "z"}
    nested = Dataset.File.from_files([(raw, "raw/sub"), (raw, "raw/b.txt")])
    assert nested.to_path() == ["/b.txt", "/sub/c.csv"]


@pytest.mark.parametrize(
    "path", ["raw", "https://x/y.csv", None, [], [3], ("ws", "raw"), Path("raw")], ids=lambda value: str(value)
)
def test_what_is_no_path_of_a_datastore(raw: AzureBlobDatastore, path: object) -> None:
    with pytest.raises(UserErrorException):
        Dataset.File.from_files(path)


@pytest.mark.parametrize("path", ["nothing", "raw/*.nothing", "nothing/*.csv"])
def test_nothing_there(raw: AzureBlobDatastore, path: str) -> None:
    with pytest.raises(NotFoundException, match="there is nothing at"):
        Dataset.File.from_files((raw, path))


def test_a_dataset_is_pinned_when_it_is_made(here: Path, raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw/a.csv"))
    overwrite(here, raw, "changed")
    assert read(dataset) == {"a.csv": "a"}
    assert read(Dataset.File.from_files((raw, "raw/a.csv"))) == {"a.csv": "changed"}
    assert read(pickle.loads(pickle.dumps(dataset))) == {"a.csv": "a"}


def test_registering_again_after_an_overwrite_leaves_old_versions_as_they_were(
    here: Path, ws: Workspace, raw: AzureBlobDatastore
) -> None:
    first = Dataset.File.from_files((raw, "raw")).register(ws, "customers")
    overwrite(here, raw, "second")
    second = Dataset.File.from_files((raw, "raw")).register(ws, "customers", create_new_version=True)
    overwrite(here, raw, "third")
    assert (first.version, second.version) == (1, 2)
    assert read(Dataset.get_by_name(ws, "customers", version=1))["a.csv"] == "a"
    assert read(Dataset.get_by_name(ws, "customers", 2))["a.csv"] == "second"
    assert read(Dataset.get_by_name(ws, "customers"))["a.csv"] == "second"
    assert ws.store.get("customers:1").read_text("a.csv") == "a"


def test_a_name_that_is_taken_needs_consent(here: Path, ws: Workspace, raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw"))
    one = dataset.register(ws, "customers", "first", {"a": "1"})
    overwrite(here, raw, "changed")
    with pytest.raises(ConflictException, match="create_new_version=True"):
        Dataset.File.from_files((raw, "raw")).register(ws, "customers")
    assert (one.name, one.version, one.description, one.tags) == ("customers", 1, "first", {"a": "1"})


def test_the_same_files_are_the_same_version(here: Path, ws: Workspace, raw: AzureBlobDatastore) -> None:
    Dataset.File.from_files((raw, "raw")).register(ws, "customers", tags={"a": "1"})
    raw.upload("more", "elsewhere", show_progress=False)
    again = Dataset.File.from_files((raw, "raw")).register(ws, "customers", tags={"b": "2"}, create_new_version=True)
    assert (again.version, again.tags) == (1, {"b": "2"})
    globbed = Dataset.File.from_files((raw, "raw/**")).register(ws, "globbed")
    assert Dataset.File.from_files((raw, "raw/**")).register(ws, "globbed", create_new_version=True).version == 1
    assert read(globbed) == {"a.csv": "a", "b.txt": "b", "sub/c.csv": "c"}


def test_an_earlier_state_can_be_registered_again_and_is_then_the_latest(
    here: Path, ws: Workspace, raw: AzureBlobDatastore
) -> None:
    first = Dataset.File.from_files((raw, "raw/a.csv"))
    first.register(ws, "customers")
    overwrite(here, raw, "second")
    Dataset.File.from_files((raw, "raw/a.csv")).register(ws, "customers", create_new_version=True)
    third = first.register(ws, "customers", create_new_version=True)
    assert third.version == 3
    assert read(Dataset.get_by_name(ws, "customers")) == {"a.csv": "a"}


def test_globs_and_several_places_are_registered_by_copy(ws: Workspace, raw: AzureBlobDatastore) -> None:
    several = Dataset.File.from_files([(raw, "raw/**/*.csv"), (raw, "other")]).register(ws, "several")
    assert several.to_path() == ["/other/z.csv", "/raw/a.csv", "/raw/sub/c.csv"]
    assert read(several) == {"other/z.csv": "z", "raw/a.csv": "a", "raw/sub/c.csv": "c"}
    few = Dataset.File.from_files((raw, "raw/**/a.csv")).register(ws, "few")
    assert read(few) == {"a.csv": "a"}


def test_finding_registered_datasets(ws: Workspace, raw: AzureBlobDatastore) -> None:
    made = Dataset.File.from_files((raw, "raw")).register(ws, "Kunden größe/2024")
    assert sorted(ws.datasets) == ["Kunden größe/2024"]
    assert ws.datasets["Kunden größe/2024"].version == 1
    assert Dataset.get_all(ws)["Kunden größe/2024"].id == made.id
    assert made.id is not None
    assert Dataset.get_by_id(ws, made.id).name == "Kunden größe/2024"
    with pytest.raises(NotFoundException):
        Dataset.get_by_id(ws, "00000000-0000-0000-0000-000000000000")
    with pytest.raises(KeyError):
        ws.datasets["none"]
    for version in ("latest", 1, "1"):
        assert Dataset.get_by_name(ws, "Kunden größe/2024", version).version == 1
    for version in (2, "prod", 0):
        with pytest.raises(NotFoundException, match="Cannot find dataset registered with name") as caught:
            Dataset.get_by_name(ws, "Kunden größe/2024", version)
    assert isinstance(caught.value, NotFoundError)
    assert "Kunden größe/2024" in caught.value.hint


def test_datasets_of_vds_itself_are_found(ws: Workspace, raw: AzureBlobDatastore) -> None:
    version = raw.namespace.latest()
    ws.store.dataset("native").register(version, "raw", tags=["prod"], labels={"team": "x"})
    found = Dataset.get_by_name(ws, "native", "prod")
    assert (found.version, found.tags) == (1, {"team": "x"})
    assert found.to_path() == ["/a.csv", "/b.txt", "/sub/c.csv"]


def test_unregistering_hides_and_numbers_go_on(here: Path, ws: Workspace, raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw"))
    registered = dataset.register(ws, "customers")
    registered.unregister_all_versions()
    registered.unregister_all_versions()
    assert (registered.id, registered.name) == (None, None)
    assert dict(ws.datasets) == {}
    for version in (1, "latest"):
        with pytest.raises(NotFoundException):
            Dataset.get_by_name(ws, "customers", version)
    again = dataset.register(ws, "customers")
    assert again.version == 2
    assert read(again) == read(dataset)
    assert ws.store.get("customers:1").read_text("a.csv") == "a"


def test_tags_and_descriptions_change_and_files_do_not(ws: Workspace, raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw"))
    with pytest.raises(UserErrorException, match="must be registered"):
        dataset.update("x")
    with pytest.raises(UserErrorException, match="must be registered"):
        dataset.add_tags({"a": "1"})
    with pytest.raises(UserErrorException, match="must be registered"):
        dataset.remove_tags(["a"])
    registered = dataset.register(ws, "customers", "old", {"a": "1"})
    registered.add_tags({"b": "2", "a": "1"})
    with pytest.raises(UserErrorException, match="different values"):
        registered.add_tags({"a": "9"})
    registered.remove_tags(["a", "none"])
    registered.update(description="new")
    found = Dataset.get_by_name(ws, "customers")
    assert (found.version, found.description, found.tags) == (1, "new", {"b": "2"})


def test_downloads(here: Path, raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw"))
    assert dataset.download("out") == [str(here / "out" / name) for name in ("a.csv", "b.txt", "sub/c.csv")]
    with pytest.raises(ConflictException, match="overwrite=False"):
        dataset.download("out")
    write(here / "out", {"a.csv": "mine"})
    dataset.download("out", overwrite=True)
    assert (here / "out" / "a.csv").read_text() == "a"
    [temporary, *_] = dataset.download()
    assert Path(temporary).read_text() == "a"


def test_a_mount_is_a_read_only_directory(here: Path, raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw"))
    context = dataset.mount("point")
    context.start()
    assert context.mount_point == str(here / "point")
    assert (here / "point" / "sub" / "c.csv").read_text() == "c"
    context.stop()
    assert not (here / "point").exists()
    with pytest.raises(UserErrorException, match="not empty"):
        dataset.mount(here / "src")
    place = select(dataset).place()
    assert not os.stat(place / "a.csv").st_mode & 0o222
    assert select(dataset).place() == place
    assert "workspaceblobstore@" in str(place)


def test_samples(raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw"))
    assert dataset.take(1).to_path() == ["/a.csv"]
    assert dataset.skip(2).to_path() == ["/sub/c.csv"]
    first, second = dataset.random_split(0.5, seed=2)
    assert sorted(first.to_path() + second.to_path()) == dataset.to_path()
    assert dataset.take_sample(0.5, seed=2).to_path() == first.to_path()
    assert read(dataset.take(1).skip(0)) == {"a.csv": "a"}
    with pytest.raises(UserErrorException, match="between 0 and 1"):
        dataset.random_split(2)
    with pytest.raises(UserErrorException, match="no file"):
        dataset.take(0)


def test_what_needs_the_service_says_what_to_use(raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw"))
    for call in (dataset.as_hdfs, lambda: dataset.as_cache(1), lambda: dataset.file_metadata("Size"), lambda: dataset.filter(1)):
        with pytest.raises(NotInVdsError) as caught:
            call()
        assert caught.value.hint


def test_inputs_of_steps(ws: Workspace, raw: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((raw, "raw")).register(ws, "customers")
    named = dataset.as_named_input("my_input")
    assert (named.name, named.mode, named.dataset, named.path_on_compute) == ("my_input", "direct", dataset, None)
    mounted = named.as_mount("/data")
    assert (mounted.name, mounted.mode, mounted.path_on_compute) == ("my_input", "mount", "/data")
    assert dataset.as_download().mode == "download"
    assert dataset.as_mount().name.startswith("input_")
    assert select(mounted).files() == ["a.csv", "b.txt", "sub/c.csv"]
    looked_up = DatasetConsumptionConfig("x", (ws, "customers"))
    assert looked_up.dataset.version == 1
    for name in ("1x", "a b", "é"):
        with pytest.raises(UserErrorException, match="Invalid input name"):
            dataset.as_named_input(name)
    with pytest.raises(UserErrorException, match="Invalid mode"):
        DatasetConsumptionConfig("x", dataset, "eval_mount")


def test_references_are_datas_too(here: Path, raw: AzureBlobDatastore) -> None:
    reference = raw.path("raw")
    assert select(reference).digest() == select((raw, "raw")).digest()
    uploaded = raw.upload("src", "raw", show_progress=False)
    overwrite(here, raw, "changed")
    assert (Path(os.fspath(uploaded)) / "a.csv").read_text() == "a"
    assert (Path(os.fspath(reference)) / "a.csv").read_text() == "changed"
    with pytest.raises(UserErrorException, match="stands for no data"):
        select(3)


def test_a_digest_is_of_contents_alone(here: Path, ws: Workspace, raw: AzureBlobDatastore) -> None:
    whole, globbed = select((raw, "raw")), select((raw, "raw/**"))
    assert whole.digest() == globbed.digest()
    raw.upload("src", "copy", show_progress=False)
    assert select((raw, "copy")).digest() == whole.digest()
    assert select((raw, "raw/a.csv")).digest() == select((raw, "raw/a*")).digest()
    assert select((raw, "raw/a.csv")).digest() != whole.digest()
    assert [pin.uri for pin in whole.pins()] == ["vds://workspaceblobstore@2/raw"]
    assert whole.describe() == "vds://workspaceblobstore@2/raw"


def test_upload_directory(here: Path, raw: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]) -> None:
    made = Dataset.File.upload_directory("src", (raw, "up"), pattern="*.csv")
    assert made.to_path() == ["/a.csv", "/sub/c.csv"]
    assert (made.id, made.version) == (None, None)
    assert capsys.readouterr().out.splitlines()[:2] == ["Validating arguments.", "Arguments validated."]
    assert Dataset.File.upload_directory(here / "more", raw.path("up"), show_progress=False).to_path() == [
        "/a.csv",
        "/sub/c.csv",
        "/z.csv",
    ]
    assert capsys.readouterr().out == ""
    with pytest.raises(UserErrorException, match="No files found"):
        Dataset.File.upload_directory("src", raw, pattern="data/*.csv")
    with pytest.raises(UserErrorException, match="no place"):
        Dataset.File.upload_directory("src", "raw")
    with pytest.raises(UserErrorException, match="not a directory"):
        Dataset.File.upload_directory("none", raw, pattern="*")


def test_views_go_with_their_process(raw: AzureBlobDatastore, own_cache: Path) -> None:
    left = own_cache / "views"
    select((raw, "raw")).place()
    [root] = [path for path in left.iterdir() if f"-{os.getpid()}-" in path.name]
    assert root.is_dir()


def test_a_store_of_another_process_sees_it_all(ws: Workspace, raw: AzureBlobDatastore) -> None:
    Dataset.File.from_files((raw, "raw")).register(ws, "customers")
    with vds.connect(ws.store.url) as other:
        assert other.get("customers:1").read_text("a.csv") == "a"
