"""Faults at will: blobs and a database whose n-th call goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pytest

import vds.blobs.objects
import vds.blobs.streams
import vds.engine.commit
import vds.engine.gather
import vds.engine.journal
from vds.blobs.memory import MemoryDriver
from vds.errors import NoSpaceError, OutcomeUnknownError, UnavailableError
from vds.index.database import Database

T = TypeVar("T")

Kind = Literal["before", "after", "no-space", "outage", "dies-before", "dies-after"]
KINDS: list[Kind] = ["before", "after", "no-space", "outage", "dies-before", "dies-after"]
Door = Literal["blobs", "index"]


class DiedError(BaseException):
    """Stands for the end of the process: nothing catches it, and every later call of the same process raises it too."""


@dataclass
class Faults:
    """Decides which call goes wrong, and how.

    Attributes:
        at: which call, from 1; 0 for none.
        lasts: whether every later call fails too: the service is away, or the process has died.
    """

    at: int = 0
    kind: Kind = "before"
    calls: int = 0
    lasts: bool = False
    fired: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def disarm(self) -> None:
        """Let everything work again."""
        self.at, self.lasts = 0, False

    def around(self, name: str, call: Callable[[], T], lost: Callable[[], BaseException] | None = None) -> T:
        """Make one call, or let it go wrong; `lost` is the error that says that an answer was lost."""
        with self.lock:
            self.calls += 1
            if self.lasts:
                raise self.error(name)
            is_due = self.calls == self.at
            if is_due:
                self.fired = name
                self.lasts = self.kind in ("outage", "dies-before", "dies-after")
        if is_due and self.kind not in ("after", "dies-after"):
            raise self.error(name)
        result = call()
        if is_due:
            raise lost() if lost is not None and self.kind == "after" else self.error(name)
        return result

    def error(self, name: str) -> BaseException:
        """Return what the call ends with."""
        if self.kind.startswith("dies"):
            return DiedError(name)
        if self.kind == "no-space":
            return NoSpaceError(f"no space for {name}")
        return UnavailableError(f"no answer to {name}")


_BLOB_CALLS = (
    *("create_container", "put_if_absent", "stage_block", "list_blocks", "commit_blocks"),
    *("find_blob", "read_range", "list_blobs", "copy_blob", "delete_blob"),
)


def inject(monkeypatch: pytest.MonkeyPatch, door: Door, faults: Faults) -> None:
    """Have `faults` decide over all calls for blobs in memory, reads included, or over all write transactions."""
    if door == "blobs":
        for name in _BLOB_CALLS:
            monkeypatch.setattr(MemoryDriver, name, _around(faults, name, getattr(MemoryDriver, name)))
        return
    attempt = Database._attempt

    def attempt_faulty(self: Database, work: Callable[[Any], Any], commit_id: str) -> Any:
        def lost() -> BaseException:
            return OutcomeUnknownError("the connection was lost while committing", commit_id=commit_id)

        return faults.around("a transaction", lambda: attempt(self, work, commit_id), lost)

    monkeypatch.setattr(Database, "_attempt", attempt_faulty)


def _around(faults: Faults, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        return faults.around(f"{name} {args[1:2]!r}", lambda: function(*args, **options))

    return call


class _NoWait:
    """A clock on which waiting takes no time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def monotonic(self) -> float:
        return self.now_s


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no retry wait, and let files of a megabyte be large enough to go out in blocks."""
    clock = _NoWait()
    monkeypatch.setattr(vds.engine.commit, "time", clock)
    monkeypatch.setattr(vds.engine.journal, "time", clock)
    monkeypatch.setattr(vds.engine.gather, "SINGLE_PUT_BYTES_MAX", 1024 * 1024)
    monkeypatch.setattr(vds.blobs.objects, "BLOCK_BYTES_MIN", 512 * 1024)
    monkeypatch.setattr(vds.blobs.streams, "BLOCK_BYTES_MIN", 512 * 1024)
