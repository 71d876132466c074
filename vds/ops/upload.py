"""Upload local files as one version of a namespace."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from vds.engine.commit import CommitRequest
from vds.engine.doors import Doors
from vds.engine.send import Sender
from vds.engine.session import Intent, Session, request
from vds.errors import InvalidInputError, UploadError, failures_message
from vds.files.scan import ScanReport, SourceFile, scan_directory, scan_files
from vds.index.database import Connection
from vds.index.plan import Area, Left, find_left, mark_changed, stage_removals
from vds.index.schema import staged
from vds.index.staging import WRITTEN, StagedRow
from vds.model.batch import batched
from vds.model.path import EntryPath, entry_path, join
from vds.model.patterns import Patterns

ROWS_A_TRANSACTION = 20_000


@dataclass(frozen=True, slots=True)
class Source:
    """What to upload, and where to.

    Attributes:
        scan: finds the files; called with the report it fills.
        target: the directory in the namespace.
        name: what the caller called it, for messages.
    """

    scan: Callable[[ScanReport], Iterator[SourceFile]]
    target: EntryPath
    name: str


@dataclass
class Staged:
    """What was staged."""

    report: ScanReport = field(default_factory=ScanReport)
    files: int = 0


def directory_source(
    src_dir: str | os.PathLike[str], target: EntryPath, *, allow_patterns: Patterns, ignore_patterns: Patterns
) -> Source:
    """Return a directory as a source; nothing is read yet."""

    def scan(report: ScanReport) -> Iterator[SourceFile]:
        return scan_directory(src_dir, report, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)

    return Source(scan, target, os.fspath(src_dir))


def files_source(
    files: Iterable[str | os.PathLike[str]], relative_root: str | os.PathLike[str] | None, target: EntryPath
) -> Source:
    """Return a list of files as a source; nothing is read yet."""
    if isinstance(files, str | bytes | os.PathLike):
        raise InvalidInputError(f"files must be a list of paths, not {files!r}", hint=f"upload_files([{files!r}])")
    listed = list(files)
    return Source(lambda report: scan_files(listed, relative_root, report), target, f"{len(listed)} files")


def stage(doors: Doors, sender: Sender, part_id: int, source: Source) -> Staged:
    """Send a source's bytes through `sender` and stage its paths in a part.

    The bytes are certain to be durable only after the sender's `finish`, which must come before the commit.

    Raises:
        UploadError: some files could not be read; each is named. Nothing is visible.
    """
    outcome = Staged()
    rows = _rows(doors, sender, part_id, source, outcome)
    # Rows go in by the thousand while bytes are still leaving, in transactions of their own: other writers are not held up.
    for chunk in batched(rows, ROWS_A_TRANSACTION):
        doors.index.run(partial(_insert, doors, chunk))
    check_failures(outcome.report)
    _warn(source, outcome)
    return outcome


def count_files(sender: Sender, source: Source) -> int:
    """Read a source's files as `stage` does, and return how many there are; nothing is staged.

    Raises:
        UploadError: some files could not be read; each is named.
    """
    report = ScanReport()
    count = sum(1 for _ in sender.send_files(source.scan(report), report.failures))
    check_failures(report)
    return count


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


def _rows(doors: Doors, sender: Sender, part_id: int, source: Source, outcome: Staged) -> Iterator[StagedRow]:
    files = source.scan(outcome.report)
    for file, digest in sender.send_files(files, outcome.report.failures):
        outcome.files += 1
        try:
            path = entry_path(join(source.target, file.path)) if source.target else file.path
        except InvalidInputError as err:  # too long only under its target
            outcome.report.failures[file.path] = str(err)
            continue
        yield (doors.store.id, part_id, path, WRITTEN, 1, 0, digest, file.size_bytes, file.mode, file.modified_ns)


def _insert(doors: Doors, rows: Sequence[StagedRow], connection: Connection) -> None:
    doors.index.insert_rows(connection, staged, rows)


@dataclass
class UploadPlan:
    """Works out what an upload's staged rows change; holds what it leaves alone, as of the last time it was made."""

    area: Area
    target: EntryPath
    overwrite: bool
    mirror: bool
    left: Left = field(default_factory=Left)

    def __call__(self, connection: Connection, base: int) -> None:
        """Flag the rows against `base`."""
        if self.mirror:
            stage_removals(connection, self.area, base, self.target)
        mark_changed(connection, self.area, base, keep_existing=not self.overwrite)
        self.left = find_left(connection, self.area, base, differing=not self.overwrite)

    def request(self, doors: Doors, opened: Session, intent: Intent) -> CommitRequest:
        """Return the commit of these rows, by the rule the options ask for."""
        if self.mirror:
            return request(doors, opened, intent, "mirror", on_touched="exact", plan=self, prefix=self.target)
        return request(doors, opened, intent, "upload", on_touched="win" if self.overwrite else "skip", plan=self)


def check_options(*, overwrite: bool, mirror: bool) -> None:
    """Check that the options do not contradict each other.

    Raises:
        InvalidInputError: they do.
    """
    if mirror and not overwrite:
        raise InvalidInputError("mirror=True makes the target equal the source, overwrite=False forbids it", hint="drop one")
