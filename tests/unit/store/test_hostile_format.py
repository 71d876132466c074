"""A format record that somebody else wrote: it is believed in nothing that would reach beyond the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vds
from tests.support import read_tree, write_tree
from vds.blobs.open import open_driver
from vds.errors import CorruptionError, FormatError, VdsError
from vds.model.format import format_key
from vds.model.version import RECORD_BYTES_MAX, canonical_json


@pytest.fixture
def url(tmp_path: Path) -> str:
    with vds.connect(tmp_path / "store", create=True) as store:
        store.namespace("raw").upload(write_tree(tmp_path / "src", {"a": b"1"}), show_progress=False)
        return store.url


def rewrite(url: str, body: bytes | None = None, **changes: Any) -> None:
    """Write a format record that counts more than the store's own."""
    driver = open_driver(url)
    raw = json.loads(driver.read_range(format_key(1)))
    index = {**raw["index"], **changes.pop("index", {})}
    driver.put_if_absent(format_key(2), canonical_json({**raw, "index": index, **changes}) if body is None else body)


@pytest.mark.parametrize("read_only", [False, True])
def test_no_file_is_made_by_opening_a_store(url: str, read_only: bool, tmp_path: Path) -> None:
    target = tmp_path / "home" / ".config" / "autostart"
    rewrite(url, index={"address": f"sqlite:///{target}"})
    before = read_tree(tmp_path)
    with pytest.raises(FormatError, match="is not on this machine") as caught:
        vds.connect(url, read_only=read_only)
    assert "--index" in caught.value.hint
    assert read_tree(tmp_path) == before
    assert not target.parent.exists()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ada@db.example/vds",
        "postgresql://ada:pw@db.example/vds",
        "postgresql://db.example/vds?passfile=/home/ada/notes",
        "postgresql://db.example/vds?sslkey=/home/ada/key",
        "postgresql://db.example/vds?service=other",
        "postgresql://db.example/vds?options=-c%20role%3Dx",
        "postgresql+psycopg://db.example/vds",
        "sqlite:///relative.sqlite",
    ],
)
def test_an_index_is_named_as_vds_names_it(url: str, address: str) -> None:
    rewrite(url, index={"address": address})
    with pytest.raises(FormatError, match="which no vds writes"):
        vds.connect(url)


@pytest.mark.parametrize(
    "address", ["", "x", "mysql://db/x", "postgresql://h:port/db", "sqlite://", "postgresql://h/db?schema=A;B"]
)
def test_what_is_no_index(url: str, address: str) -> None:
    rewrite(url, index={"address": address})
    with pytest.raises(VdsError):
        vds.connect(url)


@pytest.mark.parametrize("store", ["../../../outside", "/outside", "x", "", 7, None])
def test_an_id_is_no_path(url: str, store: object, tmp_path: Path) -> None:
    """The embedded index of a store in the cloud is a file called after its id."""
    rewrite(url, store=store)
    before = read_tree(tmp_path)
    with pytest.raises(CorruptionError, match="store"):
        vds.connect(url)
    assert read_tree(tmp_path) == before


def test_a_record_of_any_size(url: str) -> None:
    rewrite(url, body=b" " * (RECORD_BYTES_MAX + 1))
    with pytest.raises(CorruptionError, match=f"the limit is {RECORD_BYTES_MAX}"):
        vds.connect(url)


def test_the_index_that_is_passed_counts(url: str, tmp_path: Path) -> None:
    """Who says which index it is does not ask the container."""
    with vds.connect(url) as store:
        path = Path(store.url.removeprefix("file://")) / ".vds-index" / "index.sqlite"
    rewrite(url, index={"address": "postgresql://evil.example/vds"})
    with vds.connect(url, index=f"sqlite:///{path}") as store:
        assert store.get("raw@1").read_bytes("a") == b"1"
