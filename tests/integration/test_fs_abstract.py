"""Fsspec's own tests of `get`, run on the file system as they are.

They make what they then read through the same file system, so a twin of it takes what they write and commits it before the next
read. All reading is the file system's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

import vds

pytest.importorskip("fsspec")

from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from vds.fs import VdsFileSystem
from vds.store import Version

_numbers = itertools.count(1)


class Filling(VdsFileSystem):
    """Takes writes, and commits them when something is read."""

    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.written: dict[str, bytes] = {}

    def _locate(self, path: str) -> tuple[Version, str, str]:
        if self.written:
            with vds.connect(self._place[0]) as store, store.namespace("abstract").transaction() as tx:
                for name, body in self.written.items():
                    tx.write_bytes(name.partition("/")[2], body)
            self.written.clear()
            vds.refresh()
        return super()._locate(path)

    def pipe(self, path: str, value: bytes, **kwargs: Any) -> None:
        self.written[self._strip_protocol(path)] = value

    def touch(self, path: str, **kwargs: Any) -> None:
        self.pipe(path, b"")

    def _keep(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: directories come with their files, and each test has a store of its own."""

    mkdir = makedirs = rm = _keep


class TestGet(AbstractFixtures, AbstractGetTests):  # type: ignore[misc] # fsspec has no annotations
    @pytest.fixture
    def fs(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[VdsFileSystem]:
        monkeypatch.setenv("VDS_CACHE", str(tmp_path / "cache"))
        url = f"memory://abstract-{next(_numbers)}"
        with vds.connect(url, create=True):
            yield Filling(store=url)

    @pytest.fixture
    def fs_path(self) -> str:
        return "abstract@latest"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False
