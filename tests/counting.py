"""A blob service in memory, and helper processes, that count what is asked of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from vds.blobs.driver import Blob
from vds.blobs.memory import MemoryDriver
from vds.errors import UnavailableError
from vds.helper import Helper


class ReadCounter(MemoryDriver):
    """Blobs in memory; reads are counted, and refused while the service is down.

    Attributes:
        calls: how often each was asked for: `find`, `read`.
        read_bytes: how many bytes were handed out.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: Counter[str] = Counter()
        self.read_bytes = 0
        self.is_down = False

    def _count(self, what: str) -> None:
        if self.is_down:
            raise UnavailableError("the service is down")
        self.calls[what] += 1

    def find_blob(self, key: str) -> Blob | None:
        self._count("find")
        return super().find_blob(key)

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        self._count("read")
        body = super().read_range(key, offset_bytes, length_bytes)
        self.read_bytes += len(body)
        return body

    def read_range_into(self, key: str, offset_bytes: int, target: memoryview) -> None:
        target[:] = self.read_range(key, offset_bytes, len(target))


class CountedHelper(Helper):
    """Counts the helpers, their calls, and how many of those ran at each one's start; `before` is called in front of each."""

    started: list[CountedHelper]
    calls: list[int]
    running: list[int]
    depths: list[int]
    before: Callable[[CountedHelper], None]

    def __init__(self, module: str, function: str, descriptor: int) -> None:
        super().__init__(module, function, descriptor)
        self.started.append(self)

    def call(self, request: Any) -> Any:
        self.calls.append(self.pid)
        self.running.append(self.pid)
        self.depths.append(len(self.running))
        try:
            type(self).before(self)
            return super().call(request)
        finally:
            self.running.remove(self.pid)

    @classmethod
    def reset(cls) -> None:
        """Forget what was counted."""
        cls.started, cls.calls, cls.running, cls.depths = [], [], [], []
        cls.before = lambda helper: None
