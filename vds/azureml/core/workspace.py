"""A workspace: what scripts begin with. Here it is a vds store."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vds.azureml.configuration import WorkspaceFacts, find_settings, find_workspace_facts, open_store
from vds.azureml.core.compute import ComputeTarget, ComputeTargets
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore, blob_datastore
from vds.azureml.data.registered import RegisteredDatasets
from vds.azureml.exceptions import NotInVdsError
from vds.azureml.notices import ignore
from vds.azureml.registrations import Registrations
from vds.config import StoreSettings, without_secret
from vds.store import Store

LOCAL_NAME = "local"

_ONLY_IN_AZUREML = {
    "get_default_keyvault": "environment variables for secrets",
    "models": "datasets: store.dataset(NAME).register(…)",
    "webservices": "the SDK itself",
    "images": "the SDK itself",
    "linked_services": "the SDK itself",
    "sync_keys": "Datastore.register_azure_blob_container(…, overwrite=True)",
    "get_mlflow_tracking_uri": "MLFLOW_TRACKING_URI",
    "delete": "vds expire and vds gc, which take old versions away",
}


class Workspace:
    """A workspace whose datastores and datasets are in a vds store.

    The store is the configured one (VDS_STORE, the nearest vds.toml, the user's settings). Where none is, and this is no job, it
    is `.vds/store` in the working directory, which is said. What names the workspace in Azure is kept, and means nothing here.
    """

    def __init__(
        self,
        subscription_id: str = "",
        resource_group: str = "",
        workspace_name: str = LOCAL_NAME,
        auth: object = None,
        _location: str | None = None,
        _disable_service_check: bool = False,
        _workspace_id: str | None = None,
        sku: str = "basic",
        tags: Mapping[str, str] | None = None,
        _cloud: str = "AzureCloud",
    ) -> None:
        """Find the store of a workspace; it is opened when it is first needed.

        Raises:
            NotFoundException: no store is configured, and this is a job.
        """
        ignore("Workspace", "vds finds credentials for the storage account itself", auth=auth)
        self._subscription_id = subscription_id
        self._resource_group = resource_group
        self._name = workspace_name
        self._location = _location
        self._settings = find_settings()

    @classmethod
    def from_config(
        cls,
        path: str | os.PathLike[str] | None = None,
        auth: object = None,
        _logger: object = None,
        _file_name: str | None = None,
    ) -> Workspace:
        """Return the workspace that the nearest config.json names; without one, the workspace of the configured store.

        Raises:
            NotFoundException: `path` was given and holds no configuration; or no store is configured, and this is a job.
            UserErrorException: the configuration file cannot be read.
        """
        return cls._of(find_workspace_facts(path, _file_name), auth)

    @classmethod
    def get(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        location: str | None = None,
        cloud: str = "AzureCloud",
        id: str | None = None,
    ) -> Workspace:
        """Return the workspace of the configured store, under this name."""
        return cls._of(WorkspaceFacts(subscription_id or "", resource_group or "", name), auth)

    @classmethod
    def create(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        location: str | None = None,
        **more: object,
    ) -> Workspace:
        """Return the workspace of the configured store; nothing is made in Azure, and a store is made by `vds init`."""
        ignore("Workspace.create", "nothing is made in Azure; `vds init URL` makes a store", **more)
        return cls(subscription_id or "", resource_group or "", name, auth, location)

    @classmethod
    def _of(cls, facts: WorkspaceFacts, auth: object) -> Workspace:
        return cls(facts.subscription_id, facts.resource_group, facts.name or LOCAL_NAME, auth)

    def __repr__(self) -> str:
        return (
            f"Workspace.create(name={self.name!r}, subscription_id={self.subscription_id!r},"
            f" resource_group={self.resource_group!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # What travels holds no signature and no password: another process finds its credentials where this one would have.
        settings, index = self._settings, self._settings.index
        public = StoreSettings(without_secret(settings.url), index and without_secret(index), settings.source)
        return {**self.__dict__, "_settings": public}

    def __getattr__(self, name: str) -> Any:
        if name in _ONLY_IN_AZUREML:
            raise NotInVdsError(f"Workspace.{name} needs the AzureML service", hint=f"use {_ONLY_IN_AZUREML[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def store(self) -> Store:
        """The vds store; opened on first use, one for all workspaces of a process.

        Raises:
            NotFoundError: what is configured is no store.
        """
        return open_store(self._settings)

    @property
    def name(self) -> str:
        """The workspace's name in Azure, or "local"."""
        return self._name

    @property
    def subscription_id(self) -> str:
        """Its subscription in Azure; may be empty."""
        return self._subscription_id

    @property
    def resource_group(self) -> str:
        """Its resource group in Azure; may be empty."""
        return self._resource_group

    @property
    def location(self) -> str | None:
        """Its region in Azure, where it was given."""
        return self._location

    @property
    def tags(self) -> dict[str, str]:
        """Nothing: tags of the Azure resource are not known here."""
        return {}

    @property
    def datastores(self) -> dict[str, AzureBlobDatastore]:
        """Each known datastore by its name; all of them can be written to."""
        return {name: blob_datastore(self, found) for name, found in Registrations(self.store).list().items()}

    def get_default_datastore(self) -> AzureBlobDatastore:
        """Return the default datastore: `workspaceblobstore`, unless another one was chosen."""
        registrations = Registrations(self.store)
        return blob_datastore(self, registrations.get(registrations.default()))

    def set_default_datastore(self, name: str) -> None:
        """Make a known datastore the default, for everybody who uses the store.

        Raises:
            NotFoundException: there is no such datastore.
        """
        Registrations(self.store).set_default(name)

    @property
    def datasets(self) -> RegisteredDatasets:
        """The registered datasets, the latest version of each, looked up when they are asked for."""
        return RegisteredDatasets(self)

    @property
    def compute_targets(self) -> ComputeTargets:
        """None that are known; whatever is asked for is this machine."""
        return ComputeTargets()

    def get_default_compute_target(self, type: str = "CPU") -> ComputeTarget:
        """Return this machine."""
        return ComputeTarget(self, f"default {type}")

    @property
    def environments(self) -> dict[str, object]:
        """Nothing: environments are not kept."""
        return {}

    @property
    def experiments(self) -> dict[str, object]:
        """Nothing: runs are found by `vds runs`."""
        return {}

    def get_details(self) -> dict[str, Any]:
        """Return what is known of the workspace and its store."""
        return {
            "name": self.name,
            "subscriptionId": self.subscription_id,
            "resourceGroup": self.resource_group,
            "location": self.location,
            "store": self.store.url,
            "storeId": self.store.id,
        }

    def write_config(self, path: str | os.PathLike[str] | None = None, file_name: str | None = None) -> None:
        """Write `.azureml/config.json` below `path`, by default the working directory; addresses only."""
        target = Path(path or ".") / ".azureml" / (file_name or "config.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        raw = {"subscription_id": self.subscription_id, "resource_group": self.resource_group, "workspace_name": self.name}
        target.write_text(json.dumps(raw, indent=4) + "\n", encoding="utf-8")
