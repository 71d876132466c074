"""vds: a versioned, content-addressed datastore layer over Azure Blob containers.

import vds
store = vds.connect("az://data@myaccount")
store.namespace("team/raw").upload("out/")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vds._version import __version__

if TYPE_CHECKING:
    from vds.ops.checkout import status as status
    from vds.pins import refresh as refresh
    from vds.store import connect as connect
    from vds.store import join as join
    from vds.store import load_lock as load_lock
    from vds.store import rebuild_index as rebuild_index
    from vds.store import run as run
    from vds.store import upgrade_index as upgrade_index

# Resolved on first use: a command that needs no database must not pay for importing one.
_LAZY = {
    "connect": "vds.store",
    "join": "vds.store",
    "load_lock": "vds.store",
    "rebuild_index": "vds.store",
    "refresh": "vds.pins",
    "run": "vds.store",
    "status": "vds.ops.checkout",
    "upgrade_index": "vds.store",
}

__all__ = ["__version__", "connect", "join", "load_lock", "rebuild_index", "refresh", "run", "status", "upgrade_index"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
