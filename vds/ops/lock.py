"""Lock refs: what each means now, and whether what was locked is still what the store holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vds.config import find_settings_file
from vds.engine.doors import Doors
from vds.engine.resolve import Resolution, resolve, resolve_point
from vds.errors import CorruptionError, NotFoundError
from vds.files.rewrite import read_text
from vds.model.digest import Digest
from vds.model.lockfile import LOCK_NAME, LockedRow, parse_lock
from vds.model.ref import Point, Ref

DifferenceKind = Literal["moved", "gone", "missing", "differs"]


@dataclass(frozen=True, slots=True)
class LockDifference:
    """How a locked ref and its store differ.

    Attributes:
        kind: `moved`: the ref means another version now; `gone`: it means none; `missing`: the locked version is not there;
            `differs`: it is there with another digest.
        locked: the number of the release, or of the version, that is locked.
        found: what the store has in its place; a word where that is nothing.
    """

    ref: str
    kind: DifferenceKind
    locked: str
    found: str


def find_lock_path(given: Path | None, cwd: Path) -> Path | None:
    """Return the lock file to read: what is given, else the nearest vds.lock, as vds.toml is found; None when there is none."""
    return given if given is not None else find_settings_file(cwd, LOCK_NAME)


def choose_lock_path(given: Path | None, cwd: Path) -> Path:
    """Return the lock file to write: as `find_lock_path`, else beside the nearest vds.toml, else in `cwd`."""
    found = find_lock_path(given, cwd)
    if found is not None:
        return found
    settings = find_settings_file(cwd)
    return (settings.parent if settings is not None else cwd) / LOCK_NAME


def read_lock(path: Path | None) -> tuple[str, dict[Ref, LockedRow]]:
    """Return the text and the rows of a lock file.

    Raises:
        NotFoundError: there is none.
        FormatError: a newer vds wrote it.
        InvalidInputError: it was damaged.
    """
    text = None if path is None else read_text(path)
    if path is None or text is None:
        raise NotFoundError(f"there is no {path or LOCK_NAME}", hint="vds lock REF... writes one")
    return text, parse_lock(text, str(path))


def get_locked(doors: Doors, row: LockedRow) -> Resolution:
    """Return the version that a row locks; its ref is not looked at.

    Raises:
        NotFoundError: the store does not have it.
        CorruptionError: the store has another one under its number.
    """
    try:
        found = resolve_point(doors, row.namespace, Point(number=row.version))
    except NotFoundError as err:
        raise NotFoundError(
            f"{row.ref!r} is locked to {row.namespace}@{row.version}, which is not in the store: {err}",
            hint=f"vds lock {row.ref}",
        ) from err
    digest = Digest.from_raw(found.version.digest)
    if digest != row.digest:
        raise CorruptionError(
            f"{row.ref!r} is locked to {row.namespace}@{row.version} of {row.digest}, the store holds {digest} there",
            hint="its history was rewritten or restored; to take it as it is: vds lock " + row.ref,
        )
    return found


def find_difference(doors: Doors, ref: Ref, row: LockedRow) -> LockDifference | None:
    """Return how a row differs from its store, or None when it does not."""
    try:
        get_locked(doors, row)
    except NotFoundError:
        return LockDifference(row.ref, "missing", row.label, "missing")
    except CorruptionError:
        return LockDifference(row.ref, "differs", row.label, "another digest")
    try:
        found = resolve(doors, ref)
    except NotFoundError:
        return LockDifference(row.ref, "gone", row.label, "gone")
    release = None if found.release is None else found.release.number
    if (release, found.namespace.name, found.version.number, found.path) == (row.release, row.namespace, row.version, row.path):
        return None
    return LockDifference(row.ref, "moved", row.label, str(found.version.number if release is None else release))
