"""Downloads through a datastore."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.azureml.conftest import write
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore
from vds.azureml.selection import PATTERNS_A_CALL
from vds.errors import ConflictError


@pytest.fixture
def raw(here: Path, datastore: AzureBlobDatastore) -> AzureBlobDatastore:
    write(here / "src", {"data/a.txt": "a", "data/sub/b.txt": "b", "data2/c.txt": "c", "other.txt": "o"})
    datastore.upload("src", show_progress=False)
    return datastore


def local(here: Path) -> list[str]:
    return sorted(path.relative_to(here / "out").as_posix() for path in (here / "out").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (None, ["data/a.txt", "data/sub/b.txt", "data2/c.txt", "other.txt"]),
        ("data/", ["data/a.txt", "data/sub/b.txt"]),
        ("data", ["data/a.txt", "data/sub/b.txt", "data2/c.txt"]),
        ("./data/", ["data/a.txt", "data/sub/b.txt"]),
        ("/data/s", ["data/sub/b.txt"]),
        ("data/a.txt", ["data/a.txt"]),
        ("[d]ata", []),
        ("none/x", []),
    ],
)
def test_a_prefix_is_a_piece_of_text(here: Path, raw: AzureBlobDatastore, prefix: str | None, expected: list[str]) -> None:
    assert raw.download(here / "out", prefix) == len(expected)
    assert local(here) == expected


def test_more_than_one_directory_is_said(raw: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]) -> None:
    raw.download("out", "data", show_progress=False)
    said = capsys.readouterr()
    assert "several directories" in said.err
    assert "data, data2" in said.err
    assert said.out == ""
    raw.download("out", "data/", overwrite=True, show_progress=False)
    raw.download("out", overwrite=True, show_progress=False)
    assert capsys.readouterr().err == ""


def test_files_that_are_there_stay(here: Path, raw: AzureBlobDatastore, caplog: pytest.LogCaptureFixture) -> None:
    write(here / "out", {"data/a.txt": "mine", "data/sub/b.txt": "mine"})
    with caplog.at_level(logging.WARNING):
        assert raw.download("out") == 2
    assert "Path already exists. Skipping download for out/data/a.txt" in caplog.text
    assert (here / "out" / "data" / "a.txt").read_text() == "mine"
    assert raw.download("out", overwrite=True) == 4
    assert (here / "out" / "data" / "a.txt").read_text() == "a"
    assert raw.download("out") == 0


def test_many_single_files_come_in_several_calls(here: Path, datastore: AzureBlobDatastore) -> None:
    count = 2 * PATTERNS_A_CALL + 10
    write(here / "src", {f"d/{number:05}.txt": str(number) for number in range(count)})
    datastore.upload("src", show_progress=False)
    write(here / "out", {"d/00001.txt": "mine"})
    assert datastore.download("out", "d/", show_progress=False) == count - 1
    assert (here / "out" / "d" / "01009.txt").read_text() == "1009"


def test_what_cannot_be_written_raises(here: Path, raw: AzureBlobDatastore) -> None:
    write(here / "out", {"data": "a file where a directory is to be"})
    with pytest.raises(ConflictError, match="stands in its way"):
        raw.download("out", "data/", overwrite=True)


def test_an_empty_datastore(here: Path, datastore: AzureBlobDatastore) -> None:
    assert datastore.download("out") == 0
    assert (here / "out").is_dir()
