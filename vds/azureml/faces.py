"""What modules here ask of each other's objects: a workspace has datastores, and a datastore a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from vds.azureml.registrations import Registration
from vds.store import Namespace, Store
from vds.store.plain import PlainBlob


class WorkspaceFace(Protocol):
    """A workspace."""

    @property
    def store(self) -> Store:
        """The store that it is."""
        ...

    @property
    def datastores(self) -> Mapping[str, Any]:
        """Each known datastore by its name."""
        ...


class DatastoreFace(Protocol):
    """A datastore."""

    name: str
    """Its name, which is that of its namespace."""
    container_name: str
    """The container that was registered."""
    sas_token: str | None
    account_key: str | None

    @property
    def workspace(self) -> WorkspaceFace:
        """The workspace it belongs to."""
        ...

    @property
    def namespace(self) -> Namespace:
        """The namespace that it is."""
        ...

    @property
    def registration(self) -> Registration:
        """What was registered."""
        ...

    def upload(self, *args: Any, **kwargs: Any) -> Any:
        """Upload a directory."""
        ...

    def upload_files(self, *args: Any, **kwargs: Any) -> Any:
        """Upload files."""
        ...

    def vds_pin(self, place: str) -> Any:
        """Return the plain blobs at a path or glob, pinned, as a part of a selection; None when there are none."""
        ...

    def vds_plain(self, prefix: str) -> list[PlainBlob]:
        """Return the plain blobs whose names begin with `prefix`."""
        ...


class ExperimentFace(Protocol):
    """An experiment."""

    name: str
    """What it is called."""

    @property
    def workspace(self) -> WorkspaceFace:
        """The workspace it belongs to."""
        ...
