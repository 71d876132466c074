"""Datastores by name, and their registration."""

from __future__ import annotations

from typing import NoReturn

from vds.azureml.core.workspace import Workspace
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore, blob_datastore
from vds.azureml.exceptions import NotInVdsError
from vds.azureml.notices import ignore
from vds.azureml.registrations import (
    DEFAULT_ENDPOINT,
    DEFAULT_PROTOCOL,
    Registration,
    Registrations,
    Secret,
    keep_secret,
)


class Datastore:
    """Finds and registers datastores. Each is a namespace of the workspace's store, of the same name."""

    def __new__(cls, workspace: Workspace, name: str | None = None) -> AzureBlobDatastore:  # type: ignore[misc]  # as the SDK's
        """Return a datastore by name, the default one for None; as `get` and `get_default`."""
        return cls.get_default(workspace) if name is None else cls.get(workspace, name)

    @staticmethod
    def get(workspace: Workspace, datastore_name: str) -> AzureBlobDatastore:
        """Return a datastore by name; case does not count.

        Raises:
            NotFoundException: there is none; it names those that there are.
        """
        return blob_datastore(workspace, Registrations(workspace.store).get(datastore_name))

    @staticmethod
    def get_default(workspace: Workspace) -> AzureBlobDatastore:
        """Return the default datastore."""
        return workspace.get_default_datastore()

    @staticmethod
    def register_azure_blob_container(
        workspace: Workspace,
        datastore_name: str,
        container_name: str,
        account_name: str,
        sas_token: str | None = None,
        account_key: str | None = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        overwrite: bool = False,
        create_if_not_exists: bool = False,
        skip_validation: bool = False,
        blob_cache_timeout: int | None = None,
        grant_workspace_access: bool = False,
        subscription_id: str | None = None,
        resource_group: str | None = None,
    ) -> AzureBlobDatastore:
        """Register a datastore, and the container in which the SDK kept its plain blobs; those are still found through it.

        What is written goes to the store, as versions of the namespace `datastore_name`. Keys and signatures stay in this
        process and are written nowhere.

        Args:
            workspace: whose store.
            datastore_name: letters, digits, `_` and `-`; case does not count.
            container_name: the container of the plain blobs.
            account_name: its storage account.
            sas_token: for reading them, in this process.
            account_key: likewise.
            protocol: https by default.
            endpoint: core.windows.net by default; or a whole url before the container, such as that of an emulator.
            overwrite: change a registration of that name.
            create_if_not_exists: no effect; nor have the four below.
            skip_validation: the container is looked at when something is read.
            blob_cache_timeout: nothing is mounted.
            grant_workspace_access: there is no workspace identity.
            subscription_id: kept, for people.
            resource_group: likewise.

        Raises:
            ConflictException: the name is registered for another container, and `overwrite` was not given.
            UserErrorException: it is no name for a datastore.
        """
        ignore(
            "register_azure_blob_container",
            "they speak of the AzureML service",
            create_if_not_exists=create_if_not_exists,
            skip_validation=skip_validation,
            blob_cache_timeout=blob_cache_timeout,
            grant_workspace_access=grant_workspace_access,
        )
        registration = Registration(
            datastore_name,
            container_name,
            account_name,
            protocol or DEFAULT_PROTOCOL,
            endpoint or DEFAULT_ENDPOINT,
            subscription_id,
            resource_group,
        )
        made = Registrations(workspace.store).add(registration, overwrite=overwrite)
        keep_secret(workspace.store, made.name, Secret(sas_token, account_key))
        return blob_datastore(workspace, made)

    @staticmethod
    def register_azure_file_share(*args: object, **more: object) -> NoReturn:
        """Refuse: file shares are not read."""
        _refuse("register_azure_file_share", "copy the share into the store once: vds upload DIRECTORY NAMESPACE")

    @staticmethod
    def register_azure_data_lake(*args: object, **more: object) -> NoReturn:
        """Refuse: Data Lake Storage Gen1 was retired in 2024."""
        _refuse("register_azure_data_lake", "Data Lake Storage Gen1 was retired in 2024; register_azure_blob_container")

    @staticmethod
    def register_azure_data_lake_gen2(*args: object, **more: object) -> NoReturn:
        """Refuse: the same account is reached as blobs."""
        _refuse("register_azure_data_lake_gen2", "register_azure_blob_container: the same account answers as blob storage")

    @staticmethod
    def register_azure_sql_database(*args: object, **more: object) -> NoReturn:
        """Refuse: databases are not read."""
        _refuse("register_azure_sql_database", "pandas.read_sql, then Dataset.Tabular.register_pandas_dataframe")

    @staticmethod
    def register_azure_postgre_sql(*args: object, **more: object) -> NoReturn:
        """Refuse: databases are not read."""
        _refuse("register_azure_postgre_sql", "pandas.read_sql, then Dataset.Tabular.register_pandas_dataframe")

    @staticmethod
    def register_azure_my_sql(*args: object, **more: object) -> NoReturn:
        """Refuse: databases are not read."""
        _refuse("register_azure_my_sql", "pandas.read_sql, then Dataset.Tabular.register_pandas_dataframe")

    @staticmethod
    def register_dbfs(*args: object, **more: object) -> NoReturn:
        """Refuse: Databricks is not read."""
        _refuse("register_dbfs", "datastore.upload from Databricks")

    @staticmethod
    def register_hdfs(*args: object, **more: object) -> NoReturn:
        """Refuse: HDFS is not read."""
        _refuse("register_hdfs", "datastore.upload from where HDFS is mounted")


def _refuse(name: str, instead: str) -> NoReturn:
    raise NotInVdsError(f"Datastore.{name} is not there: vds keeps datastores in its store", hint=instead)
