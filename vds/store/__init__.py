"""The one way in: stores, namespaces, versions, datasets and transactions."""

from vds.store.connect import connect, join, rebuild_index, run, upgrade_index
from vds.store.dataset import Dataset, Release
from vds.store.lock import Lock, load_lock
from vds.store.namespace import Namespace
from vds.store.results import UploadResult
from vds.store.run import Run
from vds.store.runs import RunInfo, RunPlace, RunUndoReport
from vds.store.store import Store
from vds.store.transaction import Part, Transaction
from vds.store.version import Version

__all__ = [
    "Dataset",
    "Lock",
    "Namespace",
    "Part",
    "Release",
    "Run",
    "RunInfo",
    "RunPlace",
    "RunUndoReport",
    "Store",
    "Transaction",
    "UploadResult",
    "Version",
    "connect",
    "join",
    "load_lock",
    "rebuild_index",
    "run",
    "upgrade_index",
]
