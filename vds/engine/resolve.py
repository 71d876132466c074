"""From what a person types to one visible version.

With VDS_AS_OF set (`VDS_AS_OF=$(vds now)`), every ref that can move means what it meant at that moment: in this process, in those
it starts, and wherever the variable is passed on to. Writes do not look at it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from vds.engine.doors import Doors
from vds.engine.journal import check_serving
from vds.engine.namespaces import get_namespace
from vds.errors import InvalidInputError, NotFoundError
from vds.index.commit import Committed
from vds.index.database import Connection, now_us
from vds.index.datasets import DatasetRow, ReleaseRow, find_dataset, find_release, find_tag, list_releases
from vds.index.stores import NamespaceRow, read_namespace
from vds.index.versions import VersionRow, find_point, get_version
from vds.model.moment import micros_of
from vds.model.path import join
from vds.model.ref import DatasetRef, NamespaceRef, Point, Ref, format_moment, parse_moment

AS_OF_VARIABLE = "VDS_AS_OF"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a ref means now.

    Attributes:
        path: where in the version the ref points: a release may be of a directory.
        is_pinned: whether it will mean the same for ever, or for as long as VDS_AS_OF stays as it is.
    """

    namespace: NamespaceRow
    version: VersionRow
    release: ReleaseRow | None
    path: str
    is_pinned: bool


def find_as_of(environ: Mapping[str, str] = os.environ) -> datetime | None:
    """Return the moment that VDS_AS_OF pins this run to, or None when it is not set.

    Raises:
        InvalidInputError: it is set to something else, or to nothing.
    """
    text = environ.get(AS_OF_VARIABLE)
    if text is None:
        return None
    try:
        return parse_moment(text)
    except InvalidInputError as err:
        # Empty it is mostly when `vds now` did not get through: to go on would let each step see something else.
        raise InvalidInputError(
            f"{AS_OF_VARIABLE} is {text!r}, which is not a moment", hint=f"set it with {AS_OF_VARIABLE}=$(vds now), or unset it"
        ) from err


def resolve(doors: Doors, ref: Ref, path: str = "") -> Resolution:
    """Return the version that `ref` means, seen from `path` below it; a ref that can move, as of VDS_AS_OF where that is set.

    Raises:
        NotFoundError: there is no such namespace, version, dataset, release or tag (or was none at that moment).
        InvalidInputError: a digest prefix fits several versions; VDS_AS_OF is no moment, or it or the ref's own is to come.
    """
    as_of = None if _is_fixed(ref) else find_as_of()
    if as_of is None:
        return _resolve(doors, ref, path)
    moment = _moment_of(ref)
    found = _resolve(doors, ref, path) if moment is not None else _resolve_as_of(doors, ref, path, as_of)
    if not found.is_pinned:
        raise InvalidInputError(
            f"{format_moment(moment or as_of)} is still to come by the clock of this store's index, so it pins nothing",
            hint=f"take the moment from this store: {AS_OF_VARIABLE}=$(vds now)",
        )
    return found


def resolve_point(doors: Doors, name: str, point: Point) -> Resolution:
    """Return the version of the namespace `name` at a point; as `resolve`."""
    return resolve(doors, NamespaceRef(name, point))


def resolve_committed(doors: Doors, namespace: NamespaceRow, committed: Committed) -> Resolution:
    """Return the version that a commit has just made, or found made; the index is asked only where the commit does not tell.

    Raises:
        NotFoundError: it has expired meanwhile.
    """
    row = committed.row
    if row is None:
        return resolve_point(doors, namespace.name, Point(number=committed.number))
    return Resolution(replace(namespace, head=row.number, head_digest=row.digest, visible=row.number), row, None, "", True)


def _is_fixed(ref: Ref) -> bool:
    return ref.point.is_fixed if isinstance(ref, NamespaceRef) else ref.release is not None


def _moment_of(ref: Ref) -> datetime | None:
    return ref.point.moment if isinstance(ref, NamespaceRef) else ref.moment


def _resolve_as_of(doors: Doors, ref: Ref, path: str, as_of: datetime) -> Resolution:
    try:
        if isinstance(ref, DatasetRef):
            return _resolve(doors, replace(ref, moment=as_of), path)
        found = _resolve(doors, replace(ref, point=replace(ref.point, moment=as_of)), path)
        if found.version.number + ref.point.back == 0:
            # Not version 0: a name that is being claimed while the moment passes is not there for who asks too early.
            raise NotFoundError(f"namespace {ref.name!r} had no version at {format_moment(as_of)}")
    except NotFoundError as err:
        # It may well be there today.
        err.hint = f"{AS_OF_VARIABLE} pins this run to {format_moment(as_of)}: unset it, or name the version by its number"
        raise
    return found


def _resolve(doors: Doors, ref: Ref, path: str) -> Resolution:
    if isinstance(ref, NamespaceRef):
        namespace = get_namespace(doors, ref.name)
        with doors.index.read() as connection:
            pinned = _is_fixed(ref) or _has_passed(connection, ref.point.moment)
            version = find_point(connection, namespace, ref.point)
        return Resolution(namespace, version, None, path, pinned)
    with doors.index.read() as connection:
        pinned = _is_fixed(ref) or _has_passed(connection, ref.moment)  # before the look, or it might pass between the two
        dataset = get_dataset(connection, doors, ref.name)
        release = get_release(connection, dataset, ref)
        namespace = read_namespace(connection, release.namespace_id)
        version = get_version(connection, namespace, release.version)
    return Resolution(namespace, version, release, join(release.path, path), pinned)


def _has_passed(connection: Connection, moment: datetime | None) -> bool:
    return moment is not None and micros_of(moment) < now_us(connection)


def get_dataset(connection: Connection, doors: Doors, name: str) -> DatasetRow:
    """Return the dataset called `name`.

    Raises:
        NotFoundError: there is none with a visible event.
        FormatError: the index was replaced by another one.
    """
    dataset = find_dataset(connection, doors.store.id, name)
    if dataset is None or dataset.visible == 0:
        check_serving(doors)
        raise NotFoundError(f"no dataset {name!r} in this store", hint=f"vds register {name} NAMESPACE@VERSION")
    return dataset


def get_release(connection: Connection, dataset: DatasetRow, ref: DatasetRef) -> ReleaseRow:
    """Return the visible release that `ref` means.

    Raises:
        NotFoundError: there is none.
    """
    moment_us = micros_of(ref.moment) if ref.moment is not None else None
    when = f" at {format_moment(ref.moment)}" if ref.moment is not None else ""
    number = ref.release
    if ref.tag is not None:
        number = find_tag(connection, dataset, ref.tag, up_to=dataset.visible, moment_us=moment_us)
        if number is None:
            raise NotFoundError(f"dataset {dataset.name!r} has no tag {ref.tag!r}{when}", hint=f"vds log {dataset.name}:")
    elif number is None:
        earlier = [r for r in list_releases(connection, dataset) if moment_us is None or r.created_us <= moment_us]
        number = earlier[0].number if earlier else 0
    release = find_release(connection, dataset, number, up_to=dataset.visible)
    if release is None or (moment_us is not None and release.created_us > moment_us):
        what = f"release {number}" if number else "release"
        raise NotFoundError(f"dataset {dataset.name!r} has no {what}{when}", hint=f"vds log {dataset.name}:")
    return release
