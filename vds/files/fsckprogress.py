"""How far a long check of a store has come: a small file on this machine, so that a killed one goes on where it was.

Guarantees:
- whoever reads the file finds it whole or not at all: it is replaced by rename. One that cannot be read counts as not there;
- one process at a time works on it, as far as this file system has locks;
- a disk that is full or read-only costs the resumption and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from vds.config import data_directory
from vds.errors import ConflictError, InvalidInputError
from vds.files.lock import wait_for_lock

_FORMAT = 1
_WORD = re.compile(r"[A-Za-z0-9-]{1,64}")
_READ_BYTES_MAX = 64 * 1024 * 1024
_log = logging.getLogger(__name__)


def progress_directory() -> Path | None:
    """Return where such files are, there or not; None for a user without a home directory."""
    try:
        return data_directory() / "fsck"
    except InvalidInputError:
        return None


class FsckProgress:
    """The progress of one kind of check of one store; used by one thread, as a context manager.

    Args:
        directory: where the file is; None keeps nothing.
        store_uid: of the store.
        mode: which check: letters, digits and hyphens.
    """

    def __init__(self, directory: Path | None, store_uid: str, mode: str) -> None:
        assert _WORD.fullmatch(f"{store_uid}-{mode}"), (store_uid, mode)
        self._path = None if directory is None else directory / f"{store_uid}-{mode}.json"
        self._mode = mode
        self._lock: int | None = None

    def __enter__(self) -> FsckProgress:
        """Take the file.

        Raises:
            ConflictError: another process works on it.
        """
        if self._path is None:
            return self
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
            wait_for_lock(self._lock, shared=False, wait_s=0)
        except TimeoutError as err:
            self._unlock()
            raise ConflictError(
                f"another vds fsck ({self._mode}) of this store runs on this machine",
                hint="wait for its end, or run with --no-resume beside it",
            ) from err
        except OSError as err:
            self._give_up(err)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._unlock()

    def load(self) -> Mapping[str, Any] | None:
        """Return what was saved last, or None."""
        if self._path is None:
            return None
        try:
            if self._path.stat().st_size > _READ_BYTES_MAX:
                return None
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get("vds_fsck") == _FORMAT else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep how far it has come, in place of what was kept before."""
        if self._path is None:
            return
        temporary = self._path.with_suffix(".partial")
        try:
            # Not synced: after a power cut the file may be empty, which counts as not there.
            temporary.write_text(json.dumps({"vds_fsck": _FORMAT, **state}), encoding="utf-8")
            os.replace(temporary, self._path)
        except OSError as err:
            self._give_up(err)

    def remove(self) -> None:
        """Forget it: the check has ended."""
        if self._path is not None:
            with suppress(OSError):  # it is only looked at again by a check that is asked to go on from it
                self._path.unlink(missing_ok=True)

    def _give_up(self, err: OSError) -> None:
        _log.warning("how far the check has come cannot be kept in %s: %s", self._path, err.strerror or err)
        self._path = None

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
