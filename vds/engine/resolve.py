"""From what a person types to one visible version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from vds.engine.doors import Doors
from vds.engine.namespaces import get_namespace
from vds.errors import NotFoundError
from vds.index.database import Connection, now_us
from vds.index.datasets import DatasetRow, ReleaseRow, find_dataset, find_release, find_tag, list_releases
from vds.index.stores import NamespaceRow, read_namespace
from vds.index.versions import VersionRow, find_point, get_version
from vds.model.moment import micros_of
from vds.model.path import join
from vds.model.ref import DatasetRef, NamespaceRef, Point, Ref, format_moment


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a ref means now.

    Attributes:
        path: where in the version the ref points: a release may be of a directory.
        is_pinned: whether it will mean the same for ever.
    """

    namespace: NamespaceRow
    version: VersionRow
    release: ReleaseRow | None
    path: str
    is_pinned: bool


def resolve(doors: Doors, ref: Ref, path: str = "") -> Resolution:
    """Return the version that `ref` means, seen from `path` below it.

    Raises:
        NotFoundError: there is no such namespace, version, dataset, release or tag.
        InvalidInputError: a digest prefix fits several versions.
    """
    if isinstance(ref, NamespaceRef):
        return _resolve_namespace(doors, ref, path)
    with doors.index.read() as connection:
        dataset = get_dataset(connection, doors, ref.name)
        release = get_release(connection, dataset, ref)
        namespace = read_namespace(connection, release.namespace_id)
        version = get_version(connection, namespace, release.version)
        fixed = ref.release is not None or _has_passed(connection, ref.moment)
    return Resolution(namespace, version, release, join(release.path, path), fixed)


def _resolve_namespace(doors: Doors, ref: NamespaceRef, path: str) -> Resolution:
    namespace = get_namespace(doors, ref.name)
    with doors.index.read() as connection:
        version = find_point(connection, namespace, ref.point)
        fixed = ref.point.is_fixed or _has_passed(connection, ref.point.moment)
    return Resolution(namespace, version, None, path, fixed)


def resolve_point(doors: Doors, name: str, point: Point) -> Resolution:
    """Return the version of the namespace `name` at a point."""
    return _resolve_namespace(doors, NamespaceRef(name, point), "")


def _has_passed(connection: Connection, moment: datetime | None) -> bool:
    return moment is not None and micros_of(moment) < now_us(connection)


def get_dataset(connection: Connection, doors: Doors, name: str) -> DatasetRow:
    """Return the dataset called `name`.

    Raises:
        NotFoundError: there is none with a visible event.
    """
    dataset = find_dataset(connection, doors.store.id, name)
    if dataset is None or dataset.visible == 0:
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
