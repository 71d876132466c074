"""Watch what an upload costs: which source files it opens, how much it reads, and what it asks the container for."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

import vds.engine.gather
import vds.files.read

BLOB_CALLS = (
    *("create_container", "put_if_absent", "stage_block", "list_blocks", "commit_blocks"),
    *("find_blob", "read_range", "list_blobs", "copy_blob", "delete_blob"),
)


@dataclass
class Reads:
    """The source files that were opened.

    Attributes:
        opened: by name, how often.
        read_bytes: from all of them.
        refused: names that cannot be opened.
        on_refusal: called when one of those was asked for.
    """

    opened: Counter[str] = field(default_factory=Counter)
    read_bytes: int = 0
    refused: set[str] = field(default_factory=set)
    on_refusal: Callable[[], None] = lambda: None
    lock: threading.Lock = field(default_factory=threading.Lock)


class _WatchedOs:
    """Stands for the module `os` where source files are read."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int) -> int:
        name = os.path.basename(path)
        with self._reads.lock:
            self._reads.opened[name] += 1
            if name in self._reads.refused:
                self._reads.on_refusal()
                raise PermissionError(13, "Permission denied")
        return os.open(path, flags)

    def read(self, descriptor: int, length_bytes: int) -> bytes:
        data = os.read(descriptor, length_bytes)
        self._count(len(data))
        return data

    def readv(self, descriptor: int, buffers: list[memoryview]) -> int:
        count = os.readv(descriptor, buffers)
        self._count(count)
        return count

    def _count(self, length_bytes: int) -> None:
        with self._reads.lock:
            self._reads.read_bytes += length_bytes


def watch_reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Watch the reading of source files until the test ends."""
    reads = Reads()
    watched = _WatchedOs(reads)
    monkeypatch.setattr(vds.files.read, "os", watched)
    monkeypatch.setattr(vds.engine.gather, "os", watched)
    return reads


@dataclass
class Requests:
    """What the container was asked for.

    Attributes:
        calls: by the name of the call, how often.
        puts: blobs put or committed, by the first segment of their key, how often.
        staged: the staged blocks: key, block id, size.
        before: called with the name of each call before it is made.
    """

    calls: Counter[str] = field(default_factory=Counter)
    puts: Counter[str] = field(default_factory=Counter)
    staged: list[tuple[str, str, int]] = field(default_factory=list)
    before: Callable[[str], None] = lambda name: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def staged_bytes(self) -> int:
        """What all staged blocks hold together."""
        return sum(size_bytes for _, _, size_bytes in self.staged)

    @property
    def content_puts(self) -> int:
        """How many blobs that hold contents of files were made."""
        return self.puts["packs"] + self.puts["objects"]

    def clear(self) -> None:
        """Count from nothing again."""
        self.calls.clear()
        self.puts.clear()
        self.staged.clear()


def watch_blobs(monkeypatch: pytest.MonkeyPatch, driver: type) -> Requests:
    """Watch all calls of drivers of this class until the test ends."""
    requests = Requests()
    for name in BLOB_CALLS:
        monkeypatch.setattr(driver, name, _watched(requests, name, getattr(driver, name)))
    return requests


def _watched(requests: Requests, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        requests.before(name)
        with requests.lock:
            requests.calls[name] += 1
            if name in ("put_if_absent", "commit_blocks"):
                requests.puts[args[1].split("/")[0]] += 1
            elif name == "stage_block":
                requests.staged.append((args[1], args[2], len(args[3])))
        return function(*args, **options)

    return call
