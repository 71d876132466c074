"""Stores for the tests of the public surface: in memory, in memory and watched, in a directory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import vds
import vds.store.handle
from tests.unit.store.trees import ReadDriver
from vds.store import Store

CONNECT = import_module("vds.store.connect")  # `vds.store.connect` is the function
_numbers = itertools.count(1)


@pytest.fixture
def store() -> Iterator[Store]:
    """Return a new store in memory."""
    with vds.connect(f"memory://unit-{next(_numbers)}", create=True) as opened:
        yield opened


@pytest.fixture
def disk_store(tmp_path: Path) -> Iterator[Store]:
    """Return a new store in a directory, which other processes can open."""
    with vds.connect(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ReadDriver:
    """Return the driver that every `connect` in this test gets, whatever the url."""
    made = ReadDriver(f"watched-{next(_numbers)}")
    for module in (CONNECT, vds.store.handle):
        monkeypatch.setattr(module, "open_driver", lambda url, credential=None: made)
    return made


@pytest.fixture
def watched(driver: ReadDriver) -> Iterator[Store]:
    """Return a new store on the watched driver; the puts that made it are not counted."""
    with vds.connect(driver.url, create=True) as opened:
        opened.namespace("made").transaction().abort()
        driver.puts.clear()
        yield opened


@pytest.fixture
def counted(watched: Store, driver: ReadDriver) -> Store:
    """Return the watched store; reads that made it are not counted."""
    driver.reads.clear()
    return watched
