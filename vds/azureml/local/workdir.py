"""Where steps work on this machine: a directory for each run, named so that a path in it tells run and output.

`steps/azureml/<run id>/<output>` in the cache: the last three parts of an output's path are where its files will be in its
datastore. Beside the outputs is `.code`, the copy that the script runs in. Directories of runs that ended are kept for a week, so
that paths which scripts have printed can be looked at.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from vds.config import cache_directory

KEPT_S = 7 * 24 * 3600
CODE, LOG, METRICS = ".code", "user_logs/std_log.txt", "metrics.jsonl"


def work_root() -> Path:
    """Return the directory of all runs on this machine, made if it is not there."""
    cache = cache_directory(os.environ)
    root = (_scratch() if cache is None else cache) / "steps" / "azureml"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


@functools.cache
def _scratch() -> Path:
    """Return a directory of this process: a name in a shared one that others can guess would be theirs to make."""
    return Path(tempfile.mkdtemp(prefix="vds-work-"))


def make_run_directory(run: str) -> Path:
    """Make the directory of a run, with room for its code and its logs."""
    directory = work_root() / run
    for name in ("outputs", "logs", os.path.dirname(LOG)):
        (directory / CODE / name).mkdir(parents=True, exist_ok=True)
    return directory


def find_run_directory(run: str) -> Path | None:
    """Return the directory of a run on this machine, or None."""
    directory = work_root() / run
    return directory if directory.is_dir() else None


def drop_old() -> None:
    """Remove the directories of runs that nothing was written to for a week."""
    oldest_s = time.time() - KEPT_S
    for directory in work_root().iterdir():
        with suppress(OSError):  # another process removes it too, or still writes there
            if max(path.stat().st_mtime for path in (directory, directory / CODE) if path.exists()) < oldest_s:
                shutil.rmtree(directory, ignore_errors=True)
