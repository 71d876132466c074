"""What a step has put out, as scripts ask for it."""

from __future__ import annotations

from pathlib import Path

from vds.azureml.data.output_dataset_config import OutputInput
from vds.azureml.faces import ExperimentFace
from vds.azureml.selection import Selection, VersionPart
from vds.store import RunPlace, Version


class PortDataReference:
    """What a step has put out, in its datastore; pinned to the version that the step made."""

    def __init__(self, experiment: ExperimentFace, place: RunPlace) -> None:
        self._place = place
        self.datastore = experiment.workspace.datastores.get(place.namespace)
        self.name = place.name
        self._store = experiment.workspace.store
        self._version = self._store.namespace(place.namespace).get(place.number)

    @property
    def datastore_name(self) -> str:
        """The datastore's name."""
        return self._place.namespace

    @property
    def path_on_datastore(self) -> str:
        """The path in the datastore."""
        return self._place.path

    @property
    def uri(self) -> str:
        """`vds://NAMESPACE@NUMBER/PATH`."""
        return self._place.uri

    @property
    def version(self) -> Version:
        """The version, seen from the path."""
        return self._version.at(self._place.path) if self._place.path else self._version

    @property
    def data_reference_name(self) -> str:
        """The output's name."""
        return self.name

    def vds_selection(self) -> Selection:
        """Return the files."""
        view = self.version
        return Selection(self._store, [VersionPart(self._store, view, is_file=not view.children())])

    def as_input(self, name: str | None = None) -> OutputInput:
        """Return it as the input of another run, under a name of its own where one is given."""
        return OutputInput(self, name or self.name)

    def download(self, local_path: str, overwrite: bool | None = None, show_progress: bool | None = None) -> int:
        """Copy the files below a directory, under their path in the datastore, as the SDK does; returns how many.

        Raises:
            DownloadError: some files could not be written.
        """
        target = Path(local_path, self.path_on_datastore)
        return self.version.download(target, show_progress=bool(show_progress)).placed
