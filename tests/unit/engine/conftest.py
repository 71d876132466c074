"""One store for the tests of a module: making its index takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vds
from tests.unit.engine.desk import Desk, OrderedDriver
from vds.store import Store


@pytest.fixture(scope="module")
def opened_store() -> Iterator[tuple[OrderedDriver, Store]]:
    """Return a store and the driver it is on."""
    made = OrderedDriver()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vds.blobs.open.MemoryDriver", lambda name: made)
        with vds.connect(made.url, create=True) as store:
            yield made, store


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, opened_store: tuple[OrderedDriver, Store]) -> Desk:
    """Return a desk at which nothing was sent yet."""
    return Desk(monkeypatch, *opened_store)
