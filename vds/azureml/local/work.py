"""What the steps of one submission have in common: their code, taken once, and their inputs, pinned once."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vds.azureml.configuration import WorkspaceFacts
from vds.azureml.data.data_reference import DataReference
from vds.azureml.globs import clean_path, fixed_part, has_magic
from vds.azureml.local.code import Code, take_code
from vds.azureml.local.spec import Input, Port
from vds.azureml.local.workdir import work_root
from vds.azureml.selection import Selection, find_latest, pin, select
from vds.errors import NotFoundError
from vds.model.run import EndStatus
from vds.store import RunPlace, Store, Version


@dataclass(frozen=True, slots=True)
class Made:
    """What a step has put out: a version seen from a path; None where it wrote no file."""

    place: RunPlace
    selection: Selection | None


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended.

    Attributes:
        run: its id; empty when it was not begun.
        reused: the run whose outputs these are; empty when it ran.
    """

    name: str
    run: str
    status: EndStatus
    outputs: Mapping[Port, Made] = field(default_factory=dict)
    reused: str = ""
    error: str = ""


@dataclass
class Work:
    """What the steps of one submission have in common.

    Attributes:
        parent: the pipeline's run; empty for a script by itself.
        params: of each step's run.
        regenerates: whether no earlier result is used.
        ignores_comments: whether comments and layout of Python files make no difference.
        register: registers a selection as a dataset: (selection, Registration) → nothing.
    """

    store: Store
    default_datastore: str
    experiment: str
    workspace: WorkspaceFacts
    register: Callable[[Selection, Any], None]
    parent: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    regenerates: bool = False
    ignores_comments: bool = False
    is_canceled: Callable[[], bool] = bool
    on_begin: Callable[[str, str, str], None] = lambda name, run, reused: None
    _codes: dict[Path, Code] = field(default_factory=dict)
    _pinned: dict[int, Selection] = field(default_factory=dict)
    _heads: dict[str, Version | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def code_of(self, directory: Path) -> Code:
        """Return the code of a directory, taken once for all steps."""
        with self._lock:
            if directory not in self._codes:
                target = Path(tempfile.mkdtemp(prefix="code-", dir=work_root()))
                self._codes[directory] = take_code(directory, target, ignores_comments=self.ignores_comments)
            return self._codes[directory]

    def namespace_of(self, port: Port) -> str:
        """Return the namespace that an output goes to."""
        return self.default_datastore if port.datastore is None else str(port.datastore.name)

    def close(self) -> None:
        """Remove what was taken of the code."""
        for code in self._codes.values():
            shutil.rmtree(code.root, ignore_errors=True)

    def pin(self, given: Input, *, is_late: bool = False, before: Iterable[str] = ()) -> Selection | None:
        """Return what an input means, pinned once for all steps; None when it is not there yet and `is_late` is False.

        References to one datastore mean one version of it; but where a step before this one has written to the path, they mean
        the version that this made.

        Args:
            given: the input.
            is_late: whether it must be there by now.
            before: the runs of all steps before this one.

        Raises:
            NotFoundException: it is not there.
        """
        with self._lock:
            written = self._find_written(given.source, before)
            if written is not None:
                return pin(given.source.datastore, given.source.path_on_datastore, written)
            key = id(given.source)
            if key not in self._pinned:
                try:
                    self._pinned[key] = self._select(given.source)
                except NotFoundError:
                    if is_late:
                        raise
                    return None
            return self._pinned[key]

    def _select(self, source: Any) -> Selection:
        if not _is_unpinned(source):
            return select(source)
        try:
            return pin(source.datastore, source.path_on_datastore, self._head(source))
        except NotFoundError:
            # Written since, by a step before this one perhaps, or plain blobs that no version has.
            return pin(source.datastore, source.path_on_datastore)

    def _head(self, source: DataReference) -> Version | None:
        name = source.datastore.name.casefold()
        if name not in self._heads:
            self._heads[name] = find_latest(source.datastore)
        return self._heads[name]

    def _find_written(self, source: Any, before: Iterable[str]) -> Version | None:
        """Return the last version by which a step before has changed what is at the path of a reference; None for none."""
        if not _is_unpinned(source):
            return None
        head = self._head(source)
        namespace = self.store.namespace(source.datastore.name)
        own = {place for run in before for place in self.store.get_run(run).written}
        path = clean_path(source.path_on_datastore)
        places = (place.rpartition("@") for place in own)
        for number in sorted((int(number) for name, _, number in places if name == namespace.name), reverse=True):
            if head is not None and number <= head.number:
                break
            version = namespace.get(number)
            if version.diff(path=fixed_part(path) if has_magic(path) else path) or version.parent is None:
                return version
        return None


def _is_unpinned(source: Any) -> bool:
    return isinstance(source, DataReference) and source.version is None
