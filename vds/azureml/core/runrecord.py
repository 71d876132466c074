"""What is recorded of a run: begun when it is first needed, ended by whoever does it."""

from __future__ import annotations

import atexit
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from vds.azureml.faces import ExperimentFace
from vds.azureml.local import artifacts
from vds.azureml.local.workdir import METRICS
from vds.azureml.notices import say_once
from vds.errors import VdsError
from vds.store import Run as StoreRun
from vds.store import RunInfo, Store, Version


class RunRecord:
    """A run by its id: one of this process, a step that this process does, or one of others."""

    def __init__(self, experiment: Any = None, run_id: str | None = None, outputs: object = None, **_: object) -> None:
        """Refer to a run of an experiment by its id."""
        self._experiment = experiment
        self._id = run_id or ""
        self._own: StoreRun | None = None
        self._is_step = False
        self._file: Path | None = None
        self._lines: list[str] = []
        self._notes = f"metrics-{uuid.uuid4().hex}.jsonl"

    @property
    def id(self) -> str:
        """Its id."""
        return self._id

    run_id = id

    @property
    def experiment(self) -> ExperimentFace:
        """The experiment it belongs to."""
        raise NotImplementedError

    def _artifacts(self) -> list[Version]:
        """Return what was kept with the run; of a step that was not run again, also with the run whose result it has."""
        info = self._info
        runs = [] if info is None else [info.id, *([info.reused] if info.reused else [])]
        found = [artifacts.find_artifacts(self._store, run) for run in runs]
        return [version for version in found if version is not None]

    @property
    def _store(self) -> Store:
        store: Store = self.experiment.workspace.store
        return store

    @property
    def _info(self) -> RunInfo | None:
        if self._own is None and self._id.startswith("OfflineRun_"):
            return None
        return self._store.get_run(self._own.id if self._own is not None else self._id)

    def _recorded(self) -> RunInfo:
        if self._own is None and self._id.startswith("OfflineRun_"):
            self._begin(os.path.basename(sys.argv[0]) or "python")
        info = self._info
        assert info is not None
        return info

    def _begin(self, name: str, parent: str | None = None) -> None:
        self._own = self._store.run(name, params={"experiment": self.experiment.name}, parent=parent)
        self._id = self._id or self._own.id
        atexit.register(_end_at_exit, self, os.getpid())

    def _end(self, status: Any, why: str) -> None:
        if self._is_step or (self._own is None and not self._id.startswith("OfflineRun_")):
            return  # who runs it says how it ended
        self._recorded()
        assert self._own is not None
        if self._lines:
            artifacts.keep_text(self._store, self._own.id, METRICS, "".join(self._lines))
            self._lines = []
        self._own.end(status, why)


def _end_at_exit(run: RunRecord, pid: int) -> None:
    """End what a script began and did not end: as it went. A child that was forked leaves it to its parent."""
    if os.getpid() != pid or run._own is None or run._own.status != "running":
        return
    try:
        if hasattr(sys, "last_value"):
            run._end("failed", repr(sys.last_value))
        else:
            run._end("completed", "")
    except VdsError as err:
        say_once(f"the end of run {run.id} could not be recorded: {err}")
