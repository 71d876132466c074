"""Local, read-only views of what scripts read by path. They live as long as this process, in its machine's cache.

Guarantees:
- a view is complete when its path is known, and its files are not writable;
- files of 1 MiB and more are second names of those in the cache where the disk allows it: nothing is copied;
- what a killed process leaves behind is removed by the next one on this machine.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vds.config import cache_directory

_lock = threading.RLock()
_placed: dict[str, Path] = {}
_root: Path | None = None
_owner = 0


def view_of(key: str, place: Callable[[Path], Path]) -> Path:
    """Return the view that `place` makes in an empty directory; once made, it serves for `key` as long as this process lives.

    Whatever `place` raises leaves no view behind.
    """
    with _lock:
        if _owner == os.getpid() and (found := _placed.get(key)) is not None and found.exists():
            return found
        directory = Path(tempfile.mkdtemp(dir=_find_root()))
        try:
            made = place(directory)
        except BaseException:
            remove_view(directory)
            raise
        _make_read_only(directory)
        _placed[key] = made
        return made


def forget_view(place: Path) -> None:
    """Have a view made anew the next time it is wanted: its files are not what they were. It stays where it is."""
    with _lock:
        for key in [key for key, made in _placed.items() if made == place]:
            del _placed[key]


def remove_view(directory: Path) -> None:
    """Remove a directory of read-only files; harmless when it is gone."""
    for folder, _, _ in os.walk(directory):
        with suppress(OSError):
            os.chmod(folder, stat.S_IRWXU)
    shutil.rmtree(directory, ignore_errors=True)


def _find_root() -> Path:
    global _root, _owner
    cache = cache_directory(os.environ)
    parent = cache / "views" if cache is not None else Path(tempfile.gettempdir()) / "vds-views"
    # A forked child makes its own, and leaves its parent's alone.
    if _root is None or _root.parent != parent or _owner != os.getpid():
        parent.mkdir(parents=True, exist_ok=True)
        _remove_left(parent)
        _placed.clear()
        _root, _owner = Path(tempfile.mkdtemp(prefix=f"{_machine()}-{os.getpid()}-", dir=parent)), os.getpid()
        atexit.register(_remove_own, _root, _owner)
    _root.mkdir(parents=True, exist_ok=True)
    return _root


def _machine() -> str:
    return socket.gethostname().replace("-", "_").replace(os.sep, "_")


def _remove_left(parent: Path) -> None:
    for left in parent.iterdir():
        machine, _, rest = left.name.partition("-")
        pid = rest.partition("-")[0]
        if machine == _machine() and pid.isdigit() and not _is_alive(int(pid)):
            remove_view(left)


def _is_alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # there os.kill would end it; what is left goes with the cache
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove_own(root: Path, owner: int) -> None:
    if os.getpid() == owner:
        remove_view(root)


def _make_read_only(directory: Path) -> None:
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            path = os.path.join(folder, name)
            mode = os.stat(path).st_mode
            if mode & 0o222:
                os.chmod(path, stat.S_IMODE(mode) & ~0o222)
        if folder != str(directory):
            os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) & ~0o222)
