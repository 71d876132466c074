"""A namespace: a line of versions that jobs write to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from vds.engine.commit import CommitRequest, ObjectsGoneError, commit, foresee, looking_back
from vds.engine.doors import Doors
from vds.engine.namespaces import get_namespace
from vds.engine.outbox import Tally
from vds.engine.resolve import resolve_committed, resolve_point
from vds.engine.send import Sender
from vds.engine.session import TTL_HOURS, Intent, Session, session
from vds.errors import InvalidInputError
from vds.index.commit import Committed
from vds.index.plan import Left, SourceView
from vds.index.stores import NamespaceRow, find_namespace
from vds.index.versions import empty_version, list_versions
from vds.model.entry import Change
from vds.model.path import EntryPath, directory_path
from vds.model.patterns import Patterns
from vds.model.ref import Point, parse_name, parse_point
from vds.model.version import NO_PARENT
from vds.ops.adopt import Adopter, AdoptPlan
from vds.ops.adoptsource import AdoptSource, open_source, survey
from vds.ops.copy import CopyPlan
from vds.ops.restore import RevertPlan, RollbackPlan, UndoPlan, find_tags_left
from vds.ops.upload import (
    Base,
    RowsOutdatedError,
    Source,
    UploadPlan,
    check_options,
    count_files,
    directory_source,
    files_source,
    stage,
)
from vds.progress import Progress, open_progress
from vds.store.handle import Handle
from vds.store.results import UploadResult
from vds.store.source import find_source
from vds.store.transaction import Transaction
from vds.store.version import Version

RESEND_TRIES = 3
"""How often an upload is sent anew because objects it counted on were collected before its commit."""


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """A namespace in a listing."""

    name: str
    head: int
    created_at: datetime


class Namespace:
    """A named, independent line of versions. A lazy handle: making one calls nothing, and its first write makes it."""

    def __init__(self, handle: Handle, name: str) -> None:
        self._handle = handle
        self.name = parse_name(name)

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"

    def upload(
        self,
        src_dir: str | os.PathLike[str],
        target_path: str | None = None,
        overwrite: bool = True,
        show_progress: bool = True,
        *,
        message: str = "",
        labels: Mapping[str, str] | None = None,
        mirror: bool = False,
        allow_patterns: Patterns = None,
        ignore_patterns: Patterns = None,
        expected_parent: int | None = None,
        allow_shrink: bool = False,
        dry_run: bool = False,
    ) -> UploadResult:
        """Upload a directory as one version: every file, or none.

        Args:
            src_dir: the directory.
            target_path: where in the namespace it goes; None for the root.
            overwrite: replace files that are there; False keeps them, and reports those whose contents differ.
            show_progress: show progress on stderr.
            message: why, for the log.
            labels: key/value pairs to find the version by.
            mirror: also remove what is under `target_path` and not in the source.
            allow_patterns: upload only matching paths.
            ignore_patterns: leave matching paths out.
            expected_parent: the version this must follow, else ConflictError.
            allow_shrink: permit removing more than half of the namespace's files.
            dry_run: say what would be done, and do nothing.

        Raises:
            UploadError: some files could not be read; each is named.
            ConflictError: others committed what this upload does not allow.
            OutcomeUnknownError: it may have been committed; ask `store.outcome(commit_id)`.
            UnavailableError: the store does not answer; the same call may be made again.
        After any error nothing of this call is visible, `OutcomeUnknownError` apart.
        """
        target = directory_path(target_path)
        source = directory_source(src_dir, target, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        intent = self._handle.intent(message=message, labels=labels, expected_parent=expected_parent, allow_shrink=allow_shrink)
        return self._upload(source, intent, overwrite, mirror, show_progress, dry_run)

    def upload_files(
        self,
        files: Iterable[str | os.PathLike[str]],
        relative_root: str | os.PathLike[str] | None = None,
        target_path: str | None = None,
        overwrite: bool = True,
        show_progress: bool = True,
        *,
        message: str = "",
        labels: Mapping[str, str] | None = None,
        mirror: bool = False,
        expected_parent: int | None = None,
        allow_shrink: bool = False,
        dry_run: bool = False,
    ) -> UploadResult:
        """Upload these files as one version, each at its path relative to `relative_root` (by default their common directory).

        The other arguments, the guarantee and the errors are those of `upload`.
        """
        source = files_source(files, relative_root, directory_path(target_path))
        intent = self._handle.intent(message=message, labels=labels, expected_parent=expected_parent, allow_shrink=allow_shrink)
        return self._upload(source, intent, overwrite, mirror, show_progress, dry_run)

    def adopt(
        self,
        url: str,
        prefix: str = "",
        target_path: str | None = None,
        *,
        message: str = "",
        labels: Mapping[str, str] | None = None,
        credential: object = None,
        expected_parent: int | None = None,
        show_progress: bool = True,
        dry_run: bool = False,
    ) -> UploadResult:
        """Take plain blobs, which another tool wrote, into one version by reference: no byte is moved, copied or renamed.

        Each blob is read once, to know its content; one that was adopted before and is unchanged is not read. The blobs stay
        where they are, and vds never changes or deletes them. Should somebody else do so, reading says which was changed.

        Args:
            url: of the container, or a prefix in it, as `vds.connect` takes it; it may be the store's own.
            prefix: which blobs: `data` means the blob `data` and those below `data/`; all by default.
            target_path: the directory they go to, at their names below `prefix`. None: their names are their paths.
            message: why, for the log.
            labels: key/value pairs to find the version by.
            credential: for that container, as `vds.connect` takes it; it is kept by this process alone. None: the store's own
                where the account is the same or it is a token, else as `vds.connect` finds one.
            expected_parent: the version this must follow, else ConflictError.
            show_progress: show progress on stderr.
            dry_run: read the blobs and say what would be done, and do nothing.

        Raises:
            NotFoundError: there is no such blob, container or directory.
            UploadError: some names can be no paths, or some blobs could not be read; each is named.
            InvalidInputError: url or credential is none we know, or others who read this store could not reach the blobs.
            ConflictError, OutcomeUnknownError, UnavailableError: as `upload`.
        After any error nothing of this call is visible, `OutcomeUnknownError` apart.
        """
        target = None if target_path is None else directory_path(target_path)
        intent = self._handle.intent(message=message, labels=labels, expected_parent=expected_parent)
        intent.check()
        source = open_source(self._handle.doors, url, prefix, target, credential)
        with (
            closing(source.place.driver),
            open_progress(show_progress, f"adopt into {self.name}") as progress,
        ):
            for attempt in range(RESEND_TRIES):
                try:
                    return self._adopt_once(source, intent, progress, dry_run=dry_run)
                except ObjectsGoneError:
                    if attempt + 1 == RESEND_TRIES:
                        raise
            raise AssertionError("unreachable: the last attempt returns or raises")

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
            committed = _carry_out(doors, opened, made.request(doors, opened, intent), dry_run=dry_run)
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
            committed = _carry_out(doors, opened, made.request(doors, opened, intent), dry_run=dry_run)
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
            committed = _carry_out(doors, opened, made.request(doors, opened, intent), dry_run=dry_run)
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

    def _upload(
        self, source: Source, intent: Intent, overwrite: bool, mirror: bool, show_progress: bool, dry_run: bool
    ) -> UploadResult:
        check_options(overwrite=overwrite, mirror=mirror)
        intent.check()
        options = UploadOptions(overwrite, mirror, dry_run)
        with open_progress(show_progress, f"upload to {self.name}") as progress, _saying_what_is_kept(self.name):
            for attempt in range(RESEND_TRIES):
                try:
                    return self._upload_once(source, intent, options, progress)
                except RowsOutdatedError:
                    options = replace(options, stages_all=True)
                except ObjectsGoneError:
                    if attempt + 1 == RESEND_TRIES:
                        raise
            return self._upload_once(source, intent, options, progress)

    def _upload_once(self, source: Source, intent: Intent, options: UploadOptions, progress: Progress) -> UploadResult:
        started = time.monotonic()
        doors = self._handle.doors
        progress.upload(is_dry=options.dry_run)
        if options.dry_run and not self._exists():
            return self._foresee_first(source, started, progress)
        with session(doors, self.name, intent) as opened:
            head = opened.namespace.head
            base = Base(opened.area, head, options.mirror) if head and not options.stages_all else None
            with Sender(doors, opened, progress, is_dry=options.dry_run) as sender:
                staged = stage(doors, sender, opened.part_id, source, progress=progress, base=base)
                made = UploadPlan(opened.area, source.target, options.overwrite, options.mirror, staged)
                progress.stage("committing")
                request = replace(made.request(doors, opened, intent), finish_bytes=sender.finish)
                committed = _carry_out(doors, opened, request, dry_run=options.dry_run)
        sender.tally.bytes_saved += staged.unchanged_bytes
        return self._result(opened, committed, made.left, source.target, started, tally=sender.tally, dry_run=options.dry_run)

    def _adopt_once(self, source: AdoptSource, intent: Intent, progress: Progress, *, dry_run: bool) -> UploadResult:
        started = time.monotonic()
        doors = self._handle.doors
        progress.upload(is_dry=dry_run)
        found = survey(source, progress)
        if dry_run and not self._exists():
            adopter = Adopter(doors, None, source, progress, is_dry=True)
            files = adopter.stage(found)
            return self._first_result(source.shown_target, files, adopter.tally, started)
        with session(doors, self.name, intent) as opened:
            adopter = Adopter(doors, opened, source, progress, is_dry=dry_run)
            adopter.stage(found)
            progress.stage("committing")
            made = AdoptPlan(opened.area)
            committed = _carry_out(doors, opened, made.request(doors, opened, intent), dry_run=dry_run)
        return self._result(opened, committed, made.left, source.shown_target, started, tally=adopter.tally, dry_run=dry_run)

    def _exists(self) -> bool:
        doors = self._handle.doors
        with doors.index.read() as connection:
            return find_namespace(connection, doors.store.id, self.name) is not None

    def _foresee_first(self, source: Source, started: float, progress: Progress) -> UploadResult:
        """Return what the first upload to this namespace would do, without making the namespace."""
        with Sender(self._handle.doors, None, progress, is_dry=True) as sender:
            files = count_files(self._handle.doors, sender, source, progress)
        return self._first_result(source.target, files, sender.tally, started)

    def _first_result(self, target: EntryPath, files: int, tally: Tally, started: float) -> UploadResult:
        """Return what a dry run says of a namespace that is not there yet."""
        nowhere = NamespaceRow(0, self._handle.doors.store.id, "", self.name, 0, NO_PARENT, 0, 0)
        return UploadResult(
            version=Version.of(self._handle, nowhere, empty_version(nowhere)),
            created=False,
            created_namespace=True,
            target_path=target,
            uploaded=files,
            bytes_read=tally.bytes_read,
            bytes_new=tally.bytes_new,
            bytes_saved=tally.bytes_saved,
            objects_new=tally.objects_new,
            seconds=time.monotonic() - started,
            dry_run=True,
        )

    def _result(
        self,
        opened: Session,
        committed: Committed,
        left: Left,
        target: EntryPath,
        started: float,
        *,
        tally: Tally | None = None,
        dry_run: bool = False,
    ) -> UploadResult:
        sent = tally or Tally()
        with looking_back(committed, opened.upload.commit_id):
            version = Version(self._handle, resolve_committed(self._handle.doors, opened.namespace, committed))
        return UploadResult(
            version=version,
            created=committed.created,
            created_namespace=opened.created_namespace,
            target_path=target,
            uploaded=committed.counts.added + committed.counts.modified,
            modified=committed.counts.modified,
            skipped=left.skipped,
            changed_but_skipped=list(left.differing),
            removed=committed.counts.removed,
            removed_paths=list(left.removed),
            bytes_read=sent.bytes_read,
            bytes_sent=sent.bytes_sent,
            bytes_new=sent.bytes_new,
            bytes_saved=sent.bytes_saved,
            objects_new=sent.objects_new,
            seconds=time.monotonic() - started,
            dry_run=dry_run,
        )


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """How an upload treats what is there already.

    Attributes:
        stages_all: stage unchanged files too: others write to the same place at the same time.
    """

    overwrite: bool
    mirror: bool
    dry_run: bool
    stages_all: bool = False


@contextmanager
def _saying_what_is_kept(name: str) -> Iterator[None]:
    """Tell who interrupts an upload where that leaves it."""
    try:
        yield
    except KeyboardInterrupt as err:
        err.add_note(
            f"nothing of this upload to {name!r} is visible; what was sent is kept, and the same call again goes on from there"
        )
        raise


def _carry_out(doors: Doors, opened: Session, request: CommitRequest, *, dry_run: bool) -> Committed:
    """Commit, or only work out what a commit would change."""
    if dry_run:
        return Committed(opened.namespace.head, False, foresee(doors, request, opened.namespace.head))
    return commit(doors, request)
