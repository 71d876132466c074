"""Blobs that the SDK wrote, read through a registered datastore."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.azureml.conftest import write
from vds.azureml.core import Dataset, Datastore, Workspace
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore
from vds.azureml.exceptions import ConflictException, NotFoundException
from vds.azureml.selection import select
from vds.errors import ConflictError


@pytest.fixture
def plain(here: Path, ws: Workspace, tmp_path: Path) -> AzureBlobDatastore:
    """Return a datastore whose registered container has plain blobs, and which nothing was uploaded to."""
    write(tmp_path / "account" / "container", {"old/a.csv": "n\n1\n", "old/sub/b.csv": "n\n2\n", "old2/c.csv": "n\n3\n"})
    endpoint = (tmp_path / "account").as_uri()
    return Datastore.register_azure_blob_container(ws, "legacy", "container", "account", endpoint=endpoint)


def blob(tmp_path: Path, name: str) -> Path:
    return tmp_path / "account" / "container" / name


def test_plain_blobs_are_downloaded(here: Path, plain: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]) -> None:
    assert plain.download("out", "old/") == 2
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "Downloading old/a.csv"
    assert "is read from the plain blobs" in said.err
    assert (here / "out" / "old" / "sub" / "b.csv").read_text() == "n\n2\n"
    assert plain.download("out") == 1
    assert "plain" not in capsys.readouterr().err
    assert plain.download("out", "none") == 0


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("old", ["a.csv", "sub/b.csv"]),
        ("old/a.csv", ["a.csv"]),
        ("old/**/*.csv", ["a.csv", "sub/b.csv"]),
        ("*/c.csv", ["old2/c.csv"]),
        ("", ["old/a.csv", "old/sub/b.csv", "old2/c.csv"]),
    ],
)
def test_plain_blobs_are_selected(plain: AzureBlobDatastore, path: str, files: list[str]) -> None:
    selection = select((plain, path))
    assert selection.files() == files
    assert selection.pins() == []
    place = selection.place()
    assert (place if place.is_file() else place / files[0]).read_text().startswith("n\n")


def test_what_was_uploaded_goes_before_plain_blobs(here: Path, plain: AzureBlobDatastore) -> None:
    write(here / "src", {"new.csv": "n\n9\n"})
    plain.upload("src", "old", show_progress=False)
    assert select((plain, "old")).files() == ["new.csv"]
    assert select((plain, "old2")).files() == ["c.csv"]
    assert plain.download("out", "old/") == 1


def test_references_and_datasets_of_plain_blobs(plain: AzureBlobDatastore) -> None:
    assert Path(os.fspath(plain.path("old/a.csv"))).read_text() == "n\n1\n"
    files = Dataset.File.from_files((plain, "old"))
    assert files.to_path() == ["/a.csv", "/sub/b.csv"]
    assert Dataset.Tabular.from_delimited_files((plain, "old/**/*.csv")).to_pandas_dataframe()["n"].tolist() == [1, 2]
    with pytest.raises(NotFoundException):
        Dataset.File.from_files((plain, "none"))


def test_a_changed_blob_is_an_error(tmp_path: Path, plain: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((plain, "old"))
    digest = select(dataset).digest()
    blob(tmp_path, "old/a.csv").write_text("other bytes")
    with pytest.raises(ConflictError, match=r"old/a\.csv"):
        dataset.download()
    assert select((plain, "old")).digest() != digest


@pytest.mark.parametrize("path", ["old", "old/a.csv", "old/**/*.csv", ""])
def test_registering_adopts_plain_blobs(
    ws: Workspace, plain: AzureBlobDatastore, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset.File.from_files((plain, path))
    registered = dataset.register(ws, "legacy data")
    assert "become entries of a version" in capsys.readouterr().err
    assert registered.to_path() == dataset.to_path()
    assert select(registered).pins()
    [first, *_] = registered.download()
    assert Path(first).read_text() == "n\n1\n"
    assert dataset.register(ws, "legacy data", create_new_version=True).version == 1


def test_registering_what_was_changed_is_an_error(tmp_path: Path, ws: Workspace, plain: AzureBlobDatastore) -> None:
    dataset = Dataset.File.from_files((plain, "old"))
    blob(tmp_path, "old/a.csv").write_text("other bytes")
    with pytest.raises(ConflictException, match="changed since"):
        dataset.register(ws, "legacy data")
    assert dict(ws.datasets) == {}


def test_urls_of_containers(ws: Workspace) -> None:
    def url(endpoint: str | None = None) -> str | None:
        made = Datastore.register_azure_blob_container(ws, "d", "c", "acc", endpoint=endpoint, overwrite=True)
        return made.registration.container_url

    assert url() == "https://acc.blob.core.windows.net/c"
    assert url(endpoint="core.chinacloudapi.cn") == "https://acc.blob.core.chinacloudapi.cn/c"
    assert url(endpoint="http://127.0.0.1:10000/devstoreaccount1") == "http://127.0.0.1:10000/devstoreaccount1/c"
    assert ws.get_default_datastore().registration.container_url is None
