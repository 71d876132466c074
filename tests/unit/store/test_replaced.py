"""What a version took the place of, and single releases of a dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

import vds
from vds.errors import NotFoundError
from vds.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return vds.connect(tmp_path / "store", create=True)


def test_replaced_files_are_counted_by_the_version_that_wrote_them(store: Store) -> None:
    ns = store.namespace("team/raw")
    with ns.transaction() as tx:
        for name in ("a", "b", "c", "d"):
            tx.write_text(name, "1")
    with ns.transaction() as tx:
        tx.write_text("b", "2")
        tx.write_text("e", "2")
    with ns.transaction() as tx:
        tx.write_text("a", "3")
        tx.write_text("b", "3")
        tx.delete("c")
        tx.write_text("f", "3")
    found = ns.latest().replaced()
    assert [(one.version.number, one.files) for one in found] == [(2, 1), (1, 2)]
    assert found[1].version.read_text("a") == "1"
    assert [(one.version.number, one.files) for one in ns.get(2).replaced()] == [(1, 1)]
    assert ns.get(1).replaced() == []
    assert ns.get(0).replaced() == []


def test_a_release_is_found_by_number_tag_and_as_the_latest(store: Store) -> None:
    ns = store.namespace("team/raw")
    for text in ("1", "2"):
        with ns.transaction() as tx:
            tx.write_text("a", text)
        store.dataset("data").register(ns.latest(), labels={"n": text})
    data = store.dataset("data")
    data.tag("good", 1)
    assert [data.release(target).number for target in (1, "good", "v2", "latest")] == [1, 1, 2, 2]
    assert data.release().labels == {"n": "2"}
    for missing in (3, "none"):
        with pytest.raises(NotFoundError):
            data.release(missing)
