"""Refs that are resolved once a process: who reads `customers:prod` again reads the version it was first found to mean.

Guarantees:
- all threads, and children forked later, read a ref as the same version until `refresh`;
- a store is opened once for each way it is asked for; two of them do not share connections, but they do share pins.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from vds.model.ref import NamespaceRef, parse_ref_path
from vds.store import Store, Version, connect

FIXED_MAX = 1024
"""So many versions are kept that their refs name for ever (`team/raw@12`): they can be found again at any time."""

StoreKey = tuple[str | None, str | None, object]


class Pins:
    """The open stores of this process, and what refs mean in them. Thread-safe."""

    def __init__(self) -> None:
        self.generation = 0
        """Grows with each `drop`: whoever took pins along from elsewhere sees that they are to be forgotten."""
        self._stores: dict[StoreKey, tuple[Store, object]] = {}
        self._moving: dict[tuple[str, str], Version] = {}
        self._fixed: dict[tuple[str, str], Version] = {}
        self._lock = threading.Lock()

    def open_store(self, url: str | None, index: str | None, credential: object = None) -> Store:
        """Return a store, opened for reading as `vds.connect` does."""
        key = _store_key(url, index, credential)
        found = self._stores.get(key)
        if found is None:
            with self._lock:
                found = self._stores.get(key)
                if found is None:
                    store = connect(url, index=index, read_only=True, credential=credential)
                    # The credential is kept with it: the key holds only its identity, which must not pass to another.
                    found = self._stores[key] = (store, credential)
        return found[0]

    def keep_store(self, url: str, index: str | None, store: Store) -> None:
        """Take in a store that came from elsewhere and opens itself when it is used; one that is here already stays."""
        with self._lock:
            self._stores.setdefault(_store_key(url, index, None), (store, None))

    def get(self, store: Store, ref: str) -> Version:
        """Return the version that a ref means in this process.

        Raises:
            InvalidInputError: the ref does not parse.
            NotFoundError: there is no such version.
        """
        key = (store.url, ref)
        found = self._find(key)
        if found is None:
            with self._lock:
                found = self._find(key)
                if found is None:
                    found = store.get(ref)
                    self._put(key, found)
        return found

    def keep(self, store: Store, version: Version) -> None:
        """Take in a version that came from elsewhere: its uri means it, here too."""
        with self._lock:
            self._put((store.url, version.uri), version)

    def drop(self) -> None:
        """Forget what moving refs were found to mean."""
        with self._lock:
            self._moving.clear()
            self.generation += 1

    def forget_parent(self) -> None:
        """Take a free lock in a forked child: the thread that may have held it is not here."""
        self._lock = threading.Lock()

    def _find(self, key: tuple[str, str]) -> Version | None:
        return self._moving.get(key) or self._fixed.get(key)

    def _put(self, key: tuple[str, str], version: Version) -> None:
        if not _is_fixed(key[1]):
            self._moving[key] = version
            return
        if len(self._fixed) >= FIXED_MAX:
            self._fixed.pop(next(iter(self._fixed)))
        self._fixed[key] = version


def refresh() -> None:
    """Let moving refs (`customers:prod`, `team/raw@latest`) that were read through fsspec in this process be resolved anew.

    Files that are open, and versions that are held, stay what they are.
    """
    PINS.drop()


def _store_key(url: str | None, index: str | None, credential: object) -> StoreKey:
    # Another variable is another store, even in the same process; which vds.toml is near is found out once.
    where: Any = (url or os.environ.get("VDS_STORE"), index or os.environ.get("VDS_INDEX"))
    return (*where, credential if isinstance(credential, str | None) else id(credential))


def _is_fixed(ref: str) -> bool:
    parsed, _ = parse_ref_path(ref)
    return parsed.point.is_fixed if isinstance(parsed, NamespaceRef) else parsed.release is not None


PINS = Pins()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=PINS.forget_parent)
