"""Upload local files as one version of a namespace."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from vds.config import cache_directory
from vds.engine.commit import CommitRequest
from vds.engine.doors import Doors
from vds.engine.send import Sender
from vds.engine.session import Intent, Session, request
from vds.errors import ConflictError, InvalidInputError, UploadError, failures_message
from vds.files.scan import ScanReport, SourceFile, scan_directory, scan_files, scan_root
from vds.files.statcache import open_stat_cache
from vds.index.adopted import find_adopted, has_adopted
from vds.index.conflicts import find_touched_under
from vds.index.damage import has_damage
from vds.index.database import Connection
from vds.index.plan import Area, Left, find_left, mark_changed, stage_removals
from vds.index.schema import staged
from vds.index.staging import REMOVED, WRITTEN, StagedRow
from vds.model.path import PATH_BYTES_MAX, EntryPath, entry_path
from vds.model.patterns import Patterns
from vds.ops.survey import Survey, View
from vds.progress import Progress

ROWS_A_TRANSACTION = 4_096


@dataclass(frozen=True, slots=True)
class Source:
    """What to upload, and where to.

    Attributes:
        scan: finds the files; called with the report it fills.
        target: the directory in the namespace.
        name: what the caller called it, for messages.
        root: the directory by which the stat cache knows the files.
        is_whole: whether the scan meets every file of the root.
    """

    scan: Callable[[ScanReport], Iterator[SourceFile]]
    target: EntryPath
    name: str
    root: str
    is_whole: bool


@dataclass
class Staged:
    """What was staged.

    Attributes:
        files: how many the scan met.
        unchanged: how many of them needed no row, as the base version holds them.
        unchanged_bytes: how many bytes those have.
        base: the version they were compared with; None when all have rows.
    """

    report: ScanReport = field(default_factory=ScanReport)
    files: int = 0
    unchanged: int = 0
    unchanged_bytes: int = 0
    base: int | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """The version against which unchanged files are left out."""

    area: Area
    version: int
    mirror: bool


def directory_source(
    src_dir: str | os.PathLike[str], target: EntryPath, *, allow_patterns: Patterns, ignore_patterns: Patterns
) -> Source:
    """Return a directory as a source; nothing is read yet."""

    def scan(report: ScanReport) -> Iterator[SourceFile]:
        return scan_directory(src_dir, report, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)

    is_whole = not allow_patterns and not ignore_patterns
    return Source(scan, target, os.fspath(src_dir), os.fspath(src_dir), is_whole)


def files_source(
    files: Iterable[str | os.PathLike[str]], relative_root: str | os.PathLike[str] | None, target: EntryPath
) -> Source:
    """Return a list of files as a source; nothing is read yet."""
    if isinstance(files, str | bytes | os.PathLike):
        raise InvalidInputError(f"files must be a list of paths, not {files!r}", hint=f"upload_files([{files!r}])")
    listed = list(files)
    name = f"{len(listed)} files"
    return Source(lambda report: scan_files(listed, relative_root, report), target, name, scan_root(listed, relative_root), False)


def stage(doors: Doors, sender: Sender, part_id: int, source: Source, *, progress: Progress, base: Base | None = None) -> Staged:
    """Send a source's bytes through `sender` and stage its paths in a part.

    The bytes are certain to be durable only after the sender's `finish`, which must come before the commit. What was hashed is
    remembered on this machine, also when this ends with an error: the next upload goes on from there.

    Args:
        doors: the store.
        sender: of this upload.
        part_id: where the rows go.
        source: what to upload.
        progress: told of what was found.
        base: leaves out what this version holds already; the commit must then follow it, see `UploadPlan`.

    Raises:
        UploadError: some files could not be read; each is named. Nothing is visible.
    """
    if base is not None and _is_damaged(doors):
        base = None  # an unchanged file may be the one whose content has to be sent again
    outcome = Staged(base=base.version if base else None)
    with _surveying(doors, source, outcome, progress, base) as survey:
        rows = _rows(doors, sender, part_id, source, survey, outcome)
        with closing(rows):
            # Rows go in by the thousand while bytes are still leaving, in transactions of their own: others are not held up.
            for chunk in _chunks(rows):
                doors.index.run(partial(_insert, doors, chunk))
    outcome.files = outcome.report.files
    outcome.unchanged, outcome.unchanged_bytes = survey.unchanged, survey.unchanged_bytes
    if not outcome.unchanged:
        outcome.base = None  # nothing was left out: whatever others commit meanwhile, these rows say all
    check_failures(outcome.report)
    _warn(source, outcome)
    return outcome


def _is_damaged(doors: Doors) -> bool:
    with doors.index.read() as connection:
        return has_damage(connection, doors.store.id)


def count_files(doors: Doors, sender: Sender, source: Source, progress: Progress) -> int:
    """Read a source's files as `stage` does, and return how many there are; nothing is staged.

    Raises:
        UploadError: some files could not be read; each is named.
    """
    outcome = Staged()
    with _surveying(doors, source, outcome, progress, None) as survey:
        hashed = sender.send_files(survey.found(), outcome.report.failures, survey.cache.add)
        with closing(hashed):
            count = sum(len(files) for files, _ in hashed)
    check_failures(outcome.report)
    return count


@contextmanager
def _surveying(doors: Doors, source: Source, outcome: Staged, progress: Progress, base: Base | None) -> Iterator[Survey]:
    """Look over a source; whatever ends this, what was hashed meanwhile is remembered."""
    cache = open_stat_cache(source.root, cache_directory(os.environ))
    view = View(doors, base.area, base.version, source.target, [] if base.mirror else None) if base else None
    find_doubtful = _doubts(doors) if view is not None else None
    survey = Survey(source.scan(outcome.report), source.target, cache, progress, view, find_doubtful)
    is_complete = False
    try:
        yield survey
        is_complete = source.is_whole and not outcome.report.failures
    finally:
        cache.save(is_complete=is_complete)
        cache.close()


def _doubts(doors: Doors) -> Callable[[Sequence[bytes]], set[bytes]] | None:
    """Return what says which contents lie in adopted blobs: their files are sent even if unchanged. None when there are none."""
    store_id = doors.store.id
    with doors.index.read() as connection:
        if not has_adopted(connection, store_id):
            return None

    def find(digests: Sequence[bytes]) -> set[bytes]:
        with doors.index.read() as connection:
            return find_adopted(connection, store_id, digests)

    return find


def check_failures(report: ScanReport) -> None:
    """Check that every file asked for was read.

    Raises:
        UploadError: some were not; each is named.
    """
    if failures := report.failures:
        raise UploadError(
            failures_message("uploaded", failures),
            failures=failures,
            hint="nothing was committed; mend these files, or leave them out with ignore_patterns",
        )


def _warn(source: Source, outcome: Staged) -> None:
    if not outcome.files:
        warnings.warn(f"{source.name} holds no files: nothing to upload", UserWarning, stacklevel=5)
    if links := outcome.report.symlinked_directories:
        shown = ", ".join(links[:3]) + ("" if len(links) <= 3 else f" and {len(links) - 3} more")
        warnings.warn(f"symlinked directories are not followed, their files are left out: {shown}", UserWarning, stacklevel=5)


def _rows(
    doors: Doors, sender: Sender, part_id: int, source: Source, survey: Survey, outcome: Staged
) -> Generator[list[StagedRow], None, None]:
    """Yield the rows of all files that need one, in batches."""
    store_id, failures = doors.store.id, outcome.report.failures
    prefix = f"{source.target}/" if source.target else ""
    hashed = sender.send_files(survey.found(), failures, survey.cache.add)
    with closing(hashed):
        for files, digests in hashed:
            rows: list[StagedRow] = [
                (store_id, part_id, prefix + file[0], WRITTEN, 1, 0, digest, file[2], file[6], file[3])
                for file, digest in zip(files, digests, strict=True)
            ]
            if prefix:
                _check_lengths(rows, len(prefix), failures)
            yield rows
            yield _removals(store_id, part_id, survey)
    yield _removals(store_id, part_id, survey)


def _check_lengths(rows: Sequence[StagedRow], prefix_chars: int, failures: dict[str, str]) -> None:
    """Find paths that are too long only under their target; one that is has at least 256 characters."""
    for path in [row[2] for row in rows if len(row[2]) > PATH_BYTES_MAX // 4]:
        try:
            entry_path(path)
        except InvalidInputError as err:
            failures[path[prefix_chars:]] = str(err)


def _removals(store_id: int, part_id: int, survey: Survey) -> list[StagedRow]:
    """Return the rows of paths that the base has and a mirrored source lacks, as far as the scan has come."""
    if survey.view is None or not survey.view.missing:
        return []
    gone, survey.view.missing = survey.view.missing, []
    return [(store_id, part_id, path, REMOVED, 1, 0, None, 0, 0, 0) for path in gone]


def _chunks(batches: Iterable[list[StagedRow]]) -> Iterator[list[StagedRow]]:
    """Join batches until each is worth a transaction."""
    held: list[StagedRow] = []
    for batch in batches:
        held += batch
        if len(held) >= ROWS_A_TRANSACTION:
            yield held
            held = []
    if held:
        yield held


def _insert(doors: Doors, rows: Sequence[StagedRow], connection: Connection) -> None:
    doors.index.insert_rows(connection, staged, rows)


class RowsOutdatedError(ConflictError):
    """Others changed what this upload had left out as unchanged; staging every file helps. Nothing was committed."""

    kind = "rows-outdated"


@dataclass
class UploadPlan:
    """Works out what an upload's staged rows change; holds what it leaves alone, as of the last time it was made.

    Attributes:
        staged: when files were left out because its base holds them, nobody may have changed anything under the target since.
    """

    area: Area
    target: EntryPath
    overwrite: bool
    mirror: bool
    staged: Staged = field(default_factory=Staged)
    left: Left = field(default_factory=Left)

    def __call__(self, connection: Connection, base: int) -> None:
        """Flag the rows against `base`.

        Raises:
            RowsOutdatedError: others changed something under the target since files were compared with it.
        """
        compared = self.staged.base
        if compared is None and self.mirror:
            stage_removals(connection, self.area, base, self.target)
        elif compared is not None and find_touched_under(connection, self.area, compared, base, self.target):
            raise RowsOutdatedError("others changed files under the target of this upload", hint="try again")
        mark_changed(connection, self.area, base, keep_existing=not self.overwrite)
        left = find_left(connection, self.area, base, differing=not self.overwrite)
        self.left = replace(left, skipped=left.skipped + self.staged.unchanged)

    def request(self, doors: Doors, opened: Session, intent: Intent) -> CommitRequest:
        """Return the commit of these rows, by the rule the options ask for."""
        operation = "mirror" if self.mirror else "upload"
        if self.mirror or self.staged.base is not None:
            return request(doors, opened, intent, operation, on_touched="exact", plan=self, prefix=self.target)
        return request(doors, opened, intent, operation, on_touched="win" if self.overwrite else "skip", plan=self)


def check_options(*, overwrite: bool, mirror: bool) -> None:
    """Check that the options do not contradict each other.

    Raises:
        InvalidInputError: they do.
    """
    if mirror and not overwrite:
        raise InvalidInputError("mirror=True makes the target equal the source, overwrite=False forbids it", hint="drop one")
