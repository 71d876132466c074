"""Datasets of tables."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.azureml.conftest import write
from vds.azureml.core import Dataset, Workspace
from vds.azureml.data import DatasetConsumptionConfig
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore
from vds.azureml.data.dataset_factory import DataType
from vds.azureml.data.dataset_type_definitions import PromoteHeadersBehavior
from vds.azureml.exceptions import NotFoundException, NotInVdsError, UserErrorException


@pytest.fixture
def raw(here: Path, datastore: AzureBlobDatastore) -> AzureBlobDatastore:
    """Return a datastore with tables."""
    write(
        here / "src",
        {
            "a.csv": "n,name,when,ok\n1,x,2024-01-02,true\n2,,2024-01-03,false\n",
            "b.csv": 'n,name,when,ok\n3,"two\nlines",2024-02-01,true\n',
            "plain.tsv": "1\tx\n2\ty\n",
            "rows.jsonl": '{"n": 1, "s": "a"}\n{"n": 2, "s": "b"}\n',
        },
    )
    pd.DataFrame({"n": [1, 2], "s": ["a", "b"]}).to_parquet(here / "src" / "rows.parquet")
    datastore.upload("src", "t", show_progress=False)
    return datastore


def test_delimited_files(raw: AzureBlobDatastore) -> None:
    frame = Dataset.Tabular.from_delimited_files((raw, "t/*.csv")).to_pandas_dataframe()
    assert frame["n"].tolist() == [1, 2, 3]
    assert frame["name"].isna().tolist() == [False, True, False]
    assert frame["name"].tolist()[2] == "two\nlines"
    assert str(frame["when"].dtype).startswith("datetime64")
    assert frame["ok"].tolist() == [True, False, True]


def test_options_of_delimited_files(raw: AzureBlobDatastore) -> None:
    read: Any = Dataset.Tabular.from_delimited_files
    plain = read((raw, "t/plain.tsv"), separator="\t", header=False).to_pandas_dataframe()
    assert plain.to_dict("list") == {"Column1": [1, 2], "Column2": ["x", "y"]}
    none = read((raw, "t/plain.tsv"), separator="\t", header=PromoteHeadersBehavior.NO_HEADERS).to_pandas_dataframe()
    assert none.equals(plain)
    text = read((raw, "t/a.csv"), infer_column_types=False, empty_as_string=True, include_path=True).to_pandas_dataframe()
    assert text.to_dict("list") == {
        "Path": ["/a.csv", "/a.csv"],
        "n": ["1", "2"],
        "name": ["x", ""],
        "when": ["2024-01-02", "2024-01-03"],
        "ok": ["true", "false"],
    }
    typed = read(
        (raw, "t/a.csv"),
        set_column_types={"n": DataType.to_float(), "when": DataType.to_string(), "ok": DataType.to_bool()},
    ).to_pandas_dataframe()
    assert typed["n"].tolist() == [1.0, 2.0]
    assert typed["when"].tolist() == ["2024-01-02", "2024-01-03"]
    with pytest.raises(UserErrorException, match="'zzz'"):
        read((raw, "t/a.csv"), set_column_types={"zzz": DataType.to_long()}).to_pandas_dataframe()
    with pytest.raises(NotInVdsError, match="partition_format"):
        read((raw, "t/a.csv"), partition_format="{x}")


@pytest.mark.parametrize("path", ["t/rows.parquet", "t/rows.jsonl"])
def test_other_formats(raw: AzureBlobDatastore, path: str) -> None:
    tabular = Dataset.Tabular
    read: Any = tabular.from_parquet_files if path.endswith("parquet") else tabular.from_json_lines_files
    assert read((raw, path)).to_pandas_dataframe().to_dict("list") == {"n": [1, 2], "s": ["a", "b"]}
    with pytest.raises(NotFoundException):
        read((raw, "none"))
    with pytest.raises(UserErrorException, match="is no"):
        read((raw, "t/a.csv")).to_pandas_dataframe()


def test_columns_and_rows(raw: AzureBlobDatastore) -> None:
    table = Dataset.Tabular.from_delimited_files((raw, "t/*.csv"))
    assert list(table.keep_columns(["name", "n"]).to_pandas_dataframe()) == ["name", "n"]
    assert list(table.drop_columns("name").to_pandas_dataframe()) == ["n", "when", "ok"]
    assert table.skip(1).take(1).to_pandas_dataframe()["n"].tolist() == [2]
    first, second = table.random_split(0.5)
    numbers = [*first.to_pandas_dataframe()["n"], *second.to_pandas_dataframe()["n"]]
    assert sorted(numbers) == [1, 2, 3]
    with pytest.raises(UserErrorException, match="no columns"):
        table.keep_columns("zzz").to_pandas_dataframe()


def test_registered_tables_are_read_as_they_were_defined(here: Path, ws: Workspace, raw: AzureBlobDatastore) -> None:
    plain = Dataset.Tabular.from_delimited_files((raw, "t/plain.tsv"), separator="\t", header=False)
    plain.register(ws, "plain", tags={"a": "1"})
    write(here / "src", {"plain.tsv": "9\tz\n"})
    raw.upload("src", "t", overwrite=True, show_progress=False)
    found = Dataset.get_by_name(ws, "plain")
    assert found.to_pandas_dataframe()["Column1"].tolist() == [1, 2]
    assert found.tags == {"a": "1"}
    other = Dataset.Tabular.from_delimited_files((raw, "t/plain.tsv"), separator=",", header=False)
    assert other.register(ws, "plain", create_new_version=True).version == 2
    again = Dataset.Tabular.from_delimited_files((raw, "t/plain.tsv"), separator="\t", header=False)
    third = again.register(ws, "plain", create_new_version=True)
    assert (third.version, list(third.to_pandas_dataframe())) == (3, ["Column1", "Column2"])


def test_a_long_definition_is_kept_whole(ws: Workspace, raw: AzureBlobDatastore) -> None:
    table = Dataset.Tabular.from_delimited_files((raw, "t/a.csv"))
    for _ in range(100):
        table = table.keep_columns(["n", "name", "when", "ok"])
    table.register(ws, "long")
    assert Dataset.get_by_name(ws, "long").to_pandas_dataframe()["n"].tolist() == [1, 2]


def test_tables_become_files(raw: AzureBlobDatastore) -> None:
    table = Dataset.Tabular.from_delimited_files((raw, "t/a.csv")).keep_columns(["n"])
    for made in (table.to_csv_files("\t"), table.to_parquet_files()):
        [path] = made.download()
        frame = pd.read_csv(path) if path.endswith("csv") else pd.read_parquet(path)
        assert frame["n"].tolist() == [1, 2]
    assert table.to_csv_files().uri == table.to_csv_files().uri


def test_data_frames_are_registered(ws: Workspace, datastore: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"n": [1, 2]})
    made = Dataset.Tabular.register_pandas_dataframe(frame, (datastore, "frames"), "rows", "why", {"a": "1"})
    assert (made.name, made.version, made.tags) == ("rows", 1, {"a": "1"})
    assert capsys.readouterr().out.endswith("Successfully created and registered a new dataset.\n")
    again = Dataset.Tabular.register_pandas_dataframe(frame, datastore, "rows", show_progress=False)
    third = Dataset.Tabular.register_pandas_dataframe(frame + 1, datastore, "rows", show_progress=False)
    assert (again.version, third.version) == (2, 3)
    assert Dataset.get_by_name(ws, "rows", 1).to_pandas_dataframe().equals(frame)
    with pytest.raises(UserErrorException, match="pandas DataFrame"):
        Dataset.Tabular.register_pandas_dataframe([1], datastore, "rows")


def test_tables_are_delivered_as_tables_only(raw: AzureBlobDatastore) -> None:
    table = Dataset.Tabular.from_delimited_files((raw, "t/a.csv"))
    assert table.as_named_input("x").mode == "direct"
    with pytest.raises(UserErrorException, match="Only FileDataset supports mount"):
        DatasetConsumptionConfig("x", table, "mount")
    assert not hasattr(table, "as_mount")
    assert not hasattr(table, "to_path")


def test_what_needs_the_service_says_what_to_use(raw: AzureBlobDatastore) -> None:
    table = Dataset.Tabular.from_delimited_files((raw, "t/a.csv"))
    calls = [
        table.to_spark_dataframe,
        table.to_dask_dataframe,
        table.get_profile,
        Dataset.Tabular.from_sql_query,
        DataType.to_stream,
    ]
    for call in calls:
        with pytest.raises(NotInVdsError) as caught:
            call()
        assert caught.value.hint


def test_without_pandas_it_says_what_to_install(raw: AzureBlobDatastore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **more: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(NotInVdsError, match="pandas") as caught:
        Dataset.Tabular.from_delimited_files((raw, "t/a.csv")).to_pandas_dataframe()
    assert "vds[pandas]" in caught.value.hint
