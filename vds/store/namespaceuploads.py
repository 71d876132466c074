"""How bytes come into a namespace: uploads of directories and files, and adoption of plain blobs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from vds.engine.commit import CommitRequest, ObjectsGoneError, commit, foresee, looking_back
from vds.engine.doors import Doors
from vds.engine.outbox import Tally
from vds.engine.resolve import resolve_committed
from vds.engine.send import Sender
from vds.engine.session import Intent, Session, session
from vds.index.commit import Committed
from vds.index.plan import Left
from vds.index.stores import NamespaceRow, find_namespace
from vds.index.versions import empty_version
from vds.model.path import EntryPath, directory_path
from vds.model.patterns import Patterns
from vds.model.ref import parse_name
from vds.model.version import NO_PARENT
from vds.ops.adopt import Adopter, AdoptPlan
from vds.ops.adoptsource import AdoptSource, open_source, survey
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
from vds.store.version import Version

RESEND_TRIES = 3
"""How often an upload is sent anew because objects it counted on were collected before its commit."""


class NamespaceUploads:
    """The part of a namespace that takes files in."""

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
                committed = carry_out(doors, opened, request, dry_run=options.dry_run)
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
            committed = carry_out(doors, opened, made.request(doors, opened, intent), dry_run=dry_run)
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


def carry_out(doors: Doors, opened: Session, request: CommitRequest, *, dry_run: bool) -> Committed:
    """Commit, or only work out what a commit would change."""
    if dry_run:
        return Committed(opened.namespace.head, False, foresee(doors, request, opened.namespace.head))
    return commit(doors, request)
