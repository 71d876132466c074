"""What a store says of runs, and does with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vds.index.runs import RunFilter
from vds.model.run import RunKind, RunStatus
from vds.ops import runs as ops
from vds.store.handle import Handle
from vds.store.run import Run, begin_run, record_input
from vds.store.runs import RunInfo, RunUndoReport, run_info
from vds.store.undorun import undo_run
from vds.store.version import Version


class StoreRuns:
    """The part of a store that has to do with runs."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def run(
        self,
        name: str,
        *,
        inputs: Iterable[Version | str] | Mapping[str, Version | str] = (),
        params: Mapping[str, object] | None = None,
        kind: RunKind = "run",
        parent: str | None = None,
        key: str = "",
        key_parts: Mapping[str, str] | None = None,
    ) -> Run:
        """Begin a run: a record of what a program reads, and of everything it writes, until it ends.

        ```
        with store.run("train", inputs=["customers:prod"], params={"epochs": 3}) as run:
            result = store.namespace("models").upload("out")
            run.output(result, "model")
        ```

        Args:
            name: what is run: the same each time.
            inputs: versions or refs, by name or not; recorded as the versions they are now.
            params: what it depends on besides; kept as text, for anyone to see: no secrets.
            kind: what it is: a run by itself, a pipeline, or a step of one.
            parent: the run it belongs to; None for the one that this process works for.
            key: of a step whose result may be used again: what `runs` finds it by.
            key_parts: what that key was made of, for `vds why`.

        Raises:
            NotFoundError: there is no such input; no run was begun.
            AccessDeniedError: the store was opened for reading.
        """
        return begin_run(self._handle, name, inputs=inputs, params=params, kind=kind, parent=parent, key=key, key_parts=key_parts)

    def get_run(self, run: str) -> RunInfo:
        """Return a run by its id.

        Raises:
            NotFoundError: there is none.
        """
        return run_info(ops.get(self._handle.doors, run))

    def runs(
        self,
        name: str | None = None,
        *,
        parent: str | None = None,
        kind: RunKind | None = None,
        key: str | None = None,
        status: RunStatus | None = None,
        limit: int | None = None,
    ) -> list[RunInfo]:
        """Return runs, newest first.

        Args:
            name: only those called so.
            parent: only those that belong to this run; "" for those that belong to none.
            kind: only those of this kind.
            key: only those begun with this key.
            status: only those that are so now.
            limit: at most so many.
        """
        recorded = "running" if status == "abandoned" else status
        wanted = RunFilter(name=name, parent=parent, kind=kind, key=key, status=recorded)
        # Which of the running ones are still at work is not in the index.
        found = ops.find(self._handle.doors, wanted, None if recorded == "running" else limit)
        return [run_info(facts) for facts in found if status is None or facts.status == status][:limit]

    def record_input(self, version: Version, name: str = "") -> None:
        """Record that the run this process works for reads a version; without one it does nothing."""
        record_input(self._handle, version, name)

    def rollback_run(self, run: str, *, reason: str = "", dry_run: bool = True) -> RunUndoReport:
        """Undo what one run, and all that belong to it, wrote in every namespace, and move back the dataset tags that show it.

        Each namespace gets a new version in which the paths the run was the last to change are as they were before; what others
        wrote since stays. History is kept. Namespaces are mended one after the other; after an error the same call goes on.

        Args:
            run: its id.
            reason: for the log and the history of tags.
            dry_run: only say what would be done.

        Returns:
            What was undone where, who has read it, and which tags were moved.

        Raises:
            NotFoundError: there is no such run, or a version that one of its versions followed has expired.
        """
        return undo_run(self._handle, run, reason=reason, dry_run=dry_run)
