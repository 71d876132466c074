"""How to reach a store: opened on first use, shared by everything that came out of it, pickled without secrets.

Guarantees:
- thread-safe; a forked child opens connections of its own;
- a pickled handle holds addresses only: the other process finds its credentials where this one would have;
- who only reads blobs, or the cache of this machine, opens no index.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

from vds.blobs.driver import BlobDriver
from vds.blobs.open import open_driver
from vds.blobs.outside import RoutedDriver
from vds.engine.doors import Doors
from vds.engine.session import Intent
from vds.files.cache import Cache, open_cache
from vds.provenance import author, collect_provenance

AUTHOR_VARIABLE = "VDS_AUTHOR"

Opener = Callable[["Address"], Doors]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store and its index are, without any secret.

    Attributes:
        url: of the container.
        index: of the database, or `embedded`.
        read_only: whether it is opened for reading.
    """

    url: str
    index: str
    read_only: bool


class Handle:
    """A way to a store, open or to be opened.

    Args:
        address: of the store.
        opener: opens it, in this process and in others.
        doors: of the store, when it is open.
        open_here: opens it in this process, with what is secret and does not travel; None: as `opener` does.
    """

    def __init__(
        self, address: Address, opener: Opener, doors: Doors | None = None, *, open_here: Callable[[], Doors] | None = None
    ) -> None:
        self.address = address
        self._opener = opener
        self._open_here = open_here
        self._doors = doors
        self._blobs: BlobDriver | None = None
        self._lock = threading.Lock()
        self._author: str | None = None
        self.is_offline = False
        """Whether its container did not answer when it was to be opened: what this machine has kept can be read all the same."""

    @property
    def doors(self) -> Doors:
        """The open store; opened now if it is not."""
        doors = self._doors
        if doors is not None:  # without the lock: a fork while another thread held it would leave the child waiting for ever
            return doors
        with self._lock:
            if self._doors is None:
                self._doors = self._opener(self.address) if self._open_here is None else self._open_here()
            return self._doors

    def open_again(self) -> None:
        """Open the store, which did not answer before.

        Raises:
            UnavailableError: it still does not.
        """
        _ = self.doors  # which opens it
        self.is_offline = False

    @property
    def blobs(self) -> BlobDriver:
        """The container, without its index; no call is made."""
        opened = self._doors or self._blobs
        if opened is not None:
            return opened.blobs if isinstance(opened, Doors) else opened
        with self._lock:
            if self._blobs is None:
                self._blobs = RoutedDriver(open_driver(self.address.url))
            return self._blobs

    @cached_property
    def cache(self) -> Cache | None:
        """The cache of this machine; None where there is none."""
        return open_cache()

    def intent(self, **said: Any) -> Intent:
        """Return what a caller says about a write, with who and where this is."""
        return Intent(author=self._find_author(), provenance=collect_provenance(), **said)

    def _find_author(self) -> str:
        if os.environ.get(AUTHOR_VARIABLE):
            return author()
        if self._author is None:
            self._author = author(credential_principal=self.doors.blobs.find_principal())
        return self._author

    def close(self) -> None:
        """Let go of connections; the next use opens them again."""
        with self._lock:
            doors, self._doors = self._doors, None
            blobs, self._blobs = self._blobs, None
        if doors is not None:
            doors.blobs.close()
            doors.index.close()
        if blobs is not None:
            blobs.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (find_handle, (self.address, self._opener))

    def __repr__(self) -> str:
        return f"Handle({self.address!r})"


_handles: WeakValueDictionary[Address, Handle] = WeakValueDictionary()
_handles_lock = threading.Lock()


def find_handle(address: Address, opener: Opener) -> Handle:
    """Return this process's handle for an address, made if there is none: unpickled versions share their connections."""
    with _handles_lock:
        handle = _handles.get(address)
        if handle is None:
            handle = _handles[address] = Handle(address, opener)
        return handle


def keep_handle(handle: Handle) -> Handle:
    """Make an opened handle the one that unpickled values find."""
    with _handles_lock:
        _handles[handle.address] = handle
    return handle
