"""A run at work: what it reads and writes is recorded as it happens."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType

from vds.background import Beat
from vds.engine.doors import Doors
from vds.errors import ConflictError, InvalidInputError, NotFoundError, VdsError
from vds.index.runs import PlaceRow
from vds.model.run import RUN_FIELD, EndStatus, RunKind, RunStatus
from vds.ops import runs as ops
from vds.provenance import collect_provenance, describe_code, describe_environment, find_run, working_for
from vds.store.handle import Handle
from vds.store.results import UploadResult
from vds.store.runs import RunInfo, run_info
from vds.store.source import find_source
from vds.store.version import Version


class Run:
    """One execution of a program. As a context manager it is `completed` on a clean exit, else `failed` or `canceled`.

    Everything that this process, and those it starts, write to the store meanwhile names the run. While it is open it says every
    ten seconds that it is at work; when its process vanishes, it shows as `abandoned`. Thread-safe.
    """

    def __init__(self, handle: Handle, uid: str, name: str) -> None:
        self._handle = handle
        self.id = uid
        self.name = name
        self._lock = threading.Lock()
        self._entered = ExitStack()
        self._beat = Beat(partial(_beat, handle, uid), ops.HEARTBEAT_S)
        self._status: RunStatus = "running"

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.name!r} {self._status}>"

    @property
    def status(self) -> RunStatus:
        """`running`, or how it ended."""
        return self._status

    @property
    def info(self) -> RunInfo:
        """Everything that is recorded of it by now."""
        return run_info(ops.get(self._doors, self.id))

    def input(self, source: Version | str, name: str = "") -> Version:
        """Return the version that a ref names now, and record that the run reads it; again is harmless.

        Raises:
            NotFoundError: there is no such version.
        """
        version = find_source(self._handle, source)
        note_input(self._handle, self.id, version, name, source if isinstance(source, str) else "")
        return version

    def output(
        self,
        version: Version | UploadResult | str,
        name: str,
        local_path: str | os.PathLike[str] = "",
        *,
        path: str | None = None,
    ) -> None:
        """Record a version as what the run puts out under a name.

        Args:
            version: a version, the result of an upload, or a ref.
            name: what the run calls it.
            local_path: where the files were before they were uploaded, so that `vds where` knows them.
            path: where in the version they are; None: where the version, or the upload, points.

        Raises:
            InvalidInputError: another output has the name.
        """
        found = find_source(self._handle, version)
        if not name:
            raise InvalidInputError("an output needs a name", hint="run.output(result, 'model')")
        if path is None:
            path = str(found.path) or str(getattr(version, "target_path", ""))
        known = self.info.output(name)
        if known is not None and (known.namespace, known.number, known.path) != (found.namespace, found.number, path):
            raise InvalidInputError(f"output {name!r} of this run is {known.uri} already", hint="give the other one another name")
        local = os.path.abspath(local_path) if local_path else ""
        ops.note(self._doors, self.id, "output", _place_row(found, path, name, local))

    def end(self, status: EndStatus = "completed", error: str = "", *, reused: str = "") -> None:
        """Record how it ended; the first end counts."""
        with self._lock:
            if self._status != "running":
                return
            self._status = ops.end(self._doors, self.id, status, error=error, reused=reused)
        self.close()

    def close(self) -> None:
        """Say no more that it is at work; one that has not ended shows as abandoned soon."""
        self._beat.close()

    @property
    def _doors(self) -> Doors:
        return self._handle.doors

    def __enter__(self) -> Run:
        if self._status != "running":
            raise ConflictError(f"run {self.id} has ended", hint="begin another one")
        self._entered.enter_context(working_for(self.id))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._entered.close()
        status, why = _how_it_ended(error)
        try:
            self.end(status, why)
        except VdsError:
            if error is None:
                raise
            # The error that ended the run says more; without a heartbeat it shows as abandoned soon.
        finally:
            self.close()


def begin_run(
    handle: Handle,
    name: str,
    *,
    inputs: Iterable[Version | str] | Mapping[str, Version | str] = (),
    params: Mapping[str, object] | None = None,
    kind: RunKind = "run",
    parent: str | None = None,
    key: str = "",
    key_parts: Mapping[str, str] | None = None,
) -> Run:
    """Begin a run; see `Store.run`."""
    named = inputs if isinstance(inputs, Mapping) else {}
    listed = list(inputs.values() if isinstance(inputs, Mapping) else inputs)
    sources = [(find_source(handle, source), source) for source in listed]  # before there is a run that could not begin
    new = ops.NewRun(
        name=name,
        author=handle.intent().author,
        kind=kind,
        parent=find_run() if parent is None else parent,
        params=dict(params or {}),
        provenance=_provenance(),
        key=key,
        key_parts=dict(key_parts or {}),
    )
    run = Run(handle, ops.begin(handle.doors, new), name)
    names = list(named) or [""] * len(sources)
    try:
        for own, (version, source) in zip(names, sources, strict=True):
            note_input(handle, run.id, version, own, source if isinstance(source, str) else "")
    except BaseException as err:
        with suppress(VdsError):  # without a heartbeat it shows as abandoned soon
            run.end("failed", str(err))
        run.close()
        raise
    return run


def record_input(handle: Handle, version: Version, name: str = "") -> None:
    """Record that the run this process works for, if it does, reads a version; a run of another store is not told."""
    uid = find_run()
    if not uid or handle.address.read_only:
        return
    doors = handle.doors
    try:
        ops.get(doors, uid)
    except NotFoundError:
        return
    note_input(handle, uid, version, name)


def note_input(handle: Handle, run: str, version: Version, name: str = "", asked: str = "") -> None:
    """Record that a run reads a version, by default under the name of its namespace; again is harmless."""
    ops.note(handle.doors, run, "input", _place_row(version, version.path, name or version.namespace, asked))


def _place_row(version: Version, path: str, name: str, asked: str) -> PlaceRow:
    namespace = version._resolved.namespace
    return PlaceRow(name, namespace.id, namespace.name, version.number, path, asked)


def _provenance() -> dict[str, str]:
    found = {**collect_provenance(), **describe_code(), **describe_environment()}
    found.pop(RUN_FIELD, None)  # which is its parent
    return found


def _beat(handle: Handle, uid: str) -> None:
    try:
        ops.beat(handle.doors, uid)
    except VdsError:
        return  # a database that does not answer for a moment: the next one tells


def _how_it_ended(error: BaseException | None) -> tuple[EndStatus, str]:
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "completed", ""
    if isinstance(error, KeyboardInterrupt):
        return "canceled", "interrupted"
    if isinstance(error, SystemExit):
        return "failed", f"exit code {error.code}"
    return "failed", f"{type(error).__name__}: {error}"
