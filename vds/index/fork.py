"""Let a process fork only while it has no SQLite file open.

What SQLite knows of its locks is one record a file and process, and a child inherits it: it would believe that it holds the
locks of its parent, which then, closing the file, deletes the write-ahead log that the child is writing its commits to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

FORK_WAIT_S = 2.0
"""How long a fork waits for statements of other threads: most take milliseconds, and the forking thread may itself be reading."""


class Forkable(Protocol):
    """What is told of a fork."""

    def before_fork(self) -> None:
        """Close what lies idle, in the parent."""
        ...

    def after_fork(self) -> None:
        """Begin anew, in the child."""
        ...


class _Gate:
    def __init__(self) -> None:
        self.members: WeakSet[Forkable] = WeakSet()
        self._users = 0
        self._changed = threading.Condition()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with self._changed:
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Wait until nothing is in use, and let nothing in until the fork is done."""
        self._changed.acquire()
        self._changed.wait_for(lambda: not self._users, FORK_WAIT_S)
        for member in list(self.members):
            member.before_fork()

    def open_in_parent(self) -> None:
        self._changed.release()

    def open_in_child(self) -> None:
        self._users, self._changed = 0, threading.Condition()
        for member in list(self.members):
            member.after_fork()


_gate = _Gate()
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_gate.close, after_in_parent=_gate.open_in_parent, after_in_child=_gate.open_in_child)


def tell_of_forks(member: Forkable) -> None:
    """Tell `member` of every fork from now on, as long as it lives."""
    _gate.members.add(member)


in_use = _gate.in_use
"""Hold forks off while a SQLite file is in use."""
