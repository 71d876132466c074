"""The one way in: stores, namespaces, versions, datasets and transactions."""

from vds.store.connect import connect, join, rebuild_index, upgrade_index
from vds.store.dataset import Dataset, Release
from vds.store.lock import Lock, load_lock
from vds.store.namespace import Namespace
from vds.store.results import UploadResult
from vds.store.store import Store
from vds.store.transaction import Part, Transaction
from vds.store.version import Version

__all__ = [
    "Dataset",
    "Lock",
    "Namespace",
    "Part",
    "Release",
    "Store",
    "Transaction",
    "UploadResult",
    "Version",
    "connect",
    "join",
    "load_lock",
    "rebuild_index",
    "upgrade_index",
]
