"""The names of the SDK over the real protocol: a store and an old container on Azurite, the index in PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

import vds
from tests.azureml.conftest import write
from tests.support import SERVICES, make_place
from vds.azureml.core import Dataset, Datastore, Workspace
from vds.blobs.credential import _AZURITE_KEY
from vds.errors import CorruptionError

pytestmark = SERVICES
ACCOUNT = "devstoreaccount1"


@pytest.fixture
def shared(here: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace as a team has it."""
    place = make_place("azurite+postgresql", request)
    assert place.index is not None
    monkeypatch.setenv("VDS_STORE", place.url)
    monkeypatch.setenv("VDS_INDEX", place.index)
    vds.connect(create=True).close()
    workspace = Workspace.from_config()
    yield workspace
    workspace.store.close()


@pytest.fixture
def old(azurite_url: str) -> Iterator[ContainerClient]:
    """A container as the SDK has left it."""
    endpoint = f"http://{azurite_url.removeprefix('azurite://')}/{ACCOUNT}"
    with ContainerClient(endpoint, f"old-{uuid.uuid4().hex}", _AZURITE_KEY) as client:
        client.create_container()
        for name, body in {"raw/a.csv": b"n\n1\n", "raw/sub/b.csv": b"n\n2\n", "other.txt": b"x"}.items():
            client.upload_blob(name, body)
        yield client


def test_old_data_is_found_registered_and_kept(here: Path, shared: Workspace, old: ContainerClient) -> None:
    endpoint = old.url.rpartition("/")[0]
    legacy = Datastore.register_azure_blob_container(
        shared, "legacy", old.container_name, ACCOUNT, account_key=_AZURITE_KEY, endpoint=endpoint
    )
    assert legacy.download("out", "raw/", show_progress=False) == 2
    assert (here / "out" / "raw" / "sub" / "b.csv").read_text() == "n\n2\n"
    dataset = Dataset.File.from_files((legacy, "raw")).register(shared, "old data")
    assert dataset.version == 1
    version = shared.store.namespace("legacy").latest()
    assert version.operation == "adopt"
    assert version.read_bytes("raw/a.csv") == b"n\n1\n"
    assert sorted(blob.name for blob in old.list_blobs()) == ["other.txt", "raw/a.csv", "raw/sub/b.csv"], (
        "nothing was written there"
    )
    assert _AZURITE_KEY not in repr(shared.store.namespace("azureml/datastores").latest().read_bytes("legacy.json"))
    old.upload_blob("raw/a.csv", b"n\n9\n", overwrite=True)
    with vds.connect() as store, pytest.raises(CorruptionError, match=r"raw/a\.csv"):
        store.get("legacy").read_bytes("raw/a.csv")


def test_uploads_and_datasets(here: Path, shared: Workspace) -> None:
    datastore = shared.get_default_datastore()
    write(here / "src", {"a.csv": "n\n1\n"})
    first = datastore.upload("src", "data", show_progress=False)
    Dataset.File.from_files((datastore, "data")).register(shared, "numbers")
    write(here / "src", {"a.csv": "n\n2\n"})
    second = datastore.upload("src", "data", overwrite=True, show_progress=False)
    Dataset.File.from_files((datastore, "data")).register(shared, "numbers", create_new_version=True)
    assert (first.version.number, second.version.number) == (1, 2)  # type: ignore[union-attr]
    for number, text in ((1, "n\n1\n"), (2, "n\n2\n")):
        [path] = Dataset.get_by_name(shared, "numbers", number).download(here / f"v{number}")
        assert Path(path).read_text() == text
