"""A namespace: a line of versions that jobs write to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from vds.engine.commit import commit, looking_back
from vds.engine.namespaces import get_namespace
from vds.engine.resolve import resolve_point
from vds.engine.session import TTL_HOURS, session
from vds.errors import InvalidInputError
from vds.index.plan import SourceView
from vds.index.versions import list_versions
from vds.model.entry import Change
from vds.model.path import EntryPath, directory_path
from vds.model.ref import Point, parse_point
from vds.ops.copy import CopyPlan
from vds.ops.restore import RevertPlan, RollbackPlan, UndoPlan, find_tags_left
from vds.store.namespaceuploads import NamespaceUploads, carry_out
from vds.store.results import UploadResult
from vds.store.source import find_source
from vds.store.transaction import Transaction
from vds.store.version import Version


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """A namespace in a listing."""

    name: str
    head: int
    created_at: datetime


class Namespace(NamespaceUploads):
    """A named, independent line of versions. A lazy handle: making one calls nothing, and its first write makes it."""

    def copy(
        self,
        source: Version | str,
        target_path: str | None = "",
        *,
        mirror: bool = False,
        message: str = "",
        labels: Mapping[str, str] | None = None,
        expected_parent: int | None = None,
        allow_shrink: bool = False,
    ) -> UploadResult:
        """Copy the entries of any version of this store below `target_path`: promotion, and no byte moves."""
        started = time.monotonic()
        target = directory_path(target_path)
        version = find_source(self._handle, source)
        view = SourceView(version._resolved.namespace.id, version.number, version.path)
        intent = self._handle.intent(message=message, labels=labels, expected_parent=expected_parent, allow_shrink=allow_shrink)
        doors = self._handle.doors
        with session(doors, self.name, intent) as opened:
            made = CopyPlan(opened.area, view, target, mirror)
            doors.index.run(made.stage)
            committed = commit(doors, made.request(doors, opened, intent))
        return self._result(opened, committed, made.left, target, started)

    def transaction(
        self,
        message: str = "",
        labels: Mapping[str, str] | None = None,
        expected_parent: int | None = None,
        ttl_hours: float = TTL_HOURS,
        *,
        allow_shrink: bool = False,
    ) -> Transaction:
        """Begin several changes that become one version.

        Used as a context manager it commits on a clean exit and drops everything on an exception. Otherwise it lives until
        `commit`, `abort` or `ttl_hours`, and any process may join it by its token.
        """
        intent = self._handle.intent(message=message, labels=labels, expected_parent=expected_parent, allow_shrink=allow_shrink)
        return Transaction.begin(self._handle, self.name, intent, ttl_hours)

    def rollback(
        self, to: int | str | datetime | Version, path: str = "", *, message: str = "", dry_run: bool = False
    ) -> UploadResult:
        """Make a new version whose content (under `path`) equals that of an earlier one.

        Whatever others commit meanwhile, the result equals `to` exactly; it names the dataset tags that still show what was
        undone. The number of files it removes needs no confirmation: the content has been a version before.
        """
        started = time.monotonic()
        prefix = directory_path(path)
        target = self._point(to)
        intent = self._handle.intent(message=message or f"rollback to {target.number}", allow_shrink=True)
        doors = self._handle.doors
        with session(doors, self.name, intent) as opened:
            made = RollbackPlan(opened.area, target.number, prefix)
            committed = carry_out(doors, opened, made.request(doors, opened, intent), dry_run=dry_run)
        result = self._result(opened, committed, made.left, prefix, started, dry_run=dry_run)
        end = committed.number + (0 if committed.created else 1)
        with looking_back(committed, opened.upload.commit_id):
            left = find_tags_left(doors, opened.namespace, target.number + 1, end, committed.number)
        result.tags_left_behind.extend(left)
        return result

    def revert(self, number: int, *, message: str = "", dry_run: bool = False) -> UploadResult:
        """Make a new version that undoes exactly what version `number` changed.

        Raises:
            ConflictError: later versions changed the same paths again.
        """
        started = time.monotonic()
        target = self._point(number)
        if target.number == 0:
            raise InvalidInputError("version 0 is empty and changed nothing", hint=f"vds log {self.name}")
        intent = self._handle.intent(message=message or f"revert of {target.number}", allow_shrink=True)
        doors = self._handle.doors
        with session(doors, self.name, intent) as opened:
            made = RevertPlan(opened.area, target.number)
            committed = carry_out(doors, opened, made.request(doors, opened, intent), dry_run=dry_run)
        result = self._result(opened, committed, made.left, EntryPath(""), started, dry_run=dry_run)
        end = committed.number + (0 if committed.created else 1)
        with looking_back(committed, opened.upload.commit_id):
            left = find_tags_left(doors, opened.namespace, target.number, end, committed.number)
        result.tags_left_behind.extend(left)
        return result

    def undo_runs(self, runs: Sequence[str], *, message: str, dry_run: bool = False) -> UploadResult:
        """Make a new version without what some runs wrote; what others wrote since stays. See `Store.rollback_run`.

        Raises:
            NotFoundError: a version that one of theirs followed has expired.
        """
        started = time.monotonic()
        intent = self._handle.intent(message=message, allow_shrink=True)
        doors = self._handle.doors
        with session(doors, self.name, intent) as opened:
            made = UndoPlan(opened.area, runs)
            committed = carry_out(doors, opened, made.request(doors, opened, intent), dry_run=dry_run)
        return self._result(opened, committed, made.left, EntryPath(""), started, dry_run=dry_run)

    def latest(self) -> Version:
        """Return the newest visible version; version 0, which is empty, when nothing was committed yet.

        Raises:
            NotFoundError: there is no such namespace.
        """
        return self._version(Point())

    def get(self, point: int | str | datetime) -> Version:
        """Return the version at a point: 12, "v12", "latest~2", "b3:1234abcd", or a moment with a zone.

        Raises:
            NotFoundError: there is none.
            InvalidInputError: it does not parse, or a digest prefix fits several.
        """
        return self._version(parse_point(point))

    def log(self, path: str = "", limit: int | None = None, labels: Mapping[str, str] | None = None) -> list[Version]:
        """Return visible versions, newest first; those that changed something under `path`, those that bear all `labels`."""
        place = directory_path(path)
        doors = self._handle.doors
        namespace = get_namespace(doors, self.name)
        wanted = dict(labels or {})
        found: list[Version] = []
        with doors.index.read() as connection:
            for row in list_versions(connection, namespace, path=place, limit=None if wanted else limit):
                if limit is not None and len(found) >= limit:
                    break
                if all(row.labels.get(key) == value for key, value in wanted.items()):
                    found.append(Version.of(self._handle, namespace, row))
        return found

    def diff(self, base: int | str | Version, target: int | str | Version, path: str = "") -> list[Change]:
        """Return what changed from one version to another, below `path`, by path."""
        return self._point(target).diff(self._point(base), path)

    def _point(self, point: int | str | datetime | Version) -> Version:
        if isinstance(point, Version):
            if point.namespace != self.name:
                raise InvalidInputError(f"{point.uri} is not a version of {self.name!r}")
            return point
        return self.get(point)

    def _version(self, point: Point) -> Version:
        return Version(self._handle, resolve_point(self._handle.doors, self.name, point))
