"""Workspaces: which store they mean, their configuration, their datastores."""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path

import pytest

import vds
from tests.azureml.conftest import write
from vds.azureml.configuration import JOB_VARIABLES
from vds.azureml.core import Datastore, Workspace
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore
from vds.azureml.exceptions import ConflictException, NotFoundException, NotInVdsError, UserErrorException
from vds.errors import InvalidInputError, NotFoundError

SECRET = "c2VjcmV0c2VjcmV0c2VjcmV0"


def register(ws: Workspace, name: str = "my_store", container: str = "container", overwrite: bool = False) -> AzureBlobDatastore:
    return Datastore.register_azure_blob_container(ws, name, container, "account", account_key=SECRET, overwrite=overwrite)


def test_the_configured_store_is_used(ws: Workspace, tmp_path: Path) -> None:
    assert ws.store.url.endswith("/store")
    assert ws.store is Workspace().store
    assert ws.get_details()["storeId"] == ws.store.id


def test_without_a_store_one_is_made_in_the_working_directory_and_that_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "src", {"a.txt": "a"})
    for _ in range(2):
        Workspace.from_config().get_default_datastore().upload("src", show_progress=False)
    said = capsys.readouterr()
    assert said.err.count("no store is configured") == 1
    assert said.out == ""
    with vds.connect(here / ".vds" / "store") as store:
        assert [info.name for info in store.namespaces()] == ["workspaceblobstore"]


@pytest.mark.parametrize("name", JOB_VARIABLES)
def test_a_job_without_a_store_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserErrorException, match=name) as caught:
        Workspace.from_config()
    assert "vds init" in caught.value.hint
    assert not (here / ".vds").exists()


