"""Register versions under a global name, and move the tags that consumers follow. Every step is recorded and hash-chained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from vds.engine.doors import Doors
from vds.engine.journal import check_still_ours, publish
from vds.engine.resolve import Resolution, get_dataset
from vds.errors import ConflictError, InvalidInputError, NotFoundError, OutcomeUnknownError, VdsError
from vds.index.database import Connection
from vds.index.datasets import (
    DatasetRow,
    EventRow,
    NewRelease,
    ReleaseRow,
    add_release,
    find_release,
    find_same_release,
    list_events,
    lock_dataset,
    move_tag,
)
from vds.index.entries import At, is_anything_at
from vds.index.expiry import hold_kept
from vds.index.gaps import check_events_whole
from vds.model.ref import parse_tag
from vds.model.version import check_labels, check_message


def register(
    doors: Doors,
    name: str,
    target: Resolution,
    *,
    tags: Sequence[str] = (),
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
    author: str,
) -> ReleaseRow:
    """Return the release of this version and path under `name`, made if it is new, its tags moved to it.

    All of it is one step: either the release and every tag are visible, or nothing is.

    Raises:
        InvalidInputError: version 0, or a tag that cannot be one.
        NotFoundError: there is nothing at the path, or the version has expired.
        CorruptionError: the dataset's history is known to end in a gap: nothing may follow.
    """
    doors.check_writable()
    if isinstance(tags, str):
        raise InvalidInputError(f"tags must be a list, not {tags!r}", hint=f"tags=[{tags!r}]")
    checked = [parse_tag(tag) for tag in tags]
    new = NewRelease(
        namespace_id=target.namespace.id,
        namespace_uid=target.namespace.uid,
        namespace_name=target.namespace.name,
        version=target.version.number,
        version_digest=target.version.digest,
        path=target.path,
        description=check_message(description or ""),
        labels=check_labels(labels),
    )
    _check_anything_there(doors, target)

    def work(connection: Connection) -> tuple[DatasetRow, ReleaseRow]:
        dataset = lock_dataset(connection, doors.store.id, name)
        if dataset.name != name:
            raise ConflictError(f"dataset {dataset.name!r} exists, {name!r} differs from it only in case")
        check_events_whole(connection, doors.store.id, dataset.id, dataset.name)
        hold_kept(connection, doors.store.id, new.namespace_id, new.version)
        release = find_same_release(connection, dataset, new)
        if release is None:
            dataset = add_release(connection, dataset, doors.store.uid, new, author)
            release = find_same_release(connection, dataset, new)
            assert release is not None
        for tag in checked:
            dataset = move_tag(connection, dataset, doors.store.uid, tag, release.number, author=author, reason="", expected=None)
        return dataset, release

    dataset, release = doors.index.run(work)
    _publish(doors, dataset)
    return release


def _check_anything_there(doors: Doors, target: Resolution) -> None:
    if target.version.number == 0:
        raise InvalidInputError(
            f"version 0 of {target.namespace.name!r} is empty and cannot be registered", hint="upload something first"
        )
    at = At(doors.store.id, target.namespace.id, target.version.number)
    with doors.index.read() as connection:
        found = not target.path or is_anything_at(connection, at, target.path)
    if not found:
        raise NotFoundError(
            f"there is nothing at {target.path!r} in {target.namespace.name}@{target.version.number}",
            hint=f"vds ls {target.namespace.name}@{target.version.number}",
        )


def tag(
    doors: Doors,
    name: str,
    tag_name: str,
    release: int | None,
    *,
    author: str,
    reason: str = "",
    expected: int | Literal["absent"] | None = None,
) -> None:
    """Point a tag at a release, or (None) take it away; compare-and-swap when `expected` is given.

    Raises:
        NotFoundError: there is no such dataset or release, its version has expired, or there is no such tag to take away.
        ConflictError: the tag is not where `expected` says.
        CorruptionError: as `register`.
        InvalidInputError: the tag or `expected` cannot be one.
    """
    doors.check_writable()
    parse_tag(tag_name)
    check_message(reason)
    if isinstance(expected, bool) or not (expected is None or expected == "absent" or isinstance(expected, int)):
        raise InvalidInputError(f"expected {expected!r} is neither a release number nor 'absent'")
    with doors.index.read() as connection:
        get_dataset(connection, doors, name)

    def work(connection: Connection) -> tuple[DatasetRow, bool]:
        dataset = lock_dataset(connection, doors.store.id, name)
        check_events_whole(connection, doors.store.id, dataset.id, dataset.name)
        if release is not None:
            found = find_release(connection, dataset, release, up_to=dataset.head)
            if found is None:
                raise NotFoundError(f"dataset {dataset.name!r} has no release {release}", hint=f"vds log {dataset.name}:")
            hold_kept(connection, doors.store.id, found.namespace_id, found.version)
        after = move_tag(connection, dataset, doors.store.uid, tag_name, release, author=author, reason=reason, expected=expected)
        return after, after.head > dataset.head

    after, moved = doors.index.run(work)
    if release is None and not moved and expected != "absent":
        raise NotFoundError(f"dataset {after.name!r} has no tag {tag_name!r}", hint=f"vds log {after.name}:")
    _publish(doors, after)


def _publish(doors: Doors, dataset: DatasetRow) -> None:
    """Return once the dataset's last event is visible; writes whatever is queued before it, such as the rest of a lost call."""
    try:
        publish(doors, "event", dataset.id, dataset.head, first=1)
        check_still_ours(doors, f"event {dataset.head} of dataset {dataset.name!r}")
    except OutcomeUnknownError:
        raise
    except VdsError as err:
        raise OutcomeUnknownError(
            f"event {dataset.head} of dataset {dataset.name!r} is recorded, but not yet in the container: {err}",
            hint="make the same call again: a version registered twice is one release, a tag that is in place stays there",
        ) from err


def history(doors: Doors, name: str, tag_name: str | None = None) -> list[EventRow]:
    """Return the visible events of a dataset (of one tag), newest first.

    Raises:
        NotFoundError: there is no such dataset.
    """
    with doors.index.read() as connection:
        return list_events(connection, get_dataset(connection, doors, name), tag_name)
