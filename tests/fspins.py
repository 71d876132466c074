"""What tests of the fsspec file system share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vds.pins
from vds.fs import VdsFileSystem
from vds.pins import Pins


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin as a new process does: nothing pinned, no store open, no instance."""
    pins = Pins()
    monkeypatch.setattr(vds.pins, "PINS", pins)
    monkeypatch.setattr("vds.fs.pinned.PINS", pins)
    VdsFileSystem.clear_instance_cache()
    yield
    VdsFileSystem.clear_instance_cache()
