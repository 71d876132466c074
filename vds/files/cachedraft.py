"""An object on its way into the cache beside its file elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from vds.files.cachetree import NotTakenError, Temporary
from vds.files.clone import clone

Buffer = bytes | bytearray | memoryview


class ObjectDraft:
    """An object that is being written, in whatever order; it counts once `keep` has returned True. Thread-safe.

    What the cache cannot take ends the draft, never the work that it goes along with.

    Args:
        file: its file until then.
        name: its name in the cache from then on.
        end: called once when it will not be kept, with the reason where the cache is it.
    """

    def __init__(self, file: Temporary, name: str, end: Callable[[NotTakenError | None], None]) -> None:
        self._file: Temporary | None = file
        self._name = name
        self._on_end = end
        self._lock = Lock()

    def write_at(self, offset_bytes: int, data: Buffer) -> None:
        """Write bytes where they belong."""
        view = memoryview(data)
        with self._lock:
            try:
                while view and self._file is not None:
                    count = self._file.write_at(view, offset_bytes)
                    view, offset_bytes = view[count:], offset_bytes + count
            except NotTakenError as err:
                self._end(err)

    def clone(self, source: int) -> bool:
        """Have it share the bytes of an open file; False where the disk cannot, or there is no draft any more."""
        with self._lock:
            return self._file is not None and clone(source, self._file.fileno())

    def keep(self) -> bool:
        """Take what was written for the object, which its caller has held against the digest; False when it was not kept."""
        with self._lock:
            if self._file is None:
                return False
            try:
                self._file.place(self._name, sync=True)
            except NotTakenError as err:
                self._end(err)
                return False
            self._file.close()
            self._file = None
            return True

    def drop(self) -> None:
        """Forget it, unless it was kept; idempotent."""
        with self._lock:
            self._end(None)

    def _end(self, err: NotTakenError | None) -> None:
        if self._file is not None:
            self._file.__exit__(None, None, None)
            self._file = None
            self._on_end(err)
