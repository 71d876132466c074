"""Outputs that one step hands to others."""

from __future__ import annotations

import re
from typing import Any

from vds.azureml.data.output_dataset_config import OutputInput
from vds.azureml.exceptions import NotInVdsError
from vds.azureml.local.spec import Input, Output, Port, Registration
from vds.azureml.notices import ignore

_NAME = re.compile(r"\w+", re.ASCII)
_MODES = ("mount", "upload")


class PipelineData:
    """A directory that one step writes and others read. It is there before the step starts; one step alone may put it out.

    Its files become a version when the step has succeeded, at `azureml/<run of the step>/<name>` of the datastore.
    """

    def __init__(
        self,
        name: str,
        datastore: Any = None,
        output_name: str | None = None,
        output_mode: str = "mount",
        output_path_on_compute: str | None = None,
        output_overwrite: bool | None = None,
        data_type: str | None = None,
        is_directory: bool | None = None,
        pipeline_output_name: str | None = None,
        training_output: object = None,
    ) -> None:
        """Name an output.

        Args:
            name: letters, digits and underscores.
            datastore: where its files go; None for the default datastore.
            output_name: what the step calls it; None: as `name`.
            output_mode: mount or upload; both are uploaded when the step has succeeded.
            output_path_on_compute: has no effect.
            output_overwrite: has no effect: nothing is overwritten.
            data_type: has no effect.
            is_directory: False leaves the path for the script to make a file of.
            pipeline_output_name: by which the pipeline's run finds it.
            training_output: has no effect.

        Raises:
            ValueError: the name or the mode cannot be one.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"PipelineData name: {name} is not valid. It must contain only letters, digits and underscores")
        if output_mode not in _MODES:
            raise ValueError(f"Invalid output mode [{output_mode}]: mount and upload are supported")
        ignore(
            "PipelineData",
            "each run has a directory of its own",
            output_path_on_compute=output_path_on_compute,
            output_overwrite=output_overwrite,
            data_type=data_type,
            training_output=training_output,
        )
        self.name = name
        self.datastore = datastore
        self.output_name = output_name or name
        self.output_mode = output_mode
        self.pipeline_output_name = pipeline_output_name
        self._port = Port(name, datastore, is_directory=is_directory is not False, pipeline_name=pipeline_output_name or "")

    def __str__(self) -> str:
        return f"$AZUREML_DATAREFERENCE_{self.name}"

    def __repr__(self) -> str:
        return self.__str__()

    @property
    def data_type(self) -> None:
        """Nothing: types of data mean nothing here."""
        return

    def get_env_variable_name(self) -> str:
        """Return the environment variable that tells a script where it is."""
        return self._port.env_name

    def as_dataset(self) -> PipelineOutputFileDataset:
        """Return it as a dataset, which can be registered."""
        return PipelineOutputFileDataset(self._port, self.name)

    def as_input(self, input_name: str | None = None) -> InputPortBinding:
        """Return it as the input of a step; without a name, under its own."""
        return InputPortBinding(input_name or self.name, self)

    def as_mount(self, input_name: str | None = None) -> InputPortBinding:
        """Return it as the input of a step."""
        return InputPortBinding(input_name or self.name, self, "mount")

    def as_download(
        self, input_name: str | None = None, path_on_compute: str | None = None, overwrite: bool | None = None
    ) -> InputPortBinding:
        """Return it as the input of a step."""
        return InputPortBinding(input_name or self.name, self, "download")

    def create_input_binding(
        self,
        input_name: str | None = None,
        mode: str | None = None,
        path_on_compute: str | None = None,
        overwrite: bool | None = None,
    ) -> InputPortBinding:
        """Return it as the input of a step."""
        return InputPortBinding(input_name or self.name, self, mode or "mount")

    def as_named_input(self, name: str) -> InputPortBinding:
        """Return it as the input of a step under a name; the SDK has this for datasets."""
        return InputPortBinding(name, self)

    def as_named_output(self, name: str | None = None, mode: str | None = None) -> PipelineData:
        """Return itself: it has its name; whether an earlier result may be used again is for the step to say (`allow_reuse`)."""
        return self

    def vds_output(self) -> Output:
        """Return the output as the runner takes it."""
        return Output(self._port)


class InputPortBinding:
    """An output of one step as the input of another."""

    vds_is_input = True

    def __init__(
        self,
        name: str,
        bind_object: Any = None,
        bind_mode: str = "mount",
        path_on_compute: str | None = None,
        overwrite: bool | None = None,
        is_resource: bool = False,
        additional_transformations: object = None,
        **_: object,
    ) -> None:
        self.name = name
        self.bind_object = bind_object
        self.bind_mode = bind_mode

    def __str__(self) -> str:
        return f"$AZUREML_DATAREFERENCE_{self.name}"

    def vds_input(self) -> Input:
        """Return the input as the runner takes it."""
        bound = self.bind_object
        source = bound.vds_output().port if isinstance(bound, PipelineData) else bound
        return Input(self.name, source, self.bind_mode)


class PipelineOutputFileDataset(OutputInput):
    """An output of one step as a dataset: others read it, and it can be registered."""

    def __init__(self, source: Port, name: str, mode: str = "mount") -> None:
        super().__init__(source, name, mode)
        self._port = source

    def register(self, name: str, create_new_version: bool = True) -> PipelineOutputFileDataset:
        """Have it registered as a new version of a dataset once its step has succeeded."""
        self._port.registrations.append(Registration(name))
        return self

    def parse_delimited_files(self, *_: object, **__: object) -> PipelineOutputFileDataset:
        """Refused: read the files in the step that wants them as a table.

        Raises:
            NotInVdsError: always.
        """
        raise NotInVdsError(
            "PipelineOutputFileDataset.parse_delimited_files is not there",
            hint="read the files in the step, or use Dataset.Tabular.from_delimited_files afterwards",
        )

    parse_parquet_files = parse_delimited_files


PipelineDataset = PipelineOutputFileDataset
