"""Datasets of tables: files, pinned, and how to read them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NoReturn

from vds.azureml.data.abstract_dataset import AbstractDataset, refuse
from vds.azureml.data.file_dataset import FileDataset
from vds.azureml.data.frames import read_frame, write_csv, write_parquet
from vds.azureml.data.kinds import kind
from vds.azureml.exceptions import UserErrorException
from vds.azureml.names import INTERNAL
from vds.azureml.selection import Selection, VersionPart
from vds.model.digest import Digest

TABLES = "tabular"
CONVERTED = f"{INTERNAL}/converted"
"""The namespace of files that tables were converted to."""


@kind(TABLES)
class TabularDataset(AbstractDataset):
    """Rows of files, read when they are asked for. Each method that narrows it returns another dataset."""

    is_tabular = True

    def to_pandas_dataframe(self, on_error: str = "null", out_of_range_datetime: str = "null") -> Any:
        """Return all rows as a data frame.

        Args:
            on_error: "null": what is not of its column's type becomes null. "fail" is taken as that too.
            out_of_range_datetime: likewise.

        Raises:
            NotInVdsError: pandas is not installed.
            UserErrorException: a file is no such table, or a column is not there.
        """
        for value in (on_error, out_of_range_datetime):
            if value not in ("null", "fail"):
                raise UserErrorException(f"{value!r} is neither 'null' nor 'fail'")
        self._selection.record(self.name)
        return read_frame(self._selection, self._definition)

    def keep_columns(self, columns: str | Sequence[str], validate: bool = False) -> TabularDataset:
        """Return a dataset of these columns."""
        return self._with("keep", _names(columns))

    def drop_columns(self, columns: str | Sequence[str]) -> TabularDataset:
        """Return a dataset without these columns."""
        return self._with("drop", _names(columns))

    def skip(self, count: int) -> TabularDataset:
        """Return a dataset without the first rows."""
        return self._with("skip", count)

    def take(self, count: int) -> TabularDataset:
        """Return a dataset of the first rows."""
        return self._with("take", count)

    def take_sample(self, probability: float, seed: int | None = None) -> TabularDataset:
        """Return a dataset of rows taken at random; the same seed takes the same ones."""
        return self.random_split(probability, seed)[0]

    def random_split(self, percentage: float, seed: int | None = None) -> tuple[TabularDataset, TabularDataset]:
        """Return two datasets that have each row once, the first about this share of them.

        Raises:
            UserErrorException: `percentage` is not between 0 and 1.
        """
        if not 0 <= percentage <= 1:
            raise UserErrorException(f"percentage {percentage!r} is not between 0 and 1")
        own = secrets.randbits(48) if seed is None else seed  # both halves, and every reading, draw the same
        return self._with("sample", percentage, own, True), self._with("sample", percentage, own, False)

    def to_csv_files(self, separator: str = ",") -> FileDataset:
        """Return a dataset of one CSV file with these rows; it is kept in the store."""
        return self._converted(write_csv(self.to_pandas_dataframe(), separator), "part-00000.csv")

    def to_parquet_files(self) -> FileDataset:
        """Return a dataset of one Parquet file with these rows; it is kept in the store."""
        return self._converted(write_parquet(self.to_pandas_dataframe()), "part-00000.parquet")

    def to_dask_dataframe(self, *args: object, **more: object) -> NoReturn:
        """Refuse: dask reads the files itself."""
        refuse("TabularDataset.to_dask_dataframe", 'dask.dataframe.read_parquet("vds://NAMESPACE@N/…")')

    def to_spark_dataframe(self) -> NoReturn:
        """Refuse: this needs Spark."""
        refuse("TabularDataset.to_spark_dataframe", "spark.createDataFrame(dataset.to_pandas_dataframe())")

    def filter(self, expression: object) -> NoReturn:
        """Refuse: expressions are evaluated by the service."""
        refuse("TabularDataset.filter", "frame = dataset.to_pandas_dataframe(); frame[frame.x > 1]")

    def with_timestamp_columns(self, *args: object, **more: object) -> NoReturn:
        """Refuse: see `filter`."""
        refuse("TabularDataset.with_timestamp_columns", "a filter on the data frame")

    def partition_by(self, *args: object, **more: object) -> NoReturn:
        """Refuse: see `to_parquet_files`."""
        refuse("TabularDataset.partition_by", "frame.to_parquet(directory, partition_cols=[…]), then datastore.upload(directory)")

    def submit_profile_run(self, *args: object, **more: object) -> NoReturn:
        """Refuse: profiles are made by the service."""
        refuse("TabularDataset.submit_profile_run", "dataset.to_pandas_dataframe().describe()")

    def get_profile(self, *args: object, **more: object) -> NoReturn:
        """Refuse: see `submit_profile_run`."""
        refuse("TabularDataset.get_profile", "dataset.to_pandas_dataframe().describe()")

    def _with(self, *step: Any) -> TabularDataset:
        steps = [*self._definition.get("steps", ()), list(step)]
        return TabularDataset(self._selection, {**self._definition, "steps": steps})

    def _converted(self, body: bytes, name: str) -> FileDataset:
        store = self._selection.store
        place = Digest.of(body).hex[:16]
        with store.namespace(CONVERTED).transaction(f"rows of {self.name or self.uri}") as tx:
            tx.write_bytes(f"{place}/{name}", body)
        return FileDataset(Selection(store, [VersionPart(store, tx.version.at(f"{place}/{name}"), is_file=True)]))


def _names(columns: str | Sequence[str]) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns)
