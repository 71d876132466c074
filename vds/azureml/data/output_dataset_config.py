"""Outputs of steps that become datasets."""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Mapping
from typing import Any

from vds.azureml.data.data_reference import DataReference
from vds.azureml.data.datapath import DataPath
from vds.azureml.exceptions import NotInVdsError, UserErrorException
from vds.azureml.local.spec import Input, Output, Port, Registration
from vds.azureml.notices import ignore

DEFAULT_PLACE = "dataset/{run-id}/{output-name}"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class OutputFileDatasetConfig:
    """Where a step writes files, and what becomes of them when it has succeeded: a version, and a dataset where that is asked.

    Its directory is there before the script starts. With a destination that is the same for every run, earlier files stay beside
    the new ones in the datastore, as with the SDK; who reads the output gets this run's files and no others. Each method returns
    a changed copy; the copies are one output.
    """

    vds_is_always_output = True

    def __init__(
        self,
        name: str | None = None,
        destination: Any = None,
        source: str | None = None,
        partition_format: str | None = None,
    ) -> None:
        """Describe an output.

        Args:
            name: by which the script finds it.
            destination: a datastore, or `(datastore, path)`, or a DataReference; the path may hold `{run-id}` and
                `{output-name}`. None: `dataset/{run-id}/{output-name}` in the default datastore.
            source: has no effect: the script gets its path as an argument.
            partition_format: has no effect.

        Raises:
            UserErrorException: the name or the destination cannot be one.
        """
        ignore("OutputFileDatasetConfig", "the script is given the path", source=source, partition_format=partition_format)
        if name is not None and not _NAME.fullmatch(name):
            raise UserErrorException(
                f"the output name {name!r} is not letters, digits and underscores, beginning with no digit",
                hint="name='processed'",
            )
        self.name = name or f"output_{uuid.uuid4().hex[:8]}"
        self.destination = destination
        datastore, place = _destination_of(destination)
        self.mode = "mount"
        self._registrations: tuple[Registration, ...] = ()
        self._port = Port(self.name, datastore, place or DEFAULT_PLACE)

    def __str__(self) -> str:
        return f"DatasetOutputConfig:{self.name}"

    def __deepcopy__(self, memo: dict[int, Any]) -> OutputFileDatasetConfig:
        return self._copy()

    def as_upload(self, overwrite: bool = False, source_globs: Any = None) -> OutputFileDatasetConfig:
        """Return a copy; all outputs are uploaded when their step has succeeded."""
        ignore("OutputFileDatasetConfig.as_upload", "all files are uploaded", source_globs=source_globs)
        return self._copy(mode="upload")

    def as_mount(self, disable_metadata_cache: bool = False) -> OutputFileDatasetConfig:
        """Return a copy; all outputs are uploaded when their step has succeeded."""
        return self._copy(mode="mount")

    def register_on_complete(
        self, name: str, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> OutputFileDatasetConfig:
        """Return a copy that is registered as a new version of a dataset once its step has succeeded."""
        made = self._copy()
        made._registrations = (*self._registrations, Registration(name, description, dict(tags or {})))
        return made

    def as_input(self, name: str | None = None) -> OutputInput:
        """Return what another step reads: this output."""
        return OutputInput(self._port, name or f"input_{self.name}")

    def read_delimited_files(self, *_: object, **__: object) -> OutputFileDatasetConfig:
        """Refused: read the files in the step that wants them as a table.

        Raises:
            NotInVdsError: always.
        """
        raise NotInVdsError(
            "OutputFileDatasetConfig.read_delimited_files is not there",
            hint="pass as_input() and read the files in the step, or Dataset.Tabular.from_delimited_files afterwards",
        )

    read_parquet_files = read_delimited_files

    def vds_output(self) -> Output:
        """Return the output as the runner takes it."""
        return Output(self._port, self._registrations)

    def _copy(self, **changes: Any) -> OutputFileDatasetConfig:
        made = copy.copy(self)
        made.__dict__.update(changes)
        return made


class OutputInput:
    """What one step, or another run, has put out, as the input of a step."""

    vds_is_input = True

    def __init__(self, source: Any, name: str, mode: str = "mount") -> None:
        self._source = source
        self.name = name
        self.mode = mode

    def __str__(self) -> str:
        return f"DatasetConsumptionConfig:{self.name}"

    def as_mount(self, path_on_compute: str | None = None) -> OutputInput:
        """Return a copy in mode mount."""
        return type(self)(self._source, self.name, "mount")

    def as_download(self, path_on_compute: str | None = None, overwrite: bool | None = None) -> OutputInput:
        """Return a copy in mode download."""
        return type(self)(self._source, self.name, "download")

    def as_direct(self) -> OutputInput:
        """Return a copy in mode direct: the script finds a dataset under the name."""
        return type(self)(self._source, self.name, "direct")

    def as_named_input(self, name: str) -> OutputInput:
        """Return a copy under another name."""
        return type(self)(self._source, name, self.mode)

    def as_input(self, name: str | None = None) -> OutputInput:
        """Return a copy, under another name where one is given."""
        return type(self)(self._source, name or self.name, self.mode)

    def vds_input(self) -> Input:
        """Return the input as the runner takes it."""
        return Input(self.name, self._source, self.mode)


def _destination_of(destination: Any) -> tuple[Any, str]:
    """Return (datastore, path) of a destination; None and empty where nothing is said."""
    if destination is None:
        return None, ""
    if isinstance(destination, tuple | list) and len(destination) == 2:
        first, path = destination
        datastore, above = _destination_of(first)
        return datastore, "/".join(part for part in (above, str(path or "").strip("/")) if part)
    if isinstance(destination, DataReference | DataPath):
        return destination.datastore, (destination.path_on_datastore or "").strip("/")
    if hasattr(destination, "vds_pin"):
        return destination, ""
    raise UserErrorException(
        f"{destination!r} is no destination", hint="destination=(datastore, 'path/{run-id}'), with the placeholder or without"
    )
