"""Where data is: from a local path to the run and the version, and from a version to who made it, from what."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vds.errors import InvalidInputError, NotFoundError
from vds.model.ref import SCHEME
from vds.model.ulid import is_ulid
from vds.store.runs import RunInfo, RunPlace
from vds.store.store import Store
from vds.store.version import Version

_DATASTORE_URI = re.compile(r"azureml://(?:.+/)?datastores/([^/]+)/paths/(.*)")
_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)@([0-9]+)")


@dataclass(frozen=True, slots=True)
class Where:
    """What is known of a path or a uri.

    Attributes:
        asked: what was asked about.
        version: which holds it, seen from it; None when the run that wrote it has not succeeded, or the version has expired.
        run: which wrote it; None for what was written outside any run.
        output: what the run calls it; empty where it was not put out under a name.
        used_by: the runs that read the version.
    """

    asked: str
    version: Version | None
    run: RunInfo | None
    output: str
    used_by: tuple[RunInfo, ...]


def find_where(store: Store, asked: str) -> Where:
    """Return what is known of a local path that a run wrote or read, a `vds://` or `azureml://` uri, or a ref.

    Raises:
        NotFoundError: nothing is known of it.
        InvalidInputError: the uri does not parse.
    """
    by_path = None if asked.startswith(SCHEME) else _of_path(store, asked)
    if by_path is not None:
        return by_path
    datastore = _DATASTORE_URI.fullmatch(asked)
    if datastore is not None:
        return _of_version(asked, store.namespace(datastore[1]).latest().at(datastore[2].strip("/")))
    try:
        version = store.get(asked)
    except (InvalidInputError, NotFoundError) as err:
        if asked.startswith(SCHEME):
            raise
        raise NotFoundError(
            f"nothing is known of {asked!r}: it is no ref of this store, and no run has written to such a path",
            hint="vds runs lists runs, vds ls what is stored",
        ) from err
    return _of_version(asked, version)


def _of_path(store: Store, asked: str) -> Where | None:
    """Return what is known of a path that has the id of a run, or a namespace and a number, in it."""
    parts = asked.replace("\\", "/").rstrip("/").split("/")
    for number in range(len(parts) - 1, -1, -1):
        rest = parts[number + 1 :]
        if is_ulid(parts[number]):
            try:
                run = store.get_run(parts[number])
            except NotFoundError:
                continue  # a ulid of something else, or a run of another store
            return _of_run(asked, store, run, rest)
        pinned = _PINNED.fullmatch(parts[number])
        if pinned is not None and number and len(parts) > 1 and asked.startswith(("/", ".")):
            found = _of_view(asked, store, pinned[1], int(pinned[2]), "/".join(rest))
            if found is not None:
                return found
    return None


def _of_run(asked: str, store: Store, run: RunInfo, rest: list[str]) -> Where:
    place = run.output(rest[0]) if rest else None
    if place is None:
        return Where(asked, None, run, rest[0] if rest else "", ())
    try:
        version = _seen(store, place, "/".join(rest[1:]))
    except NotFoundError:  # it has expired
        return Where(asked, None, run, place.name, ())
    return Where(asked, version, run, place.name, tuple(version.used_by()))


def _seen(store: Store, place: RunPlace, below: str) -> Version:
    version = store.namespace(place.namespace).get(place.number)
    path = "/".join(part for part in (place.path, below) if part)
    return version.at(path) if path and version.exists(path) else version


def _of_view(asked: str, store: Store, name: str, number: int, path: str) -> Where | None:
    """Return the version that a path below a local view names; there a namespace has `_` where its name has `/`."""
    for namespace in store.namespaces():
        if namespace.name.replace("/", "_") == name and number <= namespace.head:
            version = store.namespace(namespace.name).get(number)
            return _of_version(asked, version.at(path) if path and version.exists(path) else version)
    return None


def _of_version(asked: str, version: Version) -> Where:
    run = version.produced_by
    name = ""
    for place in run.outputs if run is not None else ():
        is_below = not place.path or version.path == place.path or version.path.startswith(place.path + "/")
        if (place.namespace, place.number) == (version.namespace, version.number) and is_below:
            name = place.name
    return Where(asked, version, run, name, tuple(version.used_by()))