def test_a_store_that_is_misspelt_is_never_replaced(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDS_STORE", "prdo")
    with pytest.raises(NotFoundError, match="prdo"):
        Workspace.from_config()
    monkeypatch.setenv("VDS_STORE", "")
    with pytest.raises(InvalidInputError, match="empty"):
        Workspace.from_config()


@pytest.mark.parametrize("place", [".azureml/config.json", "aml_config/project.json", "config.json", "../.azureml/config.json"])
def test_the_configuration_is_found_as_by_the_sdk(ws: Workspace, here: Path, place: str) -> None:
    raw = {"subscription_id": "s", "resource_group": "r", "workspace_name": "n"}
    write(here, {place: json.dumps(raw)})
    found = Workspace.from_config()
    assert (found.subscription_id, found.resource_group, found.name) == ("s", "r", "n")
    assert repr(found) == "Workspace.create(name='n', subscription_id='s', resource_group='r')"
    assert Workspace.from_config(here / place).name == "n"
    (here / "deep" / "er").mkdir(parents=True)
    assert Workspace.from_config("deep/er").name == "n"


def test_configurations_that_are_none(ws: Workspace, here: Path) -> None:
    assert (ws.name, ws.subscription_id) == ("local", "")
    with pytest.raises(NotFoundException, match=r"config\.json, could not be found"):
        Workspace.from_config("elsewhere")
    write(here, {"config.json": '{"workspace_name": "n"}'})
    with pytest.raises(UserErrorException, match="subscription_id"):
        Workspace.from_config()
    write(here, {"config.json": "no json"})
    with pytest.raises(UserErrorException, match="no workspace configuration"):
        Workspace.from_config()


def test_a_configuration_is_written_and_read(ws: Workspace, here: Path) -> None:
    Workspace("s", "r", "n").write_config()
    assert Workspace.from_config().name == "n"
    Workspace("s", "r", "m").write_config("other", "mine.json")
    assert Workspace.from_config("other", _file_name="mine.json").name == "m"


def test_a_job_names_its_workspace(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_ARM_WORKSPACE_NAME", "of-the-job")
    assert Workspace.from_config().name == "of-the-job"
    assert Workspace.get("n", subscription_id="s").subscription_id == "s"
    assert Workspace.create("n", location="westeurope").location == "westeurope"


def test_what_needs_the_service_says_what_to_use(ws: Workspace) -> None:
    assert (ws.compute_targets, ws.environments, ws.tags) == ({}, {}, {})
    with pytest.raises(NotInVdsError) as caught:
        ws.get_default_keyvault()
    assert caught.value.hint
    assert not hasattr(ws, "models")
    with pytest.raises(AttributeError, match="nonsense"):
        ws.nonsense  # noqa: B018 - the access is the test
    for call in (Datastore.register_azure_file_share, Datastore.register_azure_data_lake_gen2, Datastore.register_hdfs):
        with pytest.raises(NotInVdsError) as caught:
            call(ws, "name")
        assert caught.value.hint


def test_known_datastores(ws: Workspace, here: Path) -> None:
    assert list(ws.datastores) == ["workspaceblobstore"]
    write(here / "src", {"a.txt": "a"})
    ws.store.namespace("team/raw").upload("src", show_progress=False)
    register(ws)
    assert list(ws.datastores) == ["my_store", "team/raw", "workspaceblobstore"]
    ws.datastores["my_store"].upload("src", "x", show_progress=False)
    assert Datastore.get(ws, "MY_STORE").name == "my_store"
    assert Datastore(ws, "team/raw").name == "team/raw"
    assert Datastore(ws).name == Datastore.get_default(ws).name == "workspaceblobstore"
    with pytest.raises(NotFoundException, match=r"known: my_store, team/raw, workspaceblobstore"):
        Datastore.get(ws, "none")
    with pytest.raises(UserErrorException):
        Datastore.get(ws, None)  # type: ignore[arg-type]


def test_registrations_are_versions_and_hold_no_secret(ws: Workspace) -> None:
    made = register(ws)
    assert (made.container_name, made.account_name, made.account_key) == ("container", "account", SECRET)
    assert (made.credential_type, made.protocol, made.endpoint) == ("AccountKey", "https", "core.windows.net")
    assert Datastore.get(ws, "my_store").account_key == SECRET
    registrations = ws.store.namespace("azureml/datastores")
    assert [entry.path for entry in registrations.latest().entries()] == ["my_store.json"]
    assert SECRET not in registrations.latest().read_text("my_store.json")
    assert SECRET not in repr(made)
    assert SECRET.encode() not in pickle.dumps(made)


def test_a_workspace_travels_without_the_signature_of_its_store(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pickle.loads(pickle.dumps(ws)).store.id == ws.store.id
    monkeypatch.setenv("VDS_STORE", "https://account.blob.core.windows.net/c?sv=1&sig=topsecret")
    monkeypatch.setenv("VDS_INDEX", "postgresql://me:hushhush@host/db")
    raw = pickle.dumps(Workspace())
    assert b"topsecret" not in raw
    assert b"hushhush" not in raw


def test_registering_again(ws: Workspace) -> None:
    register(ws)
    register(ws)
    assert ws.store.namespace("azureml/datastores").latest().number == 1
    with pytest.raises(ConflictException, match="Another datastore with the name"):
        register(ws, "MY_STORE", "other")
    assert register(ws, "my_store", "other", overwrite=True).container_name == "other"
    assert Datastore.get(ws, "my_store").container_name == "other"
    for name in ("", "a b", "_x", "azureml"):
        with pytest.raises(UserErrorException):
            register(ws, name)


def test_arguments_without_effect_are_said_once(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        Datastore.register_azure_blob_container(
            ws, "s", "c", "a", create_if_not_exists=True, blob_cache_timeout=3, grant_workspace_access=True
        )
    said = capsys.readouterr()
    assert said.err.count("blob_cache_timeout") == 1
    assert said.out == ""


def test_the_default_datastore_is_kept_in_the_store(ws: Workspace) -> None:
    register(ws)
    ws.set_default_datastore("MY_STORE")
    assert Workspace().get_default_datastore().name == "my_store"
    with pytest.raises(NotFoundException):
        ws.set_default_datastore("none")
    with pytest.raises(UserErrorException, match="default datastore"):
        Datastore.get(ws, "my_store").unregister()
    Datastore.get(ws, "workspaceblobstore").set_as_default()
    Datastore.get(ws, "my_store").unregister()
    assert list(ws.datastores) == ["workspaceblobstore"]


def test_unregistering_leaves_what_was_uploaded(ws: Workspace, here: Path) -> None:
    write(here / "src", {"a.txt": "a"})
    made = register(ws)
    made.upload("src", show_progress=False)
    made.unregister()
    assert "my_store" not in ws.datastores
    assert ws.store.namespace("my_store").latest().read_text("a.txt") == "a"
    assert register(ws).namespace.latest().number == 1


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("core", "Workspace Datastore Dataset"),
        ("core.workspace", "Workspace"),
        ("core.datastore", "Datastore"),
        ("core.dataset", "Dataset"),
        ("data", "FileDataset TabularDataset"),
        ("data.azure_storage_datastore", "AzureBlobDatastore"),
        ("data.data_reference", "DataReference"),
        ("data.datapath", "DataPath DataPathComputeBinding"),
        ("data.dataset_consumption_config", "DatasetConsumptionConfig"),
        ("data.dataset_factory", "FileDatasetFactory TabularDatasetFactory DataType"),
        ("data.dataset_type_definitions", "PromoteHeadersBehavior"),
        ("data.file_dataset", "FileDataset"),
        ("data.tabular_dataset", "TabularDataset"),
        ("exceptions", "UserErrorException AzureMLException RunEnvironmentException"),
    ],
)
def test_scripts_find_what_they_import(module: str, names: str) -> None:
    found = importlib.import_module(f"vds.azureml.{module}")
    for name in names.split():
        assert getattr(found, name).__doc__
