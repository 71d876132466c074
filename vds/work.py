"""What a lane of `vds.pipeline` runs: works of many pieces, and single calls as works of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[R_co]):
    """Something that goes out in pieces side by side, such as the blocks of one file, and has an end."""

    @property
    def weight_bytes(self) -> int:
        """What one piece holds in memory, at most."""
        ...

    @property
    def is_drawn(self) -> bool:
        """Whether no further piece is to come."""
        ...

    def draw(self) -> Callable[[], None]:
        """Return the next piece. Called while not `is_drawn`, by one thread at a time, in worker threads."""
        ...

    def finish(self) -> R_co:
        """Return the result; called once, when every piece has ended well."""
        ...

    def drop(self) -> None:
        """Let go of everything; called once, when the lane closes before the work came to its end."""
        ...


class Job(Generic[R]):
    """A work in a lane; its fields are guarded by the lane's lock.

    Attributes:
        held_bytes: what it holds from the beginning, whether a piece was drawn or not.
        is_drawing: whether a thread draws from it, or ends it.
        running: how many of its pieces run.
    """

    __slots__ = ("held_bytes", "is_drawing", "running", "work")

    def __init__(self, work: Work[R], held_bytes: int) -> None:
        self.work = work
        self.held_bytes = held_bytes
        self.is_drawing = False
        self.running = 0


class Call(Generic[R]):
    """A single call as a work of one piece."""

    weight_bytes = 0

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._result: list[R] = []
        self.is_drawn = False

    def draw(self) -> Callable[[], None]:
        self.is_drawn = True
        return self._run

    def _run(self) -> None:
        self._result.append(self._call())

    def finish(self) -> R:
        return self._result[0]

    def drop(self) -> None:
        pass
