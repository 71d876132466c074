"""Makes datasets of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from vds.azureml.data.abstract_dataset import refuse
from vds.azureml.data.dataset_type_definitions import PromoteHeadersBehavior
from vds.azureml.data.file_factory import parse_target, select_paths
from vds.azureml.data.frames import need_pandas, write_parquet
from vds.azureml.data.tabular_dataset import TABLES, TabularDataset
from vds.azureml.exceptions import UserErrorException
from vds.azureml.notices import write_lines
from vds.azureml.selection import Selection, pin
from vds.model.digest import Digest
from vds.model.path import join

ColumnTypes = Mapping[str, "DataType"] | None


class DataType(NamedTuple):
    """The type of a column, for `set_column_types`."""

    kind: str
    more: tuple[Any, ...] = ()

    @staticmethod
    def to_string() -> DataType:
        """Return the type of text."""
        return DataType("string")

    @staticmethod
    def to_long() -> DataType:
        """Return the type of whole numbers."""
        return DataType("long")

    @staticmethod
    def to_float(decimal_mark: str = ".") -> DataType:
        """Return the type of numbers."""
        return DataType("float", (decimal_mark,))

    @staticmethod
    def to_bool() -> DataType:
        """Return the type of true and false."""
        return DataType("bool")

    @staticmethod
    def to_datetime(formats: str | list[str] | None = None) -> DataType:
        """Return the type of moments, in these formats (`%Y-%m-%d`), or in ISO 8601."""
        return DataType("datetime", () if formats is None else (formats,))

    @staticmethod
    def to_stream(workspace: object = None, escaped: bool = False) -> NoReturn:
        """Refuse: a column of files needs the service."""
        refuse("DataType.to_stream", "a column of paths, read by version.read_many(paths)")


_HEADERS = {
    PromoteHeadersBehavior.NO_HEADERS: False,
    PromoteHeadersBehavior.ONLY_FIRST_FILE_HAS_HEADERS: "first",
    PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS: "combine",
    PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS: True,
}


class TabularDatasetFactory:
    """`Dataset.Tabular`."""

    @staticmethod
    def from_delimited_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        infer_column_types: bool = True,
        set_column_types: ColumnTypes = None,
        separator: str = ",",
        header: bool | PromoteHeadersBehavior = True,
        partition_format: str | None = None,
        support_multi_line: bool = False,
        empty_as_string: bool = False,
        encoding: str = "utf8",
    ) -> TabularDataset:
        """Return a dataset of the rows of delimited files, pinned as they are now; nothing is read yet.

        Args:
            path: as for `Dataset.File.from_files`.
            validate: no effect: what is not there is an error in any case.
            include_path: add a column `Path`.
            infer_column_types: find out numbers, true and false, and ISO dates; False leaves all text.
            set_column_types: column → `DataType`.
            separator: between fields.
            header: whether files begin with the names of their columns; else these are `Column1`, `Column2`, …
            partition_format: refused.
            support_multi_line: no effect: quoted fields may hold new lines in any case.
            empty_as_string: leave empty fields empty text, and not null.
            encoding: of the files.

        Raises:
            NotFoundException: there is nothing at a path.
            NotInVdsError: `partition_format` was given.
        """
        _refuse_partitions(partition_format)
        return _table(
            select_paths(path),
            "delimited",
            include_path,
            set_column_types,
            infer=infer_column_types,
            separator=separator,
            header=_HEADERS[header] if isinstance(header, PromoteHeadersBehavior) else bool(header),
            empty_as_string=empty_as_string,
            encoding=encoding,
        )

    @staticmethod
    def from_parquet_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: ColumnTypes = None,
        partition_format: str | None = None,
    ) -> TabularDataset:
        """Return a dataset of the rows of Parquet files; the arguments and errors are those of `from_delimited_files`."""
        _refuse_partitions(partition_format)
        return _table(select_paths(path), "parquet", include_path, set_column_types)

    @staticmethod
    def from_json_lines_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: ColumnTypes = None,
        partition_format: str | None = None,
        invalid_lines: str = "error",
        encoding: str = "utf8",
    ) -> TabularDataset:
        """Return a dataset of the rows of files of one JSON object a line; a line that is none is an error when it is read."""
        _refuse_partitions(partition_format)
        if invalid_lines != "error":
            raise UserErrorException("invalid_lines='drop' would lose rows unseen", hint="mend the files, and upload them again")
        return _table(select_paths(path), "json", include_path, set_column_types, encoding=encoding)

    @staticmethod
    def register_pandas_dataframe(
        dataframe: Any,
        target: Any,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        show_progress: bool = True,
        row_group_size: int | None = None,
        make_target_path_unique: bool = True,
    ) -> TabularDataset:
        """Write a data frame to a datastore as Parquet, and register it; the same rows again are the same version.

        Args:
            dataframe: of pandas.
            target: a datastore, or a tuple (datastore, path).
            name: of the dataset; a new version is made where it is taken.
            description: for people.
            tags: key/value pairs.
            show_progress: print lines on stdout.
            row_group_size: of the Parquet file.
            make_target_path_unique: put it into a directory named by its content.

        Raises:
            UserErrorException: it is no data frame, or `target` no place.
        """
        if not isinstance(dataframe, need_pandas().DataFrame):
            raise UserErrorException(f"dataframe must be a pandas DataFrame, not {type(dataframe).__name__}")
        show = write_lines if show_progress else lambda lines: None
        show(["Validating arguments."])
        datastore, place = parse_target(target)
        body = write_parquet(dataframe, row_group_size)
        place = join(place, Digest.of(body).hex[:16]) if make_target_path_unique else place
        show(["Arguments validated.", f"Successfully obtained datastore reference and path. Uploading file to {place}"])
        with datastore.namespace.transaction(f"register data frame {name}") as tx:
            tx.write_bytes(join(place, "part-00000.parquet"), body)
        show(["Successfully uploaded file to datastore.", "Creating and registering a new dataset."])
        made = _table(pin(datastore, join(place, "part-00000.parquet"), tx.version), "parquet", False, None)
        registered = made.register(datastore.workspace, name, description, tags, create_new_version=True)
        show(["Successfully created and registered a new dataset."])
        return registered

    @staticmethod
    def from_sql_query(*args: object, **more: object) -> NoReturn:
        """Refuse: databases are not read."""
        refuse("Dataset.Tabular.from_sql_query", "pandas.read_sql, then Dataset.Tabular.register_pandas_dataframe")

    @staticmethod
    def register_spark_dataframe(*args: object, **more: object) -> NoReturn:
        """Refuse: this needs Spark."""
        refuse("Dataset.Tabular.register_spark_dataframe", "frame.write.parquet(directory), then datastore.upload(directory)")

    @staticmethod
    def register_dask_dataframe(*args: object, **more: object) -> NoReturn:
        """Refuse: dask writes files itself."""
        refuse("Dataset.Tabular.register_dask_dataframe", "frame.to_parquet(directory), then datastore.upload(directory)")


def _table(selection: Selection, form: str, include_path: bool, types: ColumnTypes, **options: Any) -> TabularDataset:
    definition = {"kind": TABLES, "format": form, "include_path": include_path, **options}
    if types:
        definition["types"] = {column: [kind.kind, *map(_plain, kind.more)] for column, kind in types.items()}
    return TabularDataset(selection, definition)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _refuse_partitions(partition_format: str | None) -> None:
    if partition_format:
        refuse("partition_format", "include_path=True, and frame['Path'].str.extract(…) for the columns")
