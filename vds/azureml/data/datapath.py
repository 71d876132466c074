"""A path of a datastore as the parameter of a pipeline."""

from __future__ import annotations

from vds.azureml.data.data_reference import DataReference
from vds.azureml.faces import DatastoreFace
from vds.azureml.selection import Selection, pin


class DataPath:
    """A path of a datastore; it means the newest version at the moment it is used."""

    def __init__(self, datastore: DatastoreFace, path_on_datastore: str | None = None, name: str | None = None) -> None:
        self.datastore = datastore
        self._path = path_on_datastore
        self.name = name

    @property
    def datastore_name(self) -> str:
        """The datastore's name."""
        return self.datastore.name

    @property
    def path_on_datastore(self) -> str | None:
        """The path."""
        return self._path

    def create_data_reference(
        self, data_reference_name: str | None = None, datapath_compute_binding: DataPathComputeBinding | None = None
    ) -> DataReference:
        """Return a reference to the path."""
        return DataReference.create(data_reference_name, self, datapath_compute_binding or DataPathComputeBinding())

    @staticmethod
    def create_from_data_reference(data_reference: DataReference) -> DataPath:
        """Return the path of a reference."""
        return DataPath(data_reference.datastore, data_reference.path_on_datastore, data_reference.data_reference_name)

    def vds_selection(self) -> Selection:
        """Return the files it means now."""
        return pin(self.datastore, self._path)


class DataPathComputeBinding:
    """How a step gets at a DataPath."""

    def __init__(self, mode: str = "mount", path_on_compute: str | None = None, overwrite: bool = False) -> None:
        self.mode = mode
        self.path_on_compute = path_on_compute
        self.overwrite = overwrite

    def create_data_reference(self, data_reference_name: str | None = None, datapath: DataPath | None = None) -> DataReference:
        """Return a reference to a path, with this mode."""
        return DataReference.create(data_reference_name, datapath, self)

    @staticmethod
    def create_from_data_reference(data_reference: DataReference) -> DataPathComputeBinding:
        """Return the mode of a reference."""
        return DataPathComputeBinding(data_reference.mode, data_reference.path_on_compute, data_reference.overwrite)
