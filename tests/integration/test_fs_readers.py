"""Libraries that read through fsspec, or through its files: the bytes are right, and every worker reads the pinned version."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec")

import fsspec

import vds
import vds.pins
from tests.counting import ReadCounter
from tests.fspins import own_process as own_process
from vds.fs import VdsFileSystem
from vds.store import Store

CONNECT = import_module("vds.store.connect")  # `vds.store.connect` is the function
ROWS = 1000
PARQUET = "vds://customers:prod/part-0.parquet"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Return a store that VDS_STORE names; `customers:prod` shows its first version."""
    with vds.connect(tmp_path / "store", create=True) as made:
        publish(made, tmp_path / "first", first=0)
        monkeypatch.setenv("VDS_STORE", str(tmp_path / "store"))
        yield made


@pytest.fixture
def fs(store: Store) -> VdsFileSystem:
    made = fsspec.filesystem("vds")
    assert isinstance(made, VdsFileSystem)
    return made


def publish(store: Store, directory: Path, *, first: int) -> None:
    """Commit a table of ROWS rows, counted from `first`, as CSV and parquet in two parts, and have `customers:prod` show it."""
    arrow, csv, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.csv", "pyarrow.parquet"))
    (directory / "by" / "day=1").mkdir(parents=True)
    (directory / "by" / "day=2").mkdir()
    for part, begin in enumerate((first, first + ROWS // 2)):
        numbers = list(range(begin, begin + ROWS // 2))
        table = arrow.table({"n": numbers, "text": [f"row {number}" for number in numbers]})
        parquet.write_table(table, directory / f"part-{part}.parquet")
        parquet.write_table(table, directory / "by" / f"day={part + 1}" / "x.parquet")
        csv.write_csv(table, directory / f"part-{part}.csv")
    version = store.namespace("team/raw").upload(directory, show_progress=False).version
    store.dataset("customers").register(version, tags=["prod"])


def total(first: int) -> int:
    """Return the sum of column n over both parts."""
    return sum(range(first, first + ROWS))


class TestPandas:
    @pytest.fixture
    def pd(self) -> Any:
        return pytest.importorskip("pandas")

    def test_it_reads_by_url(self, pd: Any, store: Store) -> None:
        assert pd.read_parquet(PARQUET)["n"].sum() == sum(range(ROWS // 2))
        assert pd.read_csv("vds://team/raw@1/part-1.csv")["text"].iloc[0] == f"row {ROWS // 2}"
        assert len(pd.read_parquet("vds://customers:prod/by", columns=["n"])) == ROWS

    def test_the_store_is_an_option(self, pd: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VDS_STORE")
        assert len(pd.read_parquet(PARQUET, storage_options={"store": store.url})) == ROWS // 2
        assert len(pd.read_csv("vds://customers:prod/part-0.csv", storage_options={"store": store.url})) == ROWS // 2

    def test_a_settings_file_names_the_store(
        self, pd: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("VDS_STORE")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "vds.toml").write_text(f'store = "{store.url}"\n')
        assert len(pd.read_parquet(PARQUET)) == ROWS // 2

    def test_no_url_parser_of_fsspec_sees_a_ref(self, pd: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("a ref is no url")

        assert len(pd.read_parquet(PARQUET)) == ROWS // 2  # from here on the store is open, whose own url is one
        for name in ("fsspec.utils.urlsplit", "fsspec.utils.infer_storage_options", "urllib.parse.urlsplit"):
            monkeypatch.setattr(name, refuse)
        assert len(pd.read_parquet(PARQUET)) == ROWS // 2

    def test_what_is_not_there_is_not_found(self, pd: Any, store: Store) -> None:
        with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
            pd.read_parquet("vds://customers:prod/none.parquet")
        with pytest.raises(FileNotFoundError, match="no dataset 'custmers'"):
            pd.read_csv("vds://custmers:prod/a.csv")

    def test_it_cannot_write(self, pd: Any, store: Store) -> None:
        with pytest.raises(OSError, match="read-only"):
            pd.DataFrame({"n": [1]}).to_csv("vds://customers:prod/new.csv")


class TestArrow:
    def test_a_dataset_of_a_directory(self, fs: VdsFileSystem) -> None:
        dataset = pytest.importorskip("pyarrow.dataset").dataset(
            "customers:prod/by", filesystem=fs, format="parquet", partitioning="hive"
        )
        assert dataset.count_rows() == ROWS
        table = dataset.to_table(filter=pytest.importorskip("pyarrow.compute").field("day") == 2)
        assert (table.num_rows, sum(table["n"].to_pylist())) == (ROWS // 2, sum(range(ROWS // 2, ROWS)))

    def test_one_parquet_file(self, fs: VdsFileSystem) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table("customers:prod/part-0.parquet", filesystem=fs).num_rows == ROWS // 2
        with fs.open(PARQUET) as file:
            assert parquet.ParquetFile(file).metadata.num_rows == ROWS // 2

    def test_its_own_interface_finds_files(self, fs: VdsFileSystem) -> None:
        arrow_fs = pytest.importorskip("pyarrow.fs")
        wrapped = arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fs))
        found = wrapped.get_file_info(arrow_fs.FileSelector("customers:prod", recursive=True))
        assert {info.path for info in found if info.is_file} == {*fs.find("customers:prod")}
        by_name = {info.path: info for info in found}
        assert by_name["customers:prod/by"].type == arrow_fs.FileType.Directory
        assert by_name["customers:prod/part-0.csv"].mtime.timestamp() == pytest.approx(
            fs.modified("customers:prod/part-0.csv").timestamp()
        )
        (missing,) = wrapped.get_file_info(["customers:prod/none"])
        assert missing.type == arrow_fs.FileType.NotFound
        with wrapped.open_input_stream("customers:prod/part-0.csv") as stream:
            assert stream.read(3) == b'"n"'


def read_and_say(pickled: bytes) -> tuple[int, int]:
    """Return this process, and the size that a pickled file system says `customers:prod/part-0.csv` has."""
    again = pickle.loads(pickled)
    return os.getpid(), len(again.cat_file("customers:prod/part-0.csv"))


class TestWorkers:
    def test_another_process_reads_what_was_pinned(self, fs: VdsFileSystem, store: Store, tmp_path: Path) -> None:
        size = fs.size("customers:prod/part-0.csv")
        pickled = pickle.dumps(fs)
        publish(store, tmp_path / "second", first=10_000_000)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            seen = list(pool.map(read_and_say, [pickled] * 4))
        assert {found for _, found in seen} == {size}
        assert os.getpid() not in {pid for pid, _ in seen}
        vds.refresh()
        assert fs.size("customers:prod/part-0.csv") > size

    @pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")  # dask's own, of a pandas newer than it
    @pytest.mark.parametrize("read", ["read_csv", "read_parquet"])
    def test_dask_reads_one_version_with_all_its_processes(self, store: Store, tmp_path: Path, read: str) -> None:
        dask = pytest.importorskip("dask.dataframe")
        pattern = f"vds://customers:prod/part-*.{read.removeprefix('read_')}"
        frame = getattr(dask, read)(pattern)
        publish(store, tmp_path / "second", first=5000)
        assert frame["n"].sum().compute(scheduler="processes", num_workers=2) == total(0)
        assert getattr(dask, read)(pattern)["n"].sum().compute(scheduler="threads") == total(0)
        vds.refresh()
        assert getattr(dask, read)(pattern)["n"].sum().compute(scheduler="processes", num_workers=2) == total(5000)


class TestDuckdb:
    def test_it_reads_by_url_once_registered(self, fs: VdsFileSystem) -> None:
        connection = pytest.importorskip("duckdb").connect()
        connection.register_filesystem(fs)
        assert connection.sql(f"SELECT sum(n) FROM '{PARQUET}'").fetchall() == [(sum(range(ROWS // 2)),)]
        assert connection.sql("SELECT sum(n) FROM 'vds://team/raw@1/part-*.parquet'").fetchall() == [(total(0),)]
        query = "SELECT sum(n) FROM read_parquet('vds://customers:prod/by/*/x.parquet', hive_partitioning = true) WHERE day = 2"
        assert connection.sql(query).fetchall() == [(sum(range(ROWS // 2, ROWS)),)]
        assert connection.sql("SELECT count(*) FROM read_csv('vds://customers:prod/part-1.csv')").fetchall() == [(ROWS // 2,)]
        connection.close()


class TestPolars:
    @pytest.fixture
    def pl(self) -> Any:
        return pytest.importorskip("polars")

    def test_it_reads_files(self, pl: Any, fs: VdsFileSystem) -> None:
        with fs.open(PARQUET) as file:
            assert pl.read_parquet(file, columns=["n"])["n"].sum() == sum(range(ROWS // 2))
        with fs.open("vds://customers:prod/part-1.csv") as file:
            assert pl.read_csv(file).shape == (ROWS // 2, 2)

    def test_it_scans_through_arrow(self, pl: Any, fs: VdsFileSystem) -> None:
        dataset = pytest.importorskip("pyarrow.dataset").dataset("customers:prod/by", filesystem=fs)
        assert (
            pl.scan_pyarrow_dataset(dataset).filter(pl.col("n") >= 10).select(pl.col("n").sum()).collect().item() == total(0) - 45
        )


class Files:
    """A dataset as torch's loaders want it: torch itself is not needed to define one."""

    def __init__(self, fs: VdsFileSystem, names: list[str]) -> None:
        self.fs, self.names = fs, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, bytes, int]:
        return self.names[index], self.fs.cat_file(self.names[index]), os.getpid()


class TestTorch:
    @pytest.mark.parametrize("start", ["fork", "spawn"])
    def test_workers_of_a_loader_read_the_pinned_version(
        self, fs: VdsFileSystem, store: Store, tmp_path: Path, start: str
    ) -> None:
        data = pytest.importorskip("torch.utils.data")
        if start not in multiprocessing.get_all_start_methods():
            pytest.skip(f"there is no {start} here")
        names = fs.find("customers:prod")
        expected = {str(name): fs.cat_file(name) for name in names}
        publish(store, tmp_path / "second", first=5000)
        loader = data.DataLoader(
            Files(fs, list(names)), batch_size=None, num_workers=2, multiprocessing_context=multiprocessing.get_context(start)
        )
        seen = list(loader)
        assert {name: body for name, body, _ in seen} == expected
        workers = {pid for _, _, pid in seen}
        assert os.getpid() not in workers
        assert len(workers) == 2


class TestRequests:
    """What reading costs, with as little said about the file as these readers say."""

    @pytest.fixture
    def driver(self, monkeypatch: pytest.MonkeyPatch) -> ReadCounter:
        made = ReadCounter("requests")
        monkeypatch.setattr(CONNECT, "open_driver", lambda url, credential=None: made)
        return made

    @pytest.fixture
    def counted(self, driver: ReadCounter, tmp_path: Path) -> VdsFileSystem:
        """Return a file system on a version with 16 MiB of noise and a parquet file of some MiB, opened and used once."""
        parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "noise").write_bytes(os.urandom(16 * 1024 * 1024))
        table = arrow.table({"n": list(range(500_000)), "half": [number / 2 for number in range(500_000)]})
        parquet.write_table(table, tmp_path / "tree" / "table.parquet", row_group_size=100_000)
        with vds.connect(driver.url, create=True) as store:
            store.namespace("team/raw").upload(tmp_path / "tree", show_progress=False)
        made = VdsFileSystem(store=driver.url)
        made.info("team/raw@1/noise")
        driver.calls.clear()
        return made

    def test_a_random_read_is_one_request(self, counted: VdsFileSystem, driver: ReadCounter) -> None:
        with counted.open("team/raw@1/noise") as file:
            assert driver.calls == {}
            file.seek(9 * 1024 * 1024 + 17)
            assert len(file.read(64 * 1024)) == 64 * 1024
            first = sum(driver.calls.values())
            for offset in range(20):
                file.seek(offset * 700_001)
                assert len(file.read(64 * 1024)) == 64 * 1024
        # The first one also brings the checks of the file's pieces.
        assert first <= 2
        assert sum(driver.calls.values()) - first == 20

    def test_a_parquet_footer_takes_few_requests(self, counted: VdsFileSystem, driver: ReadCounter) -> None:
        with counted.open("team/raw@1/table.parquet") as file:
            assert pytest.importorskip("pyarrow.parquet").ParquetFile(file).metadata.num_rows == 500_000
        assert sum(driver.calls.values()) <= 2
        assert driver.read_bytes < counted.size("team/raw@1/table.parquet") // 4
