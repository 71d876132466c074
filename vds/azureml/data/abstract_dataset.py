"""What file and tabular datasets have in common: their registration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NoReturn, Self

from vds.azureml import catalog
from vds.azureml.data.dataset_consumption_config import DatasetConsumptionConfig
from vds.azureml.data.kinds import dataset_of
from vds.azureml.data.registered import RegisteredDatasets
from vds.azureml.exceptions import NotInVdsError, UserErrorException
from vds.azureml.faces import WorkspaceFace
from vds.azureml.plainpart import PlainPart
from vds.azureml.selection import Selection


class AbstractDataset:
    """Files that were pinned when the dataset was made: whatever is uploaded later, it means the same bytes."""

    is_tabular = False

    def __init__(self, selection: Selection, definition: Mapping[str, Any] | None = None) -> None:
        """Make a dataset of a selection; scripts call `Dataset.File` and `Dataset.Tabular`."""
        self._selection = selection
        self._definition = dict(definition or {})
        self._registered: catalog.Registered | None = None

    @classmethod
    def _of_registered(cls, workspace: WorkspaceFace, registered: catalog.Registered) -> Self:
        made = cls(registered.selection(), registered.definition)
        made._registered = registered
        return made

    def __repr__(self) -> str:
        facts: dict[str, Any] = {"source": [self._selection.describe()]}
        if self._registered is not None:
            facts["registration"] = {
                "id": self.id,
                "name": self.name,
                "version": self.version,
                "description": self.description,
                "tags": self.tags,
            }
        return f"{type(self).__name__}({facts})"

    @property
    def id(self) -> str | None:
        """The id of the registration; None for a dataset that is not registered."""
        return None if self._registered is None else self._registered.id

    @property
    def name(self) -> str | None:
        """The name it is registered under; None for one that is not."""
        return None if self._registered is None else self._registered.name

    @property
    def version(self) -> int | None:
        """Its version under that name: the number of its release; None for one that is not registered."""
        return None if self._registered is None else self._registered.number

    @property
    def description(self) -> str | None:
        """The description it was registered with, or updated to."""
        return None if self._registered is None else self._registered.description

    @property
    def tags(self) -> dict[str, str] | None:
        """The tags it was registered with, or updated to."""
        return None if self._registered is None else dict(self._registered.tags)

    @property
    def uri(self) -> str:
        """Where its files are: `vds://NAMESPACE@NUMBER/PATH`."""
        return self._selection.describe()

    @property
    def data_changed_time(self) -> datetime | None:
        """When the newest of its versions was made: it never changes after that."""
        times = [version.created_at for version in self._selection.pins()]
        return max(times) if times else None

    @staticmethod
    def get_by_name(workspace: WorkspaceFace, name: str, version: int | str = "latest", **more: object) -> Any:
        """Return a registered dataset.

        Args:
            workspace: whose.
            name: as it was registered.
            version: a number, "latest", or a tag of the dataset.
            more: no effect.

        Raises:
            NotFoundException: there is none; the hint names those that there are.
        """
        found = dataset_of(workspace, catalog.get(workspace.store, name, version))
        found._selection.record(name)
        return found

    @staticmethod
    def get_by_id(workspace: WorkspaceFace, id: str, **more: object) -> Any:
        """Return the registered dataset version of that id; it costs all releases of the store.

        Raises:
            NotFoundException: there is none.
        """
        return dataset_of(workspace, catalog.find_by_id(workspace.store, id))

    @staticmethod
    def get_all(workspace: WorkspaceFace) -> RegisteredDatasets:
        """Return name → latest version of all registered datasets; each is looked up when it is asked for."""
        return RegisteredDatasets(workspace)

    def register(
        self,
        workspace: WorkspaceFace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> Self:
        """Register the dataset, and return it as registered. The same files again are the same version.

        Args:
            workspace: whose store keeps it.
            name: any text; letters, digits, `.`, `_` and `-` stay as they are in the store.
            description: for people.
            tags: key/value pairs.
            create_new_version: make a new version where the name is taken by other data.

        Raises:
            ConflictException: the name is taken by other data, and `create_new_version` was not given.
            UserErrorException: it is no name.
        """
        selection = self._adopted()
        request = catalog.Request(name, selection, description, tags, self._definition, create_new_version)
        return type(self)._of_registered(workspace, catalog.register(workspace.store, request))

    def update(self, description: str | None = None, tags: Mapping[str, str] | None = None) -> Self:
        """Replace the description, the tags, or both, of this version; its files stay.

        Raises:
            UserErrorException: it is not registered.
        """
        registered = self._need_registration("update this dataset")
        self._registered = catalog.note(
            registered,
            description=registered.description if description is None else description,
            tags=registered.tags if tags is None else tags,
        )
        return self

    def add_tags(self, tags: Mapping[str, str] | None = None) -> Self:
        """Add tags to this version.

        Raises:
            UserErrorException: it is not registered, or has other values for some of them.
        """
        present = self._need_registration("add tags to this dataset").tags
        changed = sorted(key for key, value in (tags or {}).items() if present.get(key, str(value)) != str(value))
        if changed:
            raise UserErrorException(
                f"Dataset already contains different values for tags with the following keys {changed}",
                hint="update(tags={…}) replaces all tags",
            )
        return self.update(tags={**present, **(tags or {})})

    def remove_tags(self, tags: Iterable[str] | None = None) -> Self:
        """Take tags away from this version, by their keys.

        Raises:
            UserErrorException: it is not registered.
        """
        gone = set(tags or ())
        present = self._need_registration("remove tags from this dataset").tags
        return self.update(tags={key: value for key, value in present.items() if key not in gone})

    def unregister_all_versions(self) -> None:
        """Hide all versions of this dataset's name; nothing is deleted, and the next registration has the next number."""
        if self._registered is not None:
            catalog.hide(self._registered.store, self._registered.name)
            self._registered = None

    def as_named_input(self, name: str) -> DatasetConsumptionConfig:
        """Return it as an input of a step, delivered as a dataset.

        Raises:
            UserErrorException: it is no name for an input.
        """
        return DatasetConsumptionConfig(name, self)

    def vds_selection(self) -> Selection:
        """Return its files."""
        return self._selection

    def _adopted(self) -> Selection:
        """Return its files as versions; plain blobs become one first."""
        parts = [part.adopted() if isinstance(part, PlainPart) else part for part in self._selection.parts]
        return Selection(self._selection.store, parts)

    def _need_registration(self, action: str) -> catalog.Registered:
        if self._registered is None:
            raise UserErrorException(f"To {action} it must be registered.", hint="dataset = dataset.register(workspace, name)")
        return self._registered


def refuse(name: str, instead: str) -> NoReturn:
    """Refuse what needs the AzureML service, and name what to use.

    Raises:
        NotInVdsError: always.
    """
    raise NotInVdsError(f"{name} needs the AzureML service", hint=instead)
